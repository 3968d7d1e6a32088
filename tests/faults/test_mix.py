"""Everything at once: a third of the rows meet faults, the endpoint takes fewer requests than we send, and kills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.checker import check
from tests.harness import write_script
from tests.simulator_client import counts
from tests.trial import simulated, trial, until

FAULTS = (
    {"status": 429, "retry_after": 0.2},
    {"status": 503},
    {"cut": 0.6},
    {"drop": "before"},
    {"drop": "headers"},
    {"reset": True},
    {"html": True},
    {"empty_choices": True},
    {"error_in_200": {"code": "server_error", "message": "broke"}},
    {"status": 500},
    {"keepalive_lines": 3},
    {"not_json": True},
    {"finish_reason": None},
)
CONCURRENCY = 64


def bad_night(folder: Path, rows: int, kills_at: Sequence[int], seed: int) -> None:
    """Ask so many rows, a third of which meet a fault, with a SIGKILL whenever so many were answered; judge the end."""
    script = write_script(folder / "script.yaml", *({"share": 0.026, "answers": [fault]} for fault in FAULTS))
    options = {"latency_s": 0.05, "spread": 0.4, "max_concurrency": 48, "script": script, "seed": seed}
    with simulated(folder, **options) as simulator:
        texts = (f"row {n}: {'y' * (n % 200)}" for n in range(rows))
        made = trial(folder, simulator, texts, concurrency=CONCURRENCY, rows_per_part=max(50, rows // 20), seed=seed)
        for answered in kills_at:
            with made.start() as command:
                until(command, lambda enough=answered: counts(simulator.process)["answered"] >= enough, most_s=200)
                made.kill(command)
        made.run(most_s=600)
        check(made)
        asked = sum(simulator.ledger().asked.values())
    assert made.kills == len(kills_at)
    assert asked > rows * 1.2, "the script did not make trouble"


def test_a_bad_night(tmp_path: Path) -> None:
    """1,200 rows, every fault, a cap below our concurrency, two SIGKILLs: every row is completed, once, in order."""
    bad_night(tmp_path, 1200, [200, 500], seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_long_bad_night(tmp_path: Path) -> None:
    """The same with 20,000 rows and three SIGKILLs."""
    bad_night(tmp_path, 20_000, [3_000, 9_000, 15_000], seed=2)
