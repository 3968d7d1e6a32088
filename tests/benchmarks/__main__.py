"""CPU, rate and memory of a whole run (JSONL in, journal and Parquet out) beside a bare aiohttp loop, interleaved.

    python -m tests.benchmarks [ROWS] [IN_FLIGHT] [ROUNDS]

Both ask the simulator, which runs in a process of its own and takes 100 ms for an answer; prompts and answers are
about 1 KB. CPU is user and system time of the whole process, its start included. Then the peak memory of batcher with
as many rows and with ten times as many.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from batcher.simulator import SimulatorOptions, start
from tests.harness import BATCHER, write_job

BARE_LOOP = Path(__file__).with_name("bare_loop.py")


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process needed."""

    cpu_us_per_row: float
    rows_per_s: float
    peak_mb: float


def write_prompts(path: Path, rows: int) -> None:
    """Write so many rows with a prompt of about 1 KB each, the same in every run."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(3000)]
    with path.open("wb") as file:
        for number in range(rows):
            text = f"{number} {' '.join(chance.choices(words, k=150))}"
            file.write(orjson.dumps({"text": text}) + b"\n")


def measure(command: list[str], rows: int) -> Measurement:
    """Run a command to its end and return what it needed."""
    began = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command} ended with {status}")
    seconds = time.monotonic() - began
    return Measurement((used.ru_utime + used.ru_stime) / rows * 1e6, rows / seconds, used.ru_maxrss / 1024)


def main(rows: int = 20_000, in_flight: int = 500, rounds: int = 5) -> None:
    """Measure both, round by round, and print medians and ratios."""
    with tempfile.TemporaryDirectory() as name, start(SimulatorOptions(latency_s=0.1, spread=0)) as simulator:
        folder = Path(name)
        found: dict[str, list[Measurement]] = {"bare aiohttp": [], "batcher": []}

        def run_batcher(count: int) -> Measurement:
            write_prompts(folder / "rows.jsonl", count)
            shutil.rmtree(folder / "out", ignore_errors=True)
            limits, output = {"concurrency": in_flight}, {"path": "out"}
            job = write_job(folder, simulator.base_url, parameters={"max_tokens": 200}, limits=limits, output=output)
            return measure([BATCHER, "run", str(job), "-q"], count)

        for _ in range(rounds):
            write_prompts(folder / "rows.jsonl", rows)
            loop = [sys.executable, str(BARE_LOOP), simulator.base_url, str(folder / "rows.jsonl"), str(in_flight)]
            found["bare aiohttp"].append(measure(loop, rows))
            found["batcher"].append(run_batcher(rows))
        print(f"{'':14} {'CPU us/row':>12} {'rows/s':>8} {'peak MB':>8}   medians of {rounds}, {in_flight} in flight")
        medians = {}
        for what, measured in found.items():
            cpu, rate, peak = (
                statistics.median(getattr(one, field) for one in measured)
                for field in ("cpu_us_per_row", "rows_per_s", "peak_mb")
            )
            medians[what] = cpu
            print(f"{what:14} {cpu:12.0f} {rate:8.0f} {peak:8.0f}")
        print(
            f"batcher needs {medians['batcher'] / medians['bare aiohttp']:.2f} of the CPU of a loop that stores nothing"
        )
        small, large = (statistics.median(run_batcher(count).peak_mb for _ in range(3)) for count in (rows, 10 * rows))
        print(
            f"peak memory: {small:.0f} MB at {rows:,} rows, {large:.0f} MB at {10 * rows:,} rows: {large / small:.2f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
