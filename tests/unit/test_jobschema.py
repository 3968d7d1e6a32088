"""The JSON Schema of the job file: it says what the loader says, no more and hardly less."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from batcher.catalogue import load_catalogue
from batcher.cli.jobschema import DIALECT, job_schema
from batcher.errors import JobError
from batcher.job import Job, load_job

JOBS = Path(__file__).parents[2] / "jobs"
VALIDATOR = Draft202012Validator(job_schema())
JOB: dict[str, Any] = {
    "version": 1,
    "model": "deepseek-v4-flash",
    "endpoint": {"base_url": "simulator"},
    "input": {"path": "rows.jsonl"},
    "prompt": "{{ text }}",
    "parameters": {"temperature": 0.2},
    "output": {"path": "out"},
}
#: for what goes only with answers that have fields
ANSWERS = {"json_schema": {"properties": {"a": {}}}}
ENVIRONMENT = {"SET": "some"}
#: values of every kind, for every key
PROBES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 0.5, 100_000_000, "", "text", "all", "1", "${SET}", "a://b"),
    *([], ["a"], ["a", "a"], [1], [""], {}, {"a": 1}, {"a": "b"}, {"type": "enabled"}),
]
#: what JSON Schema cannot say: what a variable holds, and whether a file is there. The loader alone refuses these
BEYOND = {
    ("catalogue",): ["text", "all", "1", "${SET}"],
    ("endpoint", "request_format"): ["${SET}"],
    ("engine", "kind"): ["${SET}"],
    ("engine", "processes"): ["${SET}"],
    ("input", "on_bad_row"): ["${SET}"],
    ("output", "columns"): ["${SET}"],
    ("endpoint", "base_url"): ["${SET}"],
    ("endpoint", "proxy"): ["${SET}"],
    ("parameters", "response_format"): ["${SET}"],
    ("parameters", "reasoning_effort"): ["${SET}"],
    ("parameters", "thinking"): ["${SET}"],
}


def schema_refuses(job: Any) -> bool:
    """Whether an editor would underline something."""
    return not VALIDATOR.is_valid(job)


def loader_refuses(folder: Path, job: Any) -> bool:
    """Whether the job could not be run."""
    (folder / "job.yaml").write_text(json.dumps(job))  # JSON is YAML
    try:
        load_job(folder / "job.yaml", environ=ENVIRONMENT)
    except JobError:
        return True
    return False


def changed(path: tuple[str, ...], value: Any, job: dict[str, Any] = JOB) -> dict[str, Any]:
    """The job with another value at `path`."""
    job = copy.deepcopy(job)
    holder = job
    for step in path[:-1]:
        holder = holder.setdefault(step, {})
    holder[path[-1]] = value
    return job


def keys_of(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a job file, sections included."""
    for name, info in model.model_fields.items():
        yield (*prefix, name)
        for section in (info.annotation, *get_args(info.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from keys_of(section, (*prefix, name))


KEYS = list(keys_of(Job))
PARAMETERS = [
    ("parameters", parameter.name)
    for parameter in load_catalogue().schema_of("deepseek-v4-flash").parameters
    if parameter.name not in Job.model_fields
]


def test_it_is_a_schema_of_its_dialect() -> None:
    """The schema itself is valid, names its dialect, and every key has a description."""
    Draft202012Validator.check_schema(job_schema())
    assert job_schema()["$schema"] == DIALECT
    sections = [job_schema(), *job_schema()["$defs"].values()]
    for section in sections:
        for name, value in section["properties"].items():
            assert value.get("description") or "$ref" in str(value), name
            assert "title" not in value, name


def test_defaults_and_ranges_are_those_of_the_job() -> None:
    """What an editor shows is what the loader uses."""
    limits = job_schema()["$defs"]["Limits"]["properties"]
    assert limits["concurrency"]["default"] == 256
    assert limits["concurrency"]["minimum"] == 1
    temperature = job_schema()["$defs"]["Parameters of deepseek-flash"]["properties"]["temperature"]
    assert (temperature["minimum"], temperature["maximum"], temperature["default"]) == (0, 2, 1)


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_job_of_the_repository_is_valid(path: Path) -> None:
    """A shipped job has nothing that an editor would underline."""
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize("key", [*KEYS, *PARAMETERS, ("parameters", "extra")], ids=".".join)
def test_schema_and_loader_agree_on_values_of_every_kind(tmp_path: Path, key: tuple[str, ...]) -> None:
    """Whatever stands at a key, the schema refuses it if and only if the loader does."""
    base = changed(("parameters", "response_format"), ANSWERS) if key == ("output", "flatten") else JOB
    jobs = [(probe, changed(key, probe, base)) for probe in PROBES]
    by_schema = [probe for probe, job in jobs if schema_refuses(job)]
    by_loader = [probe for probe, job in jobs if loader_refuses(tmp_path, job)]
    assert [probe for probe in by_loader if probe not in BEYOND.get(key, [])] == by_schema


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_schema_and_loader_agree_on_what_may_be_left_out(tmp_path: Path, key: tuple[str, ...]) -> None:
    """A key that must be there is required by both."""
    job = copy.deepcopy(JOB)
    holder = job
    for step in key[:-1]:
        holder = holder.get(step, {})
    if holder.pop(key[-1], None) is not None and key != ("prompt",):
        assert schema_refuses(job) == loader_refuses(tmp_path, job)


REFUSED = [
    (("limits", "concurency"), 5),
    (("endpoint", "timeouts"), {"total": 5}),
    (("parameters", "temperature"), 2.5),
    (("parameters", "temprature"), 1),
    (("parameters", "prompt"), "x"),
    (("parameters", "max_tokens"), 0),
    (("parameters", "response_format"), "json"),
    (("parameters", "thinking"), {"type": "perhaps"}),
    (("parameters", "extra"), {"stream": True}),
    (("parameters", "extra"), {"messages": []}),
    (("temperature",), 0.2),
    (("endpoint", "base_url"), "api.deepseek.com"),
    (("endpoint", "base_url"), "https://api.deepseek.com/chat/completions"),
    (("endpoint", "base_url"), "https://me:secret@api.deepseek.com"),
    (("endpoint", "base_url"), "https://api.deepseek.com?x=1"),
    (("endpoint", "base_url"), "http://api.deepseek.com"),
    (("endpoint",), {"base_url": "http://203.0.113.7/v1", "allow_http": False}),
    (("endpoint",), {"base_url": "https://a.example", "simulator": {"seed": 1}}),
    (("endpoint",), {"base_url": "https://a.example", "simulator": None}),
    (("endpoint",), {"base_url": "simulator", "api_key_env": "A", "api_key_file": "b"}),
    (("endpoint", "api_key_env"), "sk-0123456789abcdef0123"),
    (("endpoint", "api_key_env"), "0123456789abcdef0123456789abcdef"),
    (("endpoint", "api_key_env"), "MY-KEY"),
    (("endpoint", "headers"), {"Authorization": "Bearer x"}),
    (("endpoint", "headers"), {"content-TYPE": "x"}),
    (("endpoint", "headers"), {"X Y": "x"}),
    (("endpoint", "headers"), {"X-Team": "a\nb"}),
    (("endpoint", "proxy"), "socks5://localhost:1080"),
    (("endpoint", "request_format"), "mesages"),
    (("input", "path"), "s3://bucket/rows.jsonl"),
    (("input", "path"), ["a.jsonl", "s3://bucket/rows.jsonl"]),
    (("output", "columns"), ["a", "a"]),
    (("output", "columns"), "some"),
    (("output", "prefix"), "a-b"),
    (("engine", "processes"), 0),
    (("engine", "processes"), "all"),
    (("engine", "kind"), "lokal"),
    (("version",), 2),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda value: str(value)[:40])
def test_typical_mistakes_are_refused(tmp_path: Path, key: tuple[str, ...], value: Any) -> None:
    """What people get wrong is underlined while they write it."""
    job = changed(key, value)
    assert loader_refuses(tmp_path, job), "this is no mistake"
    assert schema_refuses(job)


ACCEPTED = [
    (("model",), "somebody/else-7b"),
    (("limits",), None),
    (("parameters",), None),
    (("endpoint",), {"base_url": "simulator", "headers": None, "timeouts": None, "simulator": None}),
    (("endpoint",), {"base_url": "simulator", "simulator": {"latency_s": 0, "max_concurrency": None}}),
    (("endpoint",), {"base_url": "simulator", "api_key_env": None, "api_key_file": "key.txt"}),
    (("endpoint",), {"base_url": "http://api.example.com", "allow_http": True}),
    *((("endpoint", "base_url"), url) for url in (
        "http://localhost:8000/v1", "http://LOCALHOST/v1/", "HTTPS://api.deepseek.com", "https://api.deepseek.com/a@b",
        "http://10.1.2.3", "http://[::1]:8000", "http://192.168.0.2:1", "http://172.16.0.9/v1", "http://127.0.0.1",
        "http://[fd00::1]/v1", "https://bücher.example/v1", "${URL:-https://a.example}", "https://${SET}.example/v1",
    )),
    (("endpoint", "headers"), {"X-Team": "blue ü", "X-Key": "${SET}"}),
    (("endpoint", "proxy"), "http://localhost:3128"),
    (("endpoint", "proxy"), "http://me:${SET}@localhost:3128"),
    (("input", "path"), ["a/*.jsonl", "~/b"]),
    (("input", "path"), "${SET}/rows.jsonl"),
    (("output", "columns"), []),
    (("output", "columns"), ["${SET}", "b"]),
    (("output", "prefix"), "${SET}_"),
    (("parameters",), {"response_format": {"type": "json_schema", "json_schema": {}}, "stream": True}),
    (("parameters",), {"thinking": {"type": "disabled"}, "extra": {"user_id": "me"}}),
    (("parameters",), {"temperature": 2, "reasoning_effort": "${EFFORT:-low}"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), ACCEPTED, ids=lambda value: str(value)[:40])
def test_nothing_is_refused_that_the_loader_takes(tmp_path: Path, key: tuple[str, ...], value: Any) -> None:
    """An editor underlines no key that works."""
    job = changed(key, value)
    assert not loader_refuses(tmp_path, job), "this does not work"
    assert not list(VALIDATOR.iter_errors(job))


def test_parameters_are_those_of_the_model() -> None:
    """Another model takes other parameters; a model of the user's own catalogue takes what that says."""
    seed = changed(("parameters",), {"seed": 7})
    assert schema_refuses(seed), "DeepSeek takes no seed"
    assert not schema_refuses({**seed, "model": "gpt-9"})
    assert schema_refuses({**seed, "model": "gpt-9", "parameters": {"thinking": "disabled"}})
    assert not schema_refuses({**seed, "catalogue": "mine.yaml"})
    assert not schema_refuses({**seed, "model": "${MODEL}"}), "which model it is shows only later"
