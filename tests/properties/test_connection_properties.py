"""What holds for a connection whatever a server sends, and however the network splits it."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batcher.client import Destination
from batcher.client.connection import Connection
from batcher.records import Fault, FaultKind, Reply

LIMIT_BYTES = 4096


class FakeTransport(asyncio.Transport):
    """A transport that remembers what was written and is closed when told so."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.connection: Connection | None = None
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if len(self.written) > 100_000 and self.connection:
            self.connection.pause_writing()

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return -1  # nothing to read from


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    """An event loop that never runs: futures need one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


class Exchange:
    """One attempt on a connection without a network."""

    def __init__(self, request: bytes = b"BODY") -> None:
        self.buffer = memoryview(bytearray(65536))
        destination = Destination(url="http://localhost", max_response_bytes=LIMIT_BYTES)
        self.connection = Connection(destination, self.buffer, lambda connection: None)
        self.transport = FakeTransport()
        self.connection.connection_made(self.transport)
        self.transport.connection = self.connection
        self.answer: asyncio.Future[Reply | Fault] = asyncio.get_event_loop_policy().get_event_loop().create_future()
        self.connection.start(self.answer, b"HEAD", request, first_byte_at=math.inf, total_at=math.inf)

    def receive(self, data: bytes) -> None:
        """Pass what arrived, unless the connection is closed by then."""
        if data and not self.transport.closing:
            self.buffer[: len(data)] = data
            self.connection.buffer_updated(len(data))

    def receive_split(self, data: bytes, cuts: list[int]) -> None:
        """Pass `data` in pieces."""
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in itertools.pairwise(edges):
            self.receive(data[start:end])

    def end(self, error: Exception | None) -> Reply | Fault:
        """Close from the server's side and return the result."""
        if error is None and not self.transport.closing:
            self.connection.eof_received()
        self.connection.connection_lost(error)
        return self.answer.result()


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, Reply]:
    """A legal response in any framing, and the reply it means."""
    status = draw(st.integers(200, 599).filter(lambda status: status not in (204, 304)))
    text = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
    headers = draw(st.dictionaries(st.from_regex(r"x-[a-z]{1,8}", fullmatch=True), text, max_size=5))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=6))
    body = b"".join(pieces)
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    sent = dict(headers)
    if framing == "length":
        sent["content-length"] = str(len(body))
    elif framing == "chunks":
        sent["transfer-encoding"] = "chunked"
    head = f"HTTP/1.1 {status} OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items()) + "\r\n"
    data = body
    if framing == "chunks":
        trailers = b"X-Trailer: 1\r\n" * draw(st.integers(0, 2))
        data = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" * draw(st.integers(0, 3))
    return interim + head.encode() + data, Reply(status, sent, body)


CUTS = st.lists(st.integers(0, 5000), max_size=12)


@given(responses(), CUTS)
def test_any_split_of_a_legal_response_gives_its_reply(response: tuple[bytes, Reply], cuts: list[int]) -> None:
    """Where the network cuts a response does not show."""
    data, expected = response
    exchange = Exchange()
    exchange.receive_split(data, cuts)
    assert exchange.end(None) == expected


@given(responses(), CUTS, st.data())
def test_a_response_cut_short_is_never_a_whole_reply(
    response: tuple[bytes, Reply], cuts: list[int], draw: st.DataObject
) -> None:
    """Every proper beginning of a framed response is a fault; its body is a beginning of the body."""
    data, expected = response
    if "content-length" not in expected.headers and "transfer-encoding" not in expected.headers:
        return
    exchange = Exchange()
    exchange.receive_split(data[: draw.draw(st.integers(0, len(data) - 1))], cuts)
    result = exchange.end(None)
    assert isinstance(result, Fault)
    assert result.kind in (FaultKind.TRUNCATED, FaultKind.DISCONNECTED)
    assert expected.body.startswith(result.body)


