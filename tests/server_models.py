"""Models of servers, and a run against one of them in simulated time: hours in seconds, with chance fixed.

Requests need 1626 tokens on average, log-normally spread, and 12 seconds; there is always another row to send. A model
says of each request how it ends and when; whoever is refused learns it after 100 ms.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from batcher.limits import Limiter
from batcher.limits.shared import SharedLimiter
from batcher.records import Signal

TOKENS = 1626
LATENCY_S = 12.0
HOUR_S = 3600.0
REFUSED_AFTER_S = 0.1
GAUGED_EVERY_S = 5.0
HEARD_AFTER_S = 0.15


@dataclass
class Result:
    """How a request ends: after how long, and what the server asks to wait."""

    signal: Signal
    after_s: float
    wait_s: float | None = None


class Server:
    """Takes every request; a request lasts as long as its tokens take."""

    def __init__(self, *, latency_s: float = LATENCY_S, refusal: Signal = Signal.THROTTLED) -> None:
        #: requests that are being worked on
        self.busy = 0
        self._latency_s, self._refusal = latency_s, refusal

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the request is let in."""
        return True

    def latency_s(self, tokens: int) -> float:
        """How long a request lasts that was let in."""
        return tokens / TOKENS * self._latency_s

    def gauges(self, now_s: float) -> tuple[int, int] | None:
        """How many requests run and wait there, if the server tells."""
        return None

    def result(self, now_s: float, tokens: int) -> Result:
        """What comes of a request that is sent now."""
        if self.admits(now_s, tokens):
            return Result(Signal.SUCCESS, self.latency_s(tokens))
        return Result(self._refusal, REFUSED_AFTER_S)


class Slots(Server):
    """Refuses what exceeds so many requests at once, a number that may change with time."""

    def __init__(self, slots_at: Callable[[float], int], *, refusal: Signal = Signal.THROTTLED) -> None:
        super().__init__(refusal=refusal)
        self._slots_at = slots_at

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether a slot is free."""
        return self.busy < self._slots_at(now_s)


class TokenQuota(Server):
    """Refuses what exceeds so many tokens a minute, which may change; so many seconds' worth may come at once."""

    def __init__(self, per_minute_at: Callable[[float], float], *, burst_s: float = 10.0) -> None:
        super().__init__()
        self._per_minute_at, self._burst_s = per_minute_at, burst_s
        self._level, self._at_s = per_minute_at(0.0) / 60 * burst_s, 0.0

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the quota still holds the tokens."""
        rate = self._per_minute_at(now_s) / 60
        self._level = min(rate * self._burst_s, self._level + (now_s - self._at_s) * rate)
        self._at_s = now_s
        if self._level < tokens:
            return False
        self._level -= tokens
        return True


class OwnMachine(Server):
    """Refuses nothing; beyond 64 requests at once each of them gets slower."""

    def latency_s(self, tokens: int) -> float:
        """The base latency, stretched by the crowd."""
        return super().latency_s(tokens) * max(1.0, self.busy / 64)


class Queue(Server):
    """Runs so many requests at once, a number that may grow with time; lets the others wait, and tells how many."""

    def __init__(self, slots_at: Callable[[float], int]) -> None:
        super().__init__()
        self._slots_at = slots_at
        self._free_at_s = [0.0] * slots_at(0.0)
        #: start and end of the requests that have not ended
        self._open: list[tuple[float, float]] = []

    def result(self, now_s: float, tokens: int) -> Result:
        """An answer, after the wait for a slot."""
        self._free_at_s += [now_s] * (self._slots_at(now_s) - len(self._free_at_s))
        heapq.heapify(self._free_at_s)
        start_s = max(now_s, heapq.heappop(self._free_at_s))
        end_s = start_s + self.latency_s(tokens)
        heapq.heappush(self._free_at_s, end_s)
        self._open.append((start_s, end_s))
        return Result(Signal.SUCCESS, end_s - now_s)

    def gauges(self, now_s: float) -> tuple[int, int] | None:
        """How many requests run and wait."""
        self._open = [times for times in self._open if times[1] > now_s]
        running = sum(start_s <= now_s for start_s, _ in self._open)
        return running, len(self._open) - running


class Troubled(Slots):
    """Refuses a share of the requests at any load, and beside that what exceeds its slots."""

    def __init__(
        self, random: Random, share: float, slots_at: Callable[[float], int], *, refusal: Signal = Signal.THROTTLED
    ) -> None:
        super().__init__(slots_at, refusal=refusal)
        self._random, self._share = random, share

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the request is neither dropped nor too much."""
        return self._random.random() >= self._share and super().admits(now_s, tokens)


