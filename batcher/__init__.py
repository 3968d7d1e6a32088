"""batcher: a file of prompts in, Parquet with completions and token usage out, resumable.

    from batcher import load_job, run

    report = run(load_job("jobs/quickstart.yaml"))

Names are resolved on first use, since the machinery behind them takes a while to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from batcher.records import Report

if TYPE_CHECKING:
    from batcher.job import Job, load_job

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
    "StorageError",
    "load_job",
    "run",
]


def run(job: Job, *, progress: Progress | None = None, limit: int | None = None, spread: bool = False) -> Report:
    """Ask every row of `job` that has no outcome yet, and return what the output folder holds then.

    Interrupted in any way, the same call carries on; when everything is done, it returns at once. `progress` is told
    how it goes. With a `limit` so many rows are asked, the first ones or, with `spread`, rows from all over the input.
    Call it where no event loop runs.

    Raises:
        BatcherError: why it stopped; each subclass has its exit code. What was received is saved.
    """
    module = import_module("batcher.run")
    globals()["run"] = _run  # the import put the module of the same name in the function's place
    report: Report = module.run(job, progress=progress, limit=limit, spread=spread)
    return report


_run = run


def __getattr__(name: str) -> Any:
    if name in ("Job", "load_job"):
        return getattr(import_module("batcher.job"), name)
    raise AttributeError(f"module 'batcher' has no attribute {name!r}")
