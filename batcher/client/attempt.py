"""What an attempt is, whichever code carries it out: where it goes, its headers, and a body as it arrives.

The two clients (`wire` and the aiohttp one in `proxied`) share everything in here, so they cannot differ in it. This
module opens no connection and knows no parser.
"""

from __future__ import annotations

import importlib.metadata
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlsplit

from batcher.errors import JobError
from batcher.records import Fault, FaultKind
from batcher.secret import Secret

#: a response's header block, or any other stretch of a response that carries no body byte, may be this long
HEAD_LIMIT_BYTES: Final = 64 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: headers that frame the request or name its target: batcher sets them, nobody else
_OURS = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade", "keep-alive"}
)
_INK = re.compile(rb"\S")
_LINE_END = re.compile(rb"[\r\n]")


def _version() -> str:
    try:
        return importlib.metadata.version("batcher-llm")
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        return "0"


#: looked up here, where nothing waits: the package metadata takes milliseconds to find
_USER_AGENT: Final = f"batcher/{_version()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where requests go and what they may cost in time and memory. Its repr shows no key, header or proxy password."""

    #: the full http(s) address that is POSTed to
    url: str
    #: GET only for what an endpoint says about itself, see `fetch`
    method: Literal["POST", "GET"] = "POST"
    key: Secret | None = None
    #: extra request headers
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: for name resolution, TCP and TLS together
    connect_s: float = 30.0
    #: from the start of the attempt to the first byte of content; blank lines and `: comment` lines are none
    first_byte_s: float = 660.0
    #: for the whole attempt
    total_s: float = 1800.0
    #: an unused connection older than this is closed instead of reused
    idle_s: float = 15.0
    #: largest response body, after decompression; nothing is kept of a larger one
    max_response_bytes: int = 16 * 1024 * 1024
    #: PEM file with the certificate authorities to trust instead of the system's
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    def without_key(self, body: bytes) -> bytes:
        """Return a response body without the key, should the server have repeated it."""
        return body if self.key is None else self.key.hide_in(body)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart for one HTTP/1.1 origin-form request."""

    tls: bool
    #: ASCII name or address literal without brackets
    host: str
    port: int
    #: the Host header
    authority: str
    #: path and query, percent-encoded
    resource: str

    @classmethod
    def of(cls, url: str, *, setting: str = "endpoint.base_url") -> Target:
        """Take `url` apart; `setting` is where it was written down.

        Raises:
            JobError: it is no http(s) URL with a host, or its port is no port.
        """
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
        except ValueError:
            raise JobError(f"{setting}: the host or port is not valid") from None
        if parts.scheme not in ("http", "https") or not host:
            raise JobError(f"{setting}: must be an http or https URL with a host")
        tls = parts.scheme == "https"
        name = f"[{host}]" if ":" in host else host
        resource = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            resource += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._")
        default = 443 if tls else 80
        port = default if port is None else port
        return cls(tls, host, port, name if port == default else f"{name}:{port}", resource)

    @property
    def url(self) -> str:
        """The normal form of the URL."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.resource}"

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"


def request_headers(destination: Destination) -> dict[str, str]:
    """Return the headers of every request, but for Host and Content-Length. The key is in them: build, send, forget.

    Raises:
        JobError: a header (or the key) holds what HTTP cannot carry, or is one that batcher sets itself.
    """
    headers = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
    }
    known = {name.lower(): name for name in headers}
    for name, value in destination.headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise JobError(f"endpoint.headers: {name!r} cannot be set")
        if not _VALUE.fullmatch(value):
            raise JobError(f"endpoint.headers.{name}: the value holds a character that no header can carry")
        headers[known.setdefault(name.lower(), name)] = value
    if destination.key is not None:
        if not _VALUE.fullmatch(destination.key.reveal()):
            raise JobError("the API key holds a character that no header can carry, such as a line break")
        headers[known.get("authorization", "Authorization")] = f"Bearer {destination.key.reveal()}"
    return headers


