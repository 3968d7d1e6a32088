"""Which run folder a command means: it is named by itself or by its job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batcher.results import Results


def folder_of(target: Path) -> Path:
    """Return the output folder that a folder or a job file stands for.

    Raises:
        JobError: it is neither.
    """
    if target.is_dir():
        return target
    from batcher.job import load_job

    return load_job(target).output.path


def results_of(target: Path) -> Results:
    """Open the run in a folder or of a job file.

    Raises:
        InputError: there is no run yet.
    """
    from batcher.results import Results

    return Results.open(folder_of(target))
