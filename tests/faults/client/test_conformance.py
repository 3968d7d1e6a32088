"""What every HTTP client of ours does with good and bad servers; where the two differ, a test says so."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable

import anyio
import pytest

from batcher.records import FaultKind
from tests.faults.client.clients import ANSWER, KEY, PROMPT, answering, connected, kind_of, ok, only_wire
from tests.faults.client.wire_server import Peer, Script, chunked, reply, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]

MEGABYTE = 1 << 20


def saying(data: bytes, *, then: Callable[[Peer], Awaitable[None] | None] | None = None) -> Script:
    """A server that reads a request, says `data` and waits for the client to close; or does `then` instead."""

    async def script(peer: Peer) -> None:
        await peer.answer(data)
        if then is None:
            await peer.wait_closed()
        elif (awaitable := then(peer)) is not None:
            await awaitable

    return script


def hang_up(peer: Peer) -> None:
    """Return, which closes the connection with FIN."""


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_the_request_carries_the_headers_of_a_json_post_and_the_body_as_it_is(kind: str) -> None:
    """The request is one POST with key, type, length and host, asks for no compression, and adds the user's headers."""
    async with (
        serving(saying(reply(ANSWER))) as server,
        connected(kind, server.url + "?api-version=1", headers={"X-Team": "blue", "user-agent": "mine/1"}) as client,
    ):
        ok(await client.send(PROMPT))
        assert KEY not in repr(client)
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions?api-version=1 HTTP/1.1"
    assert request.body == PROMPT
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(PROMPT)),
        "user-agent": "mine/1",
        "authorization": f"Bearer {KEY}",
        "x-team": "blue",
    }


async def test_nothing_is_taken_from_the_environment(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Proxy variables and netrc do not change where a request goes or what it carries."""
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(saying(reply(ANSWER))) as server, connected(kind, server.url) as client:
        ok(await client.send(PROMPT))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_cookies_are_not_kept(kind: str) -> None:
    """A cookie that the server sets does not come back."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.answer(reply(ANSWER, headers=("Set-Cookie: session=1; Path=/",)))

    async with serving(script) as server, connected(kind, server.url) as client:
        ok(await client.send(PROMPT))
        ok(await client.send(PROMPT))
    assert all("cookie" not in request.headers for request in server.requests)


async def test_a_large_prompt_arrives_whole_through_a_slow_reader(kind: str) -> None:
    """A request of 5 MB is sent as fast as the server takes it."""
    body = b'"' + b"x" * (5 * MEGABYTE) + b'"'

    async def script(peer: Peer) -> None:
        while True:
            await asyncio.sleep(0.02)
            await peer.answer(reply(ANSWER))

    async with serving(script) as server, connected(kind, server.url) as client:
        assert ok(await client.send(body)).body == ANSWER
        assert ok(await client.send(body)).body == ANSWER
    assert [request.body == body for request in server.requests] == [True, True]
    assert len(server.peers) == 1


# -- replies -----------------------------------------------------------------------------------------------------------

GOOD = {
    "length": reply(ANSWER),
    "chunks": chunked(ANSWER[:7], ANSWER[7:8], ANSWER[8:]),
    "chunk extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"%x;a=b\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(ANSWER), ANSWER)
    ),
    "interim responses before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
    + reply(ANSWER),
    "an offer to upgrade": reply(ANSWER, headers=("Connection: Upgrade", "Upgrade: h2c")),
    "gzip though not asked for": reply(gzip.compress(ANSWER), headers=("Content-Encoding: gzip",)),
    "gzip in chunks": chunked(
        gzip.compress(ANSWER)[:5], gzip.compress(ANSWER)[5:], headers=("Content-Encoding: x-gzip",)
    ),
    "deflate": reply(zlib.compress(ANSWER), headers=("Content-Encoding: deflate",)),
    "deflate without its header": reply(zlib.compress(ANSWER)[2:-4], headers=("Content-Encoding: deflate",)),
    "blank lines before": chunked(b"\r\n", b"\n", b"   ", ANSWER),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("slowly", [False, True], ids=["at once", "byte by byte"])
