"""A finished part as a reader meets it: its totals, and its rows a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batcher.errors import StorageError
from batcher.journal import JournalsReader
from batcher.records import Shard, Totals
from batcher.renewal import renewed
from batcher.results.wanted import Wanted

#: rows of a batch, at most; what is large is bounded by the part's row groups, which are a few MB
_BATCH_ROWS = 1024
_READ_AHEAD_BYTES = 1 << 20


def part_totals(path: Path, shard: Shard, schema: pa.Schema) -> Totals:
    """Return what the footer of a part says, after making sure that it is the part of this shard.

    Raises:
        StorageError: it is not, or it is damaged.
    """
    with _readable(path):
        metadata = pq.read_metadata(path)
        footer = metadata.metadata or {}
        totals = Totals(**orjson.loads(footer[b"batcher.totals"]))
        names = metadata.schema.to_arrow_schema().names
    if footer.get(b"batcher.shard") != b"%d" % shard.number or metadata.num_rows != shard.rows or names != schema.names:
        raise StorageError(f"{path} does not belong to this run")
    return totals


def part_rows(path: Path, shard: Shard, wanted: Wanted, first: int, end: int) -> Iterator[pa.RecordBatch]:
    """Yield what is wanted of the rows from `first` to `end`; both are row indexes of the whole input.

    Raises:
        StorageError: the part is damaged.
    """
    with _readable(path), _opened(path) as file:
        start = shard.first_row
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            stop = start + metadata.num_rows
            if stop > first and start < end and _may_hold(metadata, wanted):
                for batch in file.iter_batches(_BATCH_ROWS, [group], columns=wanted.needed):
                    skipped = max(0, first - start)
                    yield from wanted.chosen(batch.slice(skipped, max(0, end - start - skipped)))
                    start += batch.num_rows
            start = stop


def renewed_rows(
    path: Path, shard: Shard, wanted: Wanted, journal: JournalsReader, first: int, end: int
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the needed columns of the rows from `first` to `end` of a part, with their newer outcomes in the journal.

    Beside each batch stands the index of the row that follows it.

    Raises:
        StorageError: the part is damaged, or the journal cannot be read.
    """
    every = replace(wanted, names=list(dict.fromkeys([*wanted.needed, wanted.status_column])), status=None)
    for batch in part_rows(path, shard, every, first, end):
        while batch.num_rows:
            found = journal.outcomes(first, first + batch.num_rows)  # perhaps not all: they may be large
            rows = batch.slice(0, found[-1].row_index + 1 - first) if found else batch
            batch = batch.slice(rows.num_rows)
            newer = renewed(rows, found, first, wanted.prefix, wanted.answers).select(wanted.needed)
            first += rows.num_rows
            yield newer, first


def _opened(path: Path) -> pq.ParquetFile:
    # with pre_buffer, or without a buffer size, whole files are held in memory
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES, page_checksum_verification=True)


def _may_hold(group: Any, wanted: Wanted) -> bool:
    """Whether the row group can hold a row of the wanted status, as its statistics tell."""
    if wanted.status is None:
        return True
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == wanted.status_column)
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= wanted.status <= statistics.max)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the disk or the decoder raises into a `StorageError` that names the part."""
    try:
        yield
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is not a whole part: {error}") from error
