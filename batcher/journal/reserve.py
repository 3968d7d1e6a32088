"""Room on the disk: some is kept for the answers that are on their way when the disk fills up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

#: about what 256 answers of 64 KB take
SIZE_BYTES = 16 << 20

#: seconds between two looks at a full disk
RETRY_S = 5.0


class Reserve:
    """A file of no content that takes up space until it is given up."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lay_in(self) -> None:
        """Take up the space. Raises OSError if there is not as much."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Free the space; False if that was done before, or the disk does not even allow that."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class Room:
    """What the journal knows of the room on its disk. Knows no database; times are in seconds of `clock`."""

    def __init__(self, reserve: Reserve, max_full_s: float, clock: Callable[[], float]) -> None:
        self._reserve, self._max_full_s, self._clock = reserve, max_full_s, clock
        self._full_since: float | None = None
        self._look_at = 0.0
        #: something did not fit even without the reserve: only time can bring it another try
        self.holding = False

    @property
    def full(self) -> bool:
        """The disk was found full, and the reserve could not be laid in again since."""
        return self._full_since is not None

    @property
    def due(self) -> bool:
        """It is time to look whether there is room."""
        return self.full and self._clock() >= self._look_at

    @property
    def over(self) -> bool:
        """The disk has been full for too long."""
        return self._full_since is not None and self._clock() >= self._full_since + self._max_full_s

    @property
    def pause_s(self) -> float | None:
        """Seconds until it is time to look; None if the disk is not full."""
        return max(0.0, self._look_at - self._clock()) if self.full else None

    def ran_out(self) -> bool:
        """Note that something did not fit, and give up the reserve; True if the disk was not known to be full."""
        news = not self.full
        if self._full_since is None:
            self._full_since = self._clock()
        self.holding = not self._reserve.give_up()
        self._look_later(self._full_since)
        return news

    def is_back(self) -> bool:
        """If it is time to look and nothing waits for room: whether the reserve could be laid in again."""
        if self._full_since is None or self.holding or not self.due:
            return False
        try:
            self._reserve.lay_in()
        except OSError:
            self._look_later(self._full_since)
            return False
        self._full_since = None
        return True

    def forget(self) -> None:
        """Wait for nothing any more: the journal has ended."""
        self._reserve.give_up()
        self._full_since, self.holding = None, False

    def _look_later(self, full_since: float) -> None:
        self._look_at = min(self._clock() + RETRY_S, full_since + self._max_full_s)
