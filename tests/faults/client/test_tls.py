"""TLS: who is trusted, who is not, and what a broken handshake or end is called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from batcher.client import Destination, open_client
from batcher.errors import JobError
from batcher.records import FaultKind, Reply
from tests.faults.client.blocking_server import in_thread
from tests.faults.client.certificates import Certificate, issue
from tests.faults.client.clients import ANSWER, KEY, PROMPT, answering, connected, kind_of, localhost, ok, only_wire
from tests.faults.client.wire_server import Peer, chunked, reply, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates lie."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Certificate:
    """The authority that the clients trust."""
    return issue(folder, "authority", host="authority.test", authority=True)


async def test_a_good_certificate_is_accepted_and_the_connection_is_reused(
    kind: str, folder: Path, authority: Certificate
) -> None:
    """Requests of any size go through one TLS connection."""
    good = issue(folder, "good", issuer=authority)
    async with (
        serving(answering, good.server_context()) as server,
        connected(kind, server.url, ca_file=authority.path) as client,
    ):
        for body in (PROMPT, b"x" * 3_000_000, PROMPT):
            assert ok(await client.send(body)).body == ANSWER
    assert [len(request.body) for request in server.requests] == [len(PROMPT), 3_000_000, len(PROMPT)]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert len(server.peers) == 1


async def test_a_certificate_for_the_name_is_checked_against_the_name(
    kind: str, folder: Path, authority: Certificate
) -> None:
    """A name is verified as a name, an address as an address: one is no substitute for the other."""
    named = issue(folder, "named", host="localhost", issuer=authority)
    async with serving(answering, named.server_context()) as server:
        async with connected(kind, localhost(server.url), ca_file=authority.path) as client:
            ok(await client.send(PROMPT))
        async with connected(kind, server.url, ca_file=authority.path) as client:
            assert kind_of(await client.send(PROMPT)) is FaultKind.TLS
    assert len(server.requests) == 1


@pytest.mark.parametrize("wrong", ["host", "expired", "self-signed", "unknown authority"])
async def test_a_wrong_certificate_is_refused_before_anything_is_sent(
    kind: str, folder: Path, authority: Certificate, wrong: str
) -> None:
    """The key goes to nobody who cannot show a valid certificate for the host."""
    shown = {
        "host": lambda: issue(folder, "host", host="elsewhere.test", issuer=authority),
        "expired": lambda: issue(folder, "expired", issuer=authority, days=-1),
        "self-signed": lambda: issue(folder, "self-signed"),
        "unknown authority": lambda: issue(folder, "leaf", issuer=issue(folder, "stranger", authority=True)),
    }[wrong]()
    async with (
        serving(answering, shown.server_context()) as server,
        connected(kind, server.url, ca_file=authority.path) as client,
    ):
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.TLS
    words = {"host": "mismatch", "expired": "has expired", "self-signed": "self-signed", "unknown authority": "issuer"}
    assert words[wrong] in result.message
    assert server.requests == []


async def test_the_systems_authorities_do_not_include_ours(kind: str, folder: Path, authority: Certificate) -> None:
    """Without `ca_file` a private authority is a stranger."""
    good = issue(folder, "private", issuer=authority)
    async with serving(answering, good.server_context()) as server, connected(kind, server.url) as client:
        assert kind_of(await client.send(PROMPT)) is FaultKind.TLS


async def test_a_server_without_tls_is_a_tls_fault(kind: str) -> None:
    """Plain HTTP on an https address is a mistake in the address, not an outage."""

    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.wait_closed()

    async with serving(script) as server, connected(kind, server.url.replace("http:", "https:")) as client:
        assert kind_of(await client.send(PROMPT)) is FaultKind.TLS


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_connection_closed_within_the_handshake_is_an_outage(kind: str, how: str) -> None:
    """A restarting gateway is worth another try; it says nothing about certificates."""

    async def script(peer: Peer) -> None:
        await asyncio.sleep(0.02)
        if how == "rst":
            peer.reset()

    async with serving(script) as server, connected(kind, server.url.replace("http:", "https:")) as client:
        assert kind_of(await client.send(PROMPT)) is FaultKind.CONNECT


async def test_a_handshake_that_does_not_move_ends_with_the_connect_deadline(kind: str) -> None:
    """TLS counts as connecting: nothing was sent when it hangs."""

    async def script(peer: Peer) -> None:
        await peer.wait_closed()

    async with (
        serving(script) as server,
        connected(kind, server.url.replace("http:", "https:"), connect_s=0.2) as client,
    ):
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.CONNECT
        assert "within 0.2 s" in result.message
        await server.peers[0].gone.wait()


async def test_a_server_that_wants_a_client_certificate_refuses_us(
    kind: str, folder: Path, authority: Certificate
) -> None:
    """With TLS 1.3 the refusal comes after the handshake; aiohttp takes it for a broken connection."""
    context = issue(folder, "mutual", issuer=authority).server_context(clients_signed_by=authority.path)

    def serve(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True)

    with in_thread(serve) as port:
        async with connected(kind, f"https://127.0.0.1:{port}/", ca_file=authority.path) as client:
            expected = FaultKind.TLS if kind == "wire" else FaultKind.DISCONNECTED
            assert kind_of(await client.send(PROMPT)) is expected


@only_wire
async def test_the_server_is_told_why_its_certificate_is_refused(
    kind: str, folder: Path, authority: Certificate
) -> None:
    """Whoever looks after the server finds an alert in its log, not a connection that just went away."""
    context = issue(folder, "untrusted").server_context()
    heard = []

    def serve(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True)
        except ssl.SSLError as error:
            heard.append(error.reason)

    with in_thread(serve) as port:
        async with connected(kind, f"https://127.0.0.1:{port}/", ca_file=authority.path) as client:
            assert kind_of(await client.send(PROMPT)) is FaultKind.TLS
    assert heard == ["TLSV1_ALERT_UNKNOWN_CA"]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_refusal_is_heard_though_the_server_slams_the_door(
    kind: str, folder: Path, authority: Certificate, tls: bool
) -> None:
    """A server that refuses 5 MB after the first bytes and closes is a reply, though writing fails before it is read.

    aiohttp may lose such a reply.
    """
    context = issue(folder, "slamming", issuer=authority).server_context()

    def serve(connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            if tls:
                connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
            connection.recv(16384)
            connection.sendall(reply(ANSWER, status="413 Too Large", headers=("Connection: close",)))

    with in_thread(serve) as port:
        url = f"http{'s' if tls else ''}://127.0.0.1:{port}/"
        async with connected(kind, url, ca_file=authority.path) as client:
            for _ in range(20):
                result = await client.send(b"x" * 5_000_000)
                if kind == "wire" or isinstance(result, Reply):
                    assert (ok(result).status, ok(result).body) == (413, ANSWER)
                else:
                    assert kind_of(result) is FaultKind.DISCONNECTED


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_body_that_ends_with_the_connection_needs_the_goodbye_of_tls(
    kind: str, folder: Path, authority: Certificate, goodbye: bool
) -> None:
    """Without it anybody on the way could have cut the body; aiohttp does not look."""
    good = issue(folder, "closing", issuer=authority)

    async def script(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER)
        if not goodbye:
            peer.abort()

    async with (
        serving(script, good.server_context()) as server,
        connected(kind, server.url, ca_file=authority.path) as client,
    ):
        result = await client.send(PROMPT)
    if goodbye or kind == "aiohttp":
        assert ok(result).body == ANSWER
    else:
        assert kind_of(result) is FaultKind.TRUNCATED
        assert result.body == ANSWER


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_cut_or_stale_connection_is_told_apart_inside_tls_too(
    kind: str, folder: Path, authority: Certificate, goodbye: bool
) -> None:
    """STALE and TRUNCATED do not depend on how politely the server closed."""
    good = issue(folder, "cutting", issuer=authority)

    async def script(peer: Peer) -> None:
        await peer.answer(reply(ANSWER))
        await peer.request()
        if peer.number == 1:
            await peer.send(chunked(b"hello", end=False))
            await asyncio.sleep(0.02)
        if not goodbye:
            peer.abort()

    async with (
        serving(script, good.server_context()) as server,
        connected(kind, server.url, ca_file=authority.path) as client,
    ):
        ok(await client.send(PROMPT))
        assert kind_of(await client.send(PROMPT)) is FaultKind.STALE
        ok(await client.send(PROMPT))
        result = await client.send(PROMPT)
        assert kind_of(result) is FaultKind.TRUNCATED
        assert result.body == b"hello"


async def test_broken_records_break_the_connection(kind: str, folder: Path, authority: Certificate) -> None:
    """Bytes that are no TLS within a TLS connection are never taken for an answer."""
    good = issue(folder, "garbled", issuer=authority)

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write_below_tls(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        await peer.wait_closed()

    async with (
        serving(script, good.server_context()) as server,
        connected(kind, server.url, ca_file=authority.path) as client,
    ):
        assert kind_of(await client.send(PROMPT)) in (FaultKind.DISCONNECTED, FaultKind.TLS)


async def test_tls_connections_share_the_memory_for_reading(folder: Path, authority: Certificate) -> None:
    """An idle TLS connection holds no read buffer of its own: 2,500 of them fit into a small machine."""
    good = issue(folder, "small", host="localhost", issuer=authority)
    async with (
        serving(answering, good.server_context()) as server,
        connected("wire", localhost(server.url), ca_file=authority.path) as client,
    ):
        await asyncio.gather(*(client.send(PROMPT) for _ in range(5)))
        buffers = {id(connection._buffer.obj) for connection in client._open}  # type: ignore[attr-defined]
    assert len(server.peers) == 5
    assert len(buffers) == 1


@pytest.mark.parametrize("content", [None, "no certificate in here\n"])
async def test_a_ca_file_that_is_none_is_an_error_of_the_job(
    tmp_path_factory: pytest.TempPathFactory, content: str | None
) -> None:
    """A missing or empty `ca_file` is named before anything is sent; it never means less verification."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    if content is not None:
        path.write_text(content)
    for proxy in (None, "http://127.0.0.1:9"):
        with pytest.raises(JobError, match=r"endpoint\.ca_file: .*ca\.pem"):
            open_client(Destination(url="https://localhost/v1", ca_file=path, proxy=proxy), 1)


def test_verification_cannot_be_turned_off() -> None:
    """There is no setting for it, and the one context that is made checks host name and certificate."""
    from batcher.client.tls import tls_context

    context = tls_context(None)
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert not {name for name in Destination.__dataclass_fields__ if "verif" in name or "insecure" in name}