async def test_every_legal_framing_gives_the_same_reply(kind: str, data: bytes, slowly: bool) -> None:
    """Length, chunks, trailers, interim responses and compression do not show in the reply, however it is split."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await (peer.send_slowly(data) if slowly else peer.send(data))
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url) as client:
        for _ in range(2):
            result = ok(await client.send(PROMPT))
            assert (result.status, result.body.strip()) == (200, ANSWER)
    assert len(server.peers) == 1


async def test_an_event_stream_is_one_body(kind: str) -> None:
    """A reply that comes as events over a while is returned when it ends, comments and all."""
    events = b": keep-alive\n\n" + b"".join(b'data: {"n":%d}\n\n' % n for n in range(50)) + b"data: [DONE]\n\n"

    async def script(peer: Peer) -> None:
        await peer.request()
        pieces = [events[start : start + 16] for start in range(0, len(events), 16)]
        await peer.send(chunked(headers=("Content-Type: text/event-stream",), end=False))
        for piece in pieces:
            await peer.send_slowly(b"%x\r\n%b\r\n" % (len(piece), piece), step=9)
        await peer.send(b"0\r\n\r\n")
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url) as client:
        result = ok(await client.send(PROMPT))
    assert result.body == events
    assert result.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_status_without_body_ends_with_its_head(kind: str, status: str) -> None:
    """Such a response has no body whatever its headers say, and the connection stays good."""

    async def script(peer: Peer) -> None:
        await peer.answer(reply(status=status, length=False, body=b""))
        await peer.answer(reply(ANSWER))
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url) as client:
        assert ok(await client.send(PROMPT)).body == b""
        assert ok(await client.send(PROMPT)).body == ANSWER
    assert len(server.peers) == 1


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "429 Too Many", "500 Oops", "529 Overloaded", "200"])
async def test_every_status_is_a_reply(kind: str, status: str) -> None:
    """A reply with any status comes back with its headers and body; what it means is decided elsewhere."""
    data = reply(b'{"error":{}}', status=status, headers=("Retry-After: 7",))
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        result = ok(await client.send(PROMPT))
    assert (result.status, result.headers["retry-after"], result.body) == (int(status[:3]), "7", b'{"error":{}}')


async def test_a_redirect_is_returned_and_not_followed(kind: str) -> None:
    """The key goes to the configured address only."""
    data = reply(status="302 Found", headers=("Location: /elsewhere",))
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        assert ok(await client.send(PROMPT)).status == 302
    assert len(server.requests) == 1


async def test_header_names_are_lower_case_and_the_last_of_a_name_counts(kind: str) -> None:
    """Headers are a plain dictionary."""
    data = reply(ANSWER, headers=("X-One: a", "x-ONE: b", "X-Two:   c  "))
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        headers = ok(await client.send(PROMPT)).headers
    assert headers == {"x-one": "b", "x-two": "c", "content-length": str(len(ANSWER))}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_body_that_ends_with_the_connection_is_whole_if_the_server_closed_it(kind: str, version: bytes) -> None:
    """Without length and chunks the end of the connection is the end of the body."""
    data = b"HTTP/%b 200 OK\r\nContent-Type: application/json\r\n\r\n%b" % (version, ANSWER)
    async with serving(saying(data, then=hang_up)) as server, connected(kind, server.url) as client:
        assert ok(await client.send(PROMPT)).body == ANSWER


# -- keep-alive --------------------------------------------------------------------------------------------------------


async def test_attempts_one_after_another_share_a_connection(kind: str) -> None:
    """A connection is used again as long as both sides want to."""
    async with serving(answering) as server, connected(kind, server.url) as client:
        for _ in range(20):
            ok(await client.send(PROMPT))
        assert server.connected == 1
    assert len(server.peers) == 1


@only_wire
async def test_the_connection_used_last_is_used_next(kind: str) -> None:
    """Surplus connections stay unused, grow old and are closed, instead of taking turns with the others."""
    used = []

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            used.append(peer.number)
            await peer.send(reply(ANSWER))

    async with serving(script) as server, connected(kind, server.url) as client:
        await asyncio.gather(*(client.send(PROMPT) for _ in range(3)))
        del used[:]
        for _ in range(6):
            ok(await client.send(PROMPT))
    assert len(set(used)) == 1


LAST = {
    "Connection: close": reply(ANSWER, headers=("Connection: close",)),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER),
    "junk behind the response": reply(ANSWER) + b"junk",
    "another response behind the response": reply(ANSWER) + reply(b'{"whose":"?"}'),
}


@pytest.mark.parametrize("data", LAST.values(), ids=LAST.keys())
async def test_a_connection_that_cannot_be_trusted_again_is_closed(kind: str, data: bytes) -> None:
    """After its reply such a connection is closed by the client; aiohttp may take junk for a fault of the response."""
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        for _ in range(2):
            result = await client.send(PROMPT)
            if kind == "aiohttp" and data.endswith(b"junk"):
                assert kind_of(result) is FaultKind.PROTOCOL
            else:
                assert ok(result).body == ANSWER
        await server.peers[0].gone.wait()
    assert len(server.peers) == 2


async def test_bytes_on_an_idle_connection_end_it(kind: str) -> None:
    """What comes unasked is not taken for the next reply."""
    said = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(reply(ANSWER))
        if peer.number == 0:
            await peer.send(reply(b'{"whose":"?"}', status="408 Request Timeout"))
            said.set()
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url) as client:
        ok(await client.send(PROMPT))
        await said.wait()
        await asyncio.sleep(0.05)
        assert ok(await client.send(PROMPT)).status == 200
    assert len(server.peers) == 2


async def test_an_idle_connection_is_closed_when_it_is_old(kind: str) -> None:
    """A connection nobody used for `idle_s` is closed rather than found dead."""
    async with serving(saying(reply(ANSWER))) as server, connected(kind, server.url, idle_s=0.1) as client:
        ok(await client.send(PROMPT))
        await server.peers[0].gone.wait()
        ok(await client.send(PROMPT))
    assert len(server.peers) == 2


@only_wire
async def test_a_connection_that_grew_old_unnoticed_is_not_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sleep of the machine the age counts, not whether somebody came by to close the connection."""
    async with serving(saying(reply(ANSWER))) as server, connected(kind, server.url) as client:
        ok(await client.send(PROMPT))
        loop = asyncio.get_running_loop()
        now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: now + 20)
        ok(await client.send(PROMPT))
    assert len(server.peers) == 2


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_reused_connection_that_closes_without_a_byte_is_stale(kind: str, how: str) -> None:
    """The keep-alive race is told apart from a server that breaks off, and the next attempt is fine."""

    async def script(peer: Peer) -> None:
        await peer.answer(reply(ANSWER))
        await peer.request()
        if peer.number == 0 and how == "rst":
            peer.reset()
        elif peer.number:
            await peer.send(reply(ANSWER))

    async with serving(script) as server, connected(kind, server.url) as client:
        ok(await client.send(PROMPT))
        assert kind_of(await client.send(PROMPT)) is FaultKind.STALE
        ok(await client.send(PROMPT))


