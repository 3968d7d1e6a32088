"""A part made anew: the rows of the old one, with newer outcomes in the place of some.

A row that was completed keeps its answer if its new attempt failed; only what it used grows. Every other row takes its
new outcome as it is. Outcomes hold the sums of all rounds, so that to renew rows twice changes nothing.

This module does not know where outcomes come from, and never gives a file its final name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.errors import StorageError
from batcher.part import RESULT, PartFormat, check_part, result_columns, write_rows
from batcher.records import Outcome, Shard, Spent, Totals
from batcher.structured.columns import AnswerColumns

#: columns of what a row used, in all rounds together
_COUNTED = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd", "attempts")
_BATCH_ROWS = 1024
_READ_AHEAD_BYTES = 1 << 20


def renew_part(
    temporary: Path,
    old: Path,
    shard: Shard,
    form: PartFormat,
    outcomes: Callable[[int, int], list[Outcome]],
    *,
    revision: int,
) -> Totals:
    """Write and sync the part that is to take the place of `old`, and return its totals; memory stays flat.

    `outcomes(first, end)` returns the newer outcomes of rows `first` to `end` in order, possibly fewer than there are.

    Raises:
        StorageError: the old part is not whole. OSError: the new one cannot be written; nothing is left of it.
    """
    before = check_part(old, shard, form)
    # of which rows these are a part does not say
    totals = Totals(ambiguous=before.ambiguous, cached_tokens=before.cached_tokens)
    write_rows(temporary, shard, form, _renewed_rows(old, shard, form, outcomes, totals), totals, revision=revision)
    return totals


def renewed(
    batch: pa.RecordBatch,
    outcomes: Sequence[Outcome],
    first_row: int,
    prefix: str,
    answers: AnswerColumns | None = None,
) -> pa.RecordBatch:
    """Return rows of a part with some outcomes in the place of those that they had.

    `batch` begins with row `first_row`, and has the column `status` and any others; `prefix` stands before the names of
    the columns that batcher added, those of `answers` among them.
    """
    if not outcomes:
        return batch
    names = [prefix + field.name for field in (*RESULT, *(answers.fields if answers else ()))]
    newer = dict(zip(names, result_columns([*outcomes], Totals(), answers), strict=True))
    places = [outcome.row_index - first_row for outcome in outcomes]
    was, now = batch.column(prefix + "status").to_pylist(), newer[prefix + "status"].to_pylist()
    taken, counted = list(range(batch.num_rows)), list(range(batch.num_rows))
    for number, place in enumerate(places):
        counted[place] = batch.num_rows + number
        if now[number] == "completed" or was[place] == "failed":
            taken[place] = batch.num_rows + number
    sums = {prefix + name for name in _COUNTED}

    def column(name: str) -> pa.Array:
        old = batch.column(name)
        if name not in newer:
            return old
        both = pa.concat_arrays([old, newer[name].cast(old.type)])
        return both.take(pa.array(counted if name in sums else taken))

    return pa.RecordBatch.from_arrays([column(name) for name in batch.schema.names], schema=batch.schema)


def revision_of(path: Path) -> int:
    """Return how often the part of this shard was replaced before this one.

    Raises:
        StorageError: it is no whole part.
    """
    try:
        return int((pq.read_metadata(path).metadata or {})[b"batcher.revision"])
    except (OSError, pa.ArrowException, LookupError, ValueError) as error:
        raise StorageError(f"{path} is not a whole part: {error}") from error


def _renewed_rows(
    old: Path, shard: Shard, form: PartFormat, outcomes: Callable[[int, int], list[Outcome]], totals: Totals
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of the new part, and add up `totals`."""
    start = shard.first_row
    for batch in _rows_of(old, form):
        first, end = start, start + batch.num_rows
        while start < end:
            found = outcomes(start, end)
            stop = found[-1].row_index + 1 if found else end
            rows = renewed(batch.slice(start - first, stop - start), found, start, form.prefix, form.answers)
            for outcome in found:
                totals.ambiguous += outcome.ambiguous
                totals.cached_tokens += outcome.cached_tokens or 0
            _count(rows, form.prefix, totals)
            if form.answers:
                totals.invalid += rows.column(form.prefix + "valid").to_pylist().count(False)
            yield rows
            start = stop


def _rows_of(old: Path, form: PartFormat) -> Iterator[pa.RecordBatch]:
    schema = form.schema
    try:
        # with pre_buffer, or without a buffer size, whole files are held in memory
        with pq.ParquetFile(
            old, pre_buffer=False, buffer_size=_READ_AHEAD_BYTES, page_checksum_verification=True
        ) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                arrays = [array.cast(field.type) for array, field in zip(batch.columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, ValueError) as error:
        raise StorageError(f"{old} is not a whole part: {error}") from error


def _count(rows: pa.RecordBatch, prefix: str, totals: Totals) -> None:
    """Add up rows, all but what a part does not say of each."""
    names = ("status", "job_version", "prompt_tokens", "completion_tokens", "cost_usd")
    columns = (rows.column(prefix + name).to_pylist() for name in names)
    for status, job_version, prompt_tokens, completion_tokens, cost_usd in zip(*columns, strict=True):
        totals.count_row(completed=status == "completed", job_version=job_version)
        totals.count(Spent(prompt_tokens, None, completion_tokens, cost_usd))
