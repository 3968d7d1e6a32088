"""Whatever the rows are like, a budget is not exceeded by more than it says, is used up, and only ever shrinks."""

from __future__ import annotations

from collections import deque
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from batcher.budget import Budget, Reserved
from batcher.pricing import Prices, Rates, Tariff
from batcher.records import Spent, Totals

#: like a real list: an answer costs more than a prompt
PRICES = Prices("test", lambda _: Tariff(Rates(1e-6, 1e-8, 4e-6)), constant=True)

rows = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(1, 3000),
        "answer_tokens": st.integers(1, 500),
        "concurrency": st.integers(1, 300),
        "seed": st.integers(0, 10**6),
    }
)


def cost(prompt: int, answer: int) -> float:
    """What one row costs."""
    return prompt * 1e-6 + answer * 4e-6


def send_all(budget: Budget, prompt: int, answer: int, concurrency: int, seed: int, most: int = 3000) -> int:
    """Send rows that are alike, answered in any order, until the budget is used up; return how many were answered."""
    random = Random(seed)
    in_flight: deque[Reserved] = deque()
    answered = 0
    while answered < most:
        reserved = budget.reserve(3 * prompt) if len(in_flight) < concurrency else None
        if reserved is not None:
            in_flight.append(reserved)
        elif in_flight:
            in_flight.rotate(random.randrange(len(in_flight)))
            budget.settle(in_flight.popleft(), Spent(prompt, 0, answer, cost(prompt, answer)))
            answered += 1
        else:
            break
    return answered


@given(row=rows, share=st.floats(0.1, 400), slack=st.integers(0, 2000))
def test_rows_that_are_alike_use_the_budget_up(row: dict[str, int], share: float, slack: int) -> None:
    """Their estimates are no less than what they use, so the budget is used up and exceeded by one row at most."""
    prompt, answer = row["prompt_tokens"], row["answer_tokens"]
    limit = max(1, int(share * (prompt + answer)))
    budget = Budget(limit, None, None, Totals(), answer + slack)
    used = (prompt + answer) * send_all(budget, prompt, answer, row["concurrency"], row["seed"])
    assert limit <= used < limit + prompt + answer


@given(row=rows, share=st.floats(0.1, 400), slack=st.integers(0, 2000))
def test_dollars_are_counted_like_tokens(row: dict[str, int], share: float, slack: int) -> None:
    """A limit in dollars is kept as one in tokens is."""
    prompt, answer = row["prompt_tokens"], row["answer_tokens"]
    one = cost(prompt, answer)
    budget = Budget(None, share * one, PRICES, Totals(), answer + slack)
    used = one * send_all(budget, prompt, answer, row["concurrency"], row["seed"])
    assert share * one * 0.999_999 <= used < (share + 1) * one * 1.000_001


@given(row=rows, share=st.floats(1, 100), cuts=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5))
def test_the_budget_is_that_of_all_runs_together(row: dict[str, int], share: float, cuts: list[float]) -> None:
    """A run that is interrupted and resumed, however often, uses what an uninterrupted one uses."""
    prompt, answer = row["prompt_tokens"], row["answer_tokens"]
    limit = int(share * (prompt + answer))
    totals = Totals()
    for cut in [*cuts, 100.0]:
        budget = Budget(limit, None, None, totals, answer)
        done = send_all(budget, prompt, answer, row["concurrency"], row["seed"], most=int(cut * share) + 1)
        totals.add(Totals(completed=done, prompt_tokens=done * prompt, completion_tokens=done * answer))
    assert limit <= totals.prompt_tokens + totals.completion_tokens < limit + prompt + answer


@given(
    sizes=st.lists(st.integers(0, 100_000), min_size=1, max_size=60),
    answers=st.lists(
        st.one_of(st.none(), st.builds(Spent, *[st.one_of(st.none(), st.integers(0, 9000))] * 3)), max_size=60
    ),
    limit=st.integers(1, 200_000),
    answer_tokens=st.one_of(st.none(), st.integers(1, 5000)),
)
def test_a_budget_only_shrinks(
    sizes: list[int], answers: list[Spent | None], limit: int, answer_tokens: int | None
) -> None:
    """What is used never becomes less, and with nothing in flight one more fits unless the budget is used up."""
    budget = Budget(limit, 1.0, PRICES, Totals(), answer_tokens)
    before = (0.0, 0.0)
    open_ones = []
    for size, spent in zip(sizes, [*answers, *[None] * 60], strict=False):
        reserved = budget.reserve(size)
        if reserved is not None:
            smaller = budget.reserve(size // 2)
            open_ones += [reserved] if smaller is None else [reserved, smaller]
            assert smaller is None or smaller.tokens <= reserved.tokens
        elif open_ones:
            budget.settle(open_ones.pop(), spent)
        now = (budget._used_tokens, budget._used_usd)
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now
    while open_ones:
        budget.settle(open_ones.pop(), None)
    assert (budget._reserved_tokens, budget._reserved_usd, budget._in_flight) == (0.0, 0.0, 0)
    assert (budget.reserve(1) is not None) == (budget._used_tokens < limit and budget._used_usd < 1.0)


@given(size=st.integers(0, 10**6), less=st.integers(0, 10**6), used=st.integers(0, 5000))
def test_a_smaller_request_fits_where_a_larger_does(size: int, less: int, used: int) -> None:
    """Beside the same request in flight."""
    fits = []
    for wanted in (size, max(0, size - less)):
        budget = Budget(10_000, None, None, Totals(prompt_tokens=used), 100)
        assert budget.reserve(3000) is not None
        fits.append(budget.reserve(wanted) is not None)
    assert fits[1] >= fits[0]
