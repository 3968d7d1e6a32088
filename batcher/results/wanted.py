"""Which columns and rows a reader wants, and how they come from the journal and the input while there is no part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batcher.journal import JournalsReader
from batcher.part import RESULT, result_columns
from batcher.plan import Plan
from batcher.records import Outcome, Shard, Status, Totals
from batcher.source import read
from batcher.structured.columns import AnswerColumns


@dataclass(frozen=True, slots=True)
class Wanted:
    """Columns, in the order asked for, and perhaps the rows of one status only."""

    #: all columns there are, those among them that come from the input, and what the others' names begin with
    schema: pa.Schema
    inputs: Sequence[str]
    prefix: str
    names: Sequence[str]
    status: Status | None
    #: what answers with a schema add to the columns of `RESULT`
    answers: AnswerColumns | None = None

    def __post_init__(self) -> None:
        known = set(self.schema.names)
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise ValueError(f"no column {', '.join(map(repr, unknown))}; there are {', '.join(self.schema.names)}")

    @property
    def status_column(self) -> str:
        """The column that says which rows are left out."""
        return self.prefix + "status"

    @property
    def needed(self) -> list[str]:
        """The columns to read."""
        if self.status is None or self.status_column in self.names:
            return list(self.names)
        return [*self.names, self.status_column]

    @property
    def carried(self) -> pa.Schema:
        """Those among them that come from the input."""
        inputs = set(self.inputs)
        return pa.schema([self.schema.field(name) for name in self.names if name in inputs])

    def chosen(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield of a batch of the needed columns what is wanted, if there is any."""
        if self.status is not None:
            batch = batch.filter(pc.equal(batch.column(self.status_column), self.status))
        if batch.num_rows:
            fields = [self.schema.field(name) for name in self.names]
            arrays = [batch.column(field.name).cast(field.type) for field in fields]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def without_part(self, outcomes: list[Outcome], carried: pa.RecordBatch | None) -> pa.RecordBatch:
        """Return the needed columns of rows whose outcomes and input columns were read."""
        fields = [*RESULT, *(self.answers.fields if self.answers else ())]
        names = [self.prefix + field.name for field in fields]
        arrays = dict(zip(names, result_columns(outcomes, Totals(), self.answers), strict=True))
        if carried is not None:
            arrays |= zip(carried.schema.names, carried.columns, strict=True)
        return pa.RecordBatch.from_arrays([arrays[name] for name in self.needed], self.needed)


def open_rows(
    plan: Plan, shard: Shard, journal: JournalsReader, wanted: Wanted, first: int, end: int
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the needed columns of the rows from `first` to `end` that have an outcome in the journal.

    Beside each batch stands the index of the row that follows it.
    """
    if not journal.holds_outcomes(first, end):
        return
    carried = wanted.carried
    if not carried.names:
        yield from ((wanted.without_part(found, None), row) for found, row in _outcomes(journal, first, end))
        return
    for chunk in read(plan.files, [shard], carried):
        start = chunk.rows[0].row_index
        stop = start + len(chunk.rows)
        for found, row in _outcomes(journal, max(first, start), min(end, stop)):
            columns = chunk.carried.take(pa.array([outcome.row_index - start for outcome in found]))
            yield wanted.without_part(found, columns), row
        if stop >= end:
            return


def _outcomes(journal: JournalsReader, first: int, end: int) -> Iterator[tuple[list[Outcome], int]]:
    """Outcomes in row order, some MB at a time, and the row after each."""
    while first < end and (found := journal.outcomes(first, end)):
        first = found[-1].row_index + 1
        yield found, first
