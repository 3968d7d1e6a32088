"""Who gets which answer, and when: routes, key, model, cap, script, ledger. `connection` waits and sends."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any

import orjson

from batcher.simulator import framing, writing
from batcher.simulator.answer import Answer, deliver, refuse
from batcher.simulator.connection import Connection, Reception
from batcher.simulator.framing import Request
from batcher.simulator.ledger import Ledger
from batcher.simulator.options import SimulatorOptions
from batcher.simulator.question import Question, read_question
from batcher.simulator.refusal import Refusal, invalid, usual
from batcher.simulator.script import Playback


class Simulator:
    """What all connections share.

    `lines_wait` is called when the ledger has lines to be written soon, `flush` when they are to be written now.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        *,
        playback: Playback,
        ledger: Ledger,
        key: str | None,
        lines_wait: Callable[[], None],
        flush: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.connections: set[Connection] = set()
        self._options = options
        self._playback = playback
        self._ledger = ledger
        self._key = key
        self._lines_wait = lines_wait
        self._flush = flush
        self._now = now
        self._wall = wall
        self._date = (0, "")

    def connect(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    def receive(self, request: Request) -> Reception:
        """Decide what a request gets."""
        if request.path.endswith("/chat/completions"):
            if request.method == "POST":
                return self._ask(request)
            return Reception(self.refuse(405, "chat completions are asked for with POST"))
        if request.method == "GET" and request.path == "/simulator/ledger":
            self._flush()
            return Reception(self._show(self._ledger.counts()))
        if request.method == "GET" and request.path.endswith("/models"):
            return Reception(self._models(request))
        there = "POST .../chat/completions, GET .../models and GET /simulator/ledger"
        return Reception(self.refuse(404, f"there is nothing at this path; there are {there}"))

    def finished(self, reception: Reception, *, whole: bool) -> None:
        """Record how an answer ended."""
        if reception.entry is not None:
            self._ledger.finished(reception.entry, reception.answer, whole=whole, now_s=self._now())
            self._lines_wait()

    def refuse(self, status: int, message: str, *, close: bool = False) -> Answer:
        """The answer to what is no question."""
        return refuse(Refusal(status, message), date=self._http_date(), close=close)

    def _ask(self, request: Request) -> Reception:
        authorized = self._authorized(request)
        question = read_question(request.body)
        found = None if isinstance(question, Refusal) else question
        problem = self._problem(question, authorized)
        entry = self._ledger.started(
            found, request.body, admitted=problem is None, authorized=authorized, now_s=self._now()
        )
        self._lines_wait()
        if isinstance(question, Refusal) or problem is not None:
            return Reception(refuse(problem or invalid("not readable"), date=self._http_date()), entry)
        answer, wait_s = self._answer(question)
        return Reception(answer, entry, wait_s)

    def _problem(self, question: Question | Refusal, authorized: bool) -> Refusal | None:
        """Why a request is refused, before the script is looked at."""
        if self._key is not None and not authorized:
            return usual(401)
        if isinstance(question, Refusal):
            return question
        if self._options.model is not None and question.model != self._options.model:
            if question.model is None:
                return invalid("'model' is required", "model")
            return usual(404, param="model")
        limit = self._options.max_concurrency
        if limit is not None and self._ledger.in_flight >= limit:
            return usual(429)
        return None

    def _answer(self, question: Question) -> tuple[Answer, float]:
        """The answer, and how long it takes. An error comes at once, unless the script delays it."""
        options = self._options
        step = self._playback.next_step(question.digest, question.prompt, order=self._ledger.arrival(question))
        random = writing.noise(question.sha256, options.seed)
        model = question.model or options.model or writing.DEFAULT_MODEL
        draft = writing.write(question, random, seed=options.seed, model=model)
        answer = deliver(question, draft, step, created=int(self._wall()), date=self._http_date())
        latency_s = writing.latency_s(random, options.latency_s, options.spread) if step.status == 200 else 0.0
        return answer, latency_s + step.delay_s

    def _authorized(self, request: Request) -> bool:
        """The request brings the key, or if none is asked for, any."""
        sent = request.headers.get("authorization", "")
        if self._key is None:
            return bool(sent)
        return hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode())

    def _models(self, request: Request) -> Answer:
        if self._key is not None and not self._authorized(request):
            return refuse(usual(401), date=self._http_date())
        model = {"id": self._options.model or writing.DEFAULT_MODEL, "object": "model", "owned_by": "simulator"}
        return self._show({"object": "list", "data": [model]})

    def _show(self, value: dict[str, Any]) -> Answer:
        body = orjson.dumps(value)
        return Answer(200, framing.head(200, date=self._http_date(), length=len(body)) + body)

    def _http_date(self) -> str:
        second = int(self._wall())
        if second != self._date[0]:
            self._date = (second, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)))
        return self._date[1]
