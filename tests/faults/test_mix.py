"""Everything at once: a third of the rows meet faults, the endpoint takes fewer requests than we send, and kills."""

from __future__ import annotations

import time
from pathlib import Path

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import (
    Ledger,
    batcher,
    check_money,
    check_output,
    kill,
    start,
    unsure,
    write_job,
    write_rows,
    write_script,
)
from tests.simulator_client import counts

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


def test_faults_of_every_kind_a_full_endpoint_and_two_kills(tmp_path: Path) -> None:
    """2,000 rows, every fault, a cap below our concurrency, two SIGKILLs: every row is completed, once, in order."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}: {'y' * (n % 200)}" for n in range(2000)))
    rules = ({"share": 0.026, "answers": [fault]} for fault in FAULTS)
    script = write_script(tmp_path / "script.yaml", *rules)
    options = SimulatorOptions(
        latency_s=0.05, spread=0.4, max_concurrency=48, script=script, ledger=tmp_path / "ledger.jsonl"
    )
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url, limits={"concurrency": CONCURRENCY})
        for answered in (300, 800):
            process = start("run", str(job), "-q")
            deadline = time.monotonic() + 60
            while counts(simulator)["answered"] < answered:
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            kill(process)
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    ledger = Ledger.read(tmp_path / "ledger.jsonl")
    check_money(ledger, texts, unsure=unsure(tmp_path / "out"))
    rows = sum(ledger.asked.values())
    assert rows > 2000 * 1.2, "the script did not make trouble"
    # each kill leaves at most the rows in flight and an eighth more; of the faults, at most one in each row is unsure
    assert unsure(tmp_path / "out") <= 2 * CONCURRENCY * 9 // 8 + len(FAULTS) * 0.026 * 2000 * 1.3
