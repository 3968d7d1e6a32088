"""Rules of the job file: what a job is, what is refused, and how every refusal is said."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from batcher.errors import JobError
from batcher.job import Endpoint, Job, load_job, read_key

#: the smallest job, as lines that a test may follow with others
MINIMAL = """\
version: 1
model: deepseek-v4-flash
endpoint: {base_url: simulator}
input: {path: rows.jsonl}
output: {path: out}
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes jobs/x.yaml below the current folder and returns that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()

    def write_job(text: str) -> str:
        (tmp_path / "jobs" / "x.yaml").write_text(text)
        return "jobs/x.yaml"

    return write_job


def problems_of(path: str, **options: Any) -> list[str]:
    """The problems for which a job is refused, without the file's name before those of its lines."""
    with pytest.raises(JobError) as caught:
        load_job(path, environ={}, **options)
    return [problem.removeprefix("jobs/x.yaml:") for problem in caught.value.problems]


def test_smallest_job_has_documented_defaults(write: Write, tmp_path: Path) -> None:
    """Five keys make a job; everything else has a default, and the name is the file's stem."""
    job = load_job(write(MINIMAL), environ={})
    assert (job.version, job.name, job.model, job.path) == (1, "x", "deepseek-v4-flash", tmp_path / "jobs" / "x.yaml")
    assert (job.prompt, job.system_prompt, job.catalogue, job.parameters) == (None, None, None, {})
    assert job.endpoint.model_dump(exclude={"simulator"}) == {
        "allow_http": False,
        "base_url": "simulator",
        "api_key_env": None,
        "api_key_file": None,
        "request_format": "messages",
        "timeouts": {"connect_s": 30.0, "first_byte_s": 660.0, "total_s": 1800.0},
        "max_response_bytes": 16 * 1024 * 1024,
        "ca_file": None,
        "headers": {},
        "proxy": None,
    }
    assert job.input.model_dump() == {
        "path": (f"{tmp_path}/jobs/rows.jsonl",),
        "id": None,
        "on_bad_row": "fail",
        "own_model": True,
    }
    assert job.limits.model_dump() == {
        "concurrency": 256,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "max_attempts": 6,
        "max_outage_s": 43200.0,
        "max_inflight_mb": 128,
        "max_total_tokens": None,
        "max_cost_usd": None,
        "max_runtime_s": None,
        "max_unsure_share": 1.0,
        "max_full_disk_s": 60.0,
        "grace_s": 60.0,
    }
    assert job.output.model_dump() == {
        "path": tmp_path / "jobs" / "out",
        "columns": "all",
        "prefix": "",
        "rows_per_part": 10000,
        "flatten": False,
        "repair_attempts": 1,
    }
    assert job.engine.model_dump() == {"kind": "local", "processes": 1}


def test_sections_without_keys_have_their_defaults(write: Write) -> None:
    """A section whose lines are all commented out is read like one that is left out."""
    job = load_job(write(MINIMAL + "limits:\nparameters:\nengine:\n"), environ={})
    assert (job.limits.concurrency, job.parameters, job.engine.kind) == (256, {}, "local")
    assert problems_of(write(MINIMAL.replace("{path: out}", ""))) == ["5:1: output.path: required key is missing"]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(write: Write) -> None:
    """A user sees every mistake of a job file in one go, those of overrides after those of the file."""
    text = """\
version: 1
name: no
model: deepseek-v4-flash
endpoint:
  base_url: http://api.example.com
  timeouts: {first_byte: 3}
input: {path: [a.jsonl, 3], on_bad_row: stopp}
limits:
  concurency: 5
  max_attempts: 0
  requests_per_minute: "60"
"""
    assert problems_of(write(text), overrides=["limits.retries=5", "output.prefix=a-b"]) == [
        "2:1: name: is read as false; quote it to mean text",
        "5:3: endpoint.base_url: would send rows and key unencrypted; use https, or set endpoint.allow_http: true",
        "6:14: endpoint.timeouts.first_byte: unknown key; did you mean 'first_byte_s'?",
        "7:25: input.path[1]: is read as a number; quote it to mean text",
        "7:29: input.on_bad_row: expected fail or stop; did you mean 'stop'?",
        "9:3: limits.concurency: unknown key; did you mean 'concurrency'?",
        "10:3: limits.max_attempts: must be at least 1",
        "11:3: limits.requests_per_minute: expected an integer, found text; write 60 without quotes",
        "--set limits.retries=5: unknown key",
        "--set output.prefix=a-b: output.path: required key is missing",
        "--set output.prefix=a-b: must be made of letters, digits and underscores",
    ]


