"""A worker that is one of several: what the others, and who shares out the limits, want to know of it."""

from __future__ import annotations

from batcher.errors import BatcherError
from batcher.worker import Worker


class TiedWorker(Worker):
    """Asks its own rows as every worker does, and can be looked at from outside."""

    @property
    def stopping(self) -> BatcherError | None:
        """Why it sends nothing more in this run; None while it does."""
        return self._stopping

    @property
    def rows_left(self) -> bool:
        """Rows are to be read, or wait to be sent."""
        return self._stopping is None and not (self._rows.all_read and self._rows.empty)

    @property
    def lost(self) -> int:
        """Attempts of this run that may have been paid for in vain, while others succeeded."""
        return self._settling.lost

    def go_on(self) -> None:
        """Send what may be sent: a limit was raised from outside."""
        self._pump()
