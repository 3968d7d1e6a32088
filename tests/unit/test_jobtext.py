"""The job file that is written for data: it loads and asks, whatever the data look like."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batcher.catalogue import load_catalogue, warnings
from batcher.cli.jobschema import job_schema
from batcher.cli.jobtext import LABEL, SUMMARY, Task, id_column, render_job, template_columns
from batcher.cli.looking import Look
from batcher.errors import InputError
from batcher.job import Job, load_job
from batcher.part import RESULT
from batcher.prompt import Builder

VALIDATOR = Draft202012Validator(job_schema())
MESSAGES = [{"role": "user", "content": "hi"}]


def seen(*rows: dict[str, Any]) -> Look:
    """A look at these rows."""
    return Look(files=(), rows=len(rows), sample=rows, bad=())


def text_of(look: Look, task: Task = SUMMARY, inputs: tuple[str, ...] = ("in.jsonl",), output: str = "out/job") -> str:
    """The job file for what was seen."""
    return render_job(look, task=task, inputs=inputs, output=output, job_name="job.yaml", schema_name="s.json")


def loaded(text: str) -> Job:
    """The job of a text, which must also be to the schema's liking."""
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(text)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.yaml")
        path.write_text(text)
        return load_job(path, environ={})


def request_of(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    """What a row is asked."""
    builder = Builder(job, load_catalogue().schema_of(job.model))
    builder.check_columns(row)
    request: dict[str, Any] = orjson.loads(builder.build(row).body)
    return request


def test_columns_get_a_template_for_the_longest_texts() -> None:
    """The template asks about the column that looks like the text, and lists the others as a reader may use them."""
    rows = [{"id": n, "lang": "de", "text": "a long text, longer than any other", "tags": ["a"]} for n in range(3)]
    text = text_of(seen(*rows))
    for line in ("#   {{ id }}    whole number", "#   {{ lang }}  text", "#   {{ tags }}  list"):
        assert line in text.splitlines()
    job = loaded(text)
    assert job.input.id == "id"
    assert request_of(job, rows[0])["messages"][-1]["content"].endswith("\n\na long text, longer than any other")


def test_the_first_line_names_the_schema_for_editors() -> None:
    """Editors complete and check a job whose first line says where its schema is."""
    assert text_of(seen({"text": "a"})).startswith("# yaml-language-server: $schema=./s.json\n")


@pytest.mark.parametrize("task", [LABEL, SUMMARY])
def test_nothing_is_warned_of(task: Task) -> None:
    """A job that is written for a beginner has no parameter without effect, and JSON mode has its word."""
    job = loaded(text_of(seen({"text": "a"}), task))
    schema = load_catalogue().schema_of(job.model)
    assert warnings(schema, job.parameters, [f"{job.system_prompt} {job.prompt}"]) == warnings(schema, {}, [])
    assert ("response_format" in job.parameters) == task.json_mode


def test_the_lines_for_the_real_api_work(tmp_path: Path) -> None:
    """The comment's two lines, put where it says, make a job for the real API."""
    text = text_of(seen({"text": "a"}))
    url, key, old = (line for line in text.splitlines() if line.strip().startswith(("#   base", "#   api", "base")))
    changed = text.replace(old, "\n".join("  " + line.strip().removeprefix("#   ") for line in (url, key)))
    endpoint = loaded(changed).endpoint
    assert (endpoint.base_url, endpoint.api_key_env) == ("https://api.deepseek.com", "DEEPSEEK_API_KEY")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "temperature": 1},
        {"messages": MESSAGES},
        {"messages": orjson.dumps(MESSAGES).decode()},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": MESSAGES}},
    ],
)
def test_rows_with_requests_of_their_own_get_no_template(row: dict[str, Any]) -> None:
    """Nothing stands between such a row and the model."""
    job = loaded(text_of(seen(row)))
    assert job.prompt is None
    assert request_of(job, row)["messages"][-1] == MESSAGES[0]
    if "temperature" in row:
        assert request_of(job, row)["temperature"] == 1


def test_batch_lines_decide_on_the_model() -> None:
    """Where all lines name one model, the job is for that model and its usual address."""
    rows = [{"custom_id": str(n), "body": {"model": "gpt-9", "messages": MESSAGES}} for n in range(3)]
    text = text_of(seen(*rows))
    assert "api.openai.com" in text
    job = loaded(text)
    assert (job.model, job.input.id) == ("gpt-9", "custom_id")
    odd = text_of(seen({"body": {"model": "no: [x", "messages": MESSAGES}}))
    assert loaded(odd).model == "no: [x"


