"""Limits that several processes share: together they never go beyond the whole, and they use all of it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from random import Random

import pytest

from batcher.budget import Budget, Reserved
from batcher.engines.messages import State, Use
from batcher.engines.processes import _CURRENT, _GROWING
from batcher.engines.sharing import AT_ONCE, TOKENS_LEFT, Sharing
from batcher.limits.pool import Pool, fair
from batcher.limits.shared import SharedLimiter
from batcher.progress import Figures
from batcher.records import Signal, Spent, Totals
from tests.fakes import make_job
from tests.server_models import Server, Slots, TokenQuota, simulate


@pytest.mark.parametrize(
    ("total", "wants", "shares"),
    [
        (12, [inf, inf, inf], [4, 4, 4]),
        (12, [1, inf, inf], [1, 5.5, 5.5]),
        (12, [1, 2, 3], [3, 4, 5]),  # what nobody wants is divided equally
        (0, [1, inf], [0, 0]),
    ],
)
def test_a_fair_division(total: float, wants: list[float], shares: list[float]) -> None:
    """Nobody who wants less than an equal share goes short, and nothing is left over."""
    assert fair(total, wants) == shares


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_members_never_hold_more_than_the_whole(seed: int, whole: bool) -> None:
    """However late grants and reports arrive, what members may use and do use adds up to no more than there is."""
    random = Random(seed)
    count, total = random.randint(1, 5), random.choice([5, 64, 1000])
    pool = Pool(total, whole=whole)
    granted, known, used = [0.0] * count, [0] * count, [0.0] * count
    grants: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    reports: list[list[tuple[int, float, float, float]]] = [[] for _ in range(count)]
    for member in range(count):
        pool.join(member)
    for number in range(1, 300):
        if random.random() < 0.5:
            for member, share in pool.divide(number).items():
                grants[member].append((number, share))
        for member in range(count):
            if grants[member] and random.random() < 0.5:
                known[member], granted[member] = grants[member].pop(0)
            used[member] = float(int(random.uniform(0, max(granted[member], used[member]))))
            if random.random() < 0.5:
                wants = random.choice([inf, used[member], used[member] * 1.5])
                reports[member].append((known[member], max(granted[member], used[member]), used[member], wants))
            if reports[member] and random.random() < 0.5:
                pool.told(member, *reports[member].pop(0))
        assert sum(map(max, granted, used)) <= total + 1e-6


def test_what_one_does_not_want_goes_to_the_others() -> None:
    """A member without rows gives up its share, and the others get it once it has said so."""
    pool = Pool(16, whole=True)
    pool.join(0)
    pool.join(1)
    assert pool.divide(1) == {0: 8, 1: 8}
    pool.told(0, 1, holds=8, needs=8, wants=inf)
    pool.told(1, 1, holds=8, needs=3, wants=3)
    assert pool.divide(2) == {1: 3}, "nothing to give before it is free"
    pool.told(1, 2, holds=3, needs=3, wants=3)
    assert pool.divide(3) == {0: 13}
    pool.leave(1)
    pool.told(0, 3, holds=13, needs=13, wants=inf)
    assert pool.divide(4) == {0: 16}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    ("server", "per_s"),
    [(lambda: Slots(lambda now_s: 100), 100 / 12), (lambda: TokenQuota(lambda now_s: 2e6), 2e6 / 60 / 1626)],
    ids=["slots", "quota"],
)
def test_several_limiters_are_refused_no_more_than_one(server: Callable[[], Server], per_s: float, count: int) -> None:
    """Limiters that hear of each other's cuts use 85 % of what there is, and at most 1 % is refused."""
    random = Random(1)
    limiters = [SharedLimiter(1000 // count, random=random, start=8 // count) for _ in range(count)]
    run = simulate(limiters, server(), random)
    assert run.per_s() >= 0.85 * per_s
    assert run.refused_share() <= 0.01


def test_a_share_bounds_concurrency_and_rate_at_once() -> None:
    """A smaller share counts from the next request on, a larger one as soon as it is granted."""
    limiter = SharedLimiter(100, random=Random(1), start=100, requests_per_minute=6000, proven=True)
    limiter.share(10, 60, None)
    assert limiter.allowance(0, 0.0) == 1, "a rate of one a second"
    limiter.sent(0.0)
    assert limiter.allowance(1, 0.0) == 0
    limiter.share(50, 6000, None)
    assert limiter.allowance(1, 10.0) == 9, "the limit found so far, which has to grow again"
    for _ in range(300):
        limiter.answered(0.0, 10.0, Signal.SUCCESS, in_flight=50)
    assert limiter.limit == 50


class Spender:
    """A process that spends its part of a budget of tokens, as `Member` does, and hears of grants a round late."""

    def __init__(self, sharing: Sharing, number: int, price: int) -> None:
        self.sharing, self.number, self.price = sharing, number, price
        self.budget = Budget(10**9, None, None, Totals(), price)
        self.in_flight: list[Reserved] = []
        sharing.begun(number, again=False)
        self.shares, self.grant = sharing.shares(number), sharing.number
        self.budget.lease(self.shares[TOKENS_LEFT], None)

    def round(self) -> None:
        """Finish what is in flight, send what fits, and say so."""
        for reserved in self.in_flight:
            self.budget.settle(reserved, Spent(0, 0, self.price, None))
        self.in_flight.clear()
        while len(self.in_flight) < 5 and (reserved := self.budget.reserve(0)) is not None:
            self.in_flight.append(reserved)
        taken = self.budget.tokens_taken
        uses = {
            AT_ONCE: Use(self.shares[AT_ONCE], len(self.in_flight), inf),
            TOKENS_LEFT: Use(max(self.shares[TOKENS_LEFT], taken), taken, inf),
        }
        asked = None if self.budget.asked is None else {TOKENS_LEFT: self.budget.asked.tokens}
        figures = Figures(in_flight=len(self.in_flight))
        self.sharing.told(self.number, State(figures, self.grant, uses, asked, False, 0, 0, None))
        self.shares, self.grant = self.sharing.shares(self.number), self.sharing.number
        self.budget.lease(self.shares[TOKENS_LEFT], None)


def test_a_budget_is_spent_to_its_end_by_several(tmp_path: Path) -> None:
    """Three spenders use the whole budget and one request more at most, and only then it is said to be used up."""
    job = make_job(tmp_path, limits={"concurrency": 16, "max_total_tokens": 1000})
    sharing = Sharing(job, (1000.0, None), 3)
    spenders = [Spender(sharing, number, price=30) for number in range(3)]
    rounds = 0
    while sharing.used_up() is None:
        rounds += 1
        assert rounds < 200, sharing
        for spender in spenders:
            spender.round()
        sharing.divide()
        assert sum(spender.budget.tokens_taken for spender in spenders) <= 1020
    assert sum(spender.budget.tokens_taken for spender in spenders) == 1020


def test_what_a_dead_process_held_is_not_granted_before_its_journal_was_read(tmp_path: Path) -> None:
    """Its part of the budget counts as used, its successor begins without one, and gets what is left of it."""
    job = make_job(tmp_path, limits={"concurrency": 16, "max_total_tokens": 1000})
    sharing = Sharing(job, (1000.0, None), 2)
    spenders = [Spender(sharing, number, price=30) for number in range(2)]
    for spender in spenders:
        spender.round()
    sharing.died(1)
    sharing.divide()
    assert sharing.shares(0)[TOKENS_LEFT] <= 500
    sharing.begun(1, again=True)
    assert sharing.shares(1)[TOKENS_LEFT] == 0
    sharing.replaced(1, {TOKENS_LEFT: 120.0})
    assert sharing.shares(1)[TOKENS_LEFT] == 380
    assert sharing.shares(1)[AT_ONCE] == 8


def test_every_figure_is_added_up() -> None:
    """What the processes count is counted in all; a new figure has to say how."""
    told = {"total", "cost_usd", "why_waiting"}
    assert {*_GROWING, *_CURRENT} | told == set(Figures.__dataclass_fields__)
