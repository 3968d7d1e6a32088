"""Through a proxy, which is the part of the client on aiohttp."""

from __future__ import annotations

import asyncio

import pytest

from batcher.client import Destination, open_client
from batcher.client.proxied import AiohttpClient
from batcher.client.wire import WireClient
from batcher.errors import JobError
from batcher.records import FaultKind
from tests.faults.client.certificates import issue
from tests.faults.client.clients import ANSWER, PROMPT, answering, connected, kind_of, ok, unused_port
from tests.faults.client.wire_server import Peer, reply, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


@pytest.fixture
def anyio_backend() -> str:
    """One client, one event loop."""
    return "asyncio"


async def test_the_lean_client_is_used_unless_there_is_a_proxy() -> None:
    """aiohttp is for proxies only."""
    for url in ("http://localhost/v1", "https://localhost/v1"):
        for proxy, expected in ((None, WireClient), ("http://localhost:3128", AiohttpClient)):
            client = open_client(Destination(url=url, proxy=proxy), 1)
            assert type(client) is expected
            await client.close()


async def test_a_plain_request_goes_through_the_proxy() -> None:
    """The proxy gets the whole address and its own password, which the answer's server need not see."""
    async with serving(answering) as proxy:
        where = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with connected("aiohttp", "http://api.example.test/v1", proxy=where) as client:
            assert ok(await client.send(PROMPT)).body == ANSWER
    assert proxy.requests[0].line == "POST http://api.example.test/v1 HTTP/1.1"
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"


async def test_a_tls_request_is_tunnelled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The proxy sees a CONNECT without key or prompt; certificates are checked end to end."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = issue(folder, "authority", authority=True)
    good = issue(folder, "good", issuer=authority)

    async def tunnel(peer: Peer) -> None:
        line, headers = await peer.head()
        assert line == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"
        assert "authorization" not in headers
        assert headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        other = await asyncio.open_connection("127.0.0.1", server.port)
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await peer.pipe(other)

    async with serving(answering, good.server_context()) as server, serving(tunnel) as proxy:
        where = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with connected("aiohttp", server.url, proxy=where, ca_file=authority.path) as client:
            assert ok(await client.send(PROMPT)).body == ANSWER
        async with connected("aiohttp", server.url, proxy=where) as client:
            assert kind_of(await client.send(PROMPT)) is FaultKind.TLS


async def test_a_proxy_that_refuses_is_named() -> None:
    """A CONNECT that is refused sent nothing; neither did a proxy that does not listen."""

    async def refuse(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply(status="407 Proxy Authentication Required"))

    async with serving(refuse) as proxy:
        where = f"http://127.0.0.1:{proxy.port}"
        async with connected("aiohttp", "https://api.example.test/v1", proxy=where) as client:
            result = await client.send(PROMPT)
    assert kind_of(result) is FaultKind.CONNECT
    assert "the proxy refused" in result.message
    assert "407" in result.message
    with unused_port() as port:
        async with connected("aiohttp", "http://api.example.test/v1", proxy=f"http://127.0.0.1:{port}") as client:
            result = await client.send(PROMPT)
    assert kind_of(result) is FaultKind.CONNECT
    assert "the proxy" in result.message


async def test_a_proxy_that_is_no_address_is_an_error_of_the_job() -> None:
    """It is found before anything is sent."""
    with pytest.raises(JobError, match=r"endpoint\.proxy"):
        open_client(Destination(url="http://localhost/v1", proxy="socks5://localhost:1080"), 1)
