"""Money and keys: the run stops or asks again soon, no row is failed for it, and the same command carries on."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from tests.checker import check, summary
from tests.command import BARE
from tests.fault_server import FaultServer, Shape, always_good, fault_server, refusing
from tests.scaled import SCALED, scaled
from tests.trial import KEY, Trial, trial, until

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
OTHER_KEY = "sk-another-key-77c1d2"
#: requests that find out whether a key is refused for good
PROBES = 3
#: that many, more often, while a key is exchanged
MANY_PROBES = 60
PATIENT = scaled(also=f"settling.INQUIRIES_S[settling.Doubt.PASSING] = (0.5,) * {MANY_PROBES}")


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


@pytest.mark.parametrize("new_key", ["in the file", "none, the old one counts again"])
def test_a_key_that_is_exchanged(tmp_path: Path, new_key: str) -> None:
    """While a key is exchanged the run asks now and then with the one it finds, and carries on by itself."""
    path = tmp_path / "key"
    path.write_text(KEY)
    with fault_server() as server:
        server.key, server.most_answers = KEY, 80
        made = trial(
            tmp_path, server, 200, connection={"api_key_env": None, "api_key_file": str(path)}, program=PATIENT
        )
        with made.start() as command:
            until(command, lambda: server.answered == 80 and server.in_flight >= 4)
            server.key, server.most_answers = OTHER_KEY, inf
            until(command, lambda: "key" in (summary(made.out)["why_waiting"] or ""))
            if new_key == "in the file":
                path.write_text(OTHER_KEY)
            else:
                server.key = KEY
            made.ended(command)
        check(made)
        assert summary(made.out)["ambiguous"] == 0
        assert server.asked <= len(made.texts) + made.concurrency + MANY_PROBES


def test_a_key_that_stays_wrong(tmp_path: Path) -> None:
    """A key that is refused from the middle on stops the run with 77 after three more requests; rows stay pending."""
    with fault_server() as server:
        server.key, server.most_answers = KEY, 80
        made = trial(tmp_path, server, 200, program=SCALED)
        with made.start() as command:
            until(command, lambda: server.answered == 80 and server.in_flight >= 4)
            server.key, server.most_answers = OTHER_KEY, inf
            assert made.ended(command).returncode == 77
        refused = server.asked - server.answered
        assert PROBES < refused <= made.concurrency + PROBES, "those that followed the last answers, and the probes"
        assert (summary(made.out)["completed"], summary(made.out)["failed"]) == (server.answered, 0)
        made.run(code=77)
        again = server.asked - server.answered - refused
        assert 1 <= again <= made.concurrency, "a run that has had answers does not begin with a single request"
        made.run(env={**BARE, "MY_KEY": OTHER_KEY})
        check(made)
