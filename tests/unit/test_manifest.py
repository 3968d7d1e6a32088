"""The manifest: what may change on purpose, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ResumeError
from batcher.job import Job
from batcher.manifest import Accepted, Manifest, manifest_for
from batcher.plan import make_plan
from batcher.records import Totals
from batcher.source import find_files
from tests.fakes import make_job, write_numbers


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose manifest is written."""
    write_numbers(tmp_path, 12)
    job = make_job(tmp_path, parameters={"max_tokens": 8})
    (job.output.path / ".batcher").mkdir(parents=True)
    settle(job).write(job.output.path)
    return job


def settle(job: Job, accepted: Accepted = ()) -> Manifest:
    """The manifest with which a job would go on."""
    return manifest_for(job.output.path, job, make_plan(job, find_files(job.input.path)), accepted)


def changed(job: Job, **changes: Any) -> Job:
    return make_job(job.path.parent, **{"parameters": {"max_tokens": 8}, **changes})


def test_the_same_job(job: Job) -> None:
    """It goes on as it was, and makes no version."""
    assert settle(job) == settle(job, "all") == Manifest.read(job.output.path)
    assert len(settle(job).versions) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"max_tokens": 9}}, "parameters.max_tokens was 8, is 9"),
        ({"model": "m-2"}, 'model was "some-model", is "m-2"'),
        ({"prompt": "{{ text }} canary"}, "prompt changed"),
        ({"system_prompt": "canary"}, "system_prompt changed"),
        ({"parameters": {"max_tokens": 8, "extra": {"token": "canary"}}}, "parameters.extra changed"),
        ({"endpoint": {"base_url": "http://localhost:8"}}, "endpoint.base_url was"),
        ({"endpoint": {"base_url": "http://localhost:9", "request_format": "form"}}, "endpoint.request_format was"),
    ],
)
def test_what_may_change(job: Job, changes: dict[str, Any], words: str) -> None:
    """It is refused with a hint; accepted, it is the next version, which goes on without being accepted again."""
    other = changed(job, **changes)
    with pytest.raises(ResumeError, match="accept it with --accept-changes"):
        settle(other)
    accepted = settle(other, "all")
    (change,) = accepted.versions[1]["changes"]
    assert change.startswith(words)
    assert "canary" not in change
    accepted.write(job.output.path)
    assert settle(other) == accepted
    with pytest.raises(ResumeError, match="differs from version 2 of the run"):
        settle(job)
    assert len(settle(job, "all").versions) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"input": {"path": "rows.jsonl", "id": "text"}},
        {"output": {"path": "out", "rows_per_part": 5, "prefix": "x_"}},
        {"output": {"path": "out", "rows_per_part": 6}},
        {"output": {"path": "out", "rows_per_part": 5, "columns": []}, "model": "m-2"},
    ],
)
def test_what_may_not_change(job: Job, changes: dict[str, Any]) -> None:
    """What rows and columns there are is the run itself."""
    with pytest.raises(ResumeError, match=r"use a new output\.path") as refused:
        settle(changed(job, **changes), "all")
    assert "--accept-changes" not in str(refused.value)
    assert ("cannot be changed on purpose" in str(refused.value)) == ("model" in changes)


def test_a_changed_input_cannot_be_accepted(job: Job) -> None:
    """Other rows are another run."""
    write_numbers(job.path.parent, 13)
    with pytest.raises(ResumeError, match="the input changed"):
        settle(job, "all")


@pytest.mark.parametrize(
    ("accepted", "is_enough"),
    [
        (["parameters.max_tokens"], True),
        (["parameters"], True),
        (["parameters.max"], False),
        (["parameters.max_tokens.x"], False),
        (["model"], False),
        ([], False),
    ],
)
def test_only_some_keys_are_accepted(job: Job, accepted: list[str], is_enough: bool) -> None:
    """Those that are named and what is below them, none that only looks like it."""
    other = changed(job, parameters={"max_tokens": 9})
    if is_enough:
        assert len(settle(other, accepted).versions) == 2
    else:
        with pytest.raises(ResumeError):
            settle(other, accepted)
    with pytest.raises(ResumeError):
        settle(changed(job, parameters={"max_tokens": 9}, model="m-2"), accepted)


def test_rows_of_each_version(job: Job) -> None:
    """What comes from no later version comes from the first one."""
    manifest = settle(changed(job, model="m-2"), "all")
    totals = Totals()
    for version, rows in ((1, 5), (2, 3), (1, 1)):
        totals.count_row(completed=True, job_version=version, rows=rows)
    assert [(one.number, one.rows) for one in manifest.versions_with(totals)] == [(1, 6), (2, 3)]
    taken = Totals()
    taken.count_row(completed=True, job_version=2, rows=3)
    totals.take_away(taken)
    assert totals == Totals(completed=6)
