"""Schemas of answers: how they are written, which are refused, what is wrong with an answer, and what becomes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from batcher.errors import JobError
from batcher.job import load_job
from batcher.records import Completion, Usage
from batcher.simulator.invention import value_of
from batcher.simulator.question import COMPLAINT, INSTRUCTION, Question, read_question
from batcher.simulator.writing import noise
from batcher.structured import Answers
from batcher.structured import repair as words
from batcher.structured.checker import MOST_BYTES, MOST_PROBLEMS, Checker
from batcher.structured.columns import AnswerColumns
from tests.fakes import builder_of, make_job

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}, "n": {"type": "integer"}},
    "required": ["label"],
    "additionalProperties": False,
}
JOB: dict[str, Any] = {
    "version": 1,
    "model": "some-model",
    "endpoint": {"base_url": "simulator"},
    "input": {"path": "rows.jsonl"},
    "prompt": "{{ text }}",
    "output": {"path": "out"},
}

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a job with this response_format and these changes of the output."""

    def load(response_format: Any, **output: Any) -> Any:
        values = {**JOB, "parameters": {"response_format": response_format}}
        values["output"] = {"path": "out", **output}
        (tmp_path / "job.yaml").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
        return load_job(tmp_path / "job.yaml", environ={})

    return load


def full(name: str = "answer", **about: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, **about, "schema": SCHEMA}}


