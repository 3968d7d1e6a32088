"""The endpoint of the simulated world: what it answers is drawn, and it checks what it is sent."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from batcher.records import Fault, FaultKind, Reply
from tests.fakes import good, refusal

_GOOD = good()
_HTML = Reply(200, {}, b"<html>please wait</html>")
#: faults and answers of which the server may have been paid for, though no answer can be used
AMBIGUOUS = {
    *("disconnected", "timeout", "truncated", "protocol_error", "invalid_response", "connection_was_closed"),
    *("500", "504", "408", "html"),
}
#: troubles of a moment or a while; none of them is a row's own
TROUBLES = (
    *("connect_failed", "connection_was_closed", "disconnected", "timeout", "truncated", "protocol_error"),
    *("invalid_response", "500", "502", "503", "504", "529", "408", "429", "html"),
)
#: what concerns every row, and what may
REFUSALS = ("401", "402", "403", "404", "tls_failed", "no_file_descriptors")


@dataclass
class Habits:
    """How the endpoint behaves in one life of the process."""

    latency_s: float = 0.05
    slow: float = 0.0
    #: how likely a trouble is, and which there are
    trouble: float = 0.0
    troubles: tuple[str, ...] = TROUBLES
    refusal: float = 0.0
    refusals: tuple[str, ...] = REFUSALS
    #: times from and until which everything meets the same
    spells: list[tuple[float, float, str]] = field(default_factory=list)
    #: requests at once that are not refused with 429
    cap: int = 1_000
    retry_after_s: tuple[float | None, ...] = (None,)


class Endpoint:
    """Answers for a whole schedule; `habits` are set anew for each life."""

    def __init__(self, random: Random, poison: dict[int, str], wrong: Callable[[str], None]) -> None:
        """`poison` names what a row is always answered with, `wrong` is told of what must not be."""
        self._random, self._poison, self._wrong = random, poison, wrong
        self.habits = Habits()
        self.may_send: Callable[[int], str | None] = lambda row: None
        self.ceiling = 1
        #: requests that may have been paid for, by row; and answers that could be counted as such, in all
        self.paid: Counter[int] = Counter()
        self.ambiguous = 0
        self.sent = 0
        self.begin()

    def begin(self) -> None:
        """A new life of the process: connections are gone."""
        self.flying: set[int] = set()
        #: of this life: good answers that arrived, when; what each row was sent back, and when
        self.delivered: dict[int, float] = {}
        self.received: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
        self.seen: set[str] = set()

    async def send(self, body: bytes) -> Reply | Fault:
        """See `Client`."""
        loop = asyncio.get_running_loop()
        loop.happened += 1
        row = int(body.split()[0])
        self._check(row)
        self.flying.add(row)
        self.sent += 1
        name = self._draw(row, loop.time())
        self.paid[row] += name == "good" or (name in AMBIGUOUS and self._random.random() < 0.7)
        try:
            await asyncio.sleep(self._latency(name))
        finally:
            self.flying.discard(row)
        return self._arrive(row, name, loop.time())

    def _check(self, row: int) -> None:
        if row in self.flying:
            self._wrong(f"row {row} was sent while it was in flight")
        if len(self.flying) >= self.ceiling:
            self._wrong(f"{len(self.flying) + 1} requests in flight, allowed are {self.ceiling}")
        if reason := self.may_send(row):
            self._wrong(f"row {row} was sent though {reason}")

    def _draw(self, row: int, now_s: float) -> str:
        habits, random = self.habits, self._random
        for start_s, end_s, name in habits.spells:
            if start_s <= now_s < end_s:
                return name
        if len(self.flying) > habits.cap:
            return "429"
        dice = random.random()
        if dice < habits.trouble:
            return random.choice(habits.troubles)
        if dice < habits.trouble + habits.refusal:
            return random.choice(habits.refusals)
        return self._poison.get(row, "good")

    def _latency(self, name: str) -> float:
        latency_s = self.habits.latency_s * self._random.uniform(0.2, 2.0)
        if self._random.random() < self.habits.slow:
            latency_s *= 50
        return latency_s + (30.0 if name == "timeout" else 0.0)

    def _arrive(self, row: int, name: str, now_s: float) -> Reply | Fault:
        self.seen.add(name)
        self.ambiguous += name in AMBIGUOUS
        if name == "good":
            self.delivered[row] = now_s
            return _GOOD
        self.received[row].append((now_s, name))
        if name == "html":
            return _HTML
        if name == "too_long":
            return refusal(400, "context_length_exceeded")
        if not name.isdigit():
            return Fault(FaultKind(name), "it broke")
        wait_s = self._random.choice(self.habits.retry_after_s)
        return refusal(int(name), headers=None if wait_s is None else {"retry-after": f"{wait_s:g}"})
