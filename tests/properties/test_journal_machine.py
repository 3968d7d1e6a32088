"""The journal through any history of leases, answers, crashes, restarts and published shards.

A crash is a copy of the database's files as they are between two commits, opened by another journal.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batcher.errors import StorageError
from batcher.journal import Batch, Journal, Part
from batcher.records import Shard, Totals
from tests.fakes import Heard, outcome

SHARD_ROWS = 4
SHARDS = [Shard(number, number * SHARD_ROWS, SHARD_ROWS, ()) for number in range(3)]
ROWS = range(len(SHARDS) * SHARD_ROWS)


class JournalMachine(RuleBasedStateMachine):
    """A worker without requests, beside a model of what is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.journal = self.open(self.folder / "0")
        self.concurrency = 2
        #: the model: rows leased, with an outcome (its attempts), and attempts and unsure ones of all others
        self.leased: set[int] = set()
        self.outcomes: dict[int, int] = {}
        self.tried: dict[int, tuple[int, int]] = {}
        self.published: dict[int, Part] = {}
        self.acknowledged: set[int] = set()

    def open(self, folder: Path) -> Journal:
        folder.mkdir(exist_ok=True)
        journal = Journal(folder / "journal.sqlite")
        journal.listener = Heard(self.committed)
        return journal

    def committed(self, batch: Batch) -> None:
        self.acknowledged |= {one.row_index for one in batch.outcomes}

    @initialize(concurrency=st.integers(1, 8))
    def start(self, concurrency: int) -> None:
        self.concurrency = concurrency

    @property
    def open_rows(self) -> list[int]:
        """Rows that may be sent: without outcome, not on their way, of a shard that is not published."""
        return [
            row
            for row in ROWS
            if row not in self.outcomes and row not in self.leased and row // SHARD_ROWS not in self.published
        ]

    @precondition(lambda self: self.open_rows and len(self.leased) < self.concurrency)
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        room = self.concurrency - len(self.leased)
        rows = data.draw(st.lists(st.sampled_from(self.open_rows), min_size=1, max_size=room, unique=True))
        self.journal.lease(rows)
        self.leased |= set(rows)
        self.journal.open_totals()

    def settle(self, data: st.DataObject) -> int:
        row = data.draw(st.sampled_from(sorted(self.leased)))
        self.leased.remove(row)
        return row

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def answered(self, data: st.DataObject) -> None:
        row = self.settle(data)
        attempts, ambiguous = self.tried.pop(row, (0, 0))
        self.outcomes[row] = attempts + 1
        self.journal.record(outcome(row, attempts=attempts + 1, ambiguous=ambiguous))

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), again=st.booleans())
    def failed(self, data: st.DataObject, again: bool) -> None:
        """An attempt failed; perhaps the row is leased again in the same batch."""
        row = self.settle(data)
        attempts, ambiguous = self.tried.get(row, (0, 0))
        self.tried[row] = attempts + 1, ambiguous
        self.journal.release(row, attempts=attempts + 1, ambiguous=ambiguous)
        if again:
            self.journal.lease([row])
            self.leased.add(row)
            self.journal.open_totals()

    def all_answered(self) -> list[Shard]:
        return [
            shard
            for shard in SHARDS
            if shard.number not in self.published and self.outcomes.keys() >= set(range(shard.first_row, shard.end_row))
        ]

    @precondition(lambda self: self.all_answered())
    @rule(forgets=st.booleans())
    def publish(self, forgets: bool) -> None:
        """Publish a shard, perhaps dying before its rows are forgotten."""
        shard = self.all_answered()[0]
        self.published[shard.number] = Part(shard.number, 7, Totals(completed=SHARD_ROWS))
        self.journal.published(self.published[shard.number])
        if forgets:
            self.journal.forget(shard)
        else:
            self.crash(2)

    @rule(concurrency=st.integers(1, 8))
    def restart(self, concurrency: int) -> None:
        """Close in good order and open again, with another number of slots."""
        self.journal.close()
        self.begin(self.journal.path.parent, concurrency)

    @rule(concurrency=st.integers(1, 8))
    def crash(self, concurrency: int) -> None:
        """Go on with the files as they are after the last commit."""
        self.journal.parts()  # what was handed over is committed
        self.lives += 1
        folder = self.folder / str(self.lives)
        shutil.copytree(self.journal.path.parent, folder)
        self.journal.tell_nobody()
        self.journal.close()
        self.begin(folder, concurrency)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), concurrency=st.integers(1, 8), again=st.booleans())
    def storage_fails(self, data: st.DataObject, concurrency: int, again: bool) -> None:
        """SQLite fails; answers and refusals that still arrive are reported, and the next start has them."""

        def fail(db: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with contextlib.suppress(StorageError):
            self.journal._call(fail)
        for _ in range(data.draw(st.integers(0, len(self.leased)))):
            row = self.settle(data)
            attempts, ambiguous = self.tried.pop(row, (0, 0))
            if data.draw(st.booleans()):
                self.outcomes[row] = attempts + 1
                self.journal.record(outcome(row, attempts=attempts + 1, ambiguous=ambiguous))
            else:
                self.tried[row] = attempts + 1, ambiguous
                self.journal.release(row, attempts=attempts + 1, ambiguous=ambiguous)
        with contextlib.suppress(StorageError):
            self.journal.close()
        if again:  # the one that takes them over dies before it has removed them
            folder = self.folder / "kept"
            shutil.copytree(self.journal.path.parent, folder, dirs_exist_ok=True)
            taking = Journal(self.journal.path)
            taking.take_over_rescued()
            taking.close()
            for path in folder.glob("rescued-*"):
                shutil.move(path, self.journal.path.parent)
            shutil.rmtree(folder)
        self.begin(self.journal.path.parent, concurrency)

    def begin(self, folder: Path, concurrency: int) -> None:
        self.concurrency = concurrency
        self.journal = self.open(folder)
        self.journal.take_over_rescued()
        assert not list(folder.glob("rescued-*"))
        assert self.journal.recover() == len(self.leased)
        for row in self.leased:
            attempts, ambiguous = self.tried.get(row, (0, 0))
            self.tried[row] = attempts + 1, ambiguous + 1
        self.leased.clear()
        self.journal.forget_published([shard for shard in SHARDS if shard.number in self.published])

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every acknowledged outcome is in the journal or in a part; every attempt is counted."""
        kept = {one.row_index: one.attempts for one in self.journal.outcomes(0, len(ROWS))}
        expected = {row: n for row, n in self.outcomes.items() if row // SHARD_ROWS not in self.published}
        assert kept == expected
        assert self.acknowledged == set(self.outcomes)
        assert self.journal.attempts() == self.tried
        assert self.journal.parts() == self.published

    @invariant()
    def no_answered_row_is_on_its_way(self) -> None:
        """What has an outcome has no attempt under way, so that nobody asks it again."""
        for shard in SHARDS:
            done = self.journal.rows_with_outcome(shard)
            assert not done & self.leased
            assert not done & set(self.journal.attempts())

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
