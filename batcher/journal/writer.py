"""The journal's thread: takes entries from everybody, and makes them durable before it says so.

One connection, used by one thread. Everybody else hands over entries and goes on; the thread takes all entries that
wait, writes them in one transaction with one fsync, and only then reports them as committed. There is no timer: while
one commit runs, the next batch gathers.

On a full disk the reserve is given up, and what does not fit even then waits for room. After any other error nothing
goes through the connection any more, since an fsync that failed once may seem to succeed later although the data is
gone: what still arrives is saved elsewhere (see `rescue`).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from batcher.errors import StorageError
from batcher.journal.listener import Listener, Nobody, OnLoop
from batcher.journal.opening import connect, storage_error
from batcher.journal.rescue import Rescue
from batcher.journal.reserve import Reserve, Room
from batcher.journal.tables import Batch, in_transaction, insert
from batcher.records import Draft, Outcome, Spent

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Writer:
    """Makes entries durable in the order in which they come.

    `listener` is called on the journal's thread; `tell` sets one that is called on an event loop.
    """

    def __init__(
        self,
        path: Path,
        *,
        run: str = "",
        max_full_disk_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        self.path = path
        self.listener: Listener = Nobody()
        self._run = run
        self._reserve = Reserve(path.with_suffix(".reserve"))
        self._room = Room(self._reserve, max_full_disk_s, clock)
        self._rescue = Rescue(path.parent, run)
        self._wait = wait
        #: handed over, and taken from there by the thread but not finished
        self._waiting, self._taken = Batch(), Batch()
        self._wake = threading.Condition()
        self._closing = False
        #: why nothing fits on the disk; why nothing is written any more, and whether it is saved elsewhere
        self._full: StorageError | None = None
        self._error: StorageError | None = None
        self._saving = True
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

    def release(
        self, row_index: int, *, attempts: int, ambiguous: int, spent: Spent | None = None, draft: Draft | None = None
    ) -> None:
        """Note that a leased row is not on its way any more, the attempts made for it so far and what they used.

        `draft`: the answer that the last of them brought, in case no better one comes.
        """
        used = None if spent is None else orjson.dumps(spent).decode()
        with self._wake:
            self._waiting.releases.append((attempts, ambiguous, used, row_index))
            if draft is not None:
                self._waiting.drafts.append(draft)
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
            raise storage_error(self.path, error) from error

    def tell(self, loop: AbstractEventLoop, listener: Listener) -> None:
        """Have a listener called on an event loop, until `tell_nobody`; first with the trouble there already is."""
        told = OnLoop(loop, listener)
        with self._wake:
            self.listener = told
            full, error = self._full, self._error
        if error is not None:
            told.broke(error, saving=self._saving)
        elif full is not None:
            told.disk_full(full)

    def tell_nobody(self) -> None:
        """Go on committing without telling anybody."""
        self.listener = Nobody()

    def close(self) -> None:
        """Commit what waits and end. Raises StorageError if that failed; it says where the answers are instead."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        if self._error is None:
            return
        if self._rescue.answers:
            files = " and ".join(map(str, self._rescue.files))
            raise StorageError(f"{self._error} ({self._rescue.answers} answers wait for it in {files})")
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
        except (sqlite3.Error, OSError, StorageError) as error:
            opened.set_exception(storage_error(self.path, error))
            return
        opened.set_result(None)
        try:
            while self._take():
                self._commit(db)
        except Exception as error:  # not only SQLite's: whatever it was, nothing more may be acknowledged
            self._break(storage_error(self.path, error))
            self._save_elsewhere()
        finally:
            self._rescue.close()
            self._reserve.give_up()
            db.close()  # what SQLite still moves within its files are transactions whose sync succeeded

    def _take(self) -> bool:
        """Wait for entries and take all of them; False once closed and empty.

        On a full disk it comes back with nothing when it is time to look for room.
        """
        with self._wake:
            while True:
                due = self._room.due
                something = self._waiting.entries or self._waiting.calls
                if something and (due or self._closing or not self._room.holding):
                    self._taken, self._waiting = self._waiting, Batch()
                    return True
                if self._closing and not something:
                    return False
                if due:
                    return True
                self._wait(self._wake, self._room.pause_s)

    def _commit(self, db: sqlite3.Connection) -> None:
        """Write what was taken and answer the questions; on a full disk, put back what finds no room."""
        try:
            if self._taken.entries:
                in_transaction(db, partial(insert, batch=self._taken))
                self._report()
            while self._taken.calls:
                ask, answer = self._taken.calls[0]
                answer.set_result(in_transaction(db, ask))
                del self._taken.calls[0]
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                raise
            self._ran_out(db, error)
        else:
            self._look_for_room()

    def _report(self) -> None:
        done, self._taken = self._taken, Batch(calls=self._taken.calls)
        self.listener.committed(done)

    def _ran_out(self, db: sqlite3.Connection, error: sqlite3.Error) -> None:
        """Put back what was taken: to be tried at once if there was a reserve to give up, else when there is room."""
        if db.in_transaction:
            db.execute("ROLLBACK")
        self._put_back()
        if self._room.ran_out():
            self._full = storage_error(self.path, error)
            _log.warning("%s: %s; waiting for room", self.path, error)
            self.listener.disk_full(self._full)
        if self._full is not None and self._room.holding and (self._room.over or self._closing):
            raise self._full

    def _look_for_room(self) -> None:
        """After everything fitted: see whether there is a reserve again."""
        self._room.holding = False
        if self._room.is_back():
            self._full = None
            self.listener.has_room()
        elif self._full is not None and self._room.over:
            raise self._full

    def _put_back(self) -> None:
        with self._wake:
            self._waiting, self._taken = self._taken.then(self._waiting), Batch()

    def _break(self, error: StorageError) -> None:
        """Note and say that nothing goes through the connection any more."""
        self._put_back()
        with self._wake:
            self._error = error
            calls, self._waiting.calls = self._waiting.calls, []
        self.listener.broke(error, saving=True)
        for _, answer in calls:
            answer.set_exception(error)
        self._room.forget()

    def _save_elsewhere(self) -> None:
        """Instead of `_commit`, until the end."""
        try:
            while self._take():
                self._rescue.save(self._taken)
                self._report()
        except Exception as error:
            words = str(error) if isinstance(error, OSError) else type(error).__name__
            self._error = StorageError(
                f"{self._error}. Nor could the last answers be saved elsewhere ({words}): their rows are asked again"
            )
            self._saving = False
            self.listener.broke(self._error, saving=False)
