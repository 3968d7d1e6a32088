"""Time that does not pass as expected: a process that was frozen, a clock that is set while it runs."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from math import inf
from pathlib import Path

import pytest

from tests.checker import check, summary
from tests.command import BARE
from tests.fault_server import fault_server, refusing
from tests.scaled import SCALED
from tests.trial import KEY, Trial, trial, until

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
DAY_S = 86_400
CONCURRENCY = 16


def test_frozen_for_longer_than_a_request_may_take(tmp_path: Path) -> None:
    """After SIGSTOP and SIGCONT no more is asked again than was in flight, though every deadline has passed."""
    with fault_server() as server:
        server.most_answers = 40
        timeouts = {"connect_s": 1, "first_byte_s": 2.0, "total_s": 2.0}
        made = trial(tmp_path, server, 100, concurrency=CONCURRENCY, connection={"timeouts": timeouts})
        with made.start() as command:
            until(command, lambda: server.answered == 40 and server.in_flight >= 4)
            command.signal(signal.SIGSTOP)
            server.most_answers = inf
            time.sleep(2.5)  # longer than a request may take
            command.signal(signal.SIGCONT)
            made.ended(command)
        check(made, doubtful=CONCURRENCY)
        assert server.asked <= len(made.texts) + CONCURRENCY


def clock_of(made: Trial) -> float:
    """What the run's clock said a moment ago, in seconds since 1970."""
    return datetime.fromisoformat(summary(made.out)["updated_at"]).timestamp()


@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime to set a process's clock")
def test_the_clock_is_set_by_a_day(tmp_path: Path) -> None:
    """A clock that jumps while rows wait, for an answer or for their next attempt, wakes and delays none of them."""
    clock = tmp_path / "clock"
    clock.write_text("+0s")
    env = {
        **BARE,
        "MY_KEY": KEY,
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # it looks at the file once a second
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with fault_server() as server:
        made = trial(tmp_path, server, 200, concurrency=CONCURRENCY, program=SCALED)
        refused = set(made.texts[40::16])
        server.plan = lambda prompt, attempt: refusing(500) if prompt in refused and attempt == 0 else None
        with made.start("-v", env=env) as command:
            for answered, jump_s in ((20, DAY_S), (100, -DAY_S)):
                server.most_answers = answered
                until(command, lambda enough=answered: server.answered == enough)
                clock.write_text(f"{jump_s:+d}s")
                until(command, lambda jumped_s=jump_s: abs(clock_of(made) - time.time() - jumped_s) < DAY_S / 2)
            server.most_answers = inf
            made.ended(command, most_s=30)
        rows = check(made)
        assert summary(made.out)["ambiguous"] == len(refused)
        assert server.asked == len(made.texts) + len(refused), "a deadline took the clock for the time"
    asked_at = [at.timestamp() for at in rows["requested_at"].to_pylist()]
    assert max(asked_at) - min(asked_at) > 1.5 * DAY_S, "the clock did not jump"
    assert max(rows["latency_s"].to_pylist()) < 30