# -- how it is written


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"json_schema": SCHEMA}, full()),
        ({"json_schema": SCHEMA, "strict": True}, full(strict=True)),
        ({"json_schema": {"name": "t", "schema": SCHEMA, "strict": False}}, full("t", strict=False)),
        ({"json_schema": {"schema": SCHEMA}, "name": "u", "description": "d"}, full("u", description="d")),
        ({"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA}}, full("t")),
        ({"json_schema": "my answer.json"}, full("my_answer")),
        ({"json_schema": "wrapped.json"}, full("w", strict=True)),
        ({"type": "json_object"}, {"type": "json_object"}),
        ("json_object", "json_object"),
    ],
)
def test_all_ways_to_write_a_schema_mean_the_full_form(tmp_path: Path, load: Load, written: Any, meant: Any) -> None:
    """A path, a schema, OpenAI's wrapped form and its full form become one; other response formats stay as they are."""
    (tmp_path / "my answer.json").write_bytes(b"\xef\xbb\xbf" + orjson.dumps(SCHEMA))
    (tmp_path / "wrapped.json").write_bytes(orjson.dumps({"name": "w", "strict": True, "schema": SCHEMA}))
    found = load(written).parameters["response_format"]
    assert found == ({"type": "json_object"} if written == "json_object" else meant) or found == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"json_schema": "none.json"}, "none.json cannot be read: No such file"),
        ({"json_schema": "torn.json"}, "torn.json:2:1: not valid JSON"),
        ({"json_schema": "large.json"}, "large.json is larger than 1 MiB"),
        ({"json_schema": "list.json"}, "expected a mapping, found a list"),
        ({"json_schema": "https://example.org/s.json"}, "the path of a file on this machine"),
        ({"json_schema": 3}, "expected a mapping, found a number"),
        ({"json_schema": SCHEMA, "shema": 1}, "unknown key 'shema'"),
        ({"json_schema": SCHEMA, "type": "json_object"}, "type must be json_schema"),
        ({"json_schema": SCHEMA, "name": "a b"}, "name must be made of"),
        ({"json_schema": SCHEMA, "strict": "yes"}, "strict: expected true or false"),
        ({"type": "json_schema"}, "a json_schema is missing"),
        ({"json_schema": {"type": "objekt"}}, "not a JSON schema: /type: 'objekt'"),
        ({"json_schema": {"$schema": "urn:none"}}, "names no dialect that is known"),
        ({"json_schema": {"$ref": "#"}}, "refers to itself without end"),
        ({"json_schema": {"$ref": "#/$defs/x"}}, "the schema holds nothing at '#/$defs/x'"),
        ({"json_schema": {"items": {"$ref": "http://127.0.0.1:9/s"}}}, "nothing is fetched; copy it into $defs"),
        ({"json_schema": {"items": {"$ref": "file:///etc/hostname"}}}, "nothing is fetched"),
        ({"json_schema": {"pattern": "(?=a)b"}}, "no lookaround"),
        ({"json_schema": {"patternProperties": {"[": {}}}}, "not a regular expression"),
        ({"json_schema": {"patternProperties": {}, "unevaluatedProperties": False}}, "is not supported"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(tmp_path: Path, load: Load, written: Any, said: str) -> None:
    """A schema that cannot be used is a problem of the job file, found when it is read, at the line that names it."""
    (tmp_path / "torn.json").write_bytes(b'{"a":\n')
    (tmp_path / "large.json").write_bytes(b" " * ((1 << 20) + 1))
    (tmp_path / "list.json").write_bytes(b"[]")
    with pytest.raises(JobError) as caught:
        load(written)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/job.yaml:1")
    assert "parameters.response_format" in problem
    assert said in problem
    assert len(problem) < 1000


@pytest.mark.parametrize(
    ("response_format", "said"),
    [
        ("text", "needs a parameters.response_format with a json_schema"),
        ({"json_schema": {"type": "array"}}, "the schema of the answers has no properties"),
    ],
)
def test_only_fields_can_become_columns(load: Load, response_format: Any, said: str) -> None:
    """`output.flatten` without fields to flatten is a mistake that shows before anything is sent."""
    with pytest.raises(JobError, match=f"output.flatten: {said}"):
        load(response_format, flatten=True)


def test_a_job_made_in_python_may_name_a_schema_in_the_same_ways(tmp_path: Path) -> None:
    """Without a file around it, too, a path is relative to the job's folder, and what is no schema is refused."""
    (tmp_path / "s.json").write_bytes(orjson.dumps(SCHEMA))
    job = make_job(tmp_path, parameters={"response_format": {"json_schema": "s.json"}})
    assert job.parameters["response_format"] == full("s")
    with pytest.raises(ValueError, match="response_format: not a JSON schema"):
        make_job(tmp_path, parameters={"response_format": {"json_schema": {"type": 3}}})


def test_schema_and_columns_determine_the_result_and_repairs_do_not(load: Load) -> None:
    """A run is not resumed with another schema or other columns; how often to repair may change between runs."""
    job = load({"json_schema": SCHEMA}, flatten=True)
    assert load({"json_schema": SCHEMA}, flatten=True, repair_attempts=3).identity() == job.identity()
    assert load({"json_schema": SCHEMA}).identity() != job.identity()
    assert load({"json_schema": {**SCHEMA, "required": []}}, flatten=True).identity() != job.identity()


def test_a_job_without_a_schema_needs_no_validator() -> None:
    """The libraries that check answers are imported by jobs that have a schema, and by no other command or job."""
    code = (
        "import sys, batcher.job, batcher.prompt; print([m for m in ('jsonschema', 'referencing') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- how it is sent


def request_of(folder: Path, row: dict[str, Any], model: str = "some-model", **changes: Any) -> dict[str, Any]:
    parameters = {"response_format": full(strict=True)}
    job = make_job(folder, model=model, parameters=parameters, **changes)
    request: dict[str, Any] = orjson.loads(builder_of(job).build(row).body)
    return request


FORM = {"base_url": "http://localhost:9", "request_format": "form"}
TOLD = f"{words.INSTRUCTION}\n{orjson.dumps(SCHEMA).decode()}"


def test_a_schema_is_sent_as_openai_takes_it(tmp_path: Path) -> None:
    """With messages and a model of which nothing else is known, the full form goes out and the prompt stays."""
    request = request_of(tmp_path, {"text": "hi"})
    assert request["response_format"] == full(strict=True)
    assert request["messages"] == [{"role": "user", "content": "hi"}]


def test_a_model_without_schemas_gets_json_mode_and_is_told(tmp_path: Path) -> None:
    """A model whose catalogue entry takes no schema gets a json_object, and the schema ends the system prompt."""
    request = request_of(tmp_path, {"text": "hi"}, "deepseek-v4-flash", system_prompt="Be kind.")
    assert request["response_format"] == {"type": "json_object"}
    assert request["messages"] == [
        {"role": "system", "content": f"Be kind.\n\n{TOLD}"},
        {"role": "user", "content": "hi"},
    ]
    request = request_of(tmp_path, {"text": "hi"}, "deepseek-v4-flash")
    assert request["messages"][0] == {"role": "system", "content": TOLD}


def test_a_form_cannot_carry_a_schema_and_is_told(tmp_path: Path) -> None:
    """The flat format's response_format is a word, so that the schema goes into its system prompt."""
    request = request_of(tmp_path, {"text": "hi"}, endpoint=FORM)
    assert request["response_format"] == "json_object"
    assert (request["system_prompt"], request["prompt"]) == (TOLD, "hi")


@pytest.mark.parametrize("row", [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}])
def test_a_row_cannot_bring_another_response_format(tmp_path: Path, row: dict[str, Any]) -> None:
    """Its answer would be held against a schema that it was not asked for."""
    job = make_job(tmp_path, prompt=None, parameters={"response_format": full()})
    builder = builder_of(job)
    assert builder.build({**row, "temperature": 0.5})
    with pytest.raises(Exception, match="response_format of its own"):
        builder.build({**row, "response_format": "text"})


# -- what is wrong with an answer


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ('{"label": "a"}', ()),
        ('```json\n{"label": "a", "n": 3.0}\n```', ()),
        ('\n``` \n{"label": "a"}```\n', ()),
        ('{"label": "c"}', ('/label: must be one of ["a","b"]',)),
        ('{"n": "x"}', ("/n: must be of type integer", "'label' is a required property")),
        ('{"label": "a", "x": 1}', ("Additional properties are not allowed ('x' was unexpected)",)),
        ('["a"]', ("must be of type object",)),
        ("I cannot", ("the answer is not JSON",)),
        ('{"label": "a"', ("the answer is not JSON",)),
        ("```json\n```", ("the answer is empty",)),
        ("```", ("the answer is not JSON",)),
        ("", ("the answer is empty",)),
        (None, ("the answer is empty",)),
        ('"' + "x" * MOST_BYTES + '"', ("the answer is longer than 1 MiB",)),
        ("[" * 2000 + "]" * 2000, ("the answer is not JSON",)),
    ],
)
def test_the_complaint_says_what_is_wrong_and_where(content: str | None, problems: tuple[str, ...]) -> None:
    """Each problem is a line with its place; a fence around the JSON is none."""
    found = Checker(SCHEMA).check(content)
    assert len(found.problems) == len(problems)
    assert all(line.startswith(said) for line, said in zip(found.problems, problems, strict=True))
    assert found.valid is not bool(problems)


