"""A finished run laid out as a Hugging Face dataset: `data/train-NNNNN-of-NNNNN.parquet` and a card, `README.md`.

The parts become the files of the split, as hard links where the file system can, so that it costs no space. The folder
is built beside its place and takes its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from batcher.durable import fsync_folder, replace_file
from batcher.errors import StorageError
from batcher.export.card import dataset_card
from batcher.export.newfile import check_count, refuse_unfinished
from batcher.export.parquetfile import write_batches
from batcher.records import Shard, Totals
from batcher.results import Results

_OURS = ("train-*-of-*.parquet",)


def export_dataset(results: Results, folder: Path, *, partial: bool = False, force: bool = False) -> tuple[int, int]:
    """Lay the rows out in a new folder; return how many rows and data files it holds.

    With `partial`, rows that are in no part yet are in files of their own, in their place in the order. `force`
    replaces a folder that holds nothing but such a dataset.

    Raises:
        UnfinishedError: the run is not finished, and `partial` is not set.
        StorageError: the folder cannot be written, or is in the way; or the run folder is damaged.
        InputError: input columns of rows without a part are needed, and the input is not there any more.
    """
    if not partial:
        refuse_unfinished(results)
    folder = folder.absolute()
    if results.path.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise StorageError(f"{folder} lies in the run folder: put the dataset elsewhere")
    with _new_folder(folder, force=force) as new:
        (new / "data").mkdir()
        totals = _fill(results, new / "data")
        check_count(results, totals.rows, partial=partial)
        files = _number(new / "data")
        replace_file(new / "README.md", dataset_card(results, totals).encode())
        fsync_folder(new / "data")
    return totals.rows, files


def _fill(results: Results, data: Path) -> Totals:
    """Put a file per shard that has outcomes into the folder, named by shard; return the sums over their rows."""
    totals = Totals()
    parts = {part.shard.number: part for part in results.parts()}
    for shard in results.plan.shards:
        path = data / f"{shard.number:09d}.parquet"
        if (part := parts.get(shard.number)) is not None:
            _link(part.path, path)
            totals.add(part.totals)
        elif not _write(results, shard, path, totals):
            path.unlink()
    return totals


def _write(results: Results, shard: Shard, path: Path, totals: Totals) -> int:
    """Write the rows of a shard that have an outcome, count them in `totals`, and return their number."""
    batches = results.batches(first_row=shard.first_row, end_row=shard.end_row)
    with path.open("wb") as file:
        rows = write_batches(results, file, _counted(results, batches, totals))
        os.fsync(file.fileno())
    return rows


def _counted(results: Results, batches: Iterable[pa.RecordBatch], totals: Totals) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        failed = pc.sum(pc.equal(batch.column(results.column("status")), "failed")).as_py()
        totals.failed += failed
        totals.completed += batch.num_rows - failed
        totals.prompt_tokens += pc.sum(batch.column(results.column("prompt_tokens"))).as_py() or 0
        totals.completion_tokens += pc.sum(batch.column(results.column("completion_tokens"))).as_py() or 0
        yield batch


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(part, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _number(data: Path) -> int:
    """Give the files the names that the loader looks for, in order; return how many there are."""
    files = sorted(data.iterdir())
    for number, path in enumerate(files):
        path.rename(data / f"train-{number:05d}-of-{len(files):05d}.parquet")
    return len(files)


@contextmanager
def _new_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends well."""
    _refuse_existing(folder, force=force)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_existing(folder: Path, *, force: bool) -> None:
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise StorageError(f"{folder} exists; --force replaces it if it holds a dataset and nothing else")
    foreign = _foreign(folder)
    if foreign is not None:
        raise StorageError(f"{foreign} is not part of a dataset that batcher laid out; nothing was replaced")


def _foreign(folder: Path) -> Path | None:
    """The first thing in a folder that an export does not put there."""
    if not folder.is_dir() or folder.is_symlink():
        return folder
    for path in sorted(folder.iterdir()):
        if path.name == "data" and path.is_dir():
            foreign = [inner for inner in sorted(path.iterdir()) if not any(map(inner.match, _OURS))]
            if foreign:
                return foreign[0]
        elif path.name != "README.md":
            return path
    return None