class Unusable(Exception):  # noqa: N818 - it ends the reading of a response; it is no error of the program
    """The response cannot become a reply; carries the fault that says why."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(kind, message)


class Body:
    """A response body as it arrives: decoded, capped, and watched for its first byte of content."""

    __slots__ = ("_coding", "_first", "_inflate", "_limit_bytes", "_rest", "_silent_comment", "_size_bytes", "begun")

    def __init__(self, limit_bytes: int, coding: str | None) -> None:
        """`coding` is the Content-Encoding header.

        Raises:
            Unusable: no decoder for `coding`.
        """
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        # most bodies come in one piece; those that come in very many must not cost an object for each
        self._first = b""
        self._rest: bytearray | None = None
        self._coding = None if coding is None else coding.strip().lower()
        self._inflate: zlib._Decompress | None = None
        self._silent_comment = False
        #: a byte arrived that is neither a blank line nor a comment
        self.begun = False
        if self._coding in ("", "identity"):
            self._coding = None
        if self._coding not in (None, "gzip", "x-gzip", "deflate"):
            raise Unusable(FaultKind.PROTOCOL, "the response is compressed in a way that was not asked for")

    @property
    def arrived(self) -> bytes:
        """What arrived so far, decoded."""
        return self._first if self._rest is None else bytes(self._rest)

    def add(self, piece: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            Unusable: the body grew past its limit, or does not decompress.
        """
        if self._coding is not None:
            piece = self._decompress(piece)
        self._size_bytes += len(piece)
        if self._size_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if not self.begun:
            self.begun = self._has_content(piece)
        if self._rest is not None:
            self._rest += piece
        elif self._first:
            self._rest = bytearray(self._first)
            self._rest += piece
        else:
            self._first = piece

    def finish(self) -> bytes:
        """Return the whole body.

        Raises:
            Unusable: the compressed stream ended before its end mark.
        """
        if self._inflate is not None and not self._inflate.eof:
            raise Unusable(FaultKind.TRUNCATED, "the compressed response body is cut short")
        return self.arrived

    def _decompress(self, piece: bytes) -> bytes:
        if self._inflate is None:
            # "deflate" should have a zlib header (low half of the first byte 8); some servers leave it out
            bare = self._coding == "deflate" and piece[0] & 0x0F != 8
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        try:
            plain = self._inflate.decompress(piece, self._limit_bytes - self._size_bytes + 1)
        except zlib.error as error:
            raise Unusable(FaultKind.PROTOCOL, "the compressed response body does not decompress") from error
        if self._inflate.unused_data:
            raise Unusable(FaultKind.PROTOCOL, "bytes follow the end of the compressed response body")
        return plain

    def _has_content(self, piece: bytes) -> bool:
        """True if `piece` holds more than blank lines and lines that begin with a colon, an event stream's comments."""
        position = 0
        while True:
            if self._silent_comment:
                end = _LINE_END.search(piece, position)
                if end is None:
                    return False
                position = end.end()
                self._silent_comment = False
            ink = _INK.search(piece, position)
            if ink is None:
                return False
            if piece[ink.start()] != 0x3A:
                return True
            position = ink.end()
            self._silent_comment = True


def body_of(status: int, headers: Mapping[str, str], limit_bytes: int) -> tuple[Body, bool]:
    """Return what receives the body that a response head announces, and whether only the connection's end ends it.

    Raises:
        Unusable: the head contradicts itself, or announces a body that is too large or cannot be decoded.
    """
    if status < 200:
        raise Unusable(FaultKind.PROTOCOL, "the server switched to another protocol")
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None and (length is not None or coding.strip().lower() != "chunked"):
        raise Unusable(FaultKind.PROTOCOL, "the response is framed in contradictory or unknown ways")
    bodiless = status in (204, 304)
    if length is not None and not bodiless and int(length) > limit_bytes:
        raise too_large(limit_bytes)
    return Body(limit_bytes, headers.get("content-encoding")), length is None and coding is None and not bodiless


def too_large(limit_bytes: int) -> Unusable:
    """The error of a body beyond `limit_bytes`."""
    return Unusable(FaultKind.TOO_LARGE, f"the response body is larger than {limit_bytes} bytes")


def timed_out(*, begun: bool, first_byte_s: float, total_s: float, body: bytes = b"") -> Fault:
    """The fault of a deadline that passed after the request was sent."""
    if begun or total_s <= first_byte_s:
        return Fault(FaultKind.TIMEOUT, f"no complete response within {total_s:g} s", body)
    return Fault(FaultKind.TIMEOUT, f"no content within {first_byte_s:g} s", body)