def test_a_complaint_is_short_whatever_the_answer() -> None:
    """Neither many problems nor long ones make it long."""
    schema = {"items": {"type": "integer"}, "additionalProperties": False}
    many = Checker(schema).check(orjson.dumps(["x" * 1000] * 1000).decode())
    assert many.problems[-1] == "and more"
    assert len(many.problems) == MOST_PROBLEMS + 1
    long = Checker(schema).check(orjson.dumps({"y\n" * 10_000: 1}).decode())
    assert max(map(len, long.problems)) <= 300
    assert "\n" not in "".join(long.problems)


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


HOSTILE: list[tuple[dict[str, Any], str, str]] = [
    ({}, nested(900), "nested too deeply"),
    ({"pattern": "^(a+)+$"}, '"' + "a" * 50_000 + '!"', "must satisfy pattern"),
    (
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        '{"' + "a" * 50_000 + '!": 1}',
        "Additional",
    ),
    (
        {"uniqueItems": True, "maxItems": 9},
        "[" + ",".join(f'{n},"{n}"' for n in range(20_000)) + "]",
        "must satisfy max",
    ),
    (
        {
            "$ref": "#/$defs/n",
            "$defs": {
                "n": {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/n"}}, "required": [key]} for key in "xy"]}
            },
        },
        nested(30),
        "the answer is too intricate to be checked",
    ),
    (
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}}}},
        nested(240),
        "nested too deeply",
    ),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("schema", "content", "said"), HOSTILE)
