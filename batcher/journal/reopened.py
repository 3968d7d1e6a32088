"""Rows of published parts that are asked again: the statements on the journal's tables for them.

reopenings     parts some rows of which are being asked again. `revision` is what the part that takes the old one's
               place will have; `moved` is what these rows contribute to the old one's totals
reopened_rows  which rows these are and how they stood. kept = 1: the row was completed, and stays as it is should the
               new attempt fail

What a row had used before it was reopened is put into `attempts`, as if it had never had an outcome, so that its next
outcome holds the sums of all rounds. An entry of `reopenings` is what counts; rows without one are remains.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from batcher.journal.tables import Damaged
from batcher.records import Spent, Totals


@dataclass(frozen=True, slots=True)
class ReopenedRow:
    """A row that is asked again, and how it stood."""

    row_index: int
    #: it is completed, and keeps the answer that it has if it gets no better one
    kept: bool
    #: it is completed with an answer that does not match the job's schema
    invalid: bool
    #: where its answer or failure came from
    job_version: int
    #: why it had failed
    code: str | None = None
    http_status: int | None = None
    #: attempts made so far and what they used; not read back with the row, but with all attempts
    attempts: int = 0
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class Reopening:
    """A part some rows of which are asked again."""

    shard: int
    #: of the part that takes the place of the one that is there
    revision: int
    #: which rows were wanted, in words that can be compared
    selection: str
    #: what the rows contribute to the totals of the part that is there
    moved: Totals
    #: not read back with the entry
    rows: Sequence[ReopenedRow] = ()


def moved_by(rows: Iterable[ReopenedRow]) -> Totals:
    """Return what rows contribute to the totals of their part.

    A part does not say of which rows its cached tokens and unsure attempts are, so those stay with the part.
    """
    moved = Totals()
    for row in rows:
        moved.count_row(completed=row.kept, job_version=row.job_version)
        moved.invalid += row.invalid
        moved.count(row.spent)
    return moved


def reopen(db: sqlite3.Connection, reopenings: Iterable[Reopening]) -> int:
    """Note, within a transaction, that rows are to be asked again; return how many."""
    count = 0
    for one in reopenings:
        moved = orjson.dumps(asdict(one.moved)).decode()
        entry = (one.shard, one.revision, one.selection, moved)
        db.execute("INSERT INTO reopenings VALUES (?,?,?,?,?)", (*entry, _checksum(entry)))
        db.executemany("INSERT OR REPLACE INTO reopened_rows VALUES (?,?,?,?,?,?,?)", map(_values_of, one.rows))
        used = [(row.row_index, row.attempts, _json_of(row.spent)) for row in one.rows if row.attempts]
        db.executemany("INSERT OR REPLACE INTO attempts VALUES (?, ?, 0, 0, ?)", used)
        count += len(one.rows)
    return count


def reopenings_of(db: sqlite3.Connection) -> dict[int, Reopening]:
    """Return by shard number what is reopened, without the rows."""
    found = {}
    for *values, checksum in db.execute("SELECT * FROM reopenings ORDER BY shard"):
        if checksum != _checksum(tuple(values)):
            raise Damaged(f"the entry of the reopened part {values[0]} is not what was written")
        shard, revision, selection, moved = values
        found[shard] = Reopening(shard, revision, selection, Totals(**orjson.loads(moved)))
    return found


def reopened_between(db: sqlite3.Connection, first_row: int, end_row: int) -> dict[int, ReopenedRow]:
    """Return the reopened rows of a range by row index."""
    found = {}
    query = "SELECT * FROM reopened_rows WHERE row_index >= ? AND row_index < ?"
    for *values, checksum in db.execute(query, (first_row, end_row)):
        if checksum != _checksum(tuple(values)):
            raise Damaged(f"the entry of the reopened row {values[0]} is not what was written")
        row_index, kept, invalid, job_version, code, http_status = values
        found[row_index] = ReopenedRow(row_index, bool(kept), bool(invalid), job_version, code, http_status)
    return found


def replaced(db: sqlite3.Connection, shard: int, revision: int) -> None:
    """Note, within a transaction, that the part of this revision is in place."""
    db.execute("DELETE FROM reopenings WHERE shard = ? AND revision <= ?", (shard, revision))


def add_waiting(db: sqlite3.Connection, first_row: int, end_row: int, totals: Totals) -> None:
    """Count the reopened rows of a range that have no new outcome yet, as they stood; what they used is counted."""
    query = (
        "SELECT kept, job_version, count(*), sum(invalid) FROM reopened_rows WHERE row_index >= ? AND row_index < ?"
        " AND row_index NOT IN (SELECT row_index FROM outcomes WHERE row_index >= ? AND row_index < ?)"
        " GROUP BY kept, job_version"
    )
    for kept, job_version, rows, invalid in db.execute(query, (first_row, end_row, first_row, end_row)):
        totals.count_row(completed=bool(kept), job_version=job_version, rows=rows)
        totals.invalid += invalid


def _values_of(row: ReopenedRow) -> tuple[Any, ...]:
    values = (row.row_index, int(row.kept), int(row.invalid), row.job_version, row.code, row.http_status)
    return (*values, _checksum(values))


def _json_of(spent: Spent) -> str | None:
    return None if spent == Spent() else orjson.dumps(spent).decode()


def _checksum(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode())
