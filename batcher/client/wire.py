"""The lean HTTP/1.1 client: keep-alive connections in a small pool, one write and one future per attempt.

It knows no proxy, redirect or cookie. The pool hands out the connection that was used last, so that surplus ones grow
old and are closed. One timer per client enforces every deadline, a quarter of the shortest one late at worst.
"""

from __future__ import annotations

import asyncio
from typing import Final

from batcher.client.attempt import Destination, Target, request_headers
from batcher.client.connection import Connection
from batcher.client.dial import Dialer
from batcher.client.tls import TlsConnection, tls_context
from batcher.records import Fault, FaultKind, Reply

_READ_BYTES: Final = 64 * 1024


class WireClient:
    """A pool of keep-alive connections to one destination."""

    def __init__(self, destination: Destination, connections: int) -> None:
        """Must be called where an event loop runs; it opens nothing yet.

        Raises:
            JobError: the URL, a header or the CA file is not usable.
        """
        self._loop = asyncio.get_running_loop()
        self._destination = destination
        self._target = Target.of(destination.url)
        self._head = _head(destination.method, self._target, request_headers(destination))
        self._context = tls_context(destination.ca_file) if self._target.tls else None
        self._dialer = Dialer(self._target, destination.connect_s)
        self._room = asyncio.Semaphore(connections)
        #: where all connections read and decrypt, one at a time
        self._buffer, self._plain = memoryview(bytearray(_READ_BYTES)), memoryview(bytearray(_READ_BYTES))
        self._open: set[Connection] = set()
        #: idle connections, the most recently used last; some may have been closed since
        self._idle: list[Connection] = []
        shortest_s = min(destination.first_byte_s, destination.total_s, destination.idle_s)
        self._sweep_s = min(1.0, max(0.01, shortest_s / 4))
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<WireClient to {self._target}: {len(self._open)} open, {len(self._idle)} idle>"

    async def send(self, body: bytes) -> Reply | Fault:
        """Make one attempt. Deadlines count from when a connection is free for it."""
        await self._room.acquire()
        try:
            started = self._loop.time()
            connection = self._take_idle(started) or await self._dial()
            if isinstance(connection, Fault):
                return connection
            answer: asyncio.Future[Reply | Fault] = self._loop.create_future()
            first_byte_at, total_at = started + self._destination.first_byte_s, started + self._destination.total_s
            head = b"%b%d\r\n\r\n" % (self._head, len(body))
            connection.start(answer, head, body, first_byte_at=first_byte_at, total_at=total_at)
            try:
                return await answer
            finally:
                connection.abandon(answer)
                if not connection.closed:
                    self._idle.append(connection)
        finally:
            self._room.release()

    async def close(self) -> None:
        """Close every connection; attempts under way end with a fault."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            self._all_gone = self._loop.create_future()
            await self._all_gone

    def _take_idle(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            connection.expire(now)
            if not connection.closed:
                return connection
        return None

    async def _dial(self) -> Connection | Fault:
        connection = await self._dialer.dial(self._make_connection, self._destination.total_s)
        if isinstance(connection, Fault):
            return connection
        if self._closed:
            connection.close()
        if connection.closed:
            return Fault(FaultKind.CONNECT, f"the connection to {self._target} was closed before anything was sent")
        self._open.add(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)
        return connection

    def _make_connection(self) -> Connection:
        if self._context is None:
            return Connection(self._destination, self._buffer, self._gone)
        return TlsConnection(
            self._destination,
            self._buffer,
            self._gone,
            context=self._context,
            host=self._target.host,
            plain=self._plain,
        )

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._all_gone is not None and not self._open and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._open):
            connection.expire(now)
        self._idle = [connection for connection in self._idle if not connection.closed]
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep) if self._open else None


def _head(method: str, target: Target, headers: dict[str, str]) -> bytes:
    """Return the request head up to the value of Content-Length."""
    lines = [f"{method} {target.resource} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