def test_no_answer_holds_up_the_run(schema: dict[str, Any], content: str, said: str) -> None:
    """What takes a careless validator for ever (backtracking, branching, nesting) is merely invalid."""
    assert said in Checker(schema).check(content).problems[0]


def test_equal_items_are_found_as_json_schema_means_it() -> None:
    """1 and 1.0 are equal, 1 and true are not, and the order of an object's keys does not matter."""
    checker = Checker({"uniqueItems": True})
    assert checker.check('[1, true, "1", [1], null, 0, false]').valid
    assert not checker.check("[1, 1.0]").valid
    assert not checker.check('[{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]').valid


def test_properties_by_pattern_are_known_to_the_rest() -> None:
    """`additionalProperties` judges what neither a name nor a pattern covers."""
    schema = {"properties": {"a": {}}, "patternProperties": {"^x_": {"type": "string"}}, "additionalProperties": False}
    assert Checker(schema).check('{"a": 1, "x_b": "c"}').valid
    assert Checker(schema).check('{"x_b": 1}').problems == ("/x_b: must be of type string",)
    assert "'y' was unexpected" in Checker(schema).check('{"x_b": "c", "y": 1}').problems[0]


# -- asking again


def completion(content: str | None, finish_reason: str = "stop", **changes: Any) -> Completion:
    return Completion(content=content, finish_reason=finish_reason, usage=Usage(), **changes)


@pytest.mark.parametrize(
    ("answer", "repairs", "worth"),
    [
        (completion("x"), 0, True),
        (completion("x"), 1, True),
        (completion("x"), 2, False),
        (completion("x", "length"), 0, False),
        (completion("x", "content_filter"), 0, False),
        (completion(None, "tool_calls"), 0, False),
        (completion("x", refusal="no"), 0, False),
        (completion("x" * 100_001), 0, False),
    ],
)
def test_only_what_may_help_is_asked_again(answer: Completion, repairs: int, worth: bool) -> None:
    """An answer that was cut off, held back or refused costs as much again for the same; repairs are bounded."""
    assert Answers(SCHEMA, 2).is_worth_repairing(answer, repairs) is worth


def test_a_repair_shows_the_answer_and_what_is_wrong_with_it() -> None:
    """The conversation goes on with the model's answer and the complaint; a form has both behind its prompt."""
    request = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5})
    again = orjson.loads(words.repair_request(request, "[]", ["/a: wrong"]))
    assert again["temperature"] == 0.5
    assert [message["role"] for message in again["messages"]] == ["user", "assistant", "user"]
    assert again["messages"][1]["content"] == "[]"
    assert "- /a: wrong\n" in again["messages"][2]["content"]
    form = orjson.loads(words.repair_request(orjson.dumps({"prompt": "hi"}), "[]", ["/a: wrong"]))
    assert form["prompt"].startswith("hi\n\nYour answer was:\n[]\n\n")
    assert "- /a: wrong\n" in form["prompt"]


@pytest.mark.parametrize("shape", ["messages", "form"])
def test_the_simulator_takes_a_repair_for_the_same_question(shape: str) -> None:
    """It tells the first request and its repairs by their one prompt, in both formats, and counts all that is read."""
    messages = [{"role": "user", "content": "hi"}]
    first = orjson.dumps({"messages": messages} if shape == "messages" else {"prompt": "hi"})
    again = words.repair_request(words.repair_request(first, "[]", ["a"]), "[1]", ["b"])
    asked, repaired = read_question(first), read_question(again)
    assert isinstance(asked, Question)
    assert isinstance(repaired, Question)
    assert (repaired.prompt, repaired.digest) == (asked.prompt, asked.digest) == ("hi", asked.digest)
    assert "[1]" in repaired.repair
    assert words.COMPLAINT == COMPLAINT
    assert f"{words.INSTRUCTION}\n".endswith(INSTRUCTION)


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 3}}, "$defs": {"n": SCHEMA}},
        {"type": "object", "properties": {"a": {"type": ["null", "number"], "exclusiveMinimum": 0, "maximum": 1}}},
        {
            "properties": {
                "s": {"type": "string", "minLength": 300, "maxLength": 310},
                "t": {"maxLength": 3, "type": "string"},
            }
        },
        {"properties": {"i": {"type": "integer", "exclusiveMinimum": 3, "maximum": 5}, "c": {"const": [1]}}},
        {"properties": {"u": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}}, "required": ["u"]},
        {
            "$defs": {
                "t": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}}}
            }
        }
        | {"$ref": "#/$defs/t"},
    ],
)
def test_the_simulator_makes_up_answers_that_match(schema: dict[str, Any]) -> None:
    """For schemas as answers usually have them, whatever the prompt."""
    checker = Checker(schema)
    for number in range(30):
        value = value_of(schema, noise(b"%d" % number, 0), "the last words")
        assert checker.check(orjson.dumps(value).decode()).problems == ()


