"""The journal: a SQLite file that holds, row by row, what the open shards have received so far.

How entries become durable is the writer's part; here is what can be asked and changed between them. The journal does
not know what a completion is.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import orjson

from batcher.errors import StorageError
from batcher.journal.reopened import (
    ReopenedRow,
    Reopening,
    reopen,
    reopened_between,
    reopenings_of,
    replaced,
)
from batcher.journal.rescue import find_rescued
from batcher.journal.tables import (
    END,
    Part,
    insert,
    measured,
    note_part,
    open_drafts,
    open_totals,
    outcomes_between,
    part_of,
)
from batcher.journal.writer import Writer
from batcher.measured import Measured
from batcher.records import Draft, Outcome, Shard, Spent, Totals

_log = logging.getLogger(__name__)

#: rows deleted in one transaction once their part is published: about 10 ms, so that commits don't queue behind it
_FORGET_ROWS = 1000
#: tables that hold rows of open and reopened shards only
_OF_ROWS = ("outcomes", "attempts", "drafts", "reopened_rows")


class Journal(Writer):
    """Durable memory of the open shards.

    The methods here are answered on the journal's thread while the caller waits: never call them on an event loop.
    """

    def take_over_rescued(self) -> int:
        """Take over the answers that an earlier run saved elsewhere; return how many of them are news.

        Raises:
            StorageError: a file of them is damaged, or the journal cannot take them. They stay where they are.
        """
        all_news = 0
        for rescued in find_rescued(self.path.parent, self._run):
            with rescued:
                news = sum(self._call(partial(insert, batch=batch)) for batch in rescued.batches())
            try:
                rescued.remove()
            except OSError as error:
                raise StorageError(f"{rescued.path} cannot be removed: {error.strerror or error}") from error
            _log.info("took over %d answers that an earlier run saved in %s", news, rescued.path)
            all_news += news
        return all_news

    def recover(self) -> int:
        """Count every leased row as one attempt that may have been paid for; return how many there were."""

        def ask(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE attempts SET leased = 0, attempts = attempts + 1, ambiguous = ambiguous + 1 WHERE leased = 1"
            ).rowcount

        return self._call(ask)

    def attempts(self, shard: Shard | None = None) -> dict[int, tuple[int, int]]:
        """Return `row_index -> (attempts, ambiguous)` of rows that were sent before and have no outcome."""
        query = (
            "SELECT row_index, attempts, ambiguous FROM attempts"
            " WHERE attempts > 0 AND row_index >= ? AND row_index < ?"
        )
        return self._call(lambda db: {row: (tries, unsure) for row, tries, unsure in db.execute(query, _rows(shard))})

    def spent(self, shard: Shard | None = None) -> dict[int, Spent]:
        """Return what rows without an outcome have used so far, those that have used anything."""
        query = "SELECT row_index, spent FROM attempts WHERE spent IS NOT NULL AND row_index >= ? AND row_index < ?"
        return self._call(
            lambda db: {row: Spent(**orjson.loads(used)) for row, used in db.execute(query, _rows(shard))}
        )

    def drafts(self) -> dict[int, Draft]:
        """Return `row_index -> draft` of rows that were about to be asked for a better answer, and have no outcome."""
        return self._call(open_drafts)

    def rows_with_outcome(self, shard: Shard) -> set[int]:
        """Return the row indexes of `shard` that have an outcome."""
        query = "SELECT row_index FROM outcomes WHERE row_index >= ? AND row_index < ?"
        return self._call(lambda db: {row for (row,) in db.execute(query, (shard.first_row, shard.end_row))})

    def outcomes(self, first_row: int, end_row: int, *, max_bytes: int = 8 << 20) -> list[Outcome]:
        """Return outcomes in row order, from `first_row` up to, not including, `end_row`.

        Stops early, after at least one, once the bodies exceed `max_bytes`; ask again for the rest.
        """
        return self._call(lambda db: outcomes_between(db, first_row, end_row, max_bytes))

    def open_totals(self) -> Totals:
        """Return the sums over all outcomes and attempts that are not in a part yet."""

        return self._call(open_totals)

    def measured(self) -> Measured:
        """Return what the completed rows used whose shard is not published."""
        return self._call(measured)

    def parts(self) -> dict[int, Part]:
        """Return the published parts by shard number."""

        def ask(db: sqlite3.Connection) -> dict[int, Part]:
            return {part.shard: part for part in map(part_of, db.execute("SELECT * FROM parts"))}

        return self._call(ask)

    def published(self, part: Part) -> None:
        """Note that a part is in place, and that its rows are not reopened any more; return when that is durable."""

        def note(db: sqlite3.Connection) -> None:
            note_part(db, part)
            replaced(db, part.shard, part.revision)

        self._call(note)

    def forget(self, shard: Shard) -> None:
        """Delete what is known of the rows of a shard whose part is published."""
        for first in range(shard.first_row, shard.end_row, _FORGET_ROWS):
            bounds = (first, min(first + _FORGET_ROWS, shard.end_row))

            def drop(db: sqlite3.Connection, bounds: tuple[int, int] = bounds) -> None:
                for table in _OF_ROWS:
                    db.execute(f"DELETE FROM {table} WHERE row_index >= ? AND row_index < ?", bounds)  # noqa: S608

            self._call(drop)

    def forget_published(self, shards: Sequence[Shard]) -> None:
        """Delete what a crash left of the rows of shards that are published, all at once; for the start of a run."""

        def drop(db: sqlite3.Connection) -> None:
            for table in _OF_ROWS:
                bounds = ((shard.first_row, shard.end_row) for shard in shards)
                db.executemany(f"DELETE FROM {table} WHERE row_index >= ? AND row_index < ?", bounds)  # noqa: S608

        self._call(drop)

    # -- rows that are asked again

    def reopen(self, chosen: Callable[[], Iterable[Reopening]]) -> int:
        """Note in one transaction which rows of published parts are asked again; return how many.

        `chosen` is called on the journal's thread, and again should the disk be full at first.
        """
        return self._call(lambda db: reopen(db, chosen()))

    def reopenings(self) -> dict[int, Reopening]:
        """Return by shard number the parts some rows of which are asked again; without these rows."""
        return self._call(reopenings_of)

    def reopened_rows(self, shard: Shard) -> dict[int, ReopenedRow]:
        """Return the rows of a reopened shard that are asked again, or were, by row index."""
        return self._call(lambda db: reopened_between(db, shard.first_row, shard.end_row))


def _rows(shard: Shard | None) -> tuple[int, int]:
    """The first row and the end of a shard, or of all."""
    return (0, END) if shard is None else (shard.first_row, shard.end_row)
