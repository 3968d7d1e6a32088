"""An export to one file (two for OpenAI Batch), a few MB of rows at a time, in row order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Literal, get_args

from batcher.errors import StorageError
from batcher.export.csvfile import write_csv
from batcher.export.newfile import check_count, new_file, refuse_existing, refuse_unfinished
from batcher.export.openai_batch import write_openai_batch
from batcher.export.parquetfile import write_parquet
from batcher.results import Results
from batcher.results.plain import dumps, json_rows

Format = Literal["parquet", "jsonl", "csv", "openai-batch"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)


def export_file(
    results: Results, path: Path, kind: Format, *, partial: bool = False, force: bool = False
) -> tuple[int, list[Path]]:
    """Export all rows, or with `partial` those that have an outcome; return their number and the files written.

    Raises:
        UnfinishedError: the run is not finished, and `partial` is not set.
        StorageError: a file cannot be written, or exists and `force` is not set; or the run folder is damaged.
        InputError: input columns of rows without a part are needed, and the input is not there any more.
    """
    if not partial:
        refuse_unfinished(results)
    _refuse_place(results, path, kind)
    if kind == "openai-batch":
        return _export_openai_batch(results, path, partial=partial, force=force)
    with new_file(path, force=force) as file:
        rows = _WRITERS[kind](results, file)
        check_count(results, rows, partial=partial)
    return rows, [path]


def _refuse_place(results: Results, path: Path, kind: Format) -> None:
    """Keep exports out of the way of the run."""
    place, folder = path.resolve(), results.path.resolve()
    if folder / ".batcher" in place.parents or (kind == "parquet" and folder in place.parents):
        raise StorageError(f"{path} lies in the run folder, where it would be taken for a part of the run")
    if any(place == file.path.resolve() for file in results.plan.files):
        raise StorageError(f"{path} is an input of this run")


def _export_openai_batch(results: Results, path: Path, *, partial: bool, force: bool) -> tuple[int, list[Path]]:
    errors = path.with_name(f"{path.stem}.errors{path.suffix}")
    for file in (path, errors):
        refuse_existing(file, force=force)
    with new_file(path, force=force) as answered, new_file(errors, force=force) as failed:
        rows = write_openai_batch(results, answered, failed)
        check_count(results, rows, partial=partial)
    return rows, [path, errors]


def write_jsonl(results: Results, file: BinaryIO) -> int:
    """Write an object per row; what is nested stays nested, what is text stays text. Return the number of rows."""
    rows, inputs = 0, set(results.carried)
    for batch in results.batches():
        file.write(b"".join(dumps(row) + b"\n" for row in json_rows(batch, inputs)))
        rows += batch.num_rows
    return rows


_WRITERS: Final[dict[str, Callable[[Results, BinaryIO], int]]] = {
    "parquet": write_parquet,
    "jsonl": write_jsonl,
    "csv": write_csv,
}