class Faulty(Server):
    """Answers a share of the requests with one of some signals, at any load, at once or after the usual time."""

    def __init__(
        self, random: Random, share: float, signals: tuple[Signal, ...], *, latency_s: float, quick: bool
    ) -> None:
        super().__init__(latency_s=latency_s)
        self._random, self._share, self._signals, self._quick = random, share, signals, quick

    def result(self, now_s: float, tokens: int) -> Result:
        """A fault by chance, or an answer."""
        latency_s = self.latency_s(tokens)
        if self._random.random() >= self._share:
            return Result(Signal.SUCCESS, latency_s)
        return Result(self._random.choice(self._signals), latency_s / 100 if self._quick else latency_s)


class Weathered(Slots):
    """Slots behind a network: faults by chance, a time in which nothing is there, one in which all are told to wait."""

    def __init__(
        self,
        random: Random,
        slots_at: Callable[[float], int],
        *,
        faulty_share: float = 0.0,
        away: tuple[float, float] = (math.inf, math.inf),
        storm: tuple[float, float] = (math.inf, math.inf),
    ) -> None:
        """`away` and `storm` are the start and end of these times."""
        super().__init__(slots_at)
        self._random, self._faulty_share, self._away, self._storm = random, faulty_share, away, storm

    def result(self, now_s: float, tokens: int) -> Result:
        """What the weather makes of a request; those under way when the server goes away are cut."""
        if self._away[0] <= now_s < self._away[1]:
            return Result(Signal.UNREACHABLE, 0.05)
        if self._storm[0] <= now_s < self._storm[1]:
            return Result(Signal.THROTTLED, REFUSED_AFTER_S, wait_s=self._random.uniform(5.0, 60.0))
        result = self._fault() if self._random.random() < self._faulty_share else super().result(now_s, tokens)
        if now_s < self._away[0] < now_s + result.after_s:
            return Result(Signal.FAILING, self._away[0] - now_s + self._random.random())
        return result

    def _fault(self) -> Result:
        signal = self._random.choice((Signal.FAILING, Signal.OVERLOADED, Signal.UNREACHABLE))
        return Result(signal, self._random.uniform(0.0, LATENCY_S) if signal is Signal.FAILING else 0.05)