# -- columns


FIELDS: dict[str, Any] = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "f": {"type": "number"},
    "b": {"type": "boolean"},
    "o": {"type": "object"},
    "l": {"type": "array"},
    "any": {},
    "true": True,
    "maybe": {"type": ["null", "integer"]},
    "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "mixed": {"type": ["string", "integer"]},
    "both": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
    "word": {"enum": ["a", "b", None]},
    "const": {"const": True},
    "ref": {"$ref": "#/$defs/color"},
    "loop": {"$ref": "#/properties/loop"},
}
TYPES = {
    **{name: pa.string() for name in ("s", "o", "l", "any", "true", "either", "mixed", "word", "ref", "loop")},
    "i": pa.int64(),
    "maybe": pa.int64(),
    "f": pa.float64(),
    "both": pa.float64(),
    "b": pa.bool_(),
    "const": pa.bool_(),
}


def test_a_field_has_the_type_that_its_schema_says() -> None:
    """Texts, numbers and truth values have their types, perhaps null; what may be several kinds is JSON text."""
    columns = AnswerColumns({"properties": FIELDS, "$defs": {"color": {"enum": ["red"]}}}, flatten=True)
    assert {field.name: field.type for field in columns.fields} == {
        "parsed": pa.string(),
        "valid": pa.bool_(),
        **{name: TYPES[name] for name in FIELDS},
    }
    named = AnswerColumns({"properties": FIELDS}, flatten="answer_")
    assert named.fields[2].name == "answer_s"
    assert len(AnswerColumns({"properties": FIELDS}).fields) == 2


def test_values_fit_their_columns() -> None:
    """A whole number may be written as 3.0, JSON columns hold JSON, and what has no place in a column is null."""
    columns = AnswerColumns({"properties": FIELDS}, flatten=True)
    answer = {"s": "x", "i": 3.0, "f": 2, "b": False, "o": {"a": 1}, "l": [], "any": "x", "maybe": None, "both": 1.5}
    values = columns.values(f"```\n{orjson.dumps(answer).decode()}\n```", valid=True)
    found = dict(zip([field.name for field in columns.fields], values, strict=True))
    assert orjson.loads(found.pop("parsed")) == answer
    assert {name: value for name, value in found.items() if value is not None} == {
        "valid": True,
        "s": "x",
        "i": 3,
        "f": 2.0,
        "b": False,
        "o": '{"a":1}',
        "l": "[]",
        "any": '"x"',
        "both": 1.5,
    }
    assert type(found["i"]) is int
    assert columns.values('{"i": 9223372036854775808}', valid=True)[3] is None


def test_an_answer_that_does_not_match_has_no_fields() -> None:
    """`parsed` holds what is JSON at all; a failed row says nothing."""
    columns = AnswerColumns({"properties": {"s": {"type": "string"}}}, flatten=True)
    assert columns.values('{"s": 1, "x": 2}', valid=False) == ('{"s":1,"x":2}', False, None)
    assert columns.values('{"s": "fits", "x": 2}', valid=False)[2] is None
    assert columns.values("no", valid=False) == (None, False, None)
    assert columns.values('{"s": "x"}', valid=None) == (None, None, None)
