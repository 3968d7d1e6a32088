"""`batcher report`: one HTML page about a run, for a browser, a printer or somebody else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from batcher.cli.running import shown
from batcher.cli.standing import standing_of
from batcher.cli.talk import say
from batcher.durable import replace_file
from batcher.errors import BatcherError, InputError, StorageError
from batcher.job import load_job

_BEGINS = b"<!doctype html>"


class MissingLibraryError(BatcherError):
    """batcher report needs the library that draws its plots: pip install vl-convert-python"""

    exit_code = 2


def write_report(target: Path, to: Path | None) -> int:
    """Write the report of the run of a job file or in an output folder, and print where it is."""
    try:
        from batcher.report import gather, render
    except ModuleNotFoundError as error:
        if error.name != "vl_convert":
            raise
        raise MissingLibraryError from None
    job = None if target.is_dir() else load_job(target)
    folder = target if job is None else job.output.path
    path = _beside(folder) if to is None else to
    _check_free(path)
    page = render(gather(folder, job=job, summary=_summary(folder))).encode()
    try:
        replace_file(path, page, durable=False)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    say(f"{shown(str(path))} ({len(page) / 1000:,.0f} KB)", sys.stdout)
    return 0


def _beside(folder: Path) -> Path:
    """Next to the run folder, not in it: readers of Parquet folders fail on a file that is none."""
    place = folder.resolve()
    return place.with_name(f"{place.name}-report.html")


def _check_free(path: Path) -> None:
    """Make sure that nothing but an older report is replaced; a part, for example, was paid for."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_BEGINS)).lower()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    if begins != _BEGINS:
        raise InputError(f"{path} is there and is no report; choose another name with --to")


def _summary(folder: Path) -> dict[str, Any] | None:
    try:
        return standing_of(folder)
    except InputError:
        return None
