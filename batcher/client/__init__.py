"""One HTTP attempt, as the rest of batcher sees it.

A client makes one attempt per call and decides nothing. Whatever happens is a value, a `Reply` or a `Fault`. There are
two: the lean one (`wire`) speaks to the destination itself; the one on aiohttp (`proxied`) is for destinations behind a
proxy. Both pass the same conformance tests.
"""

from __future__ import annotations

from typing import Protocol

from batcher.client.attempt import Destination
from batcher.records import Fault, Reply

__all__ = ["Client", "Destination", "open_client"]


class Client(Protocol):
    """Makes attempts at one destination."""

    async def send(self, body: bytes) -> Reply | Fault:
        """Make one attempt: POST the JSON `body`. Raises nothing but CancelledError, which closes the connection."""

    async def close(self) -> None:
        """Close every connection; call it when no attempt is under way."""


def open_client(destination: Destination, connections: int) -> Client:
    """Return a client that opens at most `connections` at a time. Call it where an event loop runs.

    Raises:
        JobError: the URL, a header, the key, the proxy or the CA file is not usable.
    """
    if destination.proxy is not None:
        from batcher.client.proxied import AiohttpClient

        return AiohttpClient(destination, connections)
    from batcher.client.wire import WireClient

    return WireClient(destination, connections)
