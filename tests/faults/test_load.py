"""An endpoint with too much to do: it asks to wait in every way there is, or fails at random."""

from __future__ import annotations

import time
from collections import defaultdict
from email.utils import formatdate
from pathlib import Path
from random import Random

import pytest

from tests.checker import check, summary
from tests.fault_server import FaultServer, Shape, always_good, fault_server, refusing
from tests.scaled import SCALED, scaled
from tests.trial import trial

#: how long `Retry-After` is understood to ask for; a hundredth of what it would be in earnest, dates excepted
WAITS_S = {
    "Retry-After: 0": 0.0,
    "Retry-After: 0.01": 0.01,
    "Retry-After: 1.19": 1.19,
    "Retry-After: 1.21": 1.21,
    "Retry-After: -5": 0.0,
    "Retry-After: nan": 0.0,
    "Retry-After: soon": 0.0,
    "retry-after-ms: 300": 0.3,
    "date": 2.0,
    "none": 0.0,
}
#: there are this many rows for each that is refused
SPACING = 30
CONCURRENCY = 16


def refusal(kind: str) -> Shape:
    """A 429 that asks to wait in one of the ways of `WAITS_S`."""
    if kind == "none":
        return refusing(429)
    if kind == "date":  # the response's own clock counts, which is a day behind ours
        then = time.time() - 86_400
        dates = (f"Date: {formatdate(then, usegmt=True)}", f"Retry-After: {formatdate(then + 2, usegmt=True)}")
        return refusing(429, None, *dates)
    return refusing(429, None, kind)


def times_of(server: FaultServer) -> dict[str, list[float]]:
    """When each prompt was asked."""
    times = defaultdict(list)
    for at_s, prompt in server.times:
        times[prompt].append(at_s)
    return times


def test_every_way_to_ask_for_a_wait(tmp_path: Path) -> None:
    """No request comes before the time the server asked for, nonsense is no time, and a long wait pauses everybody."""
    with fault_server() as server:
        made = trial(tmp_path, server, SPACING * len(WAITS_S), concurrency=CONCURRENCY, program=SCALED)
        refused = dict(zip(made.texts[SPACING // 2 :: SPACING], WAITS_S, strict=True))
        server.plan = lambda prompt, attempt: refusal(refused[prompt]) if prompt in refused and not attempt else None
        made.run()
        check(made)
        assert summary(made.out)["ambiguous"] == 0, "a refusal costs nothing"
        times = times_of(server)
    assert {prompt: len(at_s) for prompt, at_s in times.items() if len(at_s) > 1} == dict.fromkeys(refused, 2)
    for prompt, kind in refused.items():
        first_s, second_s = times[prompt]
        assert second_s - first_s >= WAITS_S[kind], kind
        if WAITS_S[kind] > 1.2:
            meanwhile = [at_s for at_s, _ in server.times if first_s < at_s < first_s + WAITS_S[kind]]
            assert len(meanwhile) < CONCURRENCY, "others were sent though the run was to pause"


def test_a_wait_of_a_day(tmp_path: Path) -> None:
    """A wait beyond `max_outage_s` ends the run at once with 69; nothing is failed, and the next run completes."""
    limits = {"max_outage_s": 432}
    with fault_server() as server:
        server.latency_s = 0.2  # answers are under way when the refusal comes
        rarely = scaled({"batcher.engines.conducting.LOOK_S": 2.0, "batcher.engines.conducting._SUMMARY_S": 2.0})
        made = trial(tmp_path, server, 100, limits=limits, program=rarely)
        refused = made.texts[40]
        server.plan = lambda prompt, attempt: refusing(429, None, "Retry-After: 864") if prompt == refused else None
        ended = made.run(code=69)
        assert "max_outage_s" in ended.stderr
        assert server.asked <= 41 + 2 * CONCURRENCY
        server.plan = always_good
        made.run()
        check(made)
        assert summary(made.out)["ambiguous"] == 0


@pytest.mark.parametrize("seed", [11])
def test_a_brown_out(tmp_path: Path, seed: int) -> None:
    """Where three requests in ten fail at random, every row is completed and hardly more is sent than that takes."""
    rows, failing = 400, [500, 502, 503, 529]

    def plan(prompt: str, attempt: int) -> Shape | None:
        random = Random(f"{seed} {prompt} {attempt}")
        return refusing(random.choice(failing)) if random.random() < 0.3 else None

    with fault_server(plan) as server:
        made = trial(tmp_path, server, rows, program=SCALED)
        made.run()
        check(made)
        assert server.asked <= rows / 0.7 * 1.15
