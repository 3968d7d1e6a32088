"""What retries may cost: a store that successes fill, and a bound on what may have been paid for in vain."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.limits import RetryQuota, UnsureBudget


def emptied(ceiling: int = 100, now_s: float = 0.0) -> RetryQuota:
    """A quota of which all is taken."""
    quota = RetryQuota(ceiling)
    while quota.delay_s(now_s) == 0:
        pass
    return quota


@pytest.mark.parametrize(("ceiling", "store"), [(1, 500), (250, 500), (2000, 4000)])
def test_the_first_retries_are_free(ceiling: int, store: int) -> None:
    """Five hundred rows, or twice what may be in flight, may be asked again before anything is put off."""
    quota = RetryQuota(ceiling)
    assert [quota.delay_s(0.0) for _ in range(store)] == [0.0] * store
    assert quota.delay_s(0.0) == 1.0


def test_a_success_gives_one_back() -> None:
    """An empty store takes as many retries as there are successes, and never holds more than at the start."""
    quota = emptied()
    for _ in range(3):
        quota.succeeded()
    assert [quota.delay_s(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]

    quota = RetryQuota(1)
    for _ in range(1000):
        quota.succeeded()
    assert repr(quota) == "<RetryQuota: 500 of 500 left>"


def test_an_empty_store_lets_retries_trickle() -> None:
    """A thousand rows that fail together are asked again one a second, the last of them after a minute."""
    quota = RetryQuota(100)
    delays_s = [quota.delay_s(0.0) for _ in range(1500)]
    late_s = [delay_s for delay_s in delays_s if delay_s]
    assert late_s[:60] == [float(second) for second in range(1, 61)]
    assert set(late_s[60:]) == {60.0}
    assert quota.delay_s(30.0) == 31.0, "what was put off before keeps its place"
    assert quota.delay_s(1000.0) == 1.0, "and the past is forgotten"


def test_half_of_the_attempts_may_fail_and_no_more() -> None:
    """Where one in three fails nobody is put off; where two in three do, the third of them trickle."""
    quota = RetryQuota(1)
    assert sum(quota.delay_s(float(second)) for second in range(3000) if second % 3 == 0 or quota.succeeded()) == 0
    put_off = 0
    for second in range(3000):
        if second % 3 == 0:
            quota.succeeded()
        else:
            put_off += quota.delay_s(float(second)) > 0
    assert put_off == 2000 - 500 - 999  # the first success found the store full


@settings(deadline=None, derandomize=True)
@given(
    st.integers(1, 3000),
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=300),
    st.booleans(),
)
def test_whatever_happens_a_delay_is_bounded_and_retries_do_not_crowd(
    ceiling: int, steps: list[tuple[float, bool]], start_empty: bool
) -> None:
    """A delay lies between nothing and a minute; those put off are a second apart until a minute's worth is waiting."""
    quota = emptied(ceiling) if start_empty else RetryQuota(ceiling)
    now_s, due_s = 0.0, []
    for passed_s, success in steps:
        now_s += passed_s
        if success:
            quota.succeeded()
            continue
        delay_s = quota.delay_s(now_s)
        assert 0 <= delay_s <= 60
        if delay_s:
            due_s.append((now_s, now_s + delay_s))
    assert due_s == sorted(due_s, key=lambda times: times[1])
    for (_, former_s), (asked_s, latter_s) in pairwise(due_s):
        assert latter_s - former_s >= 0.999 or latter_s == pytest.approx(asked_s + 60)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 3000), st.lists(st.booleans(), max_size=2000))
def test_free_retries_are_never_more_than_the_store_and_the_successes(ceiling: int, results: list[bool]) -> None:
    """Retries that amplify nothing: at most the store's worth beyond one for each success."""
    quota, free, successes = emptied(ceiling), 0, 0
    for success in results:
        if success:
            quota.succeeded()
            successes += 1
        else:
            free += quota.delay_s(0.0) == 0
    assert free <= successes


@pytest.mark.parametrize(
    ("share", "concurrency", "completed", "allowed"),
    [
        (0.01, 8, 0, 100),
        (0.01, 8, 10_000, 100),
        (0.01, 8, 10_100, 101),
        (0.01, 1000, 0, 2000),
        (0.01, 1000, 1_000_000, 10_000),
        (0.0, 8, 1_000_000, 100),
        (1.0, 8, 500, 500),
    ],
)
def test_how_much_may_have_been_paid_for_in_vain(share: float, concurrency: int, completed: int, allowed: int) -> None:
    """A hundred attempts, all that were in flight twice over, or a share of the completed rows: the largest counts."""
    budget = UnsureBudget(share, concurrency)
    assert budget.allowed(completed) == allowed
    assert not budget.spent(allowed, completed)
    assert budget.spent(allowed + 1, completed)
