"""A GET for what an endpoint says about itself: the rules of an attempt hold for it too."""

from __future__ import annotations

import pytest

from batcher.client import Destination
from batcher.client.fetch import MAX_BYTES, fetch
from batcher.records import Fault, FaultKind, Reply
from batcher.secret import Secret
from tests.faults.client.clients import ANSWER, KEY, answering, kind_of, ok
from tests.faults.client.wire_server import Peer, WireServer, reply, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]

PROXIED = "http://api.example.test/v1"


def destination(server: WireServer, kind: str, **settings: object) -> Destination:
    """Where a job's requests go; with aiohttp the server is the proxy in between."""
    url = PROXIED + "/chat/completions" if kind == "aiohttp" else server.url
    proxy = f"http://127.0.0.1:{server.port}" if kind == "aiohttp" else None
    return Destination(url=url, key=Secret(KEY), proxy=proxy, **settings)  # type: ignore[arg-type]


def models_url(server: WireServer, kind: str) -> str:
    """What is looked up."""
    return PROXIED + "/models" if kind == "aiohttp" else server.url.replace("/chat/completions", "/models")


async def look_up(server: WireServer, kind: str, patience_s: float = 10.0, **settings: object) -> Reply | Fault:
    """Fetch the models."""
    return await fetch(destination(server, kind, **settings), models_url(server, kind), patience_s=patience_s)


async def test_it_is_a_get_with_the_key_and_the_headers_of_the_job(kind: str) -> None:
    """The request has no body, and all that a gateway may want: key, user's headers, our name."""
    async with serving(answering) as server:
        assert ok(await look_up(server, kind, headers={"X-Team": "blue"})).body == ANSWER
    (request,) = server.requests
    target = PROXIED + "/models" if kind == "aiohttp" else "/v1/models"
    assert request.line == f"GET {target} HTTP/1.1"
    assert request.body == b""
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "blue"
    assert request.headers["user-agent"].startswith("batcher/")


async def test_a_redirect_is_not_followed(kind: str) -> None:
    """The key goes to no other address than the job's."""

    async def redirect(peer: Peer) -> None:
        await peer.answer(reply(status="302 Found", headers=("Location: /v1/elsewhere",)))
        await peer.wait_closed()

    async with serving(redirect) as server:
        assert ok(await look_up(server, kind)).status == 302
    assert len(server.requests) == 1


async def test_proxies_of_the_environment_are_not_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the job says where something goes."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(answering) as server:
        assert ok(await look_up(server, kind)).body == ANSWER


async def test_a_key_that_is_repeated_is_taken_out(kind: str) -> None:
    """What comes back can be looked at without care."""

    async def repeat(peer: Peer) -> None:
        await peer.answer(reply(f'{{"key": "{KEY}"}}'.encode()))
        await peer.wait_closed()

    async with serving(repeat) as server:
        assert KEY.encode() not in ok(await look_up(server, kind)).body


async def test_a_huge_answer_is_given_up(kind: str) -> None:
    """Nobody reads a list of 4 MiB, and memory is bounded."""

    async def babble(peer: Peer) -> None:
        await peer.answer(reply(b" " * (MAX_BYTES + 1)))
        await peer.wait_closed()

    async with serving(babble) as server:
        assert kind_of(await look_up(server, kind)) is FaultKind.TOO_LARGE


async def test_silence_ends_with_the_patience(kind: str) -> None:
    """An endpoint that accepts and says nothing holds up nobody, however patient the job is with its rows."""

    async def say_nothing(peer: Peer) -> None:
        await peer.request()
        await peer.wait_closed()

    async with serving(say_nothing) as server:
        result = await look_up(server, kind, patience_s=0.3, first_byte_s=600.0, total_s=600.0)
    assert kind_of(result) is FaultKind.TIMEOUT
    assert isinstance(result, Fault)
    assert "0.3 s" in result.message
