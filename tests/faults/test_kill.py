"""SIGKILL, at random and at every durable step: the same command carries on, and nothing committed is asked again."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    kill,
    start,
    unsure,
    write_job,
    write_rows,
)

CONCURRENCY = 16


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_it_carries_on_and_pays_only_for_what_was_in_flight(tmp_path: Path, seed: int) -> None:
    """However often it is killed: one output row per input row, and only rows in flight are asked twice."""
    moments = random.Random(seed)
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n} of seed {seed}: {'x' * (n % 300)}" for n in range(1500)))
    options = SimulatorOptions(latency_s=0.05, spread=0.6, seed=seed, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        kills = 0
        for _ in range(6):
            process = start("run", str(job), "-q")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moments.uniform(0.5, 2.0))
            kills += kill(process) == -signal.SIGKILL
        assert kills >= 3, "the runs finished before they could be killed"
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    ledger = Ledger.read(tmp_path / "ledger.jsonl")
    check_money(ledger, texts, unsure=unsure(tmp_path / "out"))
    # a row that is asked twice was in flight when a process died, or about to be, or answered and not committed yet
    assert sum(ledger.asked.values()) - len(texts) <= unsure(tmp_path / "out") <= kills * CONCURRENCY * 3 // 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to kill a process at a chosen system call")
@pytest.mark.parametrize("call", ["fdatasync", "fsync", "link", "rename", "unlink", "ftruncate"])
def test_killed_at_each_durable_step_it_carries_on(tmp_path: Path, call: str) -> None:
    """Killed at the 1st, 2nd, 3rd ... call of every kind that makes something durable, the next run completes."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(40)))
    for number in _moving(call):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(tmp_path / "rows.jsonl", folder)
        with start_simulator(SimulatorOptions(latency_s=0.002, ledger=folder / "ledger.jsonl")) as simulator:
            job = write_job(folder, simulator.base_url, output={"path": "out", "rows_per_part": 10})
            inject = f"inject={call}:signal=KILL:when={number}"
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
            struck = subprocess.run([*command, BATCHER, "run", str(job), "-q"], env=BARE, check=False, timeout=60)
            end = batcher("run", str(job))
        assert end.returncode == 0, (call, number, end.stderr)
        check_output(folder / "out", texts)
        check_money(Ledger.read(folder / "ledger.jsonl"), texts, unsure=unsure(folder / "out"))
        if struck.returncode == 0:
            return  # the run ended before this many calls: every one of them has been struck


def _moving(call: str) -> list[int]:
    """Every one of the first calls, then ever wider steps."""
    most = {"fdatasync": 60}.get(call, 40)
    return [*range(1, 13), *range(13, most, 5), 10_000]


def test_a_killed_parent_takes_its_simulator_along(tmp_path: Path) -> None:
    """A run that is killed leaves no process behind."""
    write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(2000)))
    process = start("run", str(write_job(tmp_path, "simulator")))
    deadline = time.monotonic() + 30
    while not (children := _children(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill(process)
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "the simulator outlived the run"
        time.sleep(0.02)


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


assert sys.platform == "linux", "these tests read /proc"
