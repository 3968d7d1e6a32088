"""Money and keys: the run stops or asks again soon, no row is failed for it, and the same command carries on."""

from __future__ import annotations

from pathlib import Path

from tests.checker import check, summary
from tests.fault_server import FaultServer, Shape, always_good, fault_server, refusing
from tests.trial import Trial, trial

#: everything that means that there is no money left
MONEY = [
    refusing(429, "credit_balance_exhausted"),
    refusing(429, "organization_spend_limit_exceeded"),
    refusing(429, "project_spend_limit_exceeded"),
    refusing(429, "organization_usage_limit_exceeded"),
    refusing(429, "insufficient_quota", "Retry-After: 1"),
    refusing(402),
]
ROWS_BETWEEN = 40


def refused_after(server: FaultServer, rows: int, shape: Shape) -> None:
    """Answer so many rows more, then give everybody `shape`."""
    until = server.answered + rows
    server.plan = lambda prompt, attempt: shape if server.answered >= until else None


def stopped_run(made: Trial, server: FaultServer, code: int) -> int:
    """A run that has to stop; returns how many requests were refused."""
    refusals = server.asked - server.answered
    made.run(code=code)
    now = summary(made.out)
    assert now["state"] == "stopped"
    assert (now["completed"], now["failed"], now["ambiguous"]) == (server.answered, 0, 0)
    return server.asked - server.answered - refusals


def test_no_money_left(tmp_path: Path) -> None:
    """Every way to say that the account is empty stops the run after at most one round of requests, with 77."""
    with fault_server() as server:
        made = trial(tmp_path, server, ROWS_BETWEEN * (len(MONEY) + 3))
        for shape in MONEY:
            refused_after(server, ROWS_BETWEEN, shape)
            assert stopped_run(made, server, 77) <= made.concurrency, shape
        server.plan = always_good
        made.run()
        check(made)
        assert summary(made.out)["ambiguous"] == 0
