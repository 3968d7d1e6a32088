"""The limiter against models of servers: a simulation of hours of a run, in seconds, with chance fixed."""

from __future__ import annotations

from random import Random

import pytest

from batcher.limits import Limiter
from batcher.records import Signal
from tests.server_models import (
    LATENCY_S,
    TOKENS,
    Faulty,
    OwnMachine,
    Slots,
    TokenQuota,
    Troubled,
    Weathered,
    simulate,
)

SEEDS = pytest.mark.parametrize("seed", [1, 2])
#: after this time the limit has been found, or found again
SETTLED_S = 300.0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_with_500_slots_is_used_and_hardly_ever_refuses(seed: int) -> None:
    """At least 85 % of what 500 slots can do, at most 1 % of requests refused."""
    run = simulate(Limiter(2000, random=Random(seed)), Slots(lambda now_s: 500), Random(seed))
    assert run.per_s() >= 0.85 * 500 / 12
    assert run.refused_share() <= 0.01


@pytest.mark.parametrize("slots", [4, 20])
def test_a_server_with_few_slots_is_used_and_hardly_ever_refuses(slots: int) -> None:
    """The same for an account that may send a handful: what is small must not be tried again every minute."""
    run = simulate(Limiter(256, random=Random(1)), Slots(lambda now_s: slots), Random(1))
    assert run.per_s() >= 0.85 * slots / 12
    assert run.refused_share() <= 0.015


@pytest.mark.parametrize("seed", [1, 2])
def test_slots_that_are_taken_away_and_come_back_are_followed(seed: int) -> None:
    """500 slots, then 100 for twenty minutes, then 500 again: 85 % of the possible, 1 % refused."""
    server = Slots(lambda now_s: 100 if 1200 <= now_s < 2400 else 500)
    run = simulate(Limiter(2000, random=Random(seed)), server, Random(seed))
    assert run.per_s() >= 0.85 * (500 + 100 + 500) / 3 / 12
    assert run.refused_share() <= 0.01


@pytest.mark.parametrize("seed", [1, 2])
def test_a_token_quota_nobody_told_us_of_is_found(seed: int) -> None:
    """Two million tokens a minute, known only by the refusals: 85 % of them used, 1 % refused."""
    run = simulate(Limiter(2000, random=Random(seed)), TokenQuota(lambda now_s: 2e6), Random(seed))
    assert run.tokens_per_minute >= 0.85 * 2e6
    assert run.refused_share() <= 0.01


def test_a_token_quota_of_the_job_file_is_kept_without_a_refusal() -> None:
    """With `limits.tokens_per_minute` set, the quota is used up and the server has nothing to refuse."""
    run = simulate(Limiter(2000, random=Random(1), tokens_per_minute=2e6), TokenQuota(lambda now_s: 2e6), Random(1))
    assert 0.95 * 2e6 <= run.tokens_per_minute <= 2e6
    assert run.refused_share() == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_only_gets_slower_is_not_flooded(seed: int) -> None:
    """85 % of what the machine can do, without a queue in which every request lasts minutes."""
    gate = Limiter(2000, random=Random(seed))
    run = simulate(gate, OwnMachine(), Random(seed))
    assert run.per_s() >= 0.85 * 64 / 12
    assert run.median_latency_s <= 60
    assert gate.limit < 500
    assert gate.found().endswith("held there by the server's throughput, which more did not raise")


def test_a_gateway_that_drops_one_in_twenty_is_still_used() -> None:
    """Overloads that come at any load are retried, and the limit stays where it is useful."""
    random = Random(1)
    gate = Limiter(500, random=random)
    server = Troubled(random, 0.05, lambda now_s: 10_000, refusal=Signal.OVERLOADED)
    run = simulate(gate, server, random)
    assert run.per_s() >= 0.85 * 500 / 12


@pytest.mark.parametrize("refusal", [Signal.THROTTLED, Signal.OVERLOADED])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.15, 0.3])
def test_refusals_that_come_at_any_load_do_not_slow_the_run(share: float, refusal: Signal) -> None:
    """Where up to a third of the requests is refused by chance, the rest of the capacity is used all the same."""
    random = Random(3)
    server = Troubled(random, share, lambda now_s: 10_000, refusal=refusal)
    run = simulate(Limiter(256, random=random), server, random)
    assert run.per_s() >= 0.85 * 256 / 12


@SEEDS
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_a_real_limit_is_found_beside_stray_refusals(share: float, seed: int) -> None:
    """A server that refuses some by chance and has 100 slots is used well, and asked for little more than it has."""
    random = Random(seed)
    run = simulate(Limiter(1000, random=random), Troubled(random, share, lambda now_s: 100), random)
    assert run.per_s(SETTLED_S) >= 0.85 * 100 / LATENCY_S
    assert run.refused_share(SETTLED_S) <= share + 0.05


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("burst_s", [10.0, 60.0])
def test_a_small_quota_is_not_taken_for_chance(burst_s: float, seed: int) -> None:
    """Half a million tokens a minute, counted over seconds or a minute: refusals that last a while have a cause."""
    run = simulate(Limiter(2000, random=Random(seed)), TokenQuota(lambda now_s: 0.5e6, burst_s=burst_s), Random(seed))
    assert run.tokens_per_minute >= 0.85 * 0.5e6
    assert run.refused_share(2 * SETTLED_S) <= 0.01


