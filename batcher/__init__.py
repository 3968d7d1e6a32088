"""batcher: a file of prompts in, Parquet with completions and token usage out, resumable.

    from batcher import load_job, run

    report = run(load_job("jobs/quickstart.yaml"))
    report.to_pandas()

Rows may come from the program, and a job from a mapping with the keys of a job file:

    job = load_job({"model": "deepseek-v4-flash", "endpoint": {...}, "prompt": "{{ text }}", "output": {"path": "out"}})
    report = run(job, frame)            # a DataFrame or another table, or any iterable of dicts

Names are resolved on first use, since the machinery behind them takes a while to import.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from batcher.errors import (
    AccountError,
    BatcherError,
    BudgetError,
    EndpointError,
    EndpointRefusedError,
    InputError,
    Interrupted,
    JobError,
    LockedError,
    ResumeError,
    StorageError,
)
from batcher.progress import Figures, Progress
from batcher.records import Version

if TYPE_CHECKING:
    from batcher.given import Rows
    from batcher.job import Job, load_job
    from batcher.reopening import Retry
    from batcher.results import Report

__all__ = [
    "AccountError",
    "BatcherError",
    "BudgetError",
    "EndpointError",
    "EndpointRefusedError",
    "Figures",
    "InputError",
    "Interrupted",
    "Job",
    "JobError",
    "LockedError",
    "Progress",
    "Report",
    "ResumeError",
    "Retry",
    "Rows",
    "StorageError",
    "Version",
    "load_job",
    "run",
]


def run(
    job: Job,
    rows: Rows | None = None,
    *,
    progress: Progress | Callable[[Figures], object] | None = None,
    limit: int | None = None,
    spread: bool = False,
    retry: Retry | None = None,
    accept_changes: Literal["all"] | Collection[str] = (),
) -> Report:
    """Ask every row of `job` that has no outcome yet, and return what the output folder holds then.

    Interrupted in any way, the same call carries on; when everything is done, it returns at once. With a `limit` so
    many rows are asked, the first ones or, with `spread`, rows from all over the input.

    `rows` take the place of the job's `input.path`: a table of any library that speaks Arrow (pyarrow, pandas, polars),
    whose types the output keeps, or an iterable of mappings from column names to JSON values, read once and never held
    as a whole. They are written into the output folder first; a later call may leave them out, and is refused if it
    brings others.

    `progress` is a function that is called a few times a second with a copy of the figures, or a `Progress`. It should
    return at once and may be called in another thread; if it raises, the run goes on without it.

    It works inside a running event loop as well, as in a notebook, and blocks it; `await asyncio.to_thread(run, job)`
    does not. The first Ctrl-C (in the main thread) stops asking and waits for the requests in flight, the second does
    not wait.

    `retry=Retry()` asks the failed rows again; see there for others. `accept_changes="all"`, or the keys in question,
    carries on although the prompt, the model or parameters are not those the run began with; rows that are done stay as
    they are, and `Report.versions` says how many rows came from which version.

    Raises:
        BatcherError: why it stopped, `Interrupted` for a signal; each subclass has its exit code. What was received is
            saved.
    """
    if not isinstance(job, import_module("batcher.job").Job):
        raise TypeError(f"run() takes a job, as load_job({job!r:.40}) returns one")
    module = import_module("batcher.run")
    globals()["run"] = _run  # the import put the module of the same name in the function's place
    report: Report = module.run(
        job, rows, progress=progress, limit=limit, spread=spread, retry=retry, accept_changes=accept_changes
    )
    return report


_run = run

_HOMES = {
    "Job": "batcher.job",
    "load_job": "batcher.job",
    "Report": "batcher.results",
    "Retry": "batcher.reopening",
    "Rows": "batcher.given",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'batcher' has no attribute {name!r}")