async def test_attempts_at_once_get_their_own_replies_over_a_bounded_number_of_connections(kind: str) -> None:
    """Two hundred attempts over twenty connections: each gets its own answer, and no more are ever open."""
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while True:
            request = await peer.request()
            most = max(most, peer.server.connected)
            await asyncio.sleep(0)
            await peer.send(reply(request.body[::-1]))

    async with serving(script) as server, connected(kind, server.url, connections=20) as client:

        async def ask(number: int) -> None:
            body = b"%d" % (number + 1000)
            assert ok(await client.send(body)).body == body[::-1]

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(ask, number)
    assert most == 20


# -- broken responses --------------------------------------------------------------------------------------------------

SHORT = reply(ANSWER)[:-5]
HEAD_OF_CHUNKS = chunked(end=False)
BROKEN = {
    "no HTTP": (b"NONSENSE\r\n\r\n", FaultKind.PROTOCOL),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", FaultKind.PROTOCOL),
    "status without number": (b"HTTP/1.1 abc OK\r\n\r\n", FaultKind.PROTOCOL),
    "header without colon": (b"HTTP/1.1 200 OK\r\nNonsense\r\n\r\n", FaultKind.PROTOCOL),
    "length that is no number": (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", FaultKind.PROTOCOL),
    "negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", FaultKind.PROTOCOL),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", FaultKind.PROTOCOL),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        FaultKind.PROTOCOL,
    ),
    "chunks and length": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        FaultKind.PROTOCOL,
    ),
    "unknown transfer coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx", FaultKind.PROTOCOL),
    "switch of protocols": (
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        FaultKind.PROTOCOL,
    ),
    "one header of 70 KB": (reply(headers=("X-Long: " + "x" * 70_000,)), FaultKind.PROTOCOL),
    "80 KB of headers": (reply(headers=tuple(f"X-{n}: {'y' * 30}" for n in range(2000))), FaultKind.PROTOCOL),
    "header without end": (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000, FaultKind.PROTOCOL),
    "header name without end": (b"HTTP/1.1 200 OK\r\n" + b"x" * 200_000, FaultKind.PROTOCOL),
    "chunk size that is no number": (HEAD_OF_CHUNKS + b"5\r\nhello\r\nzz\r\n", FaultKind.TRUNCATED),
    "chunk longer than its size": (HEAD_OF_CHUNKS + b"2\r\nhello\r\n", FaultKind.TRUNCATED),
}