@dataclass
class Run:
    """What came of a simulated run: when each request ended, by how it ended."""

    seconds: float
    ended_at_s: dict[Signal, list[float]] = field(default_factory=lambda: {signal: [] for signal in Signal})
    tokens: int = 0
    latencies_s: list[float] = field(default_factory=list)
    #: the limit every few seconds
    limits: list[tuple[float, int]] = field(default_factory=list)

    def count(self, *signals: Signal, start_s: float = 0.0, end_s: float = math.inf) -> int:
        """How many requests ended in one of these ways within that time."""
        times = [self.ended_at_s[signal] for signal in signals]
        return sum(bisect_left(ends, end_s) - bisect_left(ends, start_s) for ends in times)

    def per_s(self, start_s: float = 0.0, end_s: float | None = None) -> float:
        """Successes a second within that time."""
        end_s = self.seconds if end_s is None else end_s
        return self.count(Signal.SUCCESS, start_s=start_s, end_s=end_s) / (end_s - start_s)

    def refused_share(self, start_s: float = 0.0, end_s: float = math.inf) -> float:
        """Share of the requests that were refused (429, or 503), of those that ended within that time."""
        refused = self.count(Signal.THROTTLED, Signal.OVERLOADED, start_s=start_s, end_s=end_s)
        return refused / max(1, self.count(*Signal, start_s=start_s, end_s=end_s))

    def throttled_share(self, start_s: float = 0.0, end_s: float = math.inf) -> float:
        """The same for 429 alone."""
        return self.count(Signal.THROTTLED, start_s=start_s, end_s=end_s) / max(
            1, self.count(*Signal, start_s=start_s, end_s=end_s)
        )

    def limits_between(self, start_s: float, end_s: float) -> list[int]:
        """The limits within that time."""
        return [limit for at_s, limit in self.limits if start_s <= at_s < end_s]

    @property
    def tokens_per_minute(self) -> float:
        """Tokens of the successes."""
        return self.tokens / self.seconds * 60

    @property
    def median_latency_s(self) -> float:
        """Of the successes."""
        return sorted(self.latencies_s)[len(self.latencies_s) // 2]


def simulate(gate: Limiter | Sequence[Limiter], server: Server, random: Random, *, seconds: float = HOUR_S) -> Run:
    """Run for so long with rows without end, through one limiter, or several that hear of each other's cuts."""
    gates = [gate] if isinstance(gate, Limiter) else list(gate)
    run = Run(seconds)
    now_s, number, in_flight, gauged_s = 0.0, 0, [0] * len(gates), 0.0
    cuts, news = [0] * len(gates), deque[tuple[float, int]]()
    coming: list[tuple[float, int, float, int, float, Result, int]] = []
    while now_s < seconds:
        if now_s >= gauged_s:
            gauged_s = now_s + GAUGED_EVERY_S
            if run.latencies_s and (reading := server.gauges(now_s)) is not None:
                for one in gates:
                    one.gauged(*reading, now_s)
            run.limits.append((now_s, sum(one.limit for one in gates)))
        while news and news[0][0] <= now_s:
            _, which = news.popleft()
            for one in gates:
                if isinstance(one, SharedLimiter) and one is not gates[which]:
                    one.refused_elsewhere(now_s)
        for which, one in enumerate(gates):
            while one.allowance(in_flight[which], now_s):
                number += 1
                in_flight[which] += 1
                tokens = int(random.lognormvariate(math.log(TOKENS) - 0.32, 0.8)) + 1
                reserved = one.sent(now_s, tokens)
                result = server.result(now_s, tokens)
                server.busy += result.signal is Signal.SUCCESS
                heapq.heappush(coming, (now_s + result.after_s, number, now_s, tokens, reserved, result, which))
        waking_s = [one.wake_at(now_s) for one in gates] + [news[0][0] if news else None]
        wake_s = min((at_s for at_s in waking_s if at_s is not None), default=None)
        if wake_s is not None and not (coming and coming[0][0] <= wake_s):
            now_s = wake_s
            continue
        now_s, _, sent_at_s, tokens, reserved, result, which = heapq.heappop(coming)
        run.ended_at_s[result.signal].append(now_s)
        if result.signal is Signal.SUCCESS:
            server.busy -= 1
            run.tokens += tokens
            run.latencies_s.append(now_s - sent_at_s)
        else:
            tokens = 0
        gates[which].answered(
            sent_at_s,
            now_s,
            result.signal,
            in_flight=in_flight[which],
            wait_s=result.wait_s,
            tokens=tokens,
            reserved=reserved,
        )
        in_flight[which] -= 1
        if isinstance(one := gates[which], SharedLimiter) and one.cuts > cuts[which]:
            cuts[which] = one.cuts
            news.append((now_s + HEARD_AFTER_S, which))
    return run
