"""The budget: what is reserved, what is used, when it is used up and what it says then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.budget import Budget, Reserved, answer_limit
from batcher.pricing import Prices, Rates, Tariff
from batcher.records import Spent, Totals
from tests.fakes import make_job

#: one dollar per thousand tokens of any kind, so that figures can be read
PRICES = Prices("test", lambda _: Tariff(Rates(1e-3, 1e-3, 1e-3)), constant=True)


def tokens(limit: int, *, answer: int | None = 100, spent: Totals | None = None) -> Budget:
    return Budget(limit, None, None, spent or Totals(), answer)


def money(limit: float, *, answer: int | None = 100, spent: Totals | None = None) -> Budget:
    return Budget(None, limit, PRICES, spent or Totals(), answer)


def taken(budget: Budget, prompt_bytes: int) -> Reserved:
    """A reservation that is known to fit."""
    reserved = budget.reserve(prompt_bytes)
    assert reserved is not None
    return reserved


def test_no_limits() -> None:
    """Everything fits, nothing is counted and there is no reason to stop."""
    budget = Budget(None, None, None, Totals(prompt_tokens=10**12), None)
    assert all(budget.reserve(10**9) is budget.reserve(1) is not None for _ in range(10))
    budget.settle(taken(budget, 1), Spent(10**9, None, 10**9, 10.0**9))
    assert budget.reason() is None


def test_a_reservation() -> None:
    """A prompt counts a third of a token a byte, an answer `max_tokens` or a thousand, until answers are known."""
    assert taken(tokens(10_000), 300).tokens == pytest.approx(200)
    assert taken(tokens(10_000, answer=None), 300).tokens == pytest.approx(1100)
    assert taken(money(10.0), 300).usd == pytest.approx(0.2)


def test_what_is_in_flight_counts() -> None:
    """A request does not fit beside reservations that fill the budget, and fits when one of them used less."""
    budget = tokens(400)
    first, _ = taken(budget, 300), taken(budget, 300)
    assert budget.reserve(300) is None
    assert budget.reason() == "limits.max_total_tokens: 0 of 400 tokens used"
    budget.settle(first, Spent(20, 0, 30))
    assert budget.reserve(100) is not None
    assert budget.reason() is None


def test_dollars_in_flight_count_until_they_are_settled() -> None:
    """What was reserved in dollars is free again when its request ends, while others are in flight."""
    budget = money(0.4)
    first, _ = taken(budget, 300), taken(budget, 300)
    assert budget.reserve(300) is None
    budget.settle(first, Spent(1, 0, 1, 0.002))
    assert budget.reserve(200) is not None


def test_one_may_always_be_sent() -> None:
    """With nothing in flight a request fits that is estimated too large, unless the budget is used up."""
    budget = tokens(150)
    reserved = taken(budget, 3000)
    assert budget.reserve(3) is None
    budget.settle(reserved, Spent(100, 0, 49))
    budget.settle(taken(budget, 3000), Spent(1, 0, 0))
    assert budget.reserve(3) is None
    assert budget.reason() == "limits.max_total_tokens: 150 of 150 tokens used"


def test_money_is_counted_as_priced() -> None:
    """The cost of an answer is what its own price said; without one, today's price for uncached tokens."""
    budget = money(2.0)
    budget.settle(taken(budget, 300), Spent(1000, 900, 0, 0.1))
    budget.settle(taken(budget, 300), Spent(1000, 900, 0, None))
    assert budget.reserve(300) is not None
    assert budget.reserve(3000) is None
    assert budget.reason() == "limits.max_cost_usd: $1.10 of $2.00 used"


def test_both_limits() -> None:
    """The one that is met first is named."""
    budget = Budget(10_000, 0.5, PRICES, Totals(), 100)
    budget.settle(taken(budget, 300), Spent(400, 0, 200, 0.6))
    assert budget.reserve(300) is None
    assert budget.reason() == "limits.max_cost_usd: $0.60 of $0.50 used"


def test_nobody_says_what_was_used() -> None:
    """An answer without usage counts as reserved, a request without an answer as nothing."""
    budget = tokens(1000)
    budget.settle(taken(budget, 300), None)
    budget.settle(taken(budget, 300), Spent())
    budget.settle(taken(budget, 300), Spent())
    assert taken(budget, 1500)
    assert budget.reserve(3) is None
    assert budget.reason() == "limits.max_total_tokens: 400 of 1,000 tokens used"


def test_estimates_follow_the_answers() -> None:
    """After twenty answers a prompt counts its measured ratio, an answer four times the mean, `max_tokens` at most."""
    budget = tokens(10**6, answer=500)
    for number in range(20):
        assert taken(budget, 300).tokens == pytest.approx(600), number
    for _ in range(20):
        budget.settle(Reserved(600, 0.0, 300), Spent(60, 0, 10))
    assert taken(budget, 300).tokens == pytest.approx(60 + 40)
    for _ in range(20):
        budget.settle(Reserved(600, 0.0, 300), Spent(60, 0, 490))
    assert taken(budget, 300).tokens == pytest.approx(60 + 500)


def test_a_resumed_run() -> None:
    """What earlier runs used counts, and their answers are known already."""
    spent = Totals(completed=40, prompt_tokens=800, completion_tokens=400, cost_usd=1.5)
    assert taken(tokens(10_000, spent=spent), 300).tokens == pytest.approx(100 + 40)
    used_up = tokens(1200, spent=spent)
    assert used_up.reserve(1) is None
    assert used_up.reason() == "limits.max_total_tokens: 1,200 of 1,200 tokens used"
    assert money(1.5, spent=spent).reserve(1) is None
    assert money(1.6, spent=spent).reserve(1) is not None


def test_rows_of_earlier_runs_without_a_price() -> None:
    """They cost what average rows cost now."""
    half = Totals(completed=10, prompt_tokens=800, completion_tokens=200, cost_usd=0.5, unpriced=5)
    assert money(1.0, spent=half).reserve(1) is None
    assert money(1.01, spent=half).reserve(1) is not None
    whole = Totals(failed=4, prompt_tokens=800, completion_tokens=200, unpriced=4)
    assert money(1.0, spent=whole).reserve(1) is None
    assert money(1.01, spent=whole).reserve(1) is not None


def test_the_price_of_the_hour() -> None:
    """A reservation is made at the price of its time."""
    prices = Prices("test", lambda at: Tariff(Rates(1e-3, 1e-3, 1e-3) if at < 3600 else Rates(2e-3, 1e-3, 2e-3)))
    now = [0.0]
    budget = Budget(None, 100.0, prices, Totals(), 100, clock=lambda: now[0])
    cheap = taken(budget, 300).usd
    now[0] = 3600.0
    assert taken(budget, 300).usd == pytest.approx(2 * cheap)


def test_dollars_without_prices() -> None:
    """A limit in dollars without prices is a mistake of the caller."""
    with pytest.raises(ValueError, match="needs prices"):
        Budget(None, 1.0, None, Totals(), None)


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [
        ({}, None),
        ({"max_tokens": 256}, 256),
        ({"extra": {"max_completion_tokens": 90}, "max_tokens": 256}, 90),
        ({"extra": {"max_tokens": "many"}}, None),
    ],
)
def test_the_answer_limit_of_a_job(tmp_path: Path, parameters: dict[str, Any], limit: int | None) -> None:
    """It is `max_tokens` or its newer name, among the parameters or the extra ones."""
    assert answer_limit(make_job(tmp_path, parameters=parameters)) == limit