def test_names_that_batcher_adds_are_kept_apart() -> None:
    """Input columns named like added ones get the added ones a prefix, one that does not collide in its turn."""
    job = loaded(text_of(seen({"text": "a", "status": "open", "batcher_status": "x", "error": None})))
    assert job.output.prefix
    assert not {job.output.prefix + name for name in RESULT.names} & {"text", "status", "batcher_status", "error"}


def test_columns_that_no_template_can_name() -> None:
    """Such columns are reached through `row`; where a column is called so, they are listed with what to do.

    If there is no other, there can be no job.
    """
    odd = ["my text", "my-text", "range", "not", "a.b", "x | upper", "", "1st", "}} {{ text", 'a"b', "a\\b", "a\nb"]
    assert template_columns(["text", "größe"]) == {"text": "text", "größe": "größe"}
    assert template_columns(odd) == {name: f"row[{json.dumps(name)}]" for name in odd}
    assert template_columns(["row", *odd, "sk-0123456789abcdef"]) == {"row": "row"}
    text = text_of(seen({"my text": "a long one", "note": "b"}))
    assert re.search(r'^#   {{ row\["my text"\] }} +text$', text, re.MULTILINE)
    assert request_of(loaded(text), {"note": "b", "my text": "x"})["messages"][-1]["content"].endswith("x")
    text = text_of(seen({"my text": "a long one", "row": "b"}))
    assert re.search(r'^#   "my text" +text; rename it to use it$', text, re.MULTILINE)
    with pytest.raises(InputError, match=r'"sk-0123456789abcdef".*rename'):
        text_of(seen({"sk-0123456789abcdef": "a"}))


def test_an_id_tells_rows_apart() -> None:
    """A column is taken as the id for its name and its values, a few duplicates allowed."""
    rows = [{"kind_id": 1, "ticket_id": f"T{max(n, 1)}", "id": n} for n in range(40)]
    assert id_column(seen(*rows)) == "ticket_id"
    assert id_column(seen({"id": None}, {"id": 1})) is None
    assert id_column(seen({"sk-0123456789abcdef-id": 1})) is None, "a job file refuses what looks like a key"
    assert id_column(seen({"idea": "a"}, {"idea": "b"})) is None


@pytest.mark.parametrize(
    "path",
    [
        *("my data/rows: 1.jsonl", "-rows.jsonl", "#1.jsonl", "a[1].jsonl", "no", "yes.jsonl", "1e3", "0777", "$HOME"),
        *("${HOME}/$$x.jsonl", "it's.jsonl", '"q".jsonl', "a\\b.jsonl", " a.jsonl ", "größe.jsonl", "{a}.jsonl", "~x"),
    ],
)
def test_paths_arrive_as_they_are(path: str) -> None:
    """Whatever a file is called, the loader finds that file and no other."""
    job = loaded(text_of(seen({"text": "a"}), inputs=(path, "b.jsonl"), output=f"out/{path}"))
    assert [Path(one).name for one in job.input.path] == [Path(path).name, "b.jsonl"]
    assert job.output.path.name == Path(path).name


NAMES = st.one_of(
    st.sampled_from(["text", "id", "prompt", "messages", "body", "status", "error", "row_index", "batcher_error"]),
    st.text(max_size=8),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), st.text(max_size=20), st.just(MESSAGES)
)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=4))
@example([{"id\n# x: y": "a", "}} {{ text": "b", "text": "c"}])
@example([{"sk-0123456789abcdef": "a", "x": "b"}])
def test_whatever_the_rows_the_job_loads(rows: list[dict[str, Any]]) -> None:
    """For any columns and values there is a job that loads and that has no line of the data's making, or a reason."""
    look = seen(*rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if look.shape == "columns" and not template_columns(columns):
        with pytest.raises(InputError, match="no template can name a column"):
            text_of(look)
        return
    text = text_of(look)
    job = loaded(text)
    Builder(job, load_catalogue().schema_of(job.model)).check_columns(columns)
    assert not {job.output.prefix + name for name in RESULT.names} & set(columns)
    assert set(yaml.safe_load(text)) <= Job.model_fields.keys()
