"""One keep-alive HTTP/1.1 connection: a request written, a response parsed, every way that can end.

A request goes to the event loop's transport as it is; the response goes through llhttp (the `httptools` package)
straight from a read buffer that connections may share. It does not know who connects, pools or keeps the time.

Whoever finds the connection useless closes it at once and without a TLS goodbye; `connection_lost` only reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import ssl
from collections.abc import Callable
from typing import Final, cast

import httptools

from batcher.client.attempt import (
    HEAD_LIMIT_BYTES,
    Body,
    Destination,
    Unusable,
    body_of,
    timed_out,
)
from batcher.records import Fault, FaultKind, Reply

#: a request up to this size is one write; a larger one follows in slices of it as the peer takes them
_SLICE_BYTES: Final = 64 * 1024


@functools.lru_cache(maxsize=512)
def _lower(name: bytes) -> str:
    """The same few names come with every response; connections share their strings."""
    return name.decode("latin-1").lower()


Answer = asyncio.Future[Reply | Fault]


class Connection(asyncio.BufferedProtocol):
    """A keep-alive connection that carries one attempt at a time; idle while it has no answer to give."""

    def __init__(self, destination: Destination, buffer: memoryview, gone: Callable[[Connection], None]) -> None:
        """Reads go to `buffer`; it may be shared, since one is consumed before the next. `gone` hears of the end."""
        self._destination = destination
        self._buffer = buffer
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._paused = False
        self._answer: Answer | None = None
        #: replies this connection has carried
        self.replies = 0
        #: loop time of the last reply
        self.idle_since = 0.0
        self._reset(math.inf, math.inf)

    def _reset(self, first_byte_at: float, total_at: float) -> None:
        self._deadline = first_byte_at
        self._total_at = total_at
        self._unsent: memoryview | None = None
        self._headers: dict[str, str] = {}
        self._body: Body | None = None
        self._status = 0
        self._quiet_bytes = 0
        self._head_bytes = 0
        self._received = False
        self._until_eof = False
        self._keep = False
        self._complete = False
        self._unusable: Fault | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._answer is None else "busy"
        return f"<Connection {state}, {self.replies} replies>"

    @property
    def closed(self) -> bool:
        """True if it can carry nothing more."""
        return self._transport is None or self._transport.is_closing()

    async def ready(self) -> None:
        """Wait until requests can be sent."""

    # -- one attempt -------------------------------------------------------------------------------------------------

    def start(self, answer: Answer, head: bytes, body: bytes, *, first_byte_at: float, total_at: float) -> None:
        """Send the request; `answer` gets the reply or the fault. Deadlines are loop times.

        The connection must be idle and open.
        """
        self._reset(min(first_byte_at, total_at), total_at)
        self._answer = answer
        if len(body) <= _SLICE_BYTES:
            self._write(head + body)
        else:
            self._unsent = memoryview(body)
            self._write(head)
            self._send_more()

    def _send_more(self) -> None:
        while self._unsent is not None and not self._paused and not self.closed:
            piece, rest = self._unsent[:_SLICE_BYTES], self._unsent[_SLICE_BYTES:]
            self._unsent = rest if len(rest) else None
            self._write(piece)

    def _write(self, data: bytes | memoryview) -> None:
        cast(asyncio.Transport, self._transport).write(data)

    def abandon(self, answer: Answer) -> None:
        """Nobody waits for `answer` any more: close, unless the connection has gone on to another attempt."""
        if self._answer is answer:
            self._answer = None
            self.close()

    def close(self) -> None:
        """Close at once. An attempt under way ends with the fault of a lost connection."""
        if self._transport is not None:
            self._transport.abort()

    def expire(self, now: float) -> None:
        """Close if a deadline has passed, or if idle for too long."""
        if self._answer is None:
            if now - self.idle_since > self._destination.idle_s:
                self.close()
        elif now >= self._deadline:
            begun = self._body is not None and self._body.begun
            limits = self._destination
            self._fail(timed_out(begun=begun, first_byte_s=limits.first_byte_s, total_s=limits.total_s))

    # -- what the transport calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._buffer[:nbytes])

    def eof_received(self) -> None:
        self._ended(None, clean=True)
        self.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        # not at once: asyncio reports a connection lost twice if the write that this call would make fails
        asyncio.get_running_loop().call_soon(self._send_more)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._answer is not None:
            self._hear_last_words()
        self._ended(exc, clean=False)
        self._transport = None
        del self._parser  # it holds this object's methods: a cycle, and nothing is parsed any more
        self._gone(self)

    def _hear_last_words(self) -> None:
        """Read what the socket still holds.

        A server that refuses a large request answers, closes and thereby resets. If a write meets the reset first, the
        event loop gives up the connection with the answer unread. The socket is closed only after `connection_lost`.
        """
        descriptor = cast(asyncio.Transport, self._transport).get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while self._answer is not None and (count := os.readv(descriptor, [self._buffer])):
                self.buffer_updated(count)

    # -- what the response says --------------------------------------------------------------------------------------

    def _take(self, data: memoryview) -> None:
        if self._answer is None:  # nobody asked: the peer is confused, or says that it will close
            self.close()
            return
        self._received = True
        self._quiet_bytes += len(data)
        sound = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            sound = False
        if self._complete:
            self._deliver(reusable=sound)
        elif not sound:
            self._fail(self._unusable or self._malformed())
        elif self._quiet_bytes > HEAD_LIMIT_BYTES:
            self._fail(_endless())
        elif self._body is not None and self._body.begun:
            self._deadline = self._total_at

    # -- what the parser calls ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise self._stop(Fault(FaultKind.PROTOCOL, "bytes follow the response"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_LIMIT_BYTES:
            raise self._stop(_endless())
        if self._body is None:  # else a trailer, of no interest
            self._headers[_lower(name)] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:  # interim, the real one follows
            return
        try:
            self._body, self._until_eof = body_of(self._status, self._headers, self._destination.max_response_bytes)
        except Unusable as error:
            raise self._stop(error.fault) from None

    def on_body(self, piece: bytes) -> None:
        self._quiet_bytes = 0
        try:
            cast(Body, self._body).add(piece)
        except Unusable as error:
            raise self._stop(error.fault) from None

    def on_message_complete(self) -> None:
        if self._body is None:
            self._headers.clear()
        else:
            self._keep = self._parser.should_keep_alive()
            self._complete = True

    def _stop(self, fault: Fault) -> Unusable:
        """Return the exception that ends the parsing; what it says is kept, since the parser wraps it."""
        self._unusable = fault
        return Unusable(fault.kind, fault.message)

    # -- how an attempt ends -----------------------------------------------------------------------------------------

    def _deliver(self, *, reusable: bool) -> None:
        body = cast(Body, self._body)
        try:
            result: Reply | Fault = Reply(self._status, self._headers, self._destination.without_key(body.finish()))
        except Unusable as error:
            result = error.fault
        transport = cast(asyncio.Transport, self._transport)
        written = self._unsent is None and not transport.get_write_buffer_size()
        self._settle(result, reusable=reusable and self._keep and written)

    def _fail(self, fault: Fault) -> None:
        if self._body is not None and fault.kind is not FaultKind.TOO_LARGE:
            fault = Fault(fault.kind, fault.message, self._body.arrived)
        self._settle(fault, reusable=False)

    def _settle(self, result: Reply | Fault, *, reusable: bool) -> None:
        answer, self._answer = cast(Answer, self._answer), None
        self._body = self._unsent = None
        if reusable:
            self.replies += 1
            self.idle_since = answer.get_loop().time()
        else:
            self.close()
        if not answer.done():
            answer.set_result(result)

    def _malformed(self) -> Fault:
        if self._body is None:
            return Fault(FaultKind.PROTOCOL, "the response is not HTTP/1.1")
        return Fault(FaultKind.TRUNCATED, "the chunks of the response body are broken")

    def _ended(self, error: Exception | None, *, clean: bool) -> None:
        """The connection is over. `clean`: the peer said so, which ends a body that has no other end."""
        if self._answer is None:
            return
        if self._body is not None and self._until_eof and clean:
            self._deliver(reusable=False)
        elif self._body is not None and error is None:
            self._fail(Fault(FaultKind.TRUNCATED, "the connection was closed within the response body"))
        elif self._received or self._body is not None:
            self._fail(Fault(FaultKind.DISCONNECTED, "the connection broke within the response"))
        elif self.replies:
            self._fail(Fault(FaultKind.STALE, "the reused connection was closed before the response"))
        elif isinstance(error, ssl.SSLError):
            self._fail(Fault(FaultKind.TLS, "the server refused the TLS connection after the handshake"))
        else:
            self._fail(Fault(FaultKind.DISCONNECTED, "the connection was closed before the response"))


def _endless() -> Fault:
    return Fault(FaultKind.PROTOCOL, f"the response has more than {HEAD_LIMIT_BYTES} bytes of headers")
