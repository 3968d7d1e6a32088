"""The limiter against models of servers: a simulation of hours of a run, in seconds, with chance fixed.

Requests need 1626 tokens on average, log-normally spread, and 12 seconds; there is always another row to send.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from batcher.limits import Limiter
from batcher.records import Signal

TOKENS = 1626
TOKENS_PER_S = TOKENS / 12.0
HOUR_S = 3600.0


class Server:
    """Takes every request; a request lasts as long as its tokens take."""

    def __init__(self) -> None:
        self.busy = 0

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the request is let in."""
        return True

    def latency_s(self, tokens: int) -> float:
        """How long a request lasts that was let in."""
        return tokens / TOKENS_PER_S


class Slots(Server):
    """Refuses what exceeds so many requests at once, a number that may change with time."""

    def __init__(self, slots_at: Callable[[float], int]) -> None:
        super().__init__()
        self._slots_at = slots_at

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether a slot is free."""
        return self.busy < self._slots_at(now_s)


class TokenQuota(Server):
    """Refuses what exceeds so many tokens a minute, counted over ten seconds."""

    def __init__(self, per_minute: float) -> None:
        super().__init__()
        self._rate, self._level, self._at_s = per_minute / 60, per_minute / 6, 0.0

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the quota still holds the tokens."""
        self._level = min(self._rate * 10, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._level < tokens:
            return False
        self._level -= tokens
        return True


class OwnMachine(Server):
    """Refuses nothing; beyond 64 requests at once each of them gets slower."""

    def latency_s(self, tokens: int) -> float:
        """The base latency, stretched by the crowd."""
        return tokens / TOKENS_PER_S * max(1.0, self.busy / 64)


class Flaky(Server):
    """Drops every twentieth request, whatever the load."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the request is not dropped."""
        return self._random.random() >= 0.05


class Troubled(Slots):
    """Refuses a share of the requests at any load, and beside that what exceeds its slots."""

    def __init__(self, random: Random, share: float, slots_at: Callable[[float], int]) -> None:
        super().__init__(slots_at)
        self._random, self._share = random, share

    def admits(self, now_s: float, tokens: int) -> bool:
        """Whether the request is neither dropped nor too much."""
        return self._random.random() >= self._share and super().admits(now_s, tokens)


@dataclass
class Run:
    """What came of a simulated run."""

    per_s: float
    refused_share: float
    tokens_per_minute: float
    median_latency_s: float


def simulate(gate: Limiter, server: Server, random: Random, *, refusal: Signal = Signal.THROTTLED) -> Run:
    """Run for an hour with rows without end; whoever is refused learns it after 100 ms."""
    now_s, number, in_flight, refused, tokens_done = 0.0, 0, 0, 0, 0
    latencies: list[float] = []
    coming: list[tuple[float, int, float, int, float, bool]] = []
    while now_s < HOUR_S:
        while gate.allowance(in_flight, now_s):
            number += 1
            in_flight += 1
            tokens = int(random.lognormvariate(math.log(TOKENS) - 0.32, 0.8)) + 1
            reserved = gate.sent(now_s, tokens)
            admitted = server.admits(now_s, tokens)
            server.busy += admitted
            latency_s = server.latency_s(tokens) if admitted else 0.1
            heapq.heappush(coming, (now_s + latency_s, number, now_s, tokens, reserved, admitted))
        wake_s = gate.wake_at(now_s)
        if wake_s is not None and not (coming and coming[0][0] <= wake_s):
            now_s = wake_s
            continue
        now_s, _, sent_at_s, tokens, reserved, admitted = heapq.heappop(coming)
        if admitted:
            server.busy -= 1
            tokens_done += tokens
            latencies.append(now_s - sent_at_s)
            gate.answered(sent_at_s, now_s, Signal.SUCCESS, in_flight=in_flight, tokens=tokens, reserved=reserved)
        else:
            refused += 1
            gate.answered(sent_at_s, now_s, refusal, in_flight=in_flight, tokens=0, reserved=reserved)
        in_flight -= 1
    latencies.sort()
    done = len(latencies)
    return Run(done / HOUR_S, refused / (done + refused), tokens_done / HOUR_S * 60, latencies[done // 2])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_with_500_slots_is_used_and_hardly_ever_refuses(seed: int) -> None:
    """At least 85 % of what 500 slots can do, at most 1 % of requests refused."""
    run = simulate(Limiter(2000, random=Random(seed)), Slots(lambda now_s: 500), Random(seed))
    assert run.per_s >= 0.85 * 500 / 12
    assert run.refused_share <= 0.01


@pytest.mark.parametrize("slots", [4, 20])
def test_a_server_with_few_slots_is_used_and_hardly_ever_refuses(slots: int) -> None:
    """The same for an account that may send a handful: what is small must not be tried again every minute."""
    run = simulate(Limiter(256, random=Random(1)), Slots(lambda now_s: slots), Random(1))
    assert run.per_s >= 0.85 * slots / 12
    assert run.refused_share <= 0.015


@pytest.mark.parametrize("seed", [1, 2])
def test_slots_that_are_taken_away_and_come_back_are_followed(seed: int) -> None:
    """500 slots, then 100 for twenty minutes, then 500 again: 85 % of the possible, 1 % refused."""
    server = Slots(lambda now_s: 100 if 1200 <= now_s < 2400 else 500)
    run = simulate(Limiter(2000, random=Random(seed)), server, Random(seed))
    assert run.per_s >= 0.85 * (500 + 100 + 500) / 3 / 12
    assert run.refused_share <= 0.01


@pytest.mark.parametrize("seed", [1, 2])
def test_a_token_quota_nobody_told_us_of_is_found(seed: int) -> None:
    """Two million tokens a minute, known only by the refusals: 85 % of them used, 1 % refused."""
    run = simulate(Limiter(2000, random=Random(seed)), TokenQuota(2e6), Random(seed))
    assert run.tokens_per_minute >= 0.85 * 2e6
    assert run.refused_share <= 0.01


def test_a_token_quota_of_the_job_file_is_kept_without_a_refusal() -> None:
    """With `limits.tokens_per_minute` set, the quota is used up and the server has nothing to refuse."""
    run = simulate(Limiter(2000, random=Random(1), tokens_per_minute=2e6), TokenQuota(2e6), Random(1))
    assert 0.95 * 2e6 <= run.tokens_per_minute <= 2e6
    assert run.refused_share == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_only_gets_slower_is_not_flooded(seed: int) -> None:
    """85 % of what the machine can do, without a queue in which every request lasts minutes."""
    gate = Limiter(2000, random=Random(seed))
    run = simulate(gate, OwnMachine(), Random(seed))
    assert run.per_s >= 0.85 * 64 / 12
    assert run.median_latency_s <= 60
    assert gate.limit < 500
    assert gate.found().endswith("held there by the server's throughput, which more did not raise")


def test_a_gateway_that_drops_one_in_twenty_is_still_used() -> None:
    """Overloads that come at any load are retried, and the limit stays where it is useful."""
    random = Random(1)
    gate = Limiter(500, random=random)
    run = simulate(gate, Flaky(random), random, refusal=Signal.OVERLOADED)
    assert run.per_s >= 0.85 * 500 / 12


@pytest.mark.parametrize("refusal", [Signal.THROTTLED, Signal.OVERLOADED])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.15, 0.3])
def test_refusals_that_come_at_any_load_do_not_slow_the_run(share: float, refusal: Signal) -> None:
    """Where up to a third of the requests is refused by chance, the rest of the capacity is used all the same."""
    random = Random(3)
    run = simulate(Limiter(256, random=random), Troubled(random, share, lambda now_s: 10_000), random, refusal=refusal)
    assert run.per_s >= 0.85 * 256 / 12


def test_a_real_limit_is_found_beside_stray_refusals() -> None:
    """A server that refuses 5 % by chance and has 100 slots is used well, and not asked for much more than it has."""
    random = Random(3)
    run = simulate(Limiter(1000, random=random), Troubled(random, 0.05, lambda now_s: 100), random)
    assert run.per_s >= 0.85 * 100 / 12
    assert run.refused_share <= 0.2
