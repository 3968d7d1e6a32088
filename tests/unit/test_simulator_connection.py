"""The simulator's connections: the cap, order, slow and leaving clients, what is a request, what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess, start
from batcher.simulator.answer import Answer
from batcher.simulator.connection import READ_AHEAD_BYTES, Connection, Reception
from batcher.simulator.framing import BadRequestError, Request, RequestReader
from tests.harness import digest
from tests.simulator_client import CHAT, FORM, ask, connect, counts, http_request, wait_until


class Service:
    """Answers everything at once and notes which answers went out whole."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.whole: list[bool] = []

    def receive(self, request: Request) -> Reception:
        """The path of the request is the answer."""
        return Reception(Answer(200, request.path.encode()))

    def refuse(self, status: int, message: str, *, close: bool = False) -> Answer:
        """Nothing is refused here."""
        raise AssertionError(message)

    def finished(self, reception: Reception, *, whole: bool) -> None:
        """Note it."""
        self.whole.append(whole)


class FullTransport(asyncio.Transport):
    """Takes bytes but never gets rid of one, as with a client that does not read."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.high: int | None = None
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if len(self.written) > (65536 if self.high is None else self.high):
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def slow_client() -> tuple[Connection, FullTransport, Service]:
    """A connection whose client does not read."""
    service = Service()
    connection = Connection(service)
    transport = FullTransport(connection)
    connection.connection_made(transport)
    return connection, transport, service


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    """A simulator that answers at once and refuses nothing."""
    with start(SimulatorOptions(latency_s=0)) as running:
        yield running


def test_requests_above_the_cap_get_429(tmp_path: Path) -> None:
    """The cap counts requests being answered; a refused one takes no place, and a client that leaves frees its own."""
    script = tmp_path / "hold.yaml"
    script.write_text("- {match: hold, answers: [{silent: true}], forever: true}\n")
    with start(SimulatorOptions(latency_s=0, max_concurrency=2, script=script)) as running:
        held = [connect(running, http_request({"prompt": f"hold {number}"})) for number in range(2)]
        wait_until(lambda: counts(running)["in_flight"] == 2)
        assert ask(running, CHAT)["error"]["code"] == "rate_limit_exceeded"
        assert (counts(running)["in_flight"], counts(running)["max_in_flight"]) == (2, 2)
        held.pop().close()
        wait_until(lambda: counts(running)["broken"] == 1)
        assert ask(running, CHAT)["object"] == "chat.completion"
        held.pop().close()


def test_requests_sent_back_to_back_are_answered_in_order() -> None:
    """Pipelined requests get their answers in the order of the requests, however long each takes."""
    prompts = [f"prompt {number}" for number in range(20)]
    with start(SimulatorOptions(latency_s=0.005, spread=2)) as running:
        with connect(running, b"".join(http_request({"prompt": prompt}) for prompt in prompts)) as peer:
            received = b""
            while received.count(b'"usage"') < len(prompts):
                received += peer.recv(65536)
        assert counts(running)["max_in_flight"] == 1
    positions = [received.find(digest(prompt).encode()) for prompt in prompts]
    assert positions == sorted(positions)
    assert positions[0] > 0


def test_client_that_does_not_read_loses_nothing_and_counts_nothing(simulator: SimulatorProcess) -> None:
    """An answer counts as whole when the kernel has all of it, not when it was written; slow reading loses nothing."""
    requests = [http_request({"prompt": f"slow {number}", "stream": True}) for number in range(3000)]
    before = counts(simulator)
    with connect(simulator) as peer:
        sender = threading.Thread(target=peer.sendall, args=(b"".join(requests),))
        sender.start()
        wait_until(lambda: counts(simulator)["in_flight"] == 1)
        received = 0
        tail = b""
        while received < len(requests):
            data = tail + peer.recv(1 << 20)
            received += data.count(b"[DONE]")
            tail = data[-5:]
        sender.join()
    after = counts(simulator)
    assert after["answered"] - before["answered"] == len(requests)
    assert after["broken"] == before["broken"]


def test_answer_that_the_kernel_did_not_take_is_not_whole() -> None:
    """What the event loop still holds has not been sent: it is whole when that is gone, broken when the client is."""
    connection, transport, service = slow_client()
    connection.data_received(b"GET /first HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\n")
    assert (transport.written, service.whole) == (b"/first", [])
    connection.resume_writing()
    assert (transport.written, service.whole) == (b"/first/second", [True])
    connection.connection_lost(None)
    assert service.whole == [True, False]


def test_client_that_sends_far_ahead_is_made_to_wait() -> None:
    """While an answer is under way no more than a little is read ahead; then reading goes on."""
    connection, transport, _ = slow_client()
    connection.data_received(b"GET /first HTTP/1.1\r\n\r\n")
    connection.data_received(b"POST /second HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * READ_AHEAD_BYTES))
    assert transport.reading
    connection.data_received(b"x" * READ_AHEAD_BYTES)
    assert not transport.reading
    connection.resume_writing()
    assert transport.reading


def test_client_that_leaves_is_no_answer() -> None:
    """A request whose client closes the connection before the answer counts as broken."""
    with start(SimulatorOptions(latency_s=60)) as running:
        peer = connect(running, http_request(FORM))
        wait_until(lambda: counts(running)["in_flight"] == 1)
        peer.close()
        wait_until(lambda: counts(running)["in_flight"] == 0)
        assert counts(running) == {
            "requests": 1,
            "by_status": {},
            "broken": 1,
            "in_flight": 0,
            "max_in_flight": 1,
            "distinct_prompts": 1,
            "answered": 0,
            "answered_twice": {},
        }


def test_prompt_answered_twice_is_told(simulator: SimulatorProcess) -> None:
    """A second whole answer to the same prompt shows under the prompt's digest."""
    for _ in range(2):
        ask(simulator, {"prompt": "paid twice"})
    assert counts(simulator)["answered_twice"][digest("paid twice")] == 2


def test_request_that_arrives_in_pieces_is_one_request() -> None:
    """The reader waits for the last byte, asks for a body announced with Expect, and keeps what follows."""
    reader = RequestReader()
    data = b"\r\nPOST /x?y=1 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    for byte in data[:-1]:
        reader.feed(bytes([byte]))
        assert reader.next_request() is None
    assert reader.expects_continue
    reader.feed(data[-1:] + b"GET / HTTP/1.1\r\n\r\n")
    first, second = reader.next_request(), reader.next_request()
    assert first
    assert second
    assert not reader.expects_continue
    assert (first.path, first.body, second.method, reader.next_request()) == ("/x", b"abc", "GET", None)


def test_client_that_asks_before_sending_its_body_is_told_to_go_on(simulator: SimulatorProcess) -> None:
    """`Expect: 100-continue` is answered when the head is there, the request when the body is."""
    head, _, body = http_request(FORM, close=True).partition(b"\r\n\r\n")
    with connect(simulator, head + b"\r\nExpect: 100-continue\r\n\r\n") as peer:
        assert peer.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(body)
        received = b"".join(iter(lambda: peer.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    """Unreadable requests are told apart by status."""
    reader = RequestReader()
    reader.feed(data)
    with pytest.raises(BadRequestError) as caught:
        reader.next_request()
    assert caught.value.status == status


def test_unreadable_request_is_answered_and_the_connection_closed(simulator: SimulatorProcess) -> None:
    """After bytes that are no request, nothing on the connection can be trusted."""
    with connect(simulator, b"hello\r\n\r\n") as peer:
        received = b"".join(iter(lambda: peer.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
