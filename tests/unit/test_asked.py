"""What a row was asked, built again: exactly what was sent, or a note that says why not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batcher.job import Job
from batcher.records import Outcome
from batcher.results import Results
from batcher.results.asked import Question, Questions
from tests.fakes import begun, builder_of, make_job, outcome
from tests.runs import answer, record, run_rows, write_records


def questions(job: Job) -> list[Question]:
    """The questions of all rows of a job's run that have an outcome."""
    with Results.open(job.output.path) as results:
        return [question for batch in results.batches() for question in Questions(results).of(batch)]


def run_of(folder: Path, records: list[dict[str, Any]], outcomes: Iterable[Outcome] = (), **changes: Any) -> Job:
    """Run every row of these records in one part."""
    write_records(folder, records)
    job = make_job(folder, **changes)
    run_rows(job, outcomes or map(answer, range(len(records))), parts=[0])
    return job


def sent(job: Job, values: dict[str, Any]) -> Any:
    """The conversation that a row's request held when it was sent."""
    return orjson.loads(builder_of(job).build(values).body)["messages"]


def user(text: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def test_from_the_output_alone(tmp_path: Path) -> None:
    """Where the template's columns are carried as text, the input is not needed any more."""
    job = run_of(tmp_path, [{"text": "a"}, {"text": "b"}], system_prompt="Say {{ text }}.")
    (tmp_path / "rows.jsonl").unlink()
    assert [question.messages for question in questions(job)] == [
        [{"role": "system", "content": f"Say {text}."}, {"role": "user", "content": text}] for text in "ab"
    ]
    assert [question.note for question in questions(job)] == [None, None]


def test_values_that_are_carried_as_something_else(tmp_path: Path) -> None:
    """Lists, numbers among other things, whole ones among fractions: the template sees what it saw the first time."""
    template = (
        "{% for t in tags %}<{{ t }}>{% endfor %} {% if n is integer %}whole{% endif %} {{ mixed }}"
        " {% if flag %}yes{% endif %}"
    )
    records = [
        {"tags": ["x", "y"], "n": 1, "mixed": 5, "flag": False},
        {"tags": [], "n": 2.5, "mixed": "five", "flag": "no"},
    ]
    job = run_of(tmp_path, records, prompt=template)
    assert [question.messages for question in questions(job)] == [sent(job, row) for row in records]
    assert questions(job)[0] == Question(user("<x><y> whole 5 "))
    (tmp_path / "rows.jsonl").write_text("{}")
    first, second = questions(job)
    assert first.note is not None
    assert "the input changed" in first.note
    assert second.messages == sent(job, {**records[1], "tags": "[]"})


def test_a_whole_number_among_fractions(tmp_path: Path) -> None:
    """A column of both is carried as fractions; the template sees the whole number again."""
    template = "{% if n is integer %}whole{% else %}part{% endif %}"
    job = run_of(tmp_path, [{"n": 2.5}, {"n": 2}], prompt=template)
    assert questions(job) == [Question(user("part")), Question(user("whole"))]


def test_far_into_a_shard(tmp_path: Path) -> None:
    """The right row is read, wherever in its shard it is."""
    records = [{"tags": [n]} for n in range(700)]
    job = run_of(tmp_path, records, prompt="{{ tags[0] }}", output={"path": "out"})
    assert [question.messages for question in questions(job)] == [user(str(n)) for n in range(700)]
    with Results.open(job.output.path) as results:
        batch = pa.Table.from_batches(results.batches()).take([650, 3, 300, 299]).to_batches()[0]
        assert [question.messages for question in Questions(results).of(batch)] == [
            user(n) for n in ("650", "3", "300", "299")
        ]


def test_columns_that_are_not_carried(tmp_path: Path) -> None:
    """They are taken from the input; without it the note names the column."""
    output = {"path": "out", "rows_per_part": 5, "columns": ["n"]}
    job = run_of(tmp_path, [{"n": n, "text": f"t{n}"} for n in range(4)], output=output)
    assert [question.messages for question in questions(job)] == [user(f"t{n}") for n in range(4)]
    (tmp_path / "rows.jsonl").unlink()
    (first, *_) = questions(job)
    assert first.messages is None
    assert first.note is not None
    assert first.note.startswith("not shown: the row has no column 'text'")
    assert "output.columns" in first.note


def test_rows_that_bring_their_conversation(tmp_path: Path) -> None:
    """Messages and batch lines, which are carried as JSON text, are shown from the output alone."""
    talk = [{"role": "system", "content": "s"}, *user("u"), {"role": "assistant", "content": "a"}, *user("v")]
    job = run_of(
        tmp_path,
        [{"messages": talk, "temperature": 9}, {"messages": talk[1:], "temperature": None}],
        prompt=None,
        system_prompt="Be kind.",
    )
    (tmp_path / "rows.jsonl").unlink()
    kind = {"role": "system", "content": "Be kind."}
    assert questions(job) == [Question(talk), Question([kind, *talk[1:]])]
    batch = tmp_path / "batch"
    batch.mkdir()
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": talk, "seed": 1}}
    job = run_of(batch, [line], prompt=None)
    assert questions(job) == [Question(talk)]


def test_the_flat_format(tmp_path: Path) -> None:
    """Its two fields are shown as the messages that they are."""
    endpoint = {"base_url": "http://example.com", "request_format": "form", "allow_http": True}
    job = run_of(tmp_path, [{"text": "a"}], system_prompt="s", endpoint=endpoint)
    assert questions(job) == [Question([{"role": "system", "content": "s"}, *user("a")])]


def test_parquet_values(tmp_path: Path) -> None:
    """They are carried with their type, so that dates and lists look as they did."""
    columns = {"d": [date(2024, 2, 29)], "f": [1.5], "l": [["x", "y"]], "s": ["5"]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    template = "{{ d }} {{ f }} {% for t in l %}<{{ t }}>{% endfor %}{{ s }}"
    job = make_job(tmp_path, input={"path": "rows.parquet"}, prompt=template)
    run_rows(job, [answer(0)], parts=[0])
    (tmp_path / "rows.parquet").unlink()
    assert questions(job) == [Question(user("2024-02-29 1.5 <x><y>5"))]


def test_rows_that_were_never_sent(tmp_path: Path) -> None:
    """Nothing is made up for a row that no request was made for."""
    failed = [outcome(0, failed="row_cannot_be_asked"), outcome(1, failed="invalid_row"), outcome(2, failed="other")]
    job = run_of(tmp_path, [{"text": "a"}] * 3, failed)
    assert questions(job) == [Question(None, "never sent"), Question(None, "never sent"), Question(user("a"))]


def test_rows_without_a_part(tmp_path: Path) -> None:
    """Rows of an open shard are shown too."""
    write_records(tmp_path, [{"text": f"t{n}"} for n in range(4)])
    job = make_job(tmp_path)
    with begun(job) as run:
        record(run, [answer(1), answer(3)])
        assert [question.messages for question in questions(job)] == [user("t1"), user("t3")]