def test_missing_keys_point_at_their_parent(write: Write) -> None:
    """What is missing has no line of its own, so its section's is shown, or the first one."""
    assert problems_of(write("version: 1\nmodel: x\nendpoint:\n  api_key_env: K\ninput: {path: a}\n")) == [
        "1:1: output: required key is missing",
        "3:1: endpoint.base_url: required key is missing",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("limits: {concurrency: true}", "10: limits.concurrency: expected an integer, found true"),
        ("limits: {concurrency: 1.0}", "10: limits.concurrency: expected an integer, found a number"),
        ("limits: {concurrency: 1e3}", "10: limits.concurrency: expected an integer, found text; write 1000"),
        ("limits: {max_outage_s: 1e-4}", "10: limits.max_outage_s: expected a number, found text; write 0.0001"),
        ("limits: {max_outage_s: false}", "10: limits.max_outage_s: expected a number, found false"),
        (
            "limits: {max_outage_s: null}",
            "10: limits.max_outage_s: expected a number, found no value; leave the key out, or give it one",
        ),
        ("limits: [1]", "1: limits: expected a mapping, found a list"),
        ("prompt: 5", "1: prompt: is read as a number; quote it to mean text"),
        ("catalogue: 5", "1: catalogue: expected a path, found a number"),
        ("name: ''", "1: name: must not be empty"),
        ("engine: {processes: many}", "10: engine.processes: must be a whole number from 1 on, or auto"),
        ("engine: {processes: 0}", "10: engine.processes: must be a whole number from 1 on, or auto"),
        ("engine: {kind: ray}", "10: engine.kind: expected local"),
        ("parameters: 5", "1: parameters: expected a mapping, found a number"),
        ("parameters: {extra: 5}", "14: parameters.extra: expected a mapping, found a number"),
    ],
)
def test_types_are_strict(write: Write, line: str, problem: str) -> None:
    """No value is turned into another type, and YAML's habits are explained."""
    assert problems_of(write(MINIMAL + line + "\n")) == [f"6:{problem}"]


def test_whole_number_stands_for_a_fraction_where_one_is_wanted(write: Write) -> None:
    """`connect_s: 30` means 30 seconds."""
    text = MINIMAL.replace("simulator", "https://a.example, timeouts: {connect_s: 5}")
    assert load_job(write(text), environ={}).endpoint.timeouts.connect_s == 5


@pytest.mark.parametrize(("version", "problem"), [("2", "reads job files of version 1"), ("true", "found true")])
def test_other_version_is_refused(write: Write, version: str, problem: str) -> None:
    """A job file of a later format is not guessed at."""
    (said,) = problems_of(write(MINIMAL.replace("version: 1", f"version: {version}")))
    assert problem in said


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("concurrency", "limits"),
        ("base_url", "endpoint"),
        ("connect_s", "endpoint.timeouts"),
        ("api_key_env", "endpoint"),
        ("temperature", "parameters"),
    ],
)
def test_key_in_the_wrong_place_is_told_where_it_belongs(write: Write, key: str, place: str) -> None:
    """A key that exists one level down is no riddle."""
    assert problems_of(write(MINIMAL + f"{key}: 1\n")) == [f"6:1: {key}: unknown key here; it belongs in {place}"]


def test_key_of_several_sections_is_just_unknown(write: Write) -> None:
    """`path` may mean the input's or the output's, so no place is named."""
    assert problems_of(write(MINIMAL + "path: x\n")) == ["6:1: path: unknown key"]


def test_section_replaced_by_an_override_has_forgotten_the_file(write: Write) -> None:
    """What a replaced section lacks is a problem of the override, not of the line that it replaced."""
    assert problems_of(write(MINIMAL), overrides=["endpoint={api_key_env: K}"]) == [
        "--set endpoint=***: endpoint.base_url: required key is missing"
    ]


