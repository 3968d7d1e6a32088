"""What a server's own queue says about the limit: requests that wait there only wait, they make nothing faster.

Self-hosted servers refuse nothing, but many tell how many requests they run and how many wait. A little queue keeps
such a server busy; a longer one stops the growth, and where it stays the limit settles near what runs. What counts is
the ratio of the two, not the numbers: the server may work for others too, or be one of several behind one address.

Knows no HTTP and no clock.
"""

from __future__ import annotations

from batcher.limits.adaptive import USED_SHARE

#: a queue of this share of what runs is no queue, nor is a single request
LITTLE_SHARE = 0.1
#: readings in a row with a longer queue after which the limit is lowered, at most to half of it at a time; and readings
#: with none after which it may grow as at the start
READINGS = 3
MOST_CUT = 0.5
#: how long a reading stops the growth: until after the next one
HOLD_S = 7.5


class ServerQueue:
    """The latest readings of one server."""

    __slots__ = ("_crowded", "_empty", "_enough", "is_long")

    def __init__(self) -> None:
        #: more than a little waits at the server
        self.is_long = False
        #: so many readings in a row said so, and for these so many requests in flight would have been enough
        self._crowded, self._enough = 0, 0.0
        #: so many readings in a row said that nothing waits although the limit is in use
        self._empty = 0

    @property
    def has_room(self) -> bool:
        """The server has had nothing waiting for several readings, and could have."""
        return self._empty >= READINGS

    def read(self, running: int, waiting: int, in_flight: int, limit: int) -> float | None:
        """Take a reading while so many requests are in flight; return the limit to go down to, None to stay."""
        running, waiting = max(0, running), max(0, waiting)
        little = max(1.0, LITTLE_SHARE * running)
        self.is_long, in_use = waiting > little, in_flight >= USED_SHARE * limit
        self._empty = self._empty + 1 if running and not waiting and in_use else 0
        if not self.is_long or not running or not in_use:
            self._crowded, self._enough = 0, 0.0
            return None
        self._crowded += 1
        kept = max(1.0, little / 2)
        self._enough = max(self._enough, in_flight * (running + kept) / (running + waiting))
        if self._crowded < READINGS:
            return None
        enough = max(1.0, self._enough, MOST_CUT * limit)
        self._crowded, self._enough = 0, 0.0
        return enough if enough < limit else None