@pytest.mark.parametrize("quick", [False, True], ids=["as slow as answers", "quick"])
@pytest.mark.parametrize(("latency_s", "seconds"), [(12.0, 3600.0), (0.02, 20.0)])
@pytest.mark.parametrize("ceiling", [8, 64, 256])
def test_errors_in_three_of_ten_answers_cost_nothing_else(
    ceiling: int, latency_s: float, seconds: float, quick: bool
) -> None:
    """Server errors and cut connections at any load: what does not fail is done as fast as without a limiter."""
    server = Faulty(Random(3), 0.3, (Signal.FAILING,), latency_s=latency_s, quick=quick)
    run = simulate(Limiter(ceiling, random=Random(3), start=ceiling), server, Random(3), seconds=seconds)
    mean_s = latency_s * (1 + 0.3 / 0.7 * (0.01 if quick else 1))  # of what one answer takes, its failures included
    assert run.per_s(5.0 + 2 * latency_s) >= 0.97 * ceiling / mean_s  # the start takes a moment


# -- what changes in the middle of a run


@SEEDS
def test_slots_that_change_are_found_again_within_five_minutes(seed: int) -> None:
    """500, 100, 500 slots: each time 85 % of them are used and 1 % of requests refused, once the limit has settled."""
    server = Slots(lambda now_s: 100 if 1200 <= now_s < 2400 else 500)
    run = simulate(Limiter(2000, random=Random(seed)), server, Random(seed))
    for start_s, end_s, slots in [(0.0, 1200.0, 500), (1200.0, 2400.0, 100), (2400.0, 3600.0, 500)]:
        assert run.per_s(start_s + SETTLED_S, end_s) >= 0.85 * slots / LATENCY_S
        assert run.refused_share(start_s + SETTLED_S, end_s) <= 0.01


@SEEDS
def test_a_token_quota_that_changes_is_found_again_within_five_minutes(seed: int) -> None:
    """2, 0.5, 2 million tokens a minute: 85 % used, 1 % refused, once the limit has settled."""
    server = TokenQuota(lambda now_s: 0.5e6 if 1200 <= now_s < 2400 else 2e6)
    run = simulate(Limiter(2000, random=Random(seed)), server, Random(seed))
    for start_s, end_s, quota in [(0.0, 1200.0, 2e6), (1200.0, 2400.0, 0.5e6), (2400.0, 3600.0, 2e6)]:
        assert run.per_s(start_s + SETTLED_S, end_s) >= 0.85 * quota / 60 / TOKENS
        assert run.refused_share(start_s + SETTLED_S, end_s) <= 0.01


@SEEDS
def test_three_faults_in_ten_hide_no_limit(seed: int) -> None:
    """Beside 500s, 503s and broken connections by chance a 429 still counts: 85 % of 500 slots, 1 % of 429s."""
    random = Random(seed)
    run = simulate(Limiter(2000, random=random), Weathered(random, lambda now_s: 500, faulty_share=0.3), random)
    assert run.per_s(SETTLED_S) >= 0.85 * 500 / LATENCY_S
    assert run.throttled_share(SETTLED_S) <= 0.01


@SEEDS
def test_an_outage_of_five_minutes_costs_little_more_than_five_minutes(seed: int) -> None:
    """All is cut and then away, three faults in ten before and after: few requests meanwhile, soon back to work."""
    random = Random(seed)
    server = Weathered(random, lambda now_s: 500, faulty_share=0.3, away=(1200.0, 1500.0))
    run = simulate(Limiter(2000, random=random), server, random)
    assert run.per_s(SETTLED_S, 1200.0) >= 0.85 * 500 / LATENCY_S
    assert run.count(*Signal, start_s=1260.0, end_s=1500.0) <= 20
    assert run.per_s(1500.0 + 180.0, 3600.0) >= 0.85 * 500 / LATENCY_S
    assert run.throttled_share(1500.0) <= 0.01


@SEEDS
@pytest.mark.parametrize("faulty_share", [0.0, 0.3])
def test_a_storm_of_refusals_is_sat_out(seed: int, faulty_share: float) -> None:
    """For 100 s everybody is told to wait for up to a minute: few requests meanwhile, and the limit found again."""
    random = Random(seed)
    server = Weathered(random, lambda now_s: 500, faulty_share=faulty_share, storm=(1200.0, 1300.0))
    run = simulate(Limiter(2000, random=random), server, random)
    assert run.count(Signal.THROTTLED, start_s=1200.0, end_s=1300.0) <= 1000
    assert run.per_s(1300.0 + 180.0, 3600.0) >= 0.85 * 500 / LATENCY_S
    assert run.throttled_share(1300.0 + 180.0) <= 0.01
