"""An event loop without sockets whose time jumps to the next timer. It notices when nothing can happen any more."""

from __future__ import annotations

import asyncio
from typing import Any

#: turns of the loop in one virtual second: some anyway, and so many for each thing that happened in the world
_TURNS = 300
_TURNS_A_HAPPENING = 40


class StuckError(AssertionError):
    """The run hangs, or it spins."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`happened` is to be raised by the world for whatever gives the loop something to do."""

    def __init__(self, now_s: float, end_s: float) -> None:
        """`now_s` is the time at first; one later than `end_s` is a run that hangs."""
        super().__init__()
        self._now_s, self._end_s = now_s, end_s
        self._selector = self  # what BaseEventLoop asks for events
        self.happened = self._turns = 0
        self._second_s = now_s

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer."""
        self._turns += 1
        if self._turns > _TURNS + _TURNS_A_HAPPENING * self.happened:
            raise StuckError(f"the run spins: {self._turns} turns within a second, {self.happened} things happened")
        if timeout is None:
            raise StuckError("the run hangs: nothing is left that could happen")
        self._now_s += max(0.0, timeout)
        if self._now_s > self._end_s:
            raise StuckError("the run hangs: it takes longer than anything it waits for")
        if self._now_s >= self._second_s + 1:
            self._second_s, self._turns, self.happened = self._now_s, 0, 0
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none: nothing here has a file descriptor."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in `select`."""
