"""RAW: a bare `asyncio.Protocol` and a C parser, as little as Python can do. It looks into no answer.

It reads the rows and writes the request bodies, so that the server is asked the same; it knows no error, no deadline,
no second attempt and no result.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httptools
import orjson


class Slot(asyncio.Protocol):
    """One connection that asks row after row."""

    def __init__(self, head: bytes, lines: Iterator[bytes], left: list[int], done: asyncio.Future[None]) -> None:
        self._head, self._lines, self._left, self._done = head, lines, left, done
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        self._body = piece

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self._done.set_exception(RuntimeError("not a 200"))
        self._next()

    def _next(self) -> None:
        line = next(self._lines, None)
        if line is None:
            self._transport.close()
            self._left[0] -= 1
            if not self._left[0] and not self._done.done():
                self._done.set_result(None)
            return
        text = orjson.loads(line)["text"]
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 200})
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))


async def ask_all(base_url: str, path: str, in_flight: int) -> None:
    """Post every row of a JSONL file, with so many requests in flight."""
    url = urlsplit(base_url)
    head = (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = [in_flight]
    with open(path, "rb") as lines:  # noqa: ASYNC230, PTH123 - as little as Python can do
        for _ in range(in_flight):
            await loop.create_connection(lambda: Slot(head, lines, left, done), url.hostname, url.port)
        await done


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(ask_all(sys.argv[1], sys.argv[2], int(sys.argv[3])))
