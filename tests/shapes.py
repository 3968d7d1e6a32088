"""Every way in which an HTTP answer goes wrong, as shapes of the fault server.

Grouped by what a client can make of them: `GOOD_IN_THE_END` hold the answer after all, `BROKEN` do not, though it may
have been paid for; `ODD` hold an answer that cannot be stored as it is.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import struct
import zlib
from collections.abc import Awaitable, Callable

from batcher.simulator.refusal import usual
from tests.fault_server import HTML, JSON, Exchange, Over, Shape, completion, refusing, sending
from tests.faults.client.wire_server import chunked, reply

EVENTS = ("Content-Type: text/event-stream",)
#: blank lines and comments are sent this far apart
BEAT_S = 0.1
FOR_EVER = 10_000
MEGABYTES_OF_THE_BOMB = 300
LONE_SURROGATE = b'"\\ud83d half of it"'


Play = Callable[[Exchange], Awaitable[None]]


def _last(name: str, play: Play) -> Shape:
    """A shape after which the connection is over."""

    async def then_end(exchange: Exchange) -> None:
        await play(exchange)
        raise Over

    return Shape(name, then_end)


# -- no answer


async def _silent(exchange: Exchange) -> None:
    """The request is read, and that is all."""
    await exchange.peer.wait_closed()


async def _blank_for_ever(exchange: Exchange) -> None:
    """Keep-alives of a request that never gets its turn."""
    await exchange.peer.send(chunked(b"\n", headers=JSON, end=False))
    for _ in range(FOR_EVER):
        await asyncio.sleep(BEAT_S)
        await exchange.peer.send(b"1\r\n\n\r\n")


async def _comments_for_ever(exchange: Exchange) -> None:
    """The same in an event stream."""
    await exchange.peer.send(chunked(b": keep-alive\n\n", headers=EVENTS, end=False))
    for _ in range(FOR_EVER):
        await asyncio.sleep(BEAT_S)
        await exchange.peer.send(b"e\r\n: keep-alive\n\n\r\n")


async def _trickle(exchange: Exchange) -> None:
    """An answer that never ends."""
    await exchange.peer.send(reply(b"", headers=(*JSON, "Content-Length: 1000000"), length=False) + exchange.body[:20])
    for _ in range(FOR_EVER):
        await asyncio.sleep(BEAT_S)
        await exchange.peer.send(b" ")


# -- cut short


async def _short_length(exchange: Exchange) -> None:
    """The framing announces more than comes."""
    body = exchange.body
    head = reply(b"", headers=(*JSON, f"Content-Length: {len(body)}"), length=False)
    await exchange.peer.send(head + body[: len(body) // 2])


async def _short_chunks(exchange: Exchange) -> None:
    """Half of the answer in chunks, and no last one."""
    await exchange.peer.send(chunked(exchange.body[: len(exchange.body) // 2], headers=JSON, end=False))


async def _broken_chunk(exchange: Exchange) -> None:
    """The chunk's own length is longer."""
    whole = chunked(exchange.body, headers=JSON)
    await exchange.peer.send(whole[: len(whole) - 40])


async def _short_close(exchange: Exchange) -> None:
    """No framing says that something is missing."""
    await exchange.peer.send(reply(exchange.body[:-30], headers=JSON, length=False))


