"""The client on aiohttp, for a destination behind a proxy.

aiohttp is imported when such a client is made, since that takes a quarter of a second. What differs from `wire`:

* any number of interim (1xx) responses is skipped, so that a flood of them ends with the deadline;
* a reset within the head of a response on a reused connection is STALE, as one before it is;
* bytes behind the response, or a broken chunk, make it PROTOCOL if they came together with its head;
* a reset within a body is TRUNCATED, and a body that ends with the connection is taken as whole whatever ended it;
* a refusal in the middle of a large upload may be lost when the server closes at once: DISCONNECTED, as is a server
  that wants a client certificate.
"""

from __future__ import annotations

import asyncio
import functools
import io
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from batcher.client.attempt import (
    HEAD_LIMIT_BYTES,
    Body,
    Destination,
    Target,
    Unusable,
    body_of,
    request_headers,
    timed_out,
)
from batcher.client.dial import explain, open_socket
from batcher.client.tls import tls_context
from batcher.records import Fault, FaultKind, Reply

if TYPE_CHECKING:
    import aiohttp

#: aiohttp warns of a larger body in one piece
_ONE_PIECE_BYTES: Final = 1024 * 1024


class _Attempt:
    """How far one request of aiohttp's came."""

    __slots__ = ("body", "connected", "reused", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.connected = False
        self.reused = False
        #: there since the head of the response arrived
        self.body: Body | None = None


_ATTEMPT: ContextVar[_Attempt] = ContextVar("attempt")


class AiohttpClient:
    """A client on aiohttp: where a proxy stands between."""

    def __init__(self, destination: Destination, connections: int) -> None:
        """Must be called where an event loop runs; it opens nothing yet.

        Raises:
            JobError: the URL, a header, the proxy or the CA file is not usable.
        """
        import yarl

        self._destination = destination
        self._target = Target.of(destination.url)
        self._url = yarl.URL(self._target.url, encoded=True)
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(connections)
        self._session = _session(destination)

    def __repr__(self) -> str:
        return f"<AiohttpClient to {self._target}>"

    async def send(self, body: bytes) -> Reply | Fault:
        """Make one attempt. Deadlines count from when a connection is free for it."""
        import aiohttp

        async with self._room:
            attempt = _Attempt(self._loop.time())
            limits = self._destination
            first_s = min(limits.first_byte_s, limits.total_s)
            token = _ATTEMPT.set(attempt)
            try:
                async with asyncio.timeout_at(attempt.started + first_s) as deadline:
                    return await self._exchange(body, attempt, deadline)
            except Unusable as error:
                return error.fault
            except (OSError, aiohttp.ClientError) as error:
                return self._fault(error, attempt)
            finally:
                _ATTEMPT.reset(token)  # it holds the response

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _exchange(self, body: bytes, attempt: _Attempt, deadline: asyncio.Timeout) -> Reply:
        method, data = self._destination.method, io.BytesIO(body) if len(body) > _ONE_PIECE_BYTES else body
        async with self._session.request(method, self._url, data=data, allow_redirects=False) as response:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.raw_headers}
            attempt.body, _ = body_of(response.status, headers, self._destination.max_response_bytes)
            async for piece in response.content.iter_any():
                attempt.body.add(piece)
                if attempt.body.begun and not response.content.at_eof() and not deadline.expired():
                    deadline.reschedule(attempt.started + self._destination.total_s)
            return Reply(response.status, headers, self._destination.without_key(attempt.body.finish()))

    def _fault(self, error: Exception, attempt: _Attempt) -> Fault:
        """Say what aiohttp's exception means; its own text, which may quote what was sent or received, is not used."""
        import aiohttp

        limits = self._destination
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return Fault(FaultKind.CONNECT, f"the proxy refused to connect to {self._target}: HTTP {error.status}")
        if not attempt.connected:
            return self._not_connected(error)
        arrived = b"" if attempt.body is None else attempt.body.arrived
        if isinstance(error, TimeoutError):
            begun = attempt.body is not None and attempt.body.begun
            return timed_out(begun=begun, first_byte_s=limits.first_byte_s, total_s=limits.total_s, body=arrived)
        if isinstance(error, aiohttp.ClientPayloadError):
            return Fault(FaultKind.TRUNCATED, "the connection was closed within the response body", arrived)
        if isinstance(error, aiohttp.ClientResponseError):
            return Fault(FaultKind.PROTOCOL, "the response is not HTTP/1.1, or its headers are too large")
        if attempt.body is None and attempt.reused:
            return Fault(FaultKind.STALE, "the reused connection was closed before the response")
        if attempt.body is None:
            return Fault(FaultKind.DISCONNECTED, "the connection was closed before the response")
        return Fault(FaultKind.DISCONNECTED, "the connection broke within the response", arrived)

    def _not_connected(self, error: Exception) -> Fault:
        import aiohttp

        target = "the proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else self._target
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            error = error.certificate_error
        elif isinstance(error, aiohttp.ClientConnectorError):
            error = error.os_error
        elif isinstance(error, TimeoutError):
            error = TimeoutError()
        patience_s = min(self._destination.connect_s, self._destination.total_s)
        return explain(error, target, patience_s=patience_s)


@functools.cache
def _connector_class() -> type[aiohttp.TCPConnector]:
    """Return a connector that notes in the current `_Attempt` what aiohttp's exceptions do not say."""
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._used: weakref.WeakSet[Any] = weakref.WeakSet()

        async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's name for it
            connection = await super().connect(req, traces, timeout)
            attempt = _ATTEMPT.get()
            attempt.connected = True
            attempt.reused = connection.protocol in self._used
            self._used.add(connection.protocol)
            return connection

    return Connector


def _session(destination: Destination) -> aiohttp.ClientSession:
    """Return a session that keeps nothing between requests but connections, and takes nothing from the environment."""
    import aiohttp

    proxy = None
    if destination.proxy is not None:
        Target.of(destination.proxy, setting="endpoint.proxy")
        proxy = destination.proxy
    headers = request_headers(destination)
    connector = _connector_class()(
        limit=0,
        ssl=tls_context(destination.ca_file),
        ttl_dns_cache=60,
        keepalive_timeout=destination.idle_s,
        socket_factory=open_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        proxy=proxy,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=destination.connect_s, sock_connect=None),
        auto_decompress=False,
        trust_env=False,
        max_line_size=HEAD_LIMIT_BYTES,
        max_field_size=HEAD_LIMIT_BYTES,
    )
