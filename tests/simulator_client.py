"""What the tests of the simulator say to it, as an HTTP client or as bare bytes on a socket."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batcher.simulator import SimulatorProcess

PROMPT = "Why was I billed twice for the blue kettle?"
CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]}
FORM = {"model": "m", "system_prompt": "Be kind.", "prompt": PROMPT}
PATH = "/v1/chat/completions"
WAIT_S = 60


def call(
    simulator: SimulatorProcess, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a connection of its own, GET without a body, else POST; the response and its body."""
    connection = http.client.HTTPConnection(urlsplit(simulator.base_url).netloc, timeout=WAIT_S)
    try:
        data = None if body is None else json.dumps(body)
        connection.request("GET" if data is None else "POST", path, data, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def ask(simulator: SimulatorProcess, body: object, **headers: str) -> dict[str, Any]:
    """The JSON answer to a chat request."""
    answer: dict[str, Any] = json.loads(call(simulator, PATH, body, headers)[1])
    return answer


def counts(simulator: SimulatorProcess) -> dict[str, Any]:
    """What the simulator counted."""
    figures: dict[str, Any] = json.loads(call(simulator, "/simulator/ledger")[1])
    return figures


def wait_until(condition: Callable[[], object], most_s: float = WAIT_S) -> None:
    """Look again and again until the condition holds."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


def ended(base_url: str) -> bool:
    """Nothing listens there any more."""
    address = urlsplit(base_url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=WAIT_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it is closing at this very moment
    return False


def connect(simulator: SimulatorProcess, data: bytes = b"") -> socket.socket:
    """A bare connection on which `data` was sent."""
    address = urlsplit(simulator.base_url)
    peer = socket.create_connection((address.hostname, address.port), timeout=WAIT_S)
    peer.sendall(data)
    return peer


def http_request(body: object, *, close: bool = False) -> bytes:
    """A chat request as bytes; `close` asks the server to close the connection after its answer."""
    data = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n" + "Connection: close\r\n" * close
    return head.encode() + b"\r\n" + data


def lines(ledger: Path, event: str) -> list[dict[str, Any]]:
    """The ledger's lines of one kind."""
    return [line for text in ledger.read_text().splitlines() if (line := json.loads(text))["event"] == event]
