"""What is durable in the simulated world, and a journal in memory that makes things durable a moment later.

The model of a crash: everything that was not committed is gone, and what was committed is there, also where nobody
heard of the commit.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from batcher.errors import StorageError
from batcher.journal import Batch
from batcher.journal.listener import Listener, Nobody
from batcher.records import Draft, Outcome, Spent


@dataclass
class Attempts:
    """What the journal knows of a row without an outcome."""

    attempts: int = 0
    ambiguous: int = 0
    leased: bool = False
    spent: Spent | None = None


@dataclass
class Durable:
    """The disk: it survives a crash."""

    attempts: dict[int, Attempts] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    #: the files that are in place, and those the journal knows of, by shard number
    parts: dict[int, list[Outcome]] = field(default_factory=dict)
    noted: set[int] = field(default_factory=set)
    #: rows with an outcome that was ever committed
    decided: dict[int, Outcome] = field(default_factory=dict)

    def apply(self, leases: Sequence[int], releases: Sequence[tuple[int, Attempts]], outcomes: list[Outcome]) -> None:
        """Commit entries in the order of the real journal; a row decided twice is a ValueError."""
        for row, attempts in releases:
            if row in self.attempts:
                self.attempts[row] = attempts
        for one in outcomes:
            if one.row_index in self.decided:
                raise ValueError(f"row {one.row_index} got a second outcome")
            self.attempts.pop(one.row_index, None)
            self.outcomes[one.row_index] = self.decided[one.row_index] = one
        for row in leases:
            self.attempts.setdefault(row, Attempts()).leased = True

    def recover(self) -> int:
        """Count the rows that were on their way as attempts that may have been paid for."""
        leased = [one for one in self.attempts.values() if one.leased]
        for one in leased:
            one.leased, one.attempts, one.ambiguous = False, one.attempts + 1, one.ambiguous + 1
        return len(leased)

    @property
    def ambiguous(self) -> int:
        """Attempts counted as perhaps paid for."""
        return sum(one.ambiguous for one in (*self.attempts.values(), *self.decided.values()))


@dataclass
class DiskHabits:
    """How the disk behaves in one life of the process."""

    #: the longest commit, and the longest time until it is heard of
    slow_s: float = 0.02
    #: a commit that finds no room: how likely, how long it lasts, and whether the reserve still takes answers
    full: float = 0.0
    full_s: float = 5.0
    reserve: bool = True
    #: a commit that breaks the journal, and the same for the files that take its place
    breaks: float = 0.0
    rescue_breaks: float = 0.0
    #: a part that finds no room; a part that cannot be written
    part_full: float = 0.0
    part_breaks: float = 0.0


class MemoryJournal:
    """The part of `Journal` that the worker speaks to. Use once for each life of the process."""

    def __init__(self, disk: Durable, habits: DiskHabits, random: Random, checked: Callable[[Outcome], None]) -> None:
        """`checked` sees each outcome as it is recorded."""
        self._disk, self._habits, self._random, self._checked = disk, habits, random, checked
        self._listener: Listener = Nobody()
        self._leases: list[int] = []
        self._releases: list[tuple[int, Attempts]] = []
        self._outcomes: list[Outcome] = []
        self._taken: tuple[list[int], list[tuple[int, Attempts]], list[Outcome]] = [], [], []
        self._committing = self._full = False
        self._holding = False
        self.broken = self.lost = self.dead = False
        #: there was some trouble in this life
        self.troubled = False

    # -- what the worker calls

    def tell(self, loop: AbstractEventLoop, listener: Listener) -> None:
        """See `Writer`."""
        self._loop, self._listener = loop, listener

    def tell_nobody(self) -> None:
        """See `Writer`."""
        self._listener = Nobody()

    def lease(self, rows: Sequence[int]) -> None:
        """See `Writer`."""
        self._leases += rows
        self._wake()

    def release(
        self, row_index: int, *, attempts: int, ambiguous: int, spent: Spent | None = None, draft: Draft | None = None
    ) -> None:
        """See `Writer`."""
        self._releases.append((row_index, Attempts(attempts, ambiguous, False, spent)))
        self._wake()

    def record(self, outcome: Outcome) -> None:
        """See `Writer`."""
        self._checked(outcome)
        self._outcomes.append(outcome)
        self._wake()

    # -- its thread

    def _wake(self) -> None:
        if self._committing or self._holding or self.lost or self.dead:
            return
        self._committing = True
        self._loop.happened += 1
        self._taken = self._leases, self._releases, self._outcomes
        self._leases, self._releases, self._outcomes = [], [], []
        self._later(self._random.uniform(0.0, self._habits.slow_s), self._commit)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._loop.call_later(delay_s, lambda: None if self.dead else action())

    def _commit(self) -> None:
        self._committing = False
        leases, releases, outcomes = self._taken
        self._taken = [], [], []
        if self.broken and self._random.random() < self._habits.rescue_breaks:
            self._lose()
        elif not self.broken and (breaks := self._random.random() < self._habits.breaks) | self._runs_out():
            self._leases, self._releases = leases + self._leases, releases + self._releases
            self._outcomes = outcomes + self._outcomes
            self._break() if breaks else self._fill_up()
        else:
            self._disk.apply([] if self.broken else leases, releases, outcomes)
            self._later(
                self._random.uniform(0.0, self._habits.slow_s),
                lambda: self._listener.committed(Batch(leases, [], outcomes)),
            )
        if self._leases or self._releases or self._outcomes:
            self._wake()

    def _runs_out(self) -> bool:
        return not self._full and self._random.random() < self._habits.full

    def _fill_up(self) -> None:
        self.troubled = self._full = True
        self._holding = not self._habits.reserve
        self._tell(lambda: self._listener.disk_full(StorageError("no room")))
        self._later(self._random.uniform(0.1, self._habits.full_s), self._empty)

    def _empty(self) -> None:
        self._full = self._holding = False
        if not self.broken:
            self._tell(lambda: self._listener.has_room())
        self._wake()

    def _break(self) -> None:
        self.troubled = self.broken = True
        self._holding = False
        self._tell(lambda: self._listener.broke(StorageError("broken"), saving=True))

    def _lose(self) -> None:
        self.lost = True
        self._tell(lambda: self._listener.broke(StorageError("lost"), saving=False))

    def _tell(self, news: Callable[[], None]) -> None:
        self._loop.happened += 1
        self._later(0.0, news)

    def close(self) -> None:
        """Commit what waits, as after the end of a run."""
        for leases, releases, outcomes in (self._taken, (self._leases, self._releases, self._outcomes)):
            if not self.lost:
                self._disk.apply([] if self.broken else leases, releases, outcomes)
        self.dead = True
