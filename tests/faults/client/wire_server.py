"""A TCP server that does to each connection exactly what a script says, for testing HTTP clients.

A script is a coroutine function that gets a `Peer`, the server's end of one connection. It sends raw bytes, so it can
misbehave in every way; when it returns, the connection is closed (FIN) if it is not closed yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

Script = Callable[["Peer"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    line: str
    #: names in lower case
    headers: dict[str, str]
    body: bytes


def reply(body: bytes = b"{}", *, status: str = "200 OK", headers: tuple[str, ...] = (), length: bool = True) -> bytes:
    """Return a response with a Content-Length, or without one."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes, headers: tuple[str, ...] = (), end: bool = True) -> bytes:
    """Return a response in chunks, with or without the last one."""
    head = reply(headers=("Transfer-Encoding: chunked", *headers), length=False, body=b"")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + (b"0\r\n\r\n" if end else b"")


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: WireServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        #: how many connections came before this one
        self.number = len(server.peers)
        #: set when the connection is over, whoever ended it
        self.gone = asyncio.Event()
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request:
        """Read one whole request.

        Raises:
            EOFError: the client closed instead.
        """
        line, headers = await self.head()
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(line, headers, body)
        self.server.requests.append(request)
        return request

    async def head(self) -> tuple[str, dict[str, str]]:
        """Read a request line and headers, and leave the body where it is."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        return line, {name.lower(): value.strip() for name, value in (field.split(":", 1) for field in fields)}

    async def send(self, data: bytes) -> None:
        """Send raw bytes; a client that has gone ends the script."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except RuntimeError as error:  # uvloop, on a connection that is over
            raise ConnectionResetError from error
        if self._writer.is_closing():
            raise ConnectionResetError

    async def send_slowly(self, data: bytes, step: int = 1) -> None:
        """Send `step` bytes at a time, each in a packet of its own."""
        for start in range(0, len(data), step):
            await self.send(data[start : start + step])
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def answer(self, data: bytes) -> Request:
        """Read a request and send `data`."""
        request = await self.request()
        await self.send(data)
        return request

    async def wait_closed(self) -> None:
        """Read and forget until the client closes."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def abort(self) -> None:
        """Close at once, without what is polite on top of TCP."""
        self._writer.transport.abort()

    def write_below_tls(self, data: bytes) -> None:
        """Send raw bytes on the TCP connection under a TLS one."""
        os.write(self._writer.get_extra_info("socket").fileno(), data)

    async def pipe(self, other: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Pass bytes between the client and `other` until either closes."""

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        try:
            await asyncio.gather(copy(self._reader, other[1]), copy(other[0], self._writer))
        finally:
            other[1].close()


class WireServer:
    """A listening server, what it was asked, and who is connected."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self._script = script
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.peers: list[Peer] = []
        self.port = 0
        #: exceptions of scripts that are the script's own fault
        self.errors: list[BaseException] = []

    @property
    def connected(self) -> int:
        """Connections that are open at the moment."""
        return sum(not peer.gone.is_set() for peer in self.peers)

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://127.0.0.1:{self.port}/v1/chat/completions"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        try:
            with contextlib.suppress(EOFError, ConnectionError, ssl.SSLError):
                await self._script(peer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except BaseException as error:
            self.errors.append(error)
        finally:
            writer.close()
            peer.gone.set()
            self._tasks.discard(task)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[WireServer]:
        """Listen while the block runs; a script that went wrong fails the test."""
        server = await self.listen()
        try:
            yield self
        finally:
            server.close()
            await self.end()
        assert not self.errors, self.errors

    async def listen(self) -> asyncio.Server:
        """Listen on a free port, or on the one that was listened on before."""
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._context, limit=1 << 20, backlog=512
        )
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def end(self) -> None:
        """End every script."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)


def serving(script: Script, context: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[WireServer]:
    """Return a server that follows `script` on each connection, while the block runs."""
    return WireServer(script, context).running()