@given(responses(), st.integers(0, 400), st.integers(0, 255), CUTS, st.booleans())
def test_one_wrong_byte_gives_one_result_and_no_exception(
    response: tuple[bytes, Reply], position: int, byte: int, cuts: list[int], reset: bool
) -> None:
    """A damaged response ends the attempt exactly once, in whatever way."""
    data = bytearray(response[0])
    data[position % len(data)] = byte
    exchange = Exchange()
    exchange.receive_split(bytes(data), cuts)
    assert isinstance(exchange.end(ConnectionResetError() if reset else None), Reply | Fault)


@given(st.binary(max_size=500), CUTS)
@example(b"HTTP/1.1 200 OK\r\n\r\n", [])
@example(b"HTTP/1.1 099 OK\r\n\r\n", [])
@example(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", [])
def test_any_bytes_give_one_result_and_no_exception(data: bytes, cuts: list[int]) -> None:
    """No server can make an attempt raise or hang on to the connection after it closed."""
    exchange = Exchange()
    exchange.receive_split(data, cuts)
    assert isinstance(exchange.end(None), Reply | Fault)


@given(responses(), st.binary(min_size=1, max_size=100), CUTS, st.booleans())
def test_bytes_behind_a_response_close_the_connection(
    response: tuple[bytes, Reply], junk: bytes, cuts: list[int], together: bool
) -> None:
    """The reply stays what it is, and what follows is never the beginning of the next one."""
    data, expected = response
    if "content-length" not in expected.headers and "transfer-encoding" not in expected.headers:
        return
    if not junk.strip(b"\r\n"):  # line ends between responses are tolerated, and are none
        junk += b"H"
    exchange = Exchange()
    exchange.receive_split(data + junk if together else data, cuts)
    if not together:
        exchange.receive(junk)
    assert exchange.answer.result() == expected
    assert exchange.transport.closing


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", b"b"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"b"),
    ],
)
def test_a_response_that_never_comes_to_its_body_is_bounded(start: bytes, repeated: bytes) -> None:
    """Blank lines, headers, extensions and trailers without end cost no more than 64 KiB and a read."""
    exchange = Exchange()
    exchange.receive(start)
    received = 0
    while not exchange.transport.closing and received < 1 << 20:
        exchange.receive(repeated * 1000)
        received += 1000 * len(repeated)
    assert received < 1 << 17
    assert isinstance(exchange.end(None), Fault)


def test_a_reply_to_somebody_who_has_just_left_is_dropped() -> None:
    """Between the cancelling of an attempt and the closing of its connection a reply may still come."""
    exchange = Exchange()
    exchange.answer.cancel()
    exchange.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert exchange.answer.cancelled()


def test_a_large_request_waits_for_the_peer_to_take_it() -> None:
    """What the transport cannot send at once stays where it is, instead of being copied into buffers."""
    assert len(Exchange(b"x" * 5_000_000).transport.written) < 200_000


def test_the_repr_tells_the_state() -> None:
    """A connection in a log or a debugger says what it is doing, and nothing of what it carries."""
    exchange = Exchange()
    assert repr(exchange.connection) == "<Connection busy, 0 replies>"
    exchange.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert repr(exchange.connection) == "<Connection idle, 1 replies>"
    exchange.end(None)
    assert repr(exchange.connection) == "<Connection closed, 1 replies>"


@given(st.integers(LIMIT_BYTES - 3, LIMIT_BYTES + 3), CUTS, st.booleans())
def test_the_cap_is_exact_in_every_framing(size: int, cuts: list[int], chunks: bool) -> None:
    """A body of exactly the limit is a reply, however it comes; a larger one is TOO_LARGE."""
    body = b"x" * size
    data = b"HTTP/1.1 200 OK\r\n\r\n" + body
    if chunks:
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    exchange = Exchange()
    exchange.receive_split(data, cuts)
    result: Any = exchange.end(None)
    assert result.body == (body if size <= LIMIT_BYTES else b"")
    assert isinstance(result, Reply) if size <= LIMIT_BYTES else result.kind is FaultKind.TOO_LARGE
