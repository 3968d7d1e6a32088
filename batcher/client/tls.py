"""A connection inside TLS, and the context that verifies the peer.

OpenSSL works on memory here instead of the event loop's TLS transport. That one keeps 256 KiB for every connection and,
when a write fails, loses an answer that has already arrived; this one needs about 50 KiB, shares the rest between
connections, and reads to the end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

from batcher.client.attempt import Destination
from batcher.client.connection import Connection
from batcher.errors import JobError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name; there is none that does not.

    Raises:
        JobError: `ca_file` cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise JobError(f"endpoint.ca_file: {ca_file}: {error.strerror or 'holds no certificate'}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some systems allow older ones by default
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that a write never has to wait for a read
    return context


class TlsConnection(Connection):
    """A `Connection` whose bytes pass through OpenSSL."""

    def __init__(
        self,
        destination: Destination,
        buffer: memoryview,
        gone: Callable[[Connection], None],
        *,
        context: ssl.SSLContext,
        host: str,
        plain: memoryview,
    ) -> None:
        """What was decrypted goes to `plain`, which may be shared as `buffer` may."""
        super().__init__(destination, buffer, gone)
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ready(self) -> None:
        """Wait for the end of the handshake.

        Raises:
            OSError: it failed (ssl.SSLError), or the connection was closed within it.
        """
        await self._shaken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._shake_hands()

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._buffer[:nbytes])
        if not self._shaken.done():
            self._shake_hands()
        if self._shaken.done():
            self._decrypt()

    def eof_received(self) -> None:
        """The peer closed without the goodbye of TLS, so what came last may be missing."""
        self._ended(None, clean=False)
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shaken.done():
            self._break_off(exc or ConnectionResetError())
        super().connection_lost(exc)

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._break_off(error)
            self._flush()  # the alert that tells the peer why
            self.close()
            return
        else:
            self._shaken.set_result(None)
        self._flush()

    def _break_off(self, error: Exception) -> None:
        self._shaken.set_exception(error)
        self._shaken.exception()  # whoever waited may have been cancelled, which is no reason to complain

    def _decrypt(self) -> None:
        try:
            while True:
                count = cast(int, self._tls.read(len(self._plain), self._plain))  # typed as if it returned bytes
                if not count:  # the goodbye of TLS
                    self._ended(None, clean=True)
                    self.close()
                    return
                self._take(self._plain[:count])
        except ssl.SSLWantReadError:
            self._flush()  # the answer to a key update, if there was one
        except ssl.SSLError as error:
            self._ended(error, clean=False)
            self.close()

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        try:
            while len(rest):
                taken = self._tls.write(rest)
                rest = rest[taken:]
        except ssl.SSLError:
            self.close()  # with which the attempt ends
        else:
            self._flush()

    def _flush(self) -> None:
        if (encrypted := self._outgoing.read()) and not self.closed:
            super()._write(encrypted)
