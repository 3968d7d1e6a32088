"""A full disk under the journal, in a time of its own: what does not fit waits for room, or is saved elsewhere.

SQLite itself says that the disk is full: its file may have so many pages and no more.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import StorageError
from batcher.journal import Journal, writer
from batcher.journal.reserve import RETRY_S, Reserve
from batcher.records import Totals
from tests.fakes import Heard, outcome
from tests.unit.test_journal import rows_in
from tests.unit.test_journal_errors import waiting_for

#: pages that the reserve takes up
RESERVE = 40
#: an answer takes about so many pages
PAGES = 10
BODY = b"x" * 4096 * (PAGES - 1)


class Disk:
    """A disk of so many pages, the journal on it, its reserve, and a clock that stands still until it is told."""

    def __init__(self, path: Path, free_pages: int, max_full_disk_s: float) -> None:
        self.now = 0.0
        self.reserved = True
        self._changes: list[Callable[[], None]] = []
        self._waits = threading.Event()
        self.journal = Journal(
            path, run="this", max_full_disk_s=max_full_disk_s, clock=lambda: self.now, wait=self._wait
        )
        self._db = self.journal._call(lambda db: db)
        used: int = self.journal._call(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        self._size = used + RESERVE + free_pages
        self.journal._call(lambda db: self._limit())
        self.heard = self.journal.listener = Heard()

    def pass_(self, seconds: float, *, more_pages: int = 0) -> None:
        """Let time pass, and the disk grow; return when the journal has done what it does about it."""
        with self.journal._wake:
            self._waits.clear()
            self._changes.append(lambda: self._pass(seconds, more_pages))
            self.journal._wake.notify()
        self.settle()

    def settle(self) -> None:
        """Wait until the journal waits for something, or has ended."""
        while not self._waits.wait(0.01):
            if not self.journal._thread.is_alive():
                return

    def hand_over(self, hand_over: Callable[[], Any]) -> None:
        """Do it and wait until the journal has done what it does about it."""
        self._waits.clear()
        hand_over()
        self.settle()

    # -- on the journal's thread

    def give_up(self) -> bool:
        was, self.reserved = self.reserved, False
        if was:
            self._limit()
        return was

    def lay_in(self) -> None:
        used: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        if self.reserved or used + RESERVE > self._size:
            raise OSError(errno.ENOSPC, "no space")
        self.reserved = True
        self._limit()

    def _pass(self, seconds: float, more_pages: int) -> None:
        self.now += seconds
        self._size += more_pages
        self._limit()

    def _limit(self) -> None:
        self._db.execute(f"PRAGMA max_page_count = {self._size - RESERVE * self.reserved}")

    def _wait(self, condition: threading.Condition, timeout: float | None) -> None:
        if not self._changes:
            self._waits.set()
            condition.wait()
        while self._changes:
            self._changes.pop(0)()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "journal.sqlite"


MakeDisk = Callable[..., Disk]


@pytest.fixture
def make_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDisk:
    """Make a disk, with pages free beside the reserve."""
    made: list[Disk] = []

    class ReserveOnDisk:
        def __init__(self, _: Path) -> None:
            pass

        def lay_in(self) -> None:
            made[0].lay_in()

        def give_up(self) -> bool:
            return made[0].give_up()

    def make(free_pages: int, *, max_full_disk_s: float = 60.0) -> Disk:
        made.append(Disk(path, free_pages, max_full_disk_s))
        return made[0]

    monkeypatch.setattr(writer, "Reserve", ReserveOnDisk)
    return make


def record(disk: Disk, *rows: int) -> None:
    """Hand over one answer after the other, each in a batch of its own."""
    for row in rows:
        disk.hand_over(lambda row=row: disk.journal.record(outcome(row, body=BODY)))


def test_the_answers_on_their_way_fit_into_the_reserve(path: Path, make_disk: MakeDisk) -> None:
    """They are written at its cost; when it could be laid in again, and not before, sending may go on."""
    disk = make_disk(2 * PAGES)
    record(disk, 1, 2, 3, 4)
    assert disk.heard.events == ["committed", "committed", "full", "committed", "committed"]
    assert "full" in str(disk.heard.errors[0])
    assert rows_in(path, "outcomes") == {1, 2, 3, 4}
    for _ in range(3):
        disk.pass_(RETRY_S)
    assert not disk.reserved, "there is room for the rows, but not for the reserve"
    disk.pass_(RETRY_S - 0.1, more_pages=2 * RESERVE)
    assert disk.heard.events.count("room") == 0
    disk.pass_(0.1)
    assert disk.heard.events[5:] == ["room"]
    assert disk.reserved
    record(disk, *range(5, 15))
    assert disk.heard.events[6:9] == ["committed", "committed", "committed"]
    assert disk.heard.events.count("full") == 2, "it fills up again later, and that is news again"
    disk.journal.close()


def test_what_does_not_fit_waits(path: Path, make_disk: MakeDisk) -> None:
    """And so does all that comes later; with room it is written in order, each answer once, and then reported."""
    disk = make_disk(PAGES)
    disk.hand_over(lambda: [disk.journal.record(outcome(row, body=BODY)) for row in range(8)])
    assert disk.heard.events == ["full"]
    disk.pass_(RETRY_S)
    record(disk, 8)
    disk.hand_over(lambda: disk.journal.lease([20]))
    assert disk.heard.events == ["full"]
    assert rows_in(path, "outcomes") == set()
    disk.pass_(1, more_pages=20 * PAGES)
    assert disk.heard.events == ["full"], "it is not tried all the time"
    disk.pass_(RETRY_S - 1)
    assert disk.heard.events == ["full", "committed", "room"]
    assert disk.heard.saved == list(range(9))
    assert disk.heard.leased == [20]
    assert rows_in(path, "outcomes") == set(range(9))
    disk.journal.close()


def test_it_stays_full(path: Path, make_disk: MakeDisk) -> None:
    """After `max_full_disk_s` the answers are saved elsewhere, and so are later ones; the next start has them."""
    disk = make_disk(0, max_full_disk_s=12.0)
    disk.hand_over(lambda: [disk.journal.record(outcome(row, body=BODY)) for row in range(8)])
    question = waiting_for(disk.journal.parts)
    for seconds in (RETRY_S, RETRY_S, 1.9):
        disk.pass_(seconds)
    assert disk.heard.events == ["full"]
    assert not question.done()
    disk.pass_(0.1)
    assert disk.heard.events == ["full", "broke, saving", "committed"]
    assert isinstance(question.exception(5), StorageError)
    record(disk, 8)
    with pytest.raises(StorageError, match=r"full.*9 answers wait for it in .*rescued-"):
        disk.journal.close()
    assert rows_in(path, "outcomes") == set()
    again = Journal(path, run="this")
    assert again.take_over_rescued() == 9
    again.close()


def test_it_was_full_for_too_long_though_everything_fits(make_disk: MakeDisk) -> None:
    """Without a reserve nothing is sent, so waiting for it ends too."""
    disk = make_disk(0, max_full_disk_s=7.0)
    record(disk, 1)
    disk.pass_(6.9)
    assert disk.heard.events == ["full", "committed"]
    disk.pass_(0.1)
    assert disk.heard.events[2:] == ["broke, saving"]
    record(disk, 2)
    with pytest.raises(StorageError, match="1 answers wait"):
        disk.journal.close()
    assert disk.heard.saved == [1, 2]


def test_room_at_the_last_moment(make_disk: MakeDisk) -> None:
    """It is looked for once more when the time is over."""
    disk = make_disk(0, max_full_disk_s=7.0)
    record(disk, 1)
    disk.pass_(7.0, more_pages=PAGES)
    assert disk.heard.events == ["full", "committed", "room"]
    disk.journal.close()


def test_waiting_for_no_time(make_disk: MakeDisk) -> None:
    """`max_full_disk_s` = 0: the reserve takes what is on its way, and the run ends."""
    disk = make_disk(0, max_full_disk_s=0.0)
    record(disk, 1)
    assert disk.heard.events == ["full", "committed", "broke, saving"]
    assert disk.heard.saved == [1]
    with pytest.raises(StorageError, match="full"):
        disk.journal.close()


def test_a_question_that_needs_room(make_disk: MakeDisk) -> None:
    """It waits for room like everything else, behind what came before."""
    disk = make_disk(0)
    disk._size = 0
    disk.journal._call(lambda db: disk.give_up())
    totals = Totals(completed=4)
    body = "y" * 4096 * 20

    def write(db: sqlite3.Connection) -> Totals:
        db.execute("CREATE TABLE IF NOT EXISTS more AS SELECT ? AS x", (body,))
        return totals

    disk._waits.clear()
    question = waiting_for(lambda: disk.journal._call(write))
    while "full" not in disk.heard.events:
        threading.Event().wait(0.001)
    disk.settle()
    assert not question.done()
    disk.pass_(RETRY_S, more_pages=10_000)
    assert question.result(5) is totals
    assert disk.heard.events == ["full", "room"]
    disk.journal.close()


def test_closing_waits_for_no_room(make_disk: MakeDisk) -> None:
    """What still waits is tried once more and then saved elsewhere."""
    disk = make_disk(0)
    disk.hand_over(lambda: [disk.journal.record(outcome(row, body=BODY)) for row in range(8)])
    with pytest.raises(StorageError, match="8 answers wait"):
        disk.journal.close()
    assert disk.heard.events == ["full", "broke, saving", "committed"]


def test_closing_a_full_disk_on_which_everything_fitted(path: Path, make_disk: MakeDisk) -> None:
    """Is no error: nothing is missing."""
    disk = make_disk(0)
    record(disk, 1, 2)
    disk.journal.close()
    assert rows_in(path, "outcomes") == {1, 2}


def test_who_begins_to_listen_while_the_disk_is_full(make_disk: MakeDisk) -> None:
    """Hears that at once."""
    disk = make_disk(0)
    record(disk, 1)

    async def listen() -> list[str]:
        heard_it = asyncio.Event()
        heard = Heard(lambda batch: heard_it.set())
        disk.journal.tell(asyncio.get_running_loop(), heard)
        disk.journal.record(outcome(2))
        await asyncio.wait_for(heard_it.wait(), 30)
        return heard.events

    assert asyncio.run(listen()) == ["full", "committed"]
    disk.journal.close()


def test_a_reserve_that_cannot_be_removed(tmp_path: Path) -> None:
    """Gives no room, and raises nothing where nobody could act on it."""
    reserve = Reserve(tmp_path / "reserve")
    (tmp_path / "reserve").mkdir()
    assert reserve.give_up() is False
