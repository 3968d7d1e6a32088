"""An endpoint that goes away for a while, in each way in which endpoints do: the run waits, probes, and carries on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checker import check
from tests.command import Command
from tests.fault_server import HTML, FaultServer, Shape, always_good, fault_server, refusing
from tests.scaled import SCALED
from tests.trial import trial, until

#: five minutes to a run whose waits are a hundredth
OUTAGE_S = 3.0
CONCURRENCY = 16
#: rounds with growing pauses, then probes: so many requests are few where ten thousand could have been sent
MOST_REQUESTS = 20 * CONCURRENCY
ROWS_BETWEEN = 100


def answering(shape: Shape) -> Callable[[FaultServer], None]:
    """Begin an outage in which every request gets `shape`."""

    def begin(server: FaultServer) -> None:
        server.plan = lambda prompt, attempt: shape

    return begin


OUTAGES = {
    "refused": FaultServer.down,
    "503": answering(refusing(503)),
    "500": answering(refusing(500)),
    "html": answering(HTML),
}


def suffer(command: Command, server: FaultServer, begin: Callable[[FaultServer], None]) -> int:
    """Let the endpoint be away for a while; return how many requests it saw meanwhile."""
    asked = server.asked
    begin(server)
    time.sleep(OUTAGE_S)  # the outage itself: there is nothing to wait for
    meanwhile = server.asked - asked
    assert command.poll() is None, "the run gave up"
    server.plan = always_good
    server.up()
    return meanwhile


@pytest.mark.parametrize("kinds", [("refused", "503"), ("500", "html")], ids="-".join)
def test_outages_in_the_middle(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """Outages are waited out with few requests, whatever they look like; no row fails and no command is needed."""
    with fault_server() as server:
        server.latency_s = 0.2  # answers are under way when the outage begins
        made = trial(tmp_path, server, ROWS_BETWEEN * (len(kinds) + 2), concurrency=CONCURRENCY, program=SCALED)
        asked = {}
        with made.start() as command:
            for number, kind in enumerate(kinds, 1):
                until(command, lambda wanted=ROWS_BETWEEN * number: server.answered >= wanted)
                asked[kind] = suffer(command, server, OUTAGES[kind])
            made.ended(command)
        check(made)
    assert max(asked.values()) <= MOST_REQUESTS, asked