@pytest.mark.parametrize("name", ["api_key", "apikey", "token", "API-KEY"])
def test_key_in_the_job_file_is_refused_without_showing_it(write: Write, name: str) -> None:
    """Neither a literal key nor a variable is accepted where a key has no place."""
    for value in ("sk-abcdefghijklmnop", "hunter2", "${NOTHING:-hunter2}"):
        (problem,) = problems_of(write(MINIMAL.replace("simulator", f"simulator, {name}: '{value}'")))
        assert problem == (
            f"3:33: endpoint.{name}: a key does not belong in the job file; name the variable in endpoint.api_key_env"
        )


def test_no_message_holds_what_a_variable_holds(write: Write) -> None:
    """Values from the environment fail their checks silently, wherever they stand."""
    text = """\
version: 1
model: ${SECRET}
endpoint:
  base_url: https://${SECRET}@a.example
  api_key_env: ${SECRET}
  request_format: ${SECRET}
  headers: {'${SECRET}': a, b: '${WIDE}'}
  proxy: ${SECRET}
input: {path: 's3://${SECRET}', id: '${SECRET}'}
parameters:
  temperature: ${NUMBER}
  response_format: ${CHOICE}
  top_p: ${SECRET}
limits: {concurrency: '${NUMBER}', grace_s: '${NUMBER}'}
output: {path: out, prefix: '${SECRET}', columns: '${SECRET}'}
engine: {kind: '${KIND}'}
"""
    environ = {
        "SECRET": "hunter-2",
        "NUMBER": "0.7531",
        "WIDE": "hunter-2\N{SNOWMAN}",
        "CHOICE": "json_objekt",
        "KIND": "locale",
    }
    with pytest.raises(JobError) as caught:
        load_job(write(text), environ=environ)
    lines = str(caught.value)
    assert len(caught.value.problems) > 12
    assert "did you mean" not in lines
    assert "hunter" not in lines
    assert "7531" not in lines


def test_relative_paths_belong_to_the_folder_of_the_job_file(write: Write, tmp_path: Path) -> None:
    """A job means the same files wherever it is started from; absolute and home paths stay."""
    text = """\
version: 1
model: m
endpoint: {base_url: https://a.example, api_key_file: key, ca_file: ../ca.pem}
input: {path: [../data/*.jsonl, /abs/x.parquet, ~/y.jsonl]}
output: {path: ../out}
"""
    job = load_job(write(text), environ={})
    assert job.endpoint.api_key_file == tmp_path / "jobs" / "key"
    assert job.endpoint.ca_file == tmp_path / "ca.pem"
    assert job.input.path == (f"{tmp_path}/data/*.jsonl", "/abs/x.parquet", str(Path.home() / "y.jsonl"))
    assert job.output.path == tmp_path / "out"


def test_one_job_has_one_output_folder_however_it_is_named(write: Write, tmp_path: Path) -> None:
    """A job reached through a linked folder resumes the run that was started without the link."""
    write(MINIMAL.replace("path: out", "path: ../out"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path / "jobs")
    direct = load_job("jobs/x.yaml", environ={})
    linked = load_job(tmp_path / "elsewhere" / "link" / "x.yaml", environ={})
    assert linked.output.path == direct.output.path == tmp_path / "out"


def test_brackets_in_the_name_of_the_jobs_folder_are_no_glob(tmp_path: Path) -> None:
    """Only what the job file itself says is a pattern, and a file of that very name wins over the pattern."""
    folder = tmp_path / "[a]"
    folder.mkdir()
    (folder / "rows[1].jsonl").touch()
    (folder / "x.yaml").write_text(MINIMAL.replace("rows.jsonl", "['rows[1].jsonl', '*.jsonl']"))
    job = load_job(folder / "x.yaml", environ={})
    assert job.input.path == (str(folder / "rows[1].jsonl"), f"{tmp_path}/[[]a]/*.jsonl")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("s3://bucket/rows.jsonl", "input.path: must be a path on this machine, not a URL"),
        ("''", "input.path: must name a file or folder"),
        ("[]", "input.path: must name at least one file"),
        ("{a: b}", "input.path: expected a list, found a mapping"),
        (r'"a\0b"', "input.path: must name a file or folder"),
    ],
)
def test_input_that_cannot_be_a_path_is_refused(write: Write, path: str, problem: str) -> None:
    """Remote and empty paths are no files of this machine."""
    assert problems_of(write(MINIMAL.replace("rows.jsonl", path))) == [f"4:9: {problem}"]