@pytest.mark.parametrize(("data", "expected"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_not_http_is_a_fault_and_closes_the_connection(
    kind: str, data: bytes, expected: FaultKind
) -> None:
    """A response that breaks the rules is no reply, and nothing more is read from its connection."""
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        found = kind_of(await client.send(PROMPT))
        await server.peers[0].gone.wait()
    if kind == "aiohttp" and expected is FaultKind.TRUNCATED:  # it depends on how the response was split
        assert found in (FaultKind.TRUNCATED, FaultKind.PROTOCOL)
    else:
        assert found is expected


UNDECODABLE = {
    "unknown compression": ("br", ANSWER, FaultKind.PROTOCOL),
    "two compressions": ("gzip, gzip", ANSWER, FaultKind.PROTOCOL),
    "no gzip at all": ("gzip", ANSWER, FaultKind.PROTOCOL),
    "gzip cut short": ("gzip", gzip.compress(ANSWER)[:-9], FaultKind.TRUNCATED),
    "gzip with a tail": ("gzip", gzip.compress(ANSWER) + b"xx", FaultKind.PROTOCOL),
}


@pytest.mark.parametrize(("coding", "body", "expected"), UNDECODABLE.values(), ids=UNDECODABLE.keys())
async def test_a_body_that_does_not_unpack_is_a_fault(kind: str, coding: str, body: bytes, expected: FaultKind) -> None:
    """What cannot be decompressed to the end is no reply."""
    data = reply(body, headers=(f"Content-Encoding: {coding}",))
    async with serving(saying(data)) as server, connected(kind, server.url) as client:
        assert kind_of(await client.send(PROMPT)) is expected


CUT = {
    "before the response": (b"", FaultKind.DISCONNECTED, b""),
    "within the status line": (b"HTTP/1.1 20", FaultKind.DISCONNECTED, b""),
    "within the headers": (b"HTTP/1.1 200 OK\r\nContent-Le", FaultKind.DISCONNECTED, b""),
    "within a body with length": (SHORT, FaultKind.TRUNCATED, ANSWER[:-5]),
    "within a chunk": (HEAD_OF_CHUNKS + b"a\r\nhel", FaultKind.TRUNCATED, b"hel"),
    "between chunks": (chunked(b"hello", end=False), FaultKind.TRUNCATED, b"hello"),
    "before the end of the trailers": (chunked(b"hello")[:-2], FaultKind.TRUNCATED, b"hello"),
}


@pytest.mark.parametrize(("data", "expected", "body"), CUT.values(), ids=CUT.keys())
async def test_a_response_cut_by_the_servers_close_is_a_fault_with_what_arrived(
    kind: str, data: bytes, expected: FaultKind, body: bytes
) -> None:
    """A connection closed too early is told apart by how far the response had come."""
    async with serving(saying(data, then=hang_up)) as server, connected(kind, server.url) as client:
        result = await client.send(PROMPT)
    assert kind_of(result) is expected
    assert result.body == body


@pytest.mark.parametrize("data", [value[0] for value in CUT.values()], ids=CUT.keys())
async def test_a_reset_at_any_stage_is_a_broken_connection(kind: str, data: bytes) -> None:
    """RST instead of FIN is DISCONNECTED everywhere; aiohttp does not tell it from FIN within a body."""

    async def script(peer: Peer) -> None:
        await peer.answer(data)
        await asyncio.sleep(0.02)  # a reset overtakes data that the client has not read
        peer.reset()

    async with serving(script) as server, connected(kind, server.url) as client:
        result = kind_of(await client.send(PROMPT))
    in_body = b"\r\n\r\n" in data
    assert result is (FaultKind.TRUNCATED if kind == "aiohttp" and in_body else FaultKind.DISCONNECTED)


async def test_a_reset_ends_no_body_that_has_no_other_end(kind: str) -> None:
    """Only a clean close is the end of such a body; aiohttp takes a reset for one."""

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER[:9])
        await asyncio.sleep(0.02)
        peer.reset()

    async with serving(script) as server, connected(kind, server.url) as client:
        result = await client.send(PROMPT)
    if kind == "wire":
        assert kind_of(result) is FaultKind.DISCONNECTED
    assert result.body == ANSWER[:9]


async def test_a_flood_of_interim_responses_ends(kind: str) -> None:
    """The lean client bounds what precedes a response; with aiohttp the deadline ends it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)
            await asyncio.sleep(0.001)

    total_s = 0.3 if kind == "aiohttp" else 100.0
    async with serving(script) as server, connected(kind, server.url, total_s=total_s) as client:
        expected = FaultKind.TIMEOUT if kind == "aiohttp" else FaultKind.PROTOCOL
        assert kind_of(await client.send(PROMPT)) is expected
        await server.peers[0].gone.wait()


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_cap_is_refused_while_it_arrives(kind: str, announced: bool) -> None:
    """A body without end against a cap of 16 MB: the connection is closed, and nothing of the body is kept."""

    async def script(peer: Peer) -> None:
        await peer.request()
        length = (f"Content-Length: {1 << 40}",)
        await peer.send(reply(b"", headers=length, length=False) if announced else HEAD_OF_CHUNKS)
        while True:
            await peer.send(b"x" * MEGABYTE if announced else b"%x\r\n%b\r\n" % (MEGABYTE, b"x" * MEGABYTE))

    async with serving(script) as server, connected(kind, server.url) as client:
        result = await client.send(PROMPT)
        await server.peers[0].gone.wait()
    assert kind_of(result) is FaultKind.TOO_LARGE
    assert result.body == b""


async def test_a_body_just_under_the_cap_arrives_whole(kind: str) -> None:
    """The cap is exact."""
    body = b"x" * (16 * MEGABYTE)
    async with serving(saying(reply(body))) as server, connected(kind, server.url) as client:
        assert ok(await client.send(PROMPT)).body == body
    async with serving(saying(reply(body + b"x"))) as server, connected(kind, server.url) as client:
        assert kind_of(await client.send(PROMPT)) is FaultKind.TOO_LARGE


async def test_a_small_response_that_unpacks_to_a_huge_one_is_refused(kind: str) -> None:
    """The cap counts what comes out of the decompressor."""
    bomb = gzip.compress(b"\0" * (64 * MEGABYTE))
    data = reply(bomb, headers=("Content-Encoding: gzip",))
    async with serving(saying(data)) as server, connected(kind, server.url, max_response_bytes=MEGABYTE) as client:
        result = await client.send(PROMPT)
    assert kind_of(result) is FaultKind.TOO_LARGE
    assert result.body == b""


# -- time --------------------------------------------------------------------------------------------------------------

BLANKS = {"blank lines": b"\r\n", "comments": b": keep-alive\n\n", "comments of one line": b": PROCESSING\r\n"}


def repeating(line: bytes, *, times: int | None, then: bytes = b"") -> Script:
    """A server that sends `line` in chunks, often or for ever, and then a last chunk."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD_OF_CHUNKS)
        while times is None or times > 0:
            await peer.send(b"%x\r\n%b\r\n" % (len(line), line))
            await asyncio.sleep(0.01)
            if times is not None:
                for _ in range(times - 1):
                    await peer.send(b"%x\r\n%b\r\n" % (len(line), line))
                break
        await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(then), then))
        await peer.wait_closed()

    return script