async def _stream_cut(exchange: Exchange) -> None:
    """An event stream that ends with the connection, in the middle."""
    events = b"".join(exchange.events)
    await exchange.peer.send(reply(events[: len(events) // 2], headers=EVENTS, length=False))


SILENT = _last("silent", _silent)
BLANK_FOR_EVER = _last("blank lines for ever", _blank_for_ever)
COMMENTS_FOR_EVER = _last("comments for ever", _comments_for_ever)
TRICKLE = _last("trickle", _trickle)
SHORT_LENGTH = _last("content-length is longer", _short_length)
SHORT_CHUNKS = _last("last chunk is missing", _short_chunks)
BROKEN_CHUNK = _last("cut within a chunk", _broken_chunk)
SHORT_CLOSE = _last("cut where only the close ends it", _short_close)
STREAM_CUT = _last("stream cut in an event", _stream_cut)

# -- connections that end


def _dying(name: str, data: Callable[[Exchange], bytes], *, reset: bool) -> Shape:
    async def play(exchange: Exchange) -> None:
        if sent := data(exchange):
            await exchange.peer.send(sent)
            await asyncio.sleep(0.02)  # let it arrive, or a reset may overtake it
        if reset:
            exchange.peer.reset()
        raise Over

    return Shape(f"{'reset' if reset else 'closed'} {name}", play)


def _head(exchange: Exchange) -> bytes:
    return reply(exchange.body, headers=JSON)[: -len(exchange.body)]


ENDINGS = [
    _dying(name, data, reset=reset)
    for name, data in {
        "before the headers": lambda exchange: b"",
        "within the headers": lambda exchange: _head(exchange)[:-10],
        "after the headers": _head,
        "within the body": lambda exchange: _head(exchange) + exchange.body[:50],
    }.items()
    for reset in (True, False)
]


# -- not what was asked for

GARBAGE = sending("garbage", lambda exchange: b"\x00\x01\x02 not HTTP at all \xff\xfe\r\n\r\n" * 3)
HUGE_HEADER = sending("100 KB header", lambda exchange: reply(exchange.body, headers=(*JSON, "X: " + "x" * 100_000)))
NOT_JSON = sending("not JSON", lambda exchange: reply(exchange.body[:-20], headers=JSON))
NESTED = sending("nested 100,000 deep", lambda exchange: reply(b'{"choices": ' + b"[" * 100_000, headers=JSON))
NO_CHOICES = sending("no choices", lambda exchange: reply(completion(exchange.draft, choices=[]), headers=JSON))
ERROR_IN_200 = sending("error in 200", lambda exchange: reply(usual(500).body(), headers=JSON))
ERROR_EVENT = sending(
    "error event",
    lambda exchange: chunked(*exchange.events[:2], b"data: %b\n\n" % usual(500).body(), headers=EVENTS),
)
NULL_FINISH = sending(
    "null finish reason",
    lambda exchange: reply(exchange.body.replace(b'"finish_reason":"stop"', b'"finish_reason":null'), headers=JSON),
    unkept=True,
)


def _bomb() -> bytes:
    """A small file that unpacks to a huge one: the same packed megabyte, again and again."""
    megabyte = b"x" * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(megabyte) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(megabyte) + packer.flush(zlib.Z_FULL_FLUSH)
    whole = first + again * (MEGABYTES_OF_THE_BOMB - 1) + packer.flush()
    checksum = functools.reduce(lambda sum_, _: zlib.crc32(megabyte, sum_), range(MEGABYTES_OF_THE_BOMB), 0)
    trailer = struct.pack("<II", checksum, MEGABYTES_OF_THE_BOMB << 20)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + whole + trailer


_BOMB = reply(_bomb(), headers=(*JSON, "Content-Encoding: gzip"))
BOMB = sending("gzip bomb", lambda exchange: _BOMB, doubtful=False)

BROKEN = [
    SILENT,
    BLANK_FOR_EVER,
    COMMENTS_FOR_EVER,
    TRICKLE,
    SHORT_LENGTH,
    SHORT_CHUNKS,
    BROKEN_CHUNK,
    SHORT_CLOSE,
    STREAM_CUT,
    *ENDINGS,
    GARBAGE,
    HUGE_HEADER,
    NOT_JSON,
    NESTED,
    NO_CHOICES,
    ERROR_IN_200,
    ERROR_EVENT,
    NULL_FINISH,
    HTML,
    *(refusing(status) for status in (408, 409, 500, 502, 503, 504, 529)),
]

# -- good in the end


def _answer(name: str, play: Play) -> Shape:
    return Shape(name, play, usable=True, doubtful=False)


async def _after_blank_lines(exchange: Exchange) -> None:
    await exchange.peer.send(chunked(b"\n", headers=JSON, end=False))
    for _ in range(5):
        await asyncio.sleep(BEAT_S)
        await exchange.peer.send(b"1\r\n\n\r\n")
    await exchange.peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(exchange.body), exchange.body))


async def _after_comments(exchange: Exchange) -> None:
    await exchange.peer.send(reply(b"", headers=EVENTS, length=False))
    for event in exchange.events:
        await exchange.peer.send(b": keep-alive\n\n" + event)
    raise Over


async def _stream_without_done(exchange: Exchange) -> None:
    await exchange.peer.send(chunked(*exchange.events[:-1], headers=EVENTS))


async def _byte_by_byte(exchange: Exchange) -> None:
    await exchange.peer.send_slowly(reply(exchange.body, headers=JSON))


async def _until_close(exchange: Exchange) -> None:
    await exchange.peer.send(reply(exchange.body, headers=JSON, length=False))
    raise Over


async def _packed(exchange: Exchange) -> None:
    await exchange.peer.send(reply(gzip.compress(exchange.body), headers=(*JSON, "Content-Encoding: gzip")))


async def _closing(exchange: Exchange) -> None:
    await exchange.peer.send(reply(exchange.body, headers=(*JSON, "Connection: close")))
    raise Over


async def _twenty_kilobytes_of_headers(exchange: Exchange) -> None:
    await exchange.peer.send(reply(exchange.body, headers=(*JSON, "X-Debug: " + "x" * 20_000)))


async def _after_interim_responses(exchange: Exchange) -> None:
    await exchange.peer.send(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 3 + reply(exchange.body, headers=JSON))


GOOD_IN_THE_END = [
    _answer("blank lines, then JSON", _after_blank_lines),
    _answer("comments, then data", _after_comments),
    _answer("stream without [DONE]", _stream_without_done),
    _answer("byte by byte", _byte_by_byte),
    _answer("ended by the close", _until_close),
    _answer("gzip", _packed),
    _answer("connection: close", _closing),
    _answer("20 KB header", _twenty_kilobytes_of_headers),
    _answer("interim responses", _after_interim_responses),
]

# -- whole answers that cannot be stored as they are


def _spoiled(name: str, old: bytes, new: bytes) -> Shape:
    def data(exchange: Exchange) -> bytes:
        body = exchange.body
        assert old in body
        return reply(body.replace(old, new, 1), headers=JSON)

    return sending(name, data, usable=True, doubtful=False)


def _with_content(exchange: Exchange, content: bytes) -> bytes:
    quoted = json.dumps(exchange.draft.content).encode()
    assert quoted in exchange.body
    return reply(exchange.body.replace(quoted, content), headers=JSON)


SURROGATE = sending(
    "lone surrogate", lambda exchange: _with_content(exchange, LONE_SURROGATE), usable=True, doubtful=False
)
NAN_USAGE = _spoiled("usage is NaN", b'"prompt_tokens":', b'"prompt_tokens":NaN,"was":')
HUGE_NUMBER = _spoiled(
    "usage of 5,000 digits", b'"completion_tokens":', b'"completion_tokens":' + b"9" * 5000 + b',"was":'
)
DUPLICATE_KEYS = _spoiled("usage twice", b'"usage":', b'"usage":{"prompt_tokens":1},"usage":')

ODD = [SURROGATE, NAN_USAGE, HUGE_NUMBER, DUPLICATE_KEYS]
