"""Who hears of the journal's commits and troubles, and how they hear of them on an event loop."""

from __future__ import annotations

import contextlib
import contextvars
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Protocol

from batcher.errors import StorageError
from batcher.journal.tables import Batch


class Listener(Protocol):
    """Is called in the order in which things happen."""

    def committed(self, batch: Batch) -> None:
        """The batch is durable: in the journal or, after `broke`, its outcomes and releases in a file beside it."""

    def disk_full(self, error: StorageError) -> None:
        """Send nothing new; answers that are on their way are still taken, though they may wait for room."""

    def has_room(self) -> None:
        """After `disk_full`: sending may go on."""

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """The journal takes nothing any more, so nothing may be sent.

        `saving=True`: what arrives is saved elsewhere and reported by `committed`. `saving=False`, perhaps after that:
        it is not, and nothing will be reported.
        """


class Nobody:
    """Hears nothing."""

    def committed(self, batch: Batch) -> None:
        """See `Listener`."""

    def disk_full(self, error: StorageError) -> None:
        """See `Listener`."""

    def has_room(self) -> None:
        """See `Listener`."""

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """See `Listener`."""


class OnLoop:
    """Has a listener called on an event loop, from any thread. A loop that has ended needs no telling.

    It is called in the context of whoever makes this, not in that of the thread that has news: where the `sniffio`
    package is installed, anyio knows the running event loop by its context.
    """

    def __init__(self, loop: AbstractEventLoop, listener: Listener) -> None:
        self._loop, self._listener = loop, listener
        self._context = contextvars.copy_context()

    def committed(self, batch: Batch) -> None:
        """See `Listener`."""
        self._call(lambda: self._listener.committed(batch))

    def disk_full(self, error: StorageError) -> None:
        """See `Listener`."""
        self._call(lambda: self._listener.disk_full(error))

    def has_room(self) -> None:
        """See `Listener`."""
        self._call(self._listener.has_room)

    def broke(self, error: StorageError, *, saving: bool) -> None:
        """See `Listener`."""
        self._call(lambda: self._listener.broke(error, saving=saving))

    def _call(self, news: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(news, context=self._context)
