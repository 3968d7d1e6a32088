"""An endpoint that breaks HTTP in every way a script says, request by request, for runs of the whole command.

It answers a prompt as the simulator does (`answer_to`), and keeps a ledger like the simulator's. Below HTTP it is the
wire server of the client's tests, here with an event loop in a thread of its own. A `Shape` is what one request gets
instead of the answer; a `Plan` chooses it by the prompt and the number of times that prompt was asked before, so a
script is repeatable whatever the order in which requests arrive.

    with fault_server(lambda prompt, attempt: CUT if attempt == 0 else None) as server: ...

The server knows no rows, and nothing of what the client makes of a shape.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

import orjson

from batcher.simulator.question import Question, read_question
from batcher.simulator.refusal import usual
from batcher.simulator.writing import Draft, as_events, as_object
from tests.faults.client.wire_server import Peer, Request, WireServer, reply
from tests.harness import UNCLEAR, Ledger, answer_to

JSON = ("Content-Type: application/json",)
WAIT_S = 30.0
_LOOK_S = 0.005


class Over(Exception):  # noqa: N818 - it ends a connection; it is no error
    """The shape has ended the connection, or wants it ended."""


class Ending(Enum):
    """How a server ends a connection that it takes to be idle."""

    #: at once, so that the client may notice before it uses the connection again
    IDLE = "idle"
    #: just when the next request is on its way: what was sent is not answered
    CROSSING = "crossing"
    #: the same, with a reset
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that was read, and the answer it would get."""

    peer: Peer
    draft: Draft
    #: what the request asks for
    stream: bool

    @property
    def body(self) -> bytes:
        """The whole JSON answer."""
        return completion(self.draft)

    @property
    def events(self) -> list[bytes]:
        """The whole answer as an event stream, `[DONE]` included."""
        return as_events(self.draft, 1_700_000_000, usage=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """What one request gets."""

    name: str
    #: sends it; raises `Over`, or a broken connection, when nothing more can be said on this one
    play: Callable[[Exchange], Awaitable[None]]
    #: it is a completion that a client keeps
    usable: bool = False
    #: it is a whole completion, and yet one that a client does not keep; its tokens count
    unkept: bool = False
    #: the client cannot know whether it will be charged
    doubtful: bool = True

    def __str__(self) -> str:
        return self.name


#: (prompt, how often it was asked before) -> what it gets; None is a good answer
Plan = Callable[[str, int], Shape | None]


def always_good(prompt: str, attempt: int) -> Shape | None:
    """A plan without faults."""
    return None


def completion(draft: Draft, **changes: Any) -> bytes:
    """The JSON body of an answer; `changes` replace top-level fields."""
    return orjson.dumps({**as_object(draft, 1_700_000_000), **changes})


def sending(name: str, data: Callable[[Exchange], bytes], **traits: bool) -> Shape:
    """A shape that is a whole HTTP response."""

    async def play(exchange: Exchange) -> None:
        await exchange.peer.send(data(exchange))

    return Shape(name, play, **traits)


def refusing(status: int, code: str | None = None, *headers: str, message: str = "no") -> Shape:
    """An error object with an HTTP status; `headers` are whole lines."""
    body = usual(status, message=message, **({} if code is None else {"code": code})).body()
    data = reply(body, status=f"{status} No", headers=(*JSON, *headers))
    return sending(f"{status} {code or ''}".strip(), lambda exchange: data, doubtful=status in UNCLEAR)


def refusal_of(status: int) -> bytes:
    """The usual error object of a status, as a response."""
    return reply(usual(status).body(), status=f"{status} No", headers=JSON)


GOOD = sending("good", lambda exchange: reply(exchange.body, headers=JSON), usable=True, doubtful=False)
WRONG_KEY = refusing(401, "invalid_api_key")
HTML = sending(
    "html", lambda exchange: reply(b"<!doctype html>\n<h1>Sign in</h1>\n", headers=("Content-Type: text/html",))
)


class FaultServer:
    """The server while it runs, as the test's thread sees it."""

    def __init__(self, plan: Plan, context: ssl.SSLContext | None) -> None:
        #: may be replaced at any time
        self.plan = plan
        self.base_url = ""
        #: requests that do not bring this key are refused with 401; None takes any
        self.key: str | None = None
        #: seconds that a good answer takes
        self.latency_s = 0.01
        #: good answers that may begin; those beyond are kept back until there may be more
        self.most_answers: float = inf
        #: chooses how a connection ends that has had an answer; None goes on
        self.ending: Callable[[], Ending | None] = lambda: None
        #: connections that ended so
        self.ended: Counter[Ending] = Counter()
        #: (loop time, prompt) of every request in the order of arrival
        self.times: list[tuple[float, str]] = []
        #: requests being answered at the moment, and the most there were
        self.in_flight = self.most_in_flight = 0
        self._begun = 0
        self._lock = threading.RLock()  # a plan may look at the figures
        self._ledger = Ledger()
        self._wire = WireServer(self._connection, context)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: asyncio.Server | None = None

    # -- for the test

    def ledger(self) -> Ledger:
        """What was asked and answered so far: a copy."""
        with self._lock:
            return self._ledger.copy()

    @property
    def answered(self) -> int:
        """Good answers so far."""
        with self._lock:
            return sum(self._ledger.answered.values())

    @property
    def asked(self) -> int:
        """Requests so far."""
        with self._lock:
            return sum(self._ledger.asked.values())

    def down(self) -> None:
        """Refuse connections, and break those that stand."""
        self._do(self._close())

    def up(self) -> None:
        """Listen again, on the same port, unless it never stopped."""
        self._do(self._listen())

    # -- on the server's loop

    def _do(self, work: Any) -> None:
        assert self._loop is not None
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(WAIT_S)

    async def _connection(self, peer: Peer) -> None:
        with contextlib.suppress(Over):
            request = await peer.request()
            while True:
                await self._exchange(peer, request)
                request = await self._next_request(peer)

    async def _exchange(self, peer: Peer, request: Request) -> None:
        if request.line.startswith("GET "):  # somebody looks whether there is a page of figures
            await peer.send(refusal_of(404))
            return
        question = read_question(request.body)
        assert isinstance(question, Question), question
        exchange = Exchange(peer, answer_to(question.prompt), question.stream)
        shape = self._chosen(question, request.headers.get("authorization"))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if shape.usable:
                await asyncio.sleep(self.latency_s)
                await self._may_begin()
            await self._play(shape, exchange, question.digest)
        finally:
            self.in_flight -= 1

    async def _may_begin(self) -> None:
        while self._begun >= self.most_answers:  # noqa: ASYNC110 - the test's thread sets it
            await asyncio.sleep(_LOOK_S)
        self._begun += 1

    async def _next_request(self, peer: Peer) -> Request:
        """Read the next one on a connection, unless that ends instead."""
        ending = self.ending()
        if ending is not Ending.IDLE:
            request = await peer.request()
            if ending is None:
                return request
        if ending is Ending.RESET:
            peer.reset()
        self.ended[ending] += 1
        raise Over

    async def _play(self, shape: Shape, exchange: Exchange, digest: str) -> None:
        try:
            await shape.play(exchange)
        except Over:
            self._note(shape, digest)
            raise
        self._note(shape, digest)

    def _note(self, shape: Shape, digest: str) -> None:
        with self._lock:
            self._ledger.answered[digest] += shape.usable
            self._ledger.unkept[digest] += shape.unkept

    def _chosen(self, question: Question, authorization: str | None) -> Shape:
        with self._lock:
            attempt = self._ledger.asked[question.digest]
            self._ledger.asked[question.digest] += 1
            self.times.append((asyncio.get_running_loop().time(), question.prompt))
            refused = self.key is not None and authorization != f"Bearer {self.key}"
            shape = WRONG_KEY if refused else self.plan(question.prompt, attempt) or GOOD
            self._ledger.doubtful[question.digest] += shape.doubtful
        return shape

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await self._wire.listen()

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for peer in self._wire.peers:
            if not peer.gone.is_set():
                peer.abort()
                with self._lock:
                    self._ledger.doubtful["whatever was on its way"] += 1

    async def _serve(self, ready: threading.Event, over: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        await self._listen()
        self.base_url = self._wire.url.removesuffix("/chat/completions")
        ready.set()
        try:
            await asyncio.wrap_future(over)
        finally:
            await self._close()
            await self._wire.end()


@contextmanager
def fault_server(
    plan: Plan = lambda prompt, attempt: None, context: ssl.SSLContext | None = None
) -> Iterator[FaultServer]:
    """Serve on a free port of 127.0.0.1 while the block runs; a shape that went wrong fails the test."""
    server = FaultServer(plan, context)
    ready, over = threading.Event(), Future[None]()
    thread = threading.Thread(target=lambda: asyncio.run(server._serve(ready, over)))
    thread.start()
    assert ready.wait(WAIT_S)
    try:
        yield server
    finally:
        over.set_result(None)
        thread.join()
        assert not server._wire.errors, server._wire.errors