@pytest.mark.parametrize("output", [".", "../data/out", "../data"])
def test_output_inside_the_input_folder_is_refused(write: Write, output: str) -> None:
    """Parts among the input would be read as rows by the next run."""
    text = MINIMAL.replace("rows.jsonl", "[../data, .]").replace("path: out", f"path: {output}")
    assert problems_of(write(text)) == [
        "5:10: output.path: lies inside input.path, so that its parts would be read as input"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("temperature: 1e-4", "temperature: expected a number (0 to 2), found text; write 0.0001"),
        ("temperature: 2.5", "temperature: expected a number (0 to 2), found 2.5"),
        ("max_tokens: 0", "max_tokens: expected an integer (1 to 393216), found 0"),
        ("max_tokens: true", "max_tokens: expected an integer (1 to 393216), found true"),
        ("stream: 'yes'", "stream: expected true or false, found text"),
        (
            "response_format: json_objct",
            "response_format: expected one of text, json_object, a mapping; did you mean 'json_object'?",
        ),
        ("temprature: 1", "temprature: unknown parameter of deepseek-v4-flash; did you mean 'temperature'?"),
        ("stop: x", "stop: unknown parameter of deepseek-v4-flash; parameters.extra is sent unchecked"),
        ("prompt: x", "prompt: belongs at the top level of the job"),
        ("system_prompt: x", "system_prompt: belongs at the top level of the job"),
        ("model: x", "model: belongs at the top level of the job"),
        ("thinking: off", "thinking: expected one of enabled, disabled, a mapping, found false"),
        ("thinking: {type: on}", "thinking: expected {type: ...} with one of enabled, disabled"),
        (
            "temperature:",
            "temperature: expected a number (0 to 2), found no value; leave the key out, or give it one",
        ),
    ],
)
def test_parameters_are_checked_against_the_models_form(write: Write, line: str, problem: str) -> None:
    """A value that the model would refuse or ignore is an error at its line, before anything is sent."""
    assert problems_of(write(MINIMAL + f"parameters:\n  {line}\n")) == [f"7:3: parameters.{problem}"]


def test_good_parameters_pass_as_they_are(write: Write) -> None:
    """Everything in the form of the model is accepted, mappings for the response format included."""
    text = """\
parameters:
  temperature: 1
  top_p: 0.5
  presence_penalty: -2
  frequency_penalty: 2
  max_tokens: 393216
  response_format: {type: json_schema, json_schema: {}}
  stream: true
  reasoning_effort: max
  extra: {stop: ["x"], logit_bias: {"5": -1}, nothing: null}
"""
    assert load_job(write(MINIMAL + text), environ={}).parameters == {
        "temperature": 1,
        "top_p": 0.5,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "max_tokens": 393216,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}},
        "stream": True,
        "reasoning_effort": "max",
        "extra": {"stop": ["x"], "logit_bias": {"5": -1}, "nothing": None},
    }


def test_thinking_may_be_written_as_a_word_and_is_always_a_mapping(write: Write) -> None:
    """The API takes only the mapping, so both spellings make the same job."""
    word = load_job(write(MINIMAL + "parameters: {thinking: disabled}\n"), environ={})
    mapping = load_job(write(MINIMAL + "parameters: {thinking: {type: disabled}}\n"), environ={})
    assert word.parameters == mapping.parameters == {"thinking": {"type": "disabled"}}


def test_extra_that_is_empty_is_left_out(write: Write) -> None:
    """`extra: {}` does not make another job of it."""
    for extra in ("{}", ""):
        assert load_job(write(MINIMAL + f"parameters:\n  extra: {extra}\n"), environ={}).parameters == {}


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("{messages: []}", "messages: not allowed here: batcher sets it"),
        ("{model: x}", "model: not allowed here: batcher sets it"),
        ("{prompt: x}", "prompt: not allowed here: batcher sets it"),
        ("{stream: true}", "stream: not allowed here: batcher sets it"),
        ("{top_p: 1}", "top_p: not allowed here: it stands in parameters too"),
    ],
)
def test_extra_cannot_replace_what_the_request_is_made_of(write: Write, extra: str, problem: str) -> None:
    """What batcher makes itself or what stands in the form already has one place only."""
    text = MINIMAL + f"parameters:\n  top_p: 1\n  extra: {extra}\n"
    assert problems_of(write(text)) == [f"8:11: parameters.extra.{problem}"]


