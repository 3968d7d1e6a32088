"""Both HTTP clients, to be put through the same tests, and what the tests have in common."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from batcher.client import Client, Destination
from batcher.client.proxied import AiohttpClient
from batcher.client.wire import WireClient
from batcher.records import Fault, FaultKind, Reply
from batcher.secret import Secret
from tests.faults.client.wire_server import Peer, reply

KINDS: dict[str, Callable[[Destination, int], Client]] = {"wire": WireClient, "aiohttp": AiohttpClient}

#: for what the other client leaves to its libraries
only_wire = pytest.mark.parametrize("combination", ["wire"], indirect=True)

KEY = "sk-canary-0123456789"
PROMPT = b'{"messages":[{"role":"user","content":"canary prompt"}]}'
ANSWER = b'{"object":"chat.completion","n":"0123456789"}'


@contextlib.asynccontextmanager
async def connected(kind: str, url: str, *, connections: int = 10, **settings: Any) -> AsyncIterator[Client]:
    """Yield a client of `kind` for `url`; unless told otherwise it is more patient than the tests are."""
    limits = {"connect_s": 100.0, "first_byte_s": 100.0, "total_s": 100.0} | settings
    client = KINDS[kind](Destination(url=url, key=Secret(KEY), **limits), connections)
    try:
        yield client
    finally:
        await client.close()


async def answering(peer: Peer) -> None:
    """A server that answers every request."""
    while True:
        await peer.answer(reply(ANSWER))


@contextlib.contextmanager
def unused_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def localhost(url: str) -> str:
    """The same server under its name instead of its address."""
    return url.replace("127.0.0.1", "localhost")


def kind_of(result: Reply | Fault) -> FaultKind:
    """The kind of the fault that `result` has to be; it must not quote what was sent."""
    assert isinstance(result, Fault), result
    assert KEY not in repr(result)
    assert b"canary" not in repr((result.kind, result.message)).encode()
    return result.kind


def ok(result: Reply | Fault) -> Reply:
    """The reply that `result` has to be."""
    assert isinstance(result, Reply), result
    return result
