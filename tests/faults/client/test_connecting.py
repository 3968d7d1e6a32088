"""Getting a connection: names, addresses, deadlines, descriptors. Nothing was sent when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batcher.records import FaultKind
from tests.faults.client.clients import ANSWER, PROMPT, answering, connected, kind_of, localhost, ok, unused_port
from tests.faults.client.wire_server import Peer, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]

#: methods of uvloop cannot be replaced
replaceable_lookup = pytest.mark.parametrize("combination", ["wire", "aiohttp"], indirect=True)


def address(host: str, port: int) -> tuple[int, int, int, str, tuple[str, int]]:
    """One answer of a name lookup."""
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


async def test_a_refused_connection_is_named(kind: str) -> None:
    """Nobody listening is CONNECT, with host and port."""
    with unused_port() as port:
        async with connected(kind, f"http://127.0.0.1:{port}/v1") as client:
            result = await client.send(PROMPT)
    assert kind_of(result) is FaultKind.CONNECT
    assert result.message == f"cannot connect to 127.0.0.1 port {port}: Connection refused"


@replaceable_lookup
async def test_a_name_that_does_not_exist_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown host is CONNECT, and the lookup is tried again by the next attempt."""
    lookups = []

    async def fail(host: str, port: int, **options: Any) -> Any:
        lookups.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    async with connected(kind, "http://api.example.test/v1") as client:
        for _ in range(2):
            result = await client.send(PROMPT)
            assert kind_of(result) is FaultKind.CONNECT
            assert "api.example.test" in result.message
    assert len(lookups) == 2


@replaceable_lookup
async def test_every_address_is_tried_and_the_good_one_first_next_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead address behind a name costs one try; names are looked up once a minute, by all at once."""
    lookups = []
    tried = []

    async def look_up(host: str, port: int, **options: Any) -> Any:
        lookups.append(host)
        return [address("127.0.0.2", dead), address("127.0.0.1", server.port)]

    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, where: Any) -> None:
        tried.append(where[0])
        await connect(sock, where)

    with unused_port() as dead:
        async with serving(answering) as server:
            monkeypatch.setattr(loop, "getaddrinfo", look_up)
            monkeypatch.setattr(loop, "sock_connect", sock_connect)
            async with connected(kind, f"http://api.example.test:{server.port}/v1") as client:
                ok(await client.send(PROMPT))
                await asyncio.gather(*(client.send(PROMPT) for _ in range(3)))
    assert len(server.peers) == 3
    assert lookups == ["api.example.test"]
    if kind == "wire":  # aiohttp has another order
        assert tried == ["127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"]


async def test_localhost_works_though_nothing_listens_on_its_other_address(kind: str) -> None:
    """A name with an IPv6 and an IPv4 address reaches a server that has one of them."""
    async with serving(answering) as server, connected(kind, localhost(server.url)) as client:
        assert ok(await client.send(PROMPT)).body == ANSWER
    assert server.requests[0].headers["host"] == f"localhost:{server.port}"


async def test_a_host_that_does_not_answer_ends_with_the_connect_deadline(kind: str) -> None:
    """A connection that is not established within `connect_s` is CONNECT: nothing was sent."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fill the queue of connections nobody accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with connected(kind, f"http://127.0.0.1:{full.getsockname()[1]}/v1", connect_s=0.2) as client:
            result = await client.send(PROMPT)
    assert kind_of(result) is FaultKind.CONNECT
    assert "within 0.2 s" in result.message


async def test_a_server_that_closes_before_the_request_is_an_outage_or_a_break(kind: str) -> None:
    """A server at its limit accepts and resets; which fault that is depends on whether the request was out."""

    async def script(peer: Peer) -> None:
        peer.reset()

    async with serving(script) as server, connected(kind, server.url) as client:
        assert kind_of(await client.send(PROMPT)) in (FaultKind.CONNECT, FaultKind.DISCONNECTED)


async def test_cancelling_while_connecting_leaves_nothing_behind(kind: str) -> None:
    """An attempt that is cancelled in the TLS handshake closes its connection."""
    accepted = asyncio.Event()

    async def script(peer: Peer) -> None:
        accepted.set()
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url.replace("http:", "https:")) as client:
        attempt = asyncio.create_task(client.send(PROMPT))
        await accepted.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await server.peers[0].gone.wait()


OUT_OF_DESCRIPTORS = """
import asyncio, os, resource, sys
from tests.faults.client.clients import KINDS, PROMPT
from batcher.client import Destination

async def main(kind, url):
    client = KINDS[kind](Destination(url=url), 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
    print((await client.send(PROMPT)).kind.name)
    for descriptor in taken:
        os.close(descriptor)
    print((await client.send(PROMPT)).status)
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_process_without_descriptors_says_so_and_recovers(kind: str, host: str) -> None:
    """Out of descriptors is a fault of its own, also when it is the name lookup that fails."""
    async with serving(answering) as server:
        url = server.url.replace("127.0.0.1", host)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", OUT_OF_DESCRIPTORS, kind, url),
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        said, _ = await process.communicate()
    assert said.decode().split() == ["NO_DESCRIPTORS", "200"]
