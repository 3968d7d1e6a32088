"""The journal: a SQLite file that holds, row by row, what the open shards have received so far.

One connection, used by one thread. Everybody else hands over entries and goes on; the thread takes all entries that
wait, writes them in one transaction with one fsync, and only then reports them as committed. There is no timer: while
one commit runs, the next batch gathers.

The journal does not know what a completion is. After an error of the storage it acknowledges nothing any more, since
an fsync that failed once may seem to succeed later although the data is gone.
"""

from __future__ import annotations

import sqlite3
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from batcher.errors import StorageError
from batcher.journal.reserve import Reserve
from batcher.journal.tables import (
    Batch,
    Part,
    connect,
    in_transaction,
    measured,
    open_totals,
    outcome_of,
    write,
)
from batcher.measured import Measured
from batcher.records import Outcome, Shard, Spent, Totals

T = TypeVar("T")

#: rows deleted in one transaction once their part is published: about 10 ms, so that commits don't queue behind it
_FORGET_ROWS = 1000


class Journal:
    """Durable memory of the open shards.

    On the journal's thread are called: `committed` with each batch after its commit; `full` once, when the disk is full
    and only the reserve is left for the answers that are on their way; `broke` once, with the error after which nothing
    is acknowledged any more. They must be set before the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committed: Callable[[Batch], None] = _ignore
        self.full: Callable[[StorageError], None] = _ignore
        self.broke: Callable[[StorageError], None] = _ignore
        self._reserve = Reserve(path.with_suffix(".reserve"))
        self._waiting = Batch()
        self._wake = threading.Condition()
        self._closing = False
        self._error: StorageError | None = None
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(opened,), name="journal", daemon=True)
        self._thread.start()
        opened.result()

    # -- entries: handed over by any thread, durable when `committed` reports them

    def lease(self, rows: Sequence[int]) -> None:
        """Note that `rows` are about to be sent; send them when this is committed."""
        with self._wake:
            self._waiting.leases.extend(rows)
            self._wake.notify()

    def release(self, row_index: int, *, attempts: int, ambiguous: int, spent: Spent | None = None) -> None:
        """Note that a leased row is not on its way any more, the attempts made for it so far and what they used."""
        used = None if spent is None else orjson.dumps(spent).decode()
        with self._wake:
            self._waiting.releases.append((attempts, ambiguous, used, row_index))
            self._wake.notify()

    def record(self, outcome: Outcome) -> None:
        """Note a row's outcome; it counts when this is committed."""
        with self._wake:
            self._waiting.outcomes.append(outcome)
            self._wake.notify()

    def lay_in_reserve(self) -> None:
        """Keep room for the answers that are on their way when the disk fills up.

        Raises:
            StorageError: there is not even that much room; nothing should be sent.
        """
        try:
            self._reserve.lay_in()
        except OSError as error:
            raise self._storage_error(error) from error

    # -- questions: answered on the journal's thread, the caller waits (never call these on an event loop)

    def recover(self) -> int:
        """Count every leased row as one attempt that may have been paid for; return how many there were."""

        def ask(db: sqlite3.Connection) -> int:
            return db.execute(
                "UPDATE attempts SET leased = 0, attempts = attempts + 1, ambiguous = ambiguous + 1 WHERE leased = 1"
            ).rowcount

        return self._call(ask)

    def attempts(self) -> dict[int, tuple[int, int]]:
        """Return `row_index -> (attempts, ambiguous)` of rows that were sent before and have no outcome."""
        query = "SELECT row_index, attempts, ambiguous FROM attempts WHERE attempts > 0"
        return self._call(lambda db: {row: (tries, unsure) for row, tries, unsure in db.execute(query)})

    def spent(self) -> dict[int, Spent]:
        """Return what rows without an outcome have used so far, those that have used anything."""
        query = "SELECT row_index, spent FROM attempts WHERE spent IS NOT NULL"
        return self._call(lambda db: {row: Spent(**orjson.loads(used)) for row, used in db.execute(query)})

    def rows_with_outcome(self, shard: Shard) -> set[int]:
        """Return the row indexes of `shard` that have an outcome."""
        query = "SELECT row_index FROM outcomes WHERE row_index >= ? AND row_index < ?"
        return self._call(lambda db: {row for (row,) in db.execute(query, (shard.first_row, shard.end_row))})

    def outcomes(self, first_row: int, end_row: int, *, max_bytes: int = 8 << 20) -> list[Outcome]:
        """Return outcomes in row order, from `first_row` up to, not including, `end_row`.

        Stops early, after at least one, once the bodies exceed `max_bytes`; ask again for the rest.
        """
        query = "SELECT * FROM outcomes WHERE row_index >= ? AND row_index < ? ORDER BY row_index"

        def ask(db: sqlite3.Connection) -> list[Outcome]:
            found, size = [], 0
            for row in db.execute(query, (first_row, end_row)):
                found.append(outcome_of(row))
                size += len(found[-1].body)
                if size > max_bytes:
                    break
            return found

        return self._call(ask)

    def open_totals(self) -> Totals:
        """Return the sums over all outcomes and attempts that are not in a part yet."""

        return self._call(open_totals)

    def measured(self) -> Measured:
        """Return what the completed rows used whose shard is not published."""
        return self._call(measured)

    def parts(self) -> dict[int, Part]:
        """Return the published parts by shard number."""

        def ask(db: sqlite3.Connection) -> dict[int, Part]:
            rows = db.execute("SELECT shard, size_bytes, totals FROM parts")
            return {shard: Part(shard, size, Totals(**orjson.loads(totals))) for shard, size, totals in rows}

        return self._call(ask)

    def published(self, part: Part) -> None:
        """Note that a part is in place; return when that is durable."""
        values = (part.shard, part.size_bytes, orjson.dumps(asdict(part.totals)).decode())

        def note(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", values)

        self._call(note)

    def forget(self, shard: Shard) -> None:
        """Delete what is known of the rows of a shard whose part is published."""
        for first in range(shard.first_row, shard.end_row, _FORGET_ROWS):
            bounds = (first, min(first + _FORGET_ROWS, shard.end_row))

            def drop(db: sqlite3.Connection, bounds: tuple[int, int] = bounds) -> None:
                db.execute("DELETE FROM outcomes WHERE row_index >= ? AND row_index < ?", bounds)
                db.execute("DELETE FROM attempts WHERE row_index >= ? AND row_index < ?", bounds)

            self._call(drop)

    def forget_published(self, shards: Sequence[Shard]) -> None:
        """Delete what a crash left of the rows of shards that are published, all at once; for the start of a run."""

        def drop(db: sqlite3.Connection) -> None:
            for table in ("outcomes", "attempts"):
                bounds = ((shard.first_row, shard.end_row) for shard in shards)
                db.executemany(f"DELETE FROM {table} WHERE row_index >= ? AND row_index < ?", bounds)  # noqa: S608

        self._call(drop)

    def tell(
        self,
        loop: AbstractEventLoop,
        committed: Callable[[Batch], None],
        full: Callable[[StorageError], None],
        broke: Callable[[StorageError], None],
    ) -> None:
        """Have these called on an event loop, until `tell_nobody`."""
        self.committed = lambda batch: _on(loop, committed, batch)
        self.full = lambda error: _on(loop, full, error)
        self.broke = lambda error: _on(loop, broke, error)

    def tell_nobody(self) -> None:
        """Go on committing without telling anybody."""
        self.committed, self.full, self.broke = _ignore, _ignore, _ignore

    def close(self) -> None:
        """Commit what waits and end. Raises StorageError if that failed."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    # -- the journal's own thread

    def _call(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """Run `ask` in a transaction of the journal's thread and return its answer."""
        answer: Future[T] = Future()
        with self._wake:
            if self._error is not None:
                raise self._error
            self._waiting.calls.append((ask, answer))
            self._wake.notify()
        return answer.result()

    def _serve(self, opened: Future[None]) -> None:
        try:
            db = connect(self.path)
        except (sqlite3.Error, OSError) as error:
            opened.set_exception(self._storage_error(error))
            return
        opened.set_result(None)
        batch: Batch | None = None
        try:
            while (batch := self._next_batch()) is not None:
                if batch.entries:
                    self._with_reserve(db, partial(write, db, batch))
                    self.committed(batch)
                while batch.calls:
                    ask, answer = batch.calls[0]
                    answer.set_result(self._with_reserve(db, partial(in_transaction, db, ask)))
                    del batch.calls[0]
        except Exception as error:  # not only SQLite's: whatever it was, nothing more may be acknowledged
            self._break(self._storage_error(error), batch or Batch())
        finally:
            db.close()
            self._reserve.give_up()

    def _with_reserve(self, db: sqlite3.Connection, write_all: Callable[[], T]) -> T:
        """Write; on a full disk, at the cost of the reserve. Raises what SQLite does if that is used up."""
        try:
            return write_all()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL or not self._reserve.give_up():
                raise
            if db.in_transaction:
                db.execute("ROLLBACK")
            result = write_all()
            self.full(self._storage_error(error))
            return result

    def _next_batch(self) -> Batch | None:
        """Wait for entries and take all of them; None once closed and empty."""
        with self._wake:
            while not self._waiting.entries and not self._waiting.calls:
                if self._closing:
                    return None
                self._wake.wait()
            batch, self._waiting = self._waiting, Batch()
            return batch

    def _break(self, error: StorageError, batch: Batch) -> None:
        with self._wake:
            self._error = error
        for _, answer in (*batch.calls, *self._waiting.calls):
            answer.set_exception(error)
        self.broke(error)

    def _storage_error(self, error: Exception) -> StorageError:
        return StorageError(
            f"{self.path}: {error}. What was acknowledged before is safe; free or repair the storage and run the same"
            " command again"
        )


def _ignore(_: object) -> None:
    """For news that nobody waits for."""


def _on(loop: AbstractEventLoop, callback: Callable[[T], None], news: T) -> None:
    """Call on the loop from the journal's thread; a loop that has ended needs no telling."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, news)
