"""The backlog: rows that have been read and have no outcome, except those in flight.

    fresh      read, never sent in this run
    leasing    chosen to be sent next; their lease is being committed
    ready      leased: may be sent at any moment
    waiting    sent before; due again at a time. A waiting row holds no slot and no task, only a place on a heap

Pure: no clock, no journal. Bounds the bytes of requests that were chosen and are not settled, so that prompts of
several megabytes don't multiply by the number of slots, and the number of rows that wait, so that an outage doesn't
read the whole input.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from batcher.pending import Pending
from batcher.records import Prompt


class Backlog:
    """Rows on their way to being sent. Every row is in one place at a time."""

    def __init__(self, *, max_bytes: int, max_waiting: int) -> None:
        self._max_bytes, self._max_waiting = max_bytes, max_waiting
        self._fresh: deque[Pending] = deque()
        #: bytes of the fresh rows' requests
        self.fresh_bytes = 0
        self._leasing: dict[int, Pending] = {}
        self.ready: deque[Pending] = deque()
        self._waiting: list[tuple[float, int, Pending]] = []
        self._unsettled_bytes = 0
        #: no more rows will be added
        self.all_read = False

    def __repr__(self) -> str:
        return f"<Backlog: {self.fresh} fresh, {self.leasing} leasing, {len(self.ready)} ready, {self.waiting} waiting>"

    @property
    def fresh(self) -> int:
        """Number of rows read and never sent."""
        return len(self._fresh)

    @property
    def leasing(self) -> int:
        """Number of rows whose lease is being committed."""
        return len(self._leasing)

    @property
    def waiting(self) -> int:
        """Number of rows that wait for their next attempt."""
        return len(self._waiting)

    @property
    def empty(self) -> bool:
        """No row is anywhere in here."""
        return not (self._fresh or self._leasing or self.ready or self._waiting)

    def is_down_to(self, count: int) -> bool:
        """Whether the input is read and at most `count` rows are in here."""
        return self.all_read and self.fresh + self.leasing + len(self.ready) + self.waiting <= count

    @property
    def next_due_s(self) -> float | None:
        """When the first waiting row is due."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, rows: Iterable[Pending]) -> None:
        """Take in rows that were just read."""
        for pending in rows:
            self._fresh.append(pending)
            self.fresh_bytes += len(pending.prompt.body)

    def choose(self, count: int, now_s: float) -> list[int]:
        """Choose up to `count` rows to be leased, those first that are due again; return their row indexes."""
        chosen: list[int] = []
        while len(chosen) < count and (pending := self._next(now_s)) is not None:
            self._leasing[pending.row_index] = pending
            chosen.append(pending.row_index)
        return chosen

    def _next(self, now_s: float) -> Pending | None:
        if self._waiting and self._waiting[0][0] <= now_s:
            return heapq.heappop(self._waiting)[2]
        if not self._fresh or len(self._waiting) >= self._max_waiting:
            return None
        size = len(self._fresh[0].prompt.body)
        if self._unsettled_bytes and self._unsettled_bytes + size > self._max_bytes:
            return None  # a request that is larger than the bound goes alone
        self._unsettled_bytes += size
        self.fresh_bytes -= size
        return self._fresh.popleft()

    def leased(self, row_index: int) -> Pending:
        """Return a row whose lease is committed; it is in nobody's hands but the caller's now."""
        return self._leasing.pop(row_index)

    def wait(self, pending: Pending, due_s: float) -> None:
        """Take back a row until it is due."""
        heapq.heappush(self._waiting, (due_s, pending.row_index, pending))

    def all_waiting(self) -> Iterable[Pending]:
        """Return the rows that wait, in no order."""
        return (pending for _, _, pending in self._waiting)

    def rewritten(self, pending: Pending, request: bytes) -> None:
        """Give a row that is being sent another request."""
        self._unsettled_bytes += len(request) - len(pending.prompt.body)
        pending.prompt = Prompt(request, pending.prompt.json_mode)

    def settled(self, pending: Pending) -> None:
        """Note that a row has its outcome: its request is not needed any more."""
        self._unsettled_bytes -= len(pending.prompt.body)

    def unsettled(self, pending: Pending, due_s: float) -> None:
        """Take back a row that was settled, until it is due: its outcome does not count."""
        self._unsettled_bytes += len(pending.prompt.body)
        self.wait(pending, due_s)