@pytest.mark.parametrize("line", BLANKS.values(), ids=BLANKS.keys())
async def test_keep_alive_lines_before_the_answer_are_no_trouble(kind: str, line: bytes) -> None:
    """A queued request that the server keeps alive with blank lines or comments is answered in the end."""
    async with serving(repeating(line, times=20, then=ANSWER)) as server, connected(kind, server.url) as client:
        assert ok(await client.send(PROMPT)).body == line * 20 + ANSWER


@pytest.mark.parametrize("line", BLANKS.values(), ids=BLANKS.keys())
async def test_keep_alive_lines_for_ever_are_not_content(kind: str, line: bytes) -> None:
    """A dead request is not held by keep-alive lines: the deadline of the first byte counts content only."""
    async with serving(repeating(line, times=None)) as server, connected(kind, server.url, first_byte_s=0.2) as client:
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.TIMEOUT
        assert result.message == "no content within 0.2 s"
        await server.peers[0].gone.wait()


async def test_the_first_byte_lifts_its_deadline(kind: str) -> None:
    """Once content has begun, only the deadline of the whole attempt counts."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply(ANSWER)[:-30])
        await asyncio.sleep(0.5)
        await peer.send(ANSWER[-30:])
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url, first_byte_s=0.2) as client:
        assert ok(await client.send(PROMPT)).body == ANSWER


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", HEAD_OF_CHUNKS])
async def test_a_silent_server_is_given_up(kind: str, said: bytes) -> None:
    """No answer, or only the head of one, is a timeout after `first_byte_s`."""
    async with serving(saying(said)) as server, connected(kind, server.url, first_byte_s=0.2) as client:
        assert kind_of(await client.send(PROMPT)) is FaultKind.TIMEOUT
        await server.peers[0].gone.wait()


async def test_the_shorter_deadline_counts(kind: str) -> None:
    """A `total_s` below `first_byte_s` ends a silent attempt."""
    async with serving(saying(b"")) as server, connected(kind, server.url, total_s=0.2) as client:
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.TIMEOUT
        assert result.message == "no complete response within 0.2 s"


async def test_an_answer_that_trickles_for_ever_is_given_up(kind: str) -> None:
    """Progress does not extend `total_s`, and what arrived is kept."""
    async with serving(repeating(b"x", times=None)) as server, connected(kind, server.url, total_s=0.3) as client:
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.TIMEOUT
        assert result.message == "no complete response within 0.3 s"
        assert set(result.body) == set(b"x")
        await server.peers[0].gone.wait()


async def test_a_server_that_takes_no_request_is_given_up(kind: str) -> None:
    """A large request that nobody reads ends with the deadline."""

    async def script(peer: Peer) -> None:
        await peer.gone.wait()

    async with serving(script) as server, connected(kind, server.url, first_byte_s=0.2) as client:
        assert kind_of(await client.send(b"x" * (30 * MEGABYTE))) is FaultKind.TIMEOUT


# -- early replies and cancellation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("closing", ["keeps reading", "closes", "keeps the connection and reads nothing"])
@pytest.mark.parametrize("status", ["401 Unauthorized", "413 Too Large"])
async def test_a_refusal_during_the_upload_is_the_reply(kind: str, closing: str, status: str) -> None:
    """A server that answers before it has read 5 MB is heard, and the connection with half a request is not reused."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(ANSWER, status=status, headers=("Connection: close",) if closing == "closes" else ()))
        if closing == "keeps reading":
            await peer.wait_closed()
        elif closing != "closes":
            await asyncio.sleep(0.2)

    async with serving(script) as server, connected(kind, server.url) as client:
        for _ in range(2):
            result = ok(await client.send(b"x" * (5 * MEGABYTE)))
            assert (result.status, result.body) == (int(status[:3]), ANSWER)
    assert len(server.peers) == 2


@pytest.mark.parametrize("said", [b"", SHORT], ids=["before the response", "within the response"])
async def test_a_cancelled_attempt_closes_its_connection(kind: str, said: bytes) -> None:
    """Nobody reads what a cancelled attempt would have received, and the client goes on."""
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(said if peer.number == 0 else reply(ANSWER))
        asked.set()
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url, connections=1) as client:
        attempt = asyncio.create_task(client.send(PROMPT))
        await asked.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await server.peers[0].gone.wait()
        ok(await client.send(PROMPT))
    assert len(server.peers) == 2


async def test_closing_the_client_leaves_no_connection(kind: str) -> None:
    """After `close` the server sees every connection gone."""
    async with serving(saying(reply(ANSWER))) as server:
        async with connected(kind, server.url) as client, anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.send, PROMPT)
        if kind == "wire":
            assert repr(client).endswith(": 0 open, 0 idle>")
        for peer in server.peers:
            await peer.gone.wait()
        assert server.connected == 0
