"""HTTP/1.1 as the simulator needs it: bytes to requests, answers to bytes.

Knows nothing about chat completions. A request body needs a Content-Length; requests sent back to back are given out
one by one, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {status.value: status.phrase for status in HTTPStatus}
#: statuses that by the standard come without a body
BODILESS = (204, 304)


@dataclass(slots=True)
class Request:
    """One HTTP request. Header names are in lower case."""

    method: str
    #: the target without its query
    path: str
    headers: dict[str, str]
    length: int
    body: bytes = b""

    @property
    def keep_alive(self) -> bool:
        """The connection may be used again."""
        return "close" not in self.headers.get("connection", "").lower()


class BadRequestError(Exception):
    """What arrived cannot be read as a request; answer `status` and close."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class RequestReader:
    """Collects what arrives on a connection and gives out whole requests."""

    __slots__ = ("_buffer", "_pending", "expects_continue")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._pending: Request | None = None
        #: the client waits for `CONTINUE` before it sends the body; whoever sends it sets this back
        self.expects_continue = False

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived and was not given out."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        self._buffer += data

    def next_request(self) -> Request | None:
        """Return the next whole request, or None until more arrives; raises `BadRequestError`."""
        request = self._pending or self._next_head()
        if request is None:
            return None
        buffer = self._buffer
        if len(buffer) < request.length:
            self._pending = request
            return None
        request.body = bytes(buffer[: request.length])
        del buffer[: request.length]
        self._pending = None
        self.expects_continue = False
        return request

    def _next_head(self) -> Request | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # the standard asks to overlook empty lines before a request
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n")
        if max(end, len(buffer) if end < 0 else 0) > MAX_HEAD_BYTES:
            raise BadRequestError(431, "the request's header is too large")
        if end < 0:
            return None
        request = parse_head(buffer[:end].decode("latin-1"))
        del buffer[: end + 4]
        self.expects_continue = request.headers.get("expect", "").lower() == "100-continue"
        return request


def parse_head(head: str) -> Request:
    """Read a request line and its headers; raises `BadRequestError`."""
    first, *lines = head.split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise BadRequestError(400, "this is not an HTTP request")
    if parts[2] != "HTTP/1.1":
        raise BadRequestError(505, "the simulator speaks HTTP/1.1 only")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(400, "a header line has no colon")
        headers[name.lower()] = value.strip()
    return Request(parts[0], parts[1].partition("?")[0], headers, _length(headers))


def _length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequestError(411, "the simulator needs a Content-Length, not a chunked request")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise BadRequestError(400, "Content-Length is not a number")
    if int(text) > MAX_BODY_BYTES:
        raise BadRequestError(413, f"the request is larger than {MAX_BODY_BYTES} bytes")
    return int(text)


def head(
    status: int,
    *,
    date: str,
    content_type: str = "application/json",
    length: int | None = None,
    headers: Iterable[tuple[str, str]] = (),
    close: bool = False,
) -> bytes:
    """Status line and headers of an answer; without `length` the body is sent in chunks."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", f"date: {date}", "server: batcher-simulator"]
    if status not in BODILESS:
        lines.append(f"content-type: {content_type}")
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    lines += [f"{name}: {value}" for name, value in headers]
    if close:
        lines.append("connection: close")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One piece of a body sent in chunks."""
    return b"%x\r\n%b\r\n" % (len(data), data)
