"""A job from a mapping, as a notebook writes it."""

from __future__ import annotations

import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from batcher.errors import JobError
from batcher.job import load_job

VALUES: dict[str, Any] = {
    "model": "deepseek-v4-flash",
    "endpoint": {"base_url": "${URL:-simulator}"},
    "prompt": "{{ text }} ${URL}",
    "parameters": {"response_format": "json_object", "extra": {}},
    "output": {"path": "out"},
}


def test_it_is_checked_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same keys, variables and overrides; paths belong to the current folder; version and input may be missing."""
    monkeypatch.chdir(tmp_path)
    job = load_job(VALUES, overrides=["limits.concurrency=3"], environ={})
    assert (job.version, job.path, job.name, job.limits.concurrency) == (1, None, "job", 3)
    assert (job.endpoint.base_url, job.prompt) == ("simulator", "{{ text }} ${URL}")
    assert (job.output.path, job.input.path, job.input.on_bad_row) == (tmp_path / "out", (), "fail")
    some = load_job({**VALUES, "input": {"id": "n", "path": ["a.jsonl", Path("b.parquet")]}}, environ={})
    assert some.input.path == (str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet"))
    assert load_job({**VALUES, "input": {"id": "n"}}, environ={}).input.id == "n"
    assert load_job(MappingProxyType({**VALUES, "input": None}), environ={}).identity() == job.identity()


def test_the_callers_mapping_stays_as_it_is() -> None:
    """What loading fills in, replaces or drops is done in a copy."""
    values = copy.deepcopy(VALUES)
    load_job(values, overrides=["parameters.top_p=0.5"], environ={"URL": "http://localhost:1"})
    assert values == VALUES


def test_what_is_wrong_names_the_key() -> None:
    """All mistakes at once, without a file and a line; a key itself is refused and not repeated."""
    wrong = {
        "modle": "m",
        "endpoint": {"base_url": "simulator", "headers": {"X-Api-Key": "k"}},
        "input": {"path": []},
        "limits": {"concurency": 3, "max_attempts": "6"},
        "version": 2,
        "output": {"path": Path("o")},
    }
    with pytest.raises(JobError) as caught:
        load_job(wrong, environ={})
    assert sorted(caught.value.problems) == [
        "job: endpoint.headers.X-Api-Key: a key does not belong in the job file; write it as ${VARIABLE}",
        "job: input.path: must name at least one file",
        "job: limits.concurency: unknown key; did you mean 'concurrency'?",
        "job: limits.max_attempts: expected an integer, found text; write 6 without quotes",
        "job: model: required key is missing",
        "job: modle: unknown key; did you mean 'model'?",
        "job: version: this batcher reads job files of version 1",
    ]


def test_an_output_below_any_folder_is_apart_from_rows_that_are_given() -> None:
    """Where no input is named, no output can lie inside it."""
    assert load_job({**VALUES, "output": {"path": "rows/out"}}, environ={}).output.path == Path.cwd() / "rows" / "out"
