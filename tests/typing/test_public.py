"""The public names as a program uses them. mypy checks this file, and it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import pyarrow as pa
import pytest
from blockbuster import BlockBuster

import batcher
from batcher import (
    AccountError,
    BatcherError,
    BudgetError,
    EndpointError,
    EndpointRefusedError,
    Figures,
    InputError,
    Interrupted,
    Job,
    JobError,
    LockedError,
    Progress,
    Report,
    ResumeError,
    Retry,
    Rows,
    StorageError,
    Version,
    load_job,
    run,
)

ERRORS: tuple[type[BatcherError], ...] = (
    *(AccountError, BudgetError, EndpointError, EndpointRefusedError, InputError, Interrupted),
    *(JobError, LockedError, ResumeError, StorageError),
)


class Watcher:
    """A watcher of one's own."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(self, figures: Figures) -> None:
        """See `Progress`."""

    def updated(self, figures: Figures) -> None:
        """See `Progress`."""

    def note(self, message: str) -> None:
        """See `Progress`."""
        self.notes.append(message)

    def finished(self, figures: Figures) -> None:
        """See `Progress`."""


def values(folder: Path) -> dict[str, Any]:
    """A job as a mapping."""
    return {
        "model": "deepseek-v4-flash",
        "endpoint": {"base_url": "simulator", "simulator": {"latency_s": 0.001}},
        "prompt": "{{ text }}",
        "output": {"path": folder / "out"},
    }


def rows() -> Iterator[Mapping[str, Any]]:
    """Rows of a program's own."""
    yield {"text": "one"}
    yield {"text": "two"}


def test_the_public_names(tmp_path: Path, blocking_calls_fail: BlockBuster) -> None:
    """Every public name is used as documented, with the types that it says it has."""
    blocking_calls_fail.deactivate()
    watcher = Watcher()
    as_progress: Progress = watcher
    job = load_job(values(tmp_path), overrides=["limits.concurrency=2"], environ={})
    assert_type(job, Job)
    assert_type(job.limits.concurrency, int)
    assert_type(job.path, Path | None)
    given: Rows = rows()
    report = run(job, given, progress=as_progress, limit=1, spread=True)
    assert_type(report, Report)
    assert_type(report.path, str)
    assert_type(report.rows, int)
    assert_type(report.complete, bool)
    assert_type(report.totals.completed, int)
    assert_type(report.totals.known_cost_usd, float | None)
    assert (report.complete, report.to_arrow().num_rows) == (False, 1)
    assert watcher.notes

    seen: list[int] = []

    def tell(figures: Figures) -> None:
        assert_type(figures.done, int)
        assert_type(figures.cost_usd, float | None)
        seen.append(figures.done)

    function: Callable[[Figures], object] = tell
    report = asyncio.run(asyncio.to_thread(run, job, progress=function))
    assert seen[-1] == 2
    assert [batch.num_rows for batch in report.batches()] == [2]
    report = run(job, retry=Retry(failed=True, only=("429",), truncated=True))
    assert_type(report.versions, tuple[Version, ...])
    changed = load_job({**values(tmp_path), "prompt": "{{ text }}!"})
    report = run(changed, accept_changes="all")
    assert [version.rows for version in report.versions] == [2, 0]
    assert report.to_pandas(types_mapper=None).shape[0] == 2
    with pytest.raises(InputError) as caught:
        run(job, pa.table({"text": ["another"]}))
    assert_type(caught.value.problems, tuple[str, ...])
    assert_type(caught.value.exit_code, int)


def test_this_file_uses_every_public_name() -> None:
    """A name that is made public is pinned here too."""
    assert set(batcher.__all__) <= set(globals())
    assert all(issubclass(error, BatcherError) and error.exit_code for error in ERRORS if error is not Interrupted)


@pytest.mark.parametrize("no_job", [{"model": "m"}, "job.yaml"])
def test_what_is_no_job_yet(no_job: Any) -> None:
    """A mapping or a path is a job only once it is loaded, and the error says how."""
    with pytest.raises(TypeError, match="load_job"):
        run(no_job)