def test_unknown_model_is_checked_against_the_generic_form(write: Write) -> None:
    """Any model of any server can be asked; its parameters are those of the OpenAI API."""
    text = MINIMAL.replace("deepseek-v4-flash", "my-own")
    job = load_job(write(text + "parameters: {seed: 5, stop: [a], logprobs: true}\n"), environ={})
    assert job.parameters == {"seed": 5, "stop": ["a"], "logprobs": True}
    assert problems_of(write(text + "parameters: {seed: x}\n")) == [
        "6:14: parameters.seed: expected an integer, found text"
    ]


OWN = """\
model: my-own
title: Mine
parameters:
  - {name: prompt, type: string, required: true}
  - {name: style, type: string, required: true, choices: [plain, rich]}
"""


def test_own_catalogue_file_describes_the_model(write: Write, tmp_path: Path) -> None:
    """Parameters are checked against the user's own form; a required one must be there with a prompt template."""
    (tmp_path / "own.yaml").write_text(OWN)
    text = MINIMAL.replace("deepseek-v4-flash", "my-own\ncatalogue: ../own.yaml\nprompt: x")
    job = load_job(write(text + "parameters: {style: rich}\n"), environ={})
    assert (job.parameters, job.catalogue) == ({"style": "rich"}, tmp_path / "own.yaml")
    load_job(write(text + "parameters: {extra: {style: unheard of}}\n"), environ={})
    assert problems_of(write(text)) == ["1:1: parameters.style: my-own requires it"]
    assert problems_of(write(text + "parameters: {style: riche}\n")) == [
        "8:14: parameters.style: expected one of plain, rich; did you mean 'rich'?"
    ]


def test_row_may_bring_a_required_parameter_when_there_is_no_template(write: Write, tmp_path: Path) -> None:
    """Without a prompt template the request is made of the row, so the job need not hold everything."""
    (tmp_path / "own.yaml").write_text(OWN)
    load_job(write(MINIMAL.replace("deepseek-v4-flash", "my-own\ncatalogue: ../own.yaml")), environ={})


def test_problems_of_an_own_catalogue_file_are_reported_with_those_of_the_job(write: Write, tmp_path: Path) -> None:
    """Both files are named, each problem with its line."""
    (tmp_path / "own.yaml").write_text(OWN.replace("type: string, required: true, choices", "typ: string, choices"))
    text = MINIMAL.replace("deepseek-v4-flash", "my-own\ncatalogue: ../own.yaml\nlimits: {a: 1}")
    assert problems_of(write(text)) == [
        "4:10: limits.a: unknown key",
        "jobs/../own.yaml:5:5: parameters[1].type: required key is missing",
        "jobs/../own.yaml:5:19: parameters[1].typ: unknown key; did you mean 'type'?",
    ]


def test_own_catalogue_file_of_another_model_is_refused(write: Write, tmp_path: Path) -> None:
    """A form that belongs to no model of the job would check nothing."""
    (tmp_path / "own.yaml").write_text(OWN)
    assert problems_of(write(MINIMAL.replace("deepseek-v4-flash", "mine\ncatalogue: ../own.yaml"))) == [
        "3:1: catalogue: does not describe the model of this job"
    ]


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("base_url: https://a.example, api_key_env: A, api_key_file: b", "give api_key_env or api_key_file, not both"),
        ("base_url: https://a.example, api_key_env: not a name", "must be the name of an environment variable"),
        ("base_url: https://a.example, simulator: {seed: 1}", "only goes with base_url: simulator"),
        ("base_url: simulator, simulator: {sed: 1}", "did you mean 'seed'?"),
        ("base_url: https://a.example, headers: {Authorization: '${K:-x}'}", "Authorization is set by batcher; name"),
        ("base_url: https://a.example, headers: {Content-Length: '5'}", "Content-Length is set by batcher"),
        ("base_url: https://a.example, headers: {'a b': c}", "holds a name that no header can have"),
        (r'base_url: https://a.example, headers: {a: "b\r\nc: d"}', "a character that no header can carry"),
        ("base_url: https://a.example, headers: {a: 5}", "is read as a number; quote it to mean text"),
        ("base_url: https://a.example, proxy: nonsense", "must be the http or https URL of a proxy"),
        ("base_url: https://a.example, max_response_bytes: 10", "must be at least 1024"),
        ("base_url: https://a.example, timeouts: {total_s: 0}", "must be greater than 0"),
        ("base_url: https://a.example/chat/completions", "leave /chat/completions off"),
    ],
)
def test_endpoint_that_cannot_work_is_refused(write: Write, endpoint: str, problem: str) -> None:
    """Mistakes in how the API is reached are found before a request is made."""
    (said,) = problems_of(write(MINIMAL.replace("base_url: simulator", endpoint)))
    assert said.startswith("3:")
    assert problem in said


