"""A new file, whole or not there: what every export has in common, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from batcher.durable import fsync_folder, publish
from batcher.errors import BatcherError, StorageError
from batcher.results import Results


class UnfinishedError(BatcherError):
    """Not every row has an outcome yet: run the job to its end, or use --partial to export what is done so far."""

    exit_code = 75


def refuse_unfinished(results: Results) -> None:
    """Raise UnfinishedError unless every row is in a part."""
    if results.finished:
        return
    done = results.totals().rows
    what = f"{done:,} of {results.rows:,} rows have an outcome so far"
    raise UnfinishedError(f"{what}: run the job to its end, or use --partial to export what is done")


def check_count(results: Results, rows: int, *, partial: bool) -> None:
    """Raise StorageError if a finished run did not give every row; what is partial may have any number."""
    if not partial and rows != results.rows:
        raise StorageError(
            f"{results.path} gave {rows} of {results.rows} rows, though it is finished; nothing was kept"
        )


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise StorageError if a file is in the way, and early, before the work."""
    if path.is_dir():
        raise StorageError(f"{path} is a folder")
    if not force and os.path.lexists(path):
        raise StorageError(f"{path} exists; --force replaces it")


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Write a file under a temporary name; when the block ends well it is synced and gets its own.

    Raises:
        StorageError: it cannot be written, or exists and `force` is not set. Nothing is left behind then.
    """
    refuse_existing(path, force=force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
            fsync_folder(path.parent)
        else:
            publish(temporary, path)
    except FileExistsError:
        raise StorageError(f"{path} exists; --force replaces it") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
