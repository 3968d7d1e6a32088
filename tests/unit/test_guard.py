"""The guard: failures count only once something succeeded, and too many of them stop the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from batcher.guard import FIRST, LATER, Guard, Held
from batcher.records import ApiError, Outcome
from tests.fakes import outcome

NOBODY: Any = SimpleNamespace(sent_at_s=1.0)


def fail(guard: Guard, count: int, code: str = "odd", status: int | None = 400) -> list[bool]:
    """Let so many rows fail."""
    error = ApiError("no", code=code, http_status=status)
    return [guard.failed(Held(NOBODY, outcome(row, failed=code, error=error))) for row in range(count)]


@pytest.mark.parametrize("proven, limit", [(False, FIRST), (True, LATER)])
def test_nothing_but_failures(proven: bool, limit: int) -> None:
    """The run is to stop at the twentieth, or at the two hundredth where there were answers before."""
    assert (FIRST, LATER) == (20, 200)
    assert fail(Guard(proven=proven), limit) == [False] * (limit - 1) + [True]


def test_a_success_after_failures() -> None:
    """It gives the failures back in order, once, and from then on more of them are borne."""
    guard = Guard(proven=False)
    fail(guard, FIRST - 1)
    assert [held.outcome.row_index for held in guard.succeeded(2.0)] == list(range(FIRST - 1))
    assert guard.succeeded(2.0) == []
    assert fail(guard, LATER) == [False] * (LATER - 1) + [True]


def test_giving_up_holding() -> None:
    """What is held counts, and the patience stays as it was."""
    guard = Guard(proven=False)
    fail(guard, 3)
    assert len(guard.give_up_holding()) == 3
    assert fail(guard, FIRST)[-1]


def test_the_reason() -> None:
    """It counts what is held and names the most frequent code, not the provider's words."""
    guard = Guard(proven=False)
    fail(guard, 2, "rare")
    fail(guard, 3, "frequent")
    guard.failed(Held(NOBODY, Outcome(9, "failed", b"", 1, 0, None, None, None)))
    assert guard.causes() == [("frequent", 3), ("rare", 2), ("unknown", 1)]
    assert guard.reason() == "6 rows failed one after the other and none succeeded; 3 with frequent"


@pytest.mark.parametrize(
    "refused, others, down", [(3, 0, False), (0, 3, True), (2, 2, False), (1, 2, True), (2, 1, False)]
)
def test_whose_fault_it_is(refused: int, others: int, down: bool) -> None:
    """The provider is down if most failures are not refusals of the request."""
    guard = Guard(proven=False)
    fail(guard, refused, status=404)
    fail(guard, others - others // 2, status=500)
    fail(guard, others // 2, status=None)
    assert guard.provider_is_down() is down
    assert not guard.is_outage, "an endpoint that never worked may never do"
    guard = Guard(proven=True)
    fail(guard, refused, status=404)
    fail(guard, others, status=500)
    assert guard.is_outage is down


def test_a_success_that_was_sent_before_the_failures() -> None:
    """It proves nothing about them: they stay held, and count towards the end of the run."""
    guard = Guard(proven=True)
    fail(guard, LATER - 1)
    assert guard.succeeded(0.5) == []
    assert fail(guard, 1) == [True]
    assert guard.succeeded(1.0) == []
    assert len(guard.succeeded(1.1)) == LATER