def test_trailing_slash_of_the_base_url_is_dropped(write: Write) -> None:
    """Both spellings are the same endpoint, so that a run is resumed with either."""
    job = load_job(write(MINIMAL.replace("simulator", "https://a.example/v1/")), environ={})
    assert job.endpoint.base_url == "https://a.example/v1"


def test_http_is_allowed_when_the_job_says_so(write: Write) -> None:
    """`allow_http: true` is read wherever it stands in the section."""
    text = MINIMAL.replace("simulator", "http://a.example, allow_http: true")
    assert load_job(write(text), environ={}).endpoint.base_url == "http://a.example"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("[a, a]", "names a column twice"),
        ("some", "must be all or a list of column names"),
        ("[1]", "must be all or a list of column names"),
        ("5", "must be all or a list of column names"),
    ],
)
def test_columns_are_all_or_a_list_of_names(write: Write, columns: str, problem: str) -> None:
    """Names are carried as listed; anything else is refused."""
    assert load_job(write(MINIMAL.replace("out}", "out, columns: [b, a]}")), environ={}).output.columns == ("b", "a")
    assert problems_of(write(MINIMAL.replace("out}", f"out, columns: {columns}}}"))) == [
        f"5:21: output.columns: {problem}"
    ]


def test_identity_is_what_determines_the_result(write: Write) -> None:
    """It is JSON, changes with prompt, parameters and output shape, and not with limits, key, timeouts or names."""
    text = MINIMAL + "prompt: a\nparameters: {temperature: 1}\n"
    identity = load_job(write(text), environ={}).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity == {
        "model": "deepseek-v4-flash",
        "endpoint": {"base_url": "simulator", "request_format": "messages"},
        "system_prompt": None,
        "prompt": "a",
        "parameters": {"temperature": 1},
        "input": {"id": None, "on_bad_row": "fail"},
        "output": {"columns": "all", "prefix": "", "rows_per_part": 10000},
    }
    free = ["limits.concurrency=1", "endpoint.api_key_env=K", "endpoint.timeouts.total_s=9", "name=b", "output.path=c"]
    bound = [
        "endpoint.request_format=form",
        "prompt=b",
        "parameters.top_p=1",
        "output.columns=[a]",
        "input.id=a",
        "input.own_model=false",
    ]
    assert load_job("jobs/x.yaml", overrides=free, environ={}).identity() == identity
    for override in bound:
        assert load_job("jobs/x.yaml", overrides=[override], environ={}).identity() != identity


def test_identity_is_no_way_to_change_the_job(write: Write) -> None:
    """Who changes the returned mapping changes a copy."""
    job = load_job(write(MINIMAL + "parameters: {extra: {a: {b: 1}}}\n"), environ={})
    job.identity()["parameters"]["extra"]["a"]["b"] = 2
    assert job.parameters["extra"]["a"]["b"] == 1


def test_job_is_frozen_and_can_be_sent_to_another_process(write: Write) -> None:
    """No key of any section can be set, and a pickled job comes back equal, its path included."""
    job = load_job(write(MINIMAL), environ={})
    for section, name in ((job, "model"), (job.limits, "concurrency"), (job.endpoint.timeouts, "total_s")):
        with pytest.raises(ValidationError):
            setattr(section, name, 5)
    copied = pickle.loads(pickle.dumps(job))
    assert copied == job
    assert copied.path == job.path


def test_repr_of_a_job_shows_no_prompt_header_or_proxy(write: Write) -> None:
    """A job in a log line or a traceback gives away neither content nor secrets."""
    text = MINIMAL.replace("simulator", "https://a.example, headers: {x-key: '${K}'}, proxy: 'http://u:${K}@p:1'")
    job = load_job(
        write(text + "prompt: hunter2\nsystem_prompt: hunter2\nparameters: {extra: {a: hunter2}}\n"),
        environ={"K": "hunter2"},
    )
    assert job.endpoint.headers == {"x-key": "hunter2"}
    assert "hunter2" not in repr(job)
    assert "hunter2" not in str(job)


