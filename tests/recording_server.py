"""A small endpoint for tests that look at every byte of a request and dictate every byte of an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class Request:
    """A request as it arrived; header names in lower case."""

    path: str
    headers: dict[str, str]
    raw: bytes
    method: str = "POST"

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        value: dict[str, Any] = orjson.loads(self.raw)
        return value

    @property
    def prompt(self) -> str:
        """The text of the user."""
        text: str = self.body["prompt"] if "prompt" in self.body else self.body["messages"][-1]["content"]
        return text


@dataclass
class Answer:
    """What is sent back."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def completion(content: str | None = "ok", *, finish_reason: str = "stop", **more: Any) -> Answer:
    """A plain completion; `more` goes into the answer's top level."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    answer = {"id": "r", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return as_json({**answer, **more})


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer with a JSON body."""
    return Answer(orjson.dumps(value), status, {"Content-Type": "application/json", **headers})


def as_events(chunks: list[Any]) -> Answer:
    """An answer as an event stream, with comments between and `[DONE]` at the end."""
    lines = [b": keep-alive\n\n", *(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]
    return Answer(b"".join(lines), 200, {"Content-Type": "text/event-stream"})


class Recorder:
    """The requests so far, and what answers the next ones."""

    def __init__(self, respond: Callable[[Request], Answer]) -> None:
        self.respond = respond
        self.requests: list[Request] = []
        self.base_url = ""
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Note a request and answer it, one at a time."""
        with self._lock:
            self.requests.append(request)
            return self.respond(request)


@contextmanager
def recording(respond: Callable[[Request], Answer]) -> Iterator[Recorder]:
    """Serve on a free port of 127.0.0.1."""
    recorder = Recorder(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = recorder.answer(Request(self.path, headers, raw, self.command))
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        recorder.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
