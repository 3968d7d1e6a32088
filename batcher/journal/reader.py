"""The journal for those who only look: what the open shards hold at the moment of each question.

Opens the SQLite file read-only, through its write-ahead log, so that it sees what a running process committed last. A
question is one short read; between two of them nothing is held that a writer, a checkpoint or a start would wait for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from batcher.errors import StorageError
from batcher.journal.reopened import add_waiting, reopenings_of
from batcher.journal.tables import open_totals, outcomes_between, part_of
from batcher.records import Outcome, Totals

T = TypeVar("T")


class JournalReader:
    """Answers questions about a journal that may not exist yet, be written at the moment, or be left by a crash.

    Every method raises StorageError if the file cannot be read. Use from one thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def outcomes(self, first_row: int, end_row: int, *, max_bytes: int = 8 << 20) -> list[Outcome]:
        """Return outcomes in row order, from `first_row` up to, not including, `end_row`.

        Stops early, after at least one, once the bodies exceed `max_bytes`; ask again for the rest.
        """
        return self._ask(lambda db: outcomes_between(db, first_row, end_row, max_bytes), [])

    def holds_outcomes(self, first_row: int, end_row: int) -> bool:
        """Whether any row of the range has an outcome here."""
        query = "SELECT EXISTS (SELECT 1 FROM outcomes WHERE row_index >= ? AND row_index < ?)"
        return self._ask(lambda db: bool(db.execute(query, (first_row, end_row)).fetchone()[0]), False)

    def knows_part(self, shard: int) -> bool:
        """Whether the part of this shard was published."""
        query = "SELECT EXISTS (SELECT 1 FROM parts WHERE shard = ?)"
        return self._ask(lambda db: bool(db.execute(query, (shard,)).fetchone()[0]), False)

    def totals(self, ranges: Sequence[tuple[int, int]]) -> Totals:
        """Return the sums over the outcomes and attempts of the rows in `ranges` (first row, end), at one moment."""
        return self._ask(partial(_totals, ranges=ranges), Totals())

    def reopened(self) -> frozenset[int]:
        """Return the numbers of the shards some rows of whose part are being asked again."""
        return self._ask(lambda db: frozenset(reopenings_of(db)), frozenset())

    def reopened_totals(self, shard: int, first_row: int, end_row: int) -> tuple[Totals, int] | None:
        """Return the sums over a reopened part with its newer outcomes, and how many rows have none yet.

        The latter count as they stood. None if the part is not known here.
        """
        return self._ask(partial(_reopened_totals, shard=shard, first_row=first_row, end_row=end_row), None)

    def on_their_way(self) -> int:
        """Return how many rows are noted as sent and not answered: in flight, or orphaned if the process is gone."""
        query = "SELECT count(*) FROM attempts WHERE leased = 1"
        return self._ask(lambda db: int(db.execute(query).fetchone()[0]), 0)

    def attempts(self, row_index: int) -> int:
        """Return how often a row without an outcome was asked so far; what is on its way is not counted."""
        query = "SELECT attempts FROM attempts WHERE row_index = ?"
        return self._ask(lambda db: int((db.execute(query, (row_index,)).fetchone() or (0,))[0]), 0)

    def close(self) -> None:
        """Give the file back."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """Return the answer, or `nothing` if there is no journal yet."""
        try:
            if self._db is None:
                self._db = _look_into(self._path)
            return nothing if self._db is None else question(self._db)
        except (sqlite3.Error, OSError) as error:
            if not self._path.exists():  # taken away just now; what it held is in the first journal
                self.close()
                return nothing
            raise StorageError(f"{self._path} cannot be read: {error}") from error


def _look_into(path: Path) -> sqlite3.Connection | None:
    """Open a journal for reading; None if there is none, or one whose tables are only being made."""
    if not path.exists():
        return None
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    ready = False
    try:
        for pragma in ("query_only = ON", "mmap_size = 0", "trusted_schema = OFF"):
            db.execute(f"PRAGMA {pragma}")
        # the table that is made last
        ready = bool(db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'parts'").fetchone()[0])
    finally:
        if not ready:
            db.close()
    return db if ready else None


def _totals(db: sqlite3.Connection, ranges: Sequence[tuple[int, int]]) -> Totals:
    totals = Totals()
    db.execute("BEGIN")
    try:
        for bounds in ranges:
            totals.add(open_totals(db, *bounds))
    finally:
        db.execute("ROLLBACK")
    return totals


def _reopened_totals(db: sqlite3.Connection, shard: int, first_row: int, end_row: int) -> tuple[Totals, int] | None:
    db.execute("BEGIN")
    try:
        part = db.execute("SELECT * FROM parts WHERE shard = ?", (shard,)).fetchone()
        if part is None:  # moved to another journal just now
            return None
        totals = part_of(part).totals
        reopening = reopenings_of(db).get(shard)
        if reopening is None:  # replaced just now
            return totals, 0
        totals.take_away(reopening.moved)
        totals.add(open_totals(db, first_row, end_row))
        before = totals.rows
        add_waiting(db, first_row, end_row, totals)
        return totals, totals.rows - before
    finally:
        db.execute("ROLLBACK")