def test_every_key_has_a_description_for_the_json_schema() -> None:
    """Editors complete and explain a job file by the schema that the models export."""
    schema = Job.model_json_schema()
    models = {"Job": schema, **schema["$defs"]}
    for name, model in models.items():
        assert model["description"], name
        for key, value in model["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}.{key}"


def test_environment_of_the_process_is_used_by_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit mapping, variables are those of the process."""
    monkeypatch.setenv("BATCHER_TEST_NAME", "mine")
    assert load_job(write(MINIMAL + "name: ${BATCHER_TEST_NAME}\n")).name == "mine"


def endpoint_of(**keys: Any) -> Endpoint:
    return Endpoint(base_url="https://a.example", **keys)


def test_key_is_read_from_its_variable() -> None:
    """The key comes without surrounding white space and hides itself; an endpoint without a key has none."""
    key = read_key(endpoint_of(api_key_env="K"), {"K": " sk-hunter2\n"})
    assert key is not None
    assert key.reveal() == "sk-hunter2"
    assert "hunter2" not in repr(key)
    assert read_key(endpoint_of(), {}) is None


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, "endpoint.api_key_env: the environment variable K is not set"),
        ({"K": "  "}, "endpoint.api_key_env: the environment variable K is empty"),
        ({"K": "hunter2\nhunter2"}, "holds more than a key, or characters that no key has"),
        ({"K": "hunter2 x"}, "holds more than a key, or characters that no key has"),
        ({"K": "hunter2\N{SNOWMAN}"}, "holds more than a key, or characters that no key has"),
    ],
)
def test_variable_without_a_usable_key_is_refused(environ: dict[str, str], problem: str) -> None:
    """The message names the variable and shows nothing of its content."""
    with pytest.raises(JobError, match=problem) as caught:
        read_key(endpoint_of(api_key_env="K"), environ)
    assert "hunter2" not in str(caught.value)


def test_key_is_read_from_its_file_and_an_open_one_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key file that every user can read still works, with a warning that says how to close it."""
    path = tmp_path / "key"
    path.write_text("hunter2\n")
    path.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        key = read_key(endpoint_of(api_key_file=str(path)), {})
        assert key is not None
        assert key.reveal() == "hunter2"
        assert caplog.messages == []
        path.chmod(0o644)
        read_key(endpoint_of(api_key_file=str(path)), {})
    assert caplog.messages == [f"{path} can be read by every user of this machine; chmod 600 keeps it private"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"", "is empty"), (b"a\nb", "more than a key"), (b"\xff", "more than a key"),
     (b"x" * 20_000, "more than a key")],
)  # fmt: skip
def test_file_without_a_usable_key_is_refused(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """Missing, empty, binary and oversized key files are told apart from a key."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(JobError, match=problem):
        read_key(endpoint_of(api_key_file=str(path)), {})


#: bytes with a meaning in YAML
DAMAGE = (b"", b"\n", b": ", b"{", b"[", b"&a", b"*a", b"!x ", b"'", b'"', b"\t", b"- ", b"\xff", b"0x", b"~", b"$")


def test_damaged_job_files_never_end_in_a_traceback(write: Write) -> None:
    """Whatever bytes a job file holds, loading it gives a job or a list of problems."""
    source = random.Random(7)
    good = (MINIMAL + "prompt: |\n  a {{ b }}\nparameters: {temperature: 0.5, extra: {a: [1, {b: null}]}}\n").encode()
    problems: list[tuple[str, ...]] = []
    for _ in range(300):
        data = bytearray(good)
        for _ in range(source.randint(1, 4)):
            start = source.randrange(len(data))
            data[start : start + source.randint(0, 3)] = source.choice(DAMAGE)
        Path("jobs/x.yaml").write_bytes(data)
        try:
            load_job("jobs/x.yaml", environ={})
        except JobError as error:
            problems.append(error.problems)
    assert all(problems)
    assert 100 < len(problems) < 300


def test_reading_a_job_needs_neither_the_network_nor_the_table_library() -> None:
    """`batcher check` answers quickly because a job is read without aiohttp, pyarrow and an event loop."""
    code = "import sys, batcher.job; print([m for m in ('aiohttp', 'pyarrow', 'anyio', 'asyncio') if m in sys.modules])"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.strip() == "[]"
