"""One client's connection: reads requests, waits, sends answers, and knows whether they got out whole.

No task per request: waiting is a timer of the event loop. One exchange at a time; requests sent back to back wait in
the reader, so answers keep the order of the requests.

An answer is out when the kernel has taken all of it. The write buffer's limit is 0, so the event loop reports every
byte it had to keep (`pause_writing`) and the moment the last one is gone (`resume_writing`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Protocol, cast

from batcher.simulator.answer import Answer
from batcher.simulator.framing import CONTINUE, BadRequestError, Request, RequestReader
from batcher.simulator.ledger import Entry

#: stop reading from a client that sends this much ahead while it waits for an answer
READ_AHEAD_BYTES = 1024 * 1024
#: makes closing a socket a reset
LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Reception:
    """What a request gets: the answer, its entry in the ledger if it has one, and the wait until then."""

    answer: Answer
    entry: Entry | None = None
    wait_s: float = 0.0


class Service(Protocol):
    """What a connection needs to know from the simulator."""

    connections: set[Connection]

    def receive(self, request: Request) -> Reception: ...
    def finished(self, reception: Reception, *, whole: bool) -> None: ...
    def refuse(self, status: int, message: str, *, close: bool = False) -> Answer: ...


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    __slots__ = ("_current", "_keep", "_paused", "_reader", "_sent", "_service", "_timer", "_transport")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        #: what is being answered
        self._current: Reception | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: all bytes of the current answer were given to the event loop
        self._sent = False
        #: the event loop holds bytes that the kernel has not taken
        self._paused = False
        self._keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.discard(self)
        self._abandon()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self._current is None:
            self._advance()
        elif self._reader.waiting_bytes > READ_AHEAD_BYTES and self._transport:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._sent:
            self._finish()
            self._advance()

    def abort(self) -> None:
        """Leave at once; the answer under way counts as broken."""
        self._abandon()
        if self._transport:
            self._transport.abort()

    def _advance(self) -> None:
        """Take up requests until one has to wait, or no whole one is there."""
        while self._current is None and self._transport and not self._transport.is_closing():
            try:
                request = self._reader.next_request()
            except BadRequestError as error:
                self._begin(Reception(self._service.refuse(error.status, str(error), close=True)))
                return
            if request is None:
                self._wait_for_more(self._transport)
                return
            self._keep = request.keep_alive
            self._begin(self._service.receive(request))

    def _wait_for_more(self, transport: asyncio.Transport) -> None:
        if self._reader.expects_continue:
            self._reader.expects_continue = False
            transport.write(CONTINUE)
        if not transport.is_reading():
            transport.resume_reading()

    def _begin(self, reception: Reception) -> None:
        self._current = reception
        answer = reception.answer
        if answer.ending == "silent":
            return
        if answer.early:
            self._write(answer.early)
            self._beat(answer.beats, reception.wait_s / (answer.beats + 1))
        elif reception.wait_s > 0:
            self._timer = asyncio.get_running_loop().call_later(reception.wait_s, self._time_has_come)
        else:
            self._send()

    def _beat(self, left: int, every_s: float) -> None:
        """Send a keep-alive line after each wait, after the last wait the rest."""
        call_later = asyncio.get_running_loop().call_later
        if left == 0:
            self._timer = call_later(every_s, self._time_has_come)
        else:
            self._timer = call_later(every_s, self._next_beat, left, every_s)

    def _next_beat(self, left: int, every_s: float) -> None:
        if self._current is not None:
            self._write(self._current.answer.beat)
            self._beat(left - 1, every_s)

    def _time_has_come(self) -> None:
        self._send()
        self._advance()

    def _send(self) -> None:
        """Give the answer to the event loop, and end the connection if the answer or the client wants that."""
        if self._current is None or self._transport is None:
            return
        answer, transport = self._current.answer, self._transport
        if answer.ending == "reset":
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self.abort()
            return
        self._write(answer.data)
        self._sent = True
        failed = transport.is_closing()
        if not self._keep or answer.ending == "close":
            transport.close()
        if not self._paused and not failed:
            self._finish()

    def _write(self, data: bytes) -> None:
        if self._transport and data and not self._transport.is_closing():
            self._transport.write(data)

    def _finish(self) -> None:
        """The kernel has everything that was to be sent."""
        reception, self._current = self._current, None
        self._sent = False
        self._timer = None
        if reception is not None:
            self._service.finished(reception, whole=reception.answer.complete)

    def _abandon(self) -> None:
        """Whatever is under way will not be answered any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reception, self._current = self._current, None
        if reception is not None:
            if not self._sent:
                reception.answer.status = None
            self._service.finished(reception, whole=False)
