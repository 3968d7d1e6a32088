"""From a host name to a connection that is ready, every failure explained as a fault; no request was sent by then.

Names are looked up once a minute in a thread, all addresses are tried, and the one that worked is tried first the next
time.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from batcher.client.attempt import Target
from batcher.client.connection import Connection
from batcher.records import Fault, FaultKind

Address = tuple[int, int, int, str, Any]

_LOOKUP_S: Final = 60.0
#: an address that does not answer holds up the next one no longer than this
_PATIENCE_S: Final = 3.0
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
#: a dead peer is noticed after 60 s of silence and five unanswered probes, one a minute
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


def explain(error: BaseException, target: object, *, patience_s: float = 0.0) -> Fault:
    """Say what a failure to connect to `target` was. Texts come from the operating system, OpenSSL or this page."""
    reason = getattr(error, "errno", None)
    if reason in _EXHAUSTED or (isinstance(error, socket.gaierror) and not _can_open_sockets()):
        return Fault(FaultKind.NO_DESCRIPTORS, "this process has no file descriptor left for another connection")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Fault(FaultKind.TLS, f"the certificate of {target} is not valid: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        words = (error.reason or "failed").replace("_", " ").lower()
        return Fault(FaultKind.TLS, f"the TLS handshake with {target} failed: {words}")
    if isinstance(error, TimeoutError) and reason is None:
        return Fault(FaultKind.CONNECT, f"no connection to {target} within {patience_s:g} s")
    if isinstance(error, socket.gaierror):
        return Fault(FaultKind.CONNECT, f"the name of {target} cannot be resolved: {error.strerror}")
    if reason:
        return Fault(FaultKind.CONNECT, f"cannot connect to {target}: {os.strerror(reason)}")
    closed = isinstance(error, (ConnectionError, ssl.SSLError))
    return Fault(FaultKind.CONNECT, f"{target} closed the connection" if closed else f"no address of {target} answers")


def _can_open_sockets() -> bool:
    """False if the process is out of descriptors: a failed name lookup does not say that this was its reason."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno not in _EXHAUSTED
    return True


def open_socket(address: Address) -> socket.socket:
    """Return a non-blocking socket for `address`: small writes leave at once, a silent dead peer is noticed."""
    sock = socket.socket(*address[:3])
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if option := getattr(socket, name, None):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        sock.close()
        raise
    return sock


class Dialer:
    """Opens connections to one host."""

    def __init__(self, target: Target, connect_s: float) -> None:
        self._target = target
        self._connect_s = connect_s
        self._addresses: list[Address] = []
        self._expires_at = 0.0
        self._lookup: asyncio.Task[list[Address]] | None = None

    async def dial(self, make_connection: Callable[[], Connection], limit_s: float) -> Connection | Fault:
        """Return a connection that is ready for a request; `limit_s` may shorten the time for it."""
        patience_s = min(self._connect_s, limit_s)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_s) as deadline:
                sock = await self._connect_any(deadline.when() or 0.0)
                _, connection = await loop.create_connection(make_connection, sock=sock)
                try:
                    await connection.ready()
                except BaseException:
                    connection.close()
                    raise
        except OSError as error:
            return explain(error, self._target, patience_s=patience_s)
        return connection

    async def _connect_any(self, deadline: float) -> socket.socket:
        """Connect to the first address that answers.

        Raises:
            OSError: none does; the error is the last address's.
        """
        addresses = await self._resolve()
        loop = asyncio.get_running_loop()
        for position, address in enumerate(addresses, 1):
            last = position == len(addresses)
            try:
                async with asyncio.timeout_at(deadline if last else min(deadline, loop.time() + _PATIENCE_S)):
                    sock = await _connect(loop, address)
            except OSError as error:
                if last or error.errno in _EXHAUSTED:
                    raise
            else:
                if position > 1:
                    self._addresses = [address, *(other for other in addresses if other is not address)]
                return sock
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")

    async def _resolve(self) -> list[Address]:
        """Return the host's addresses; callers at the same time share one lookup."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._expires_at:
            return self._addresses
        if (literal := _literal(self._target)) is not None:
            self._addresses, self._expires_at = [literal], float("inf")
            return self._addresses
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up())
            self._lookup.add_done_callback(self._looked_up)
        return await asyncio.shield(self._lookup)

    async def _look_up(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        return list(await loop.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM))

    def _looked_up(self, lookup: asyncio.Task[list[Address]]) -> None:
        self._lookup = None
        if not lookup.cancelled() and lookup.exception() is None:
            self._addresses = lookup.result()
            self._expires_at = lookup.get_loop().time() + _LOOKUP_S


def _literal(target: Target) -> Address | None:
    """Return the address if the host is one already, which needs no lookup."""
    try:
        version = ipaddress.ip_address(target.host).version
    except ValueError:
        return None
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (target.host, target.port))


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    sock = open_socket(address)
    try:
        await loop.sock_connect(sock, address[4])
    except BaseException:
        sock.close()
        raise
    return sock
