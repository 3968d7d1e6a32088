"""Prompts of several megabytes among small ones: sent whole, answered, and not multiplied in memory."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import BARE, BATCHER, Ledger, batcher, check_output, digest, write_job, write_rows
from tests.recording_server import Answer, Request, completion, recording

MEGABYTE = 1_000_000


def long_text(name: str, size: int) -> str:
    """A text without repetition that a server could guess."""
    words = " ".join(f"{name}-{n}" for n in range(size // (len(name) + 8) + 1))
    return (words + "é" * 100)[:size]


def peak_kb(job: Path) -> int:
    """Run a job to its end and return the largest resident set of its process, in KiB.

    Not the `ru_maxrss` of `wait4`: a child begins with what its parent, these tests, has used.
    """
    process = subprocess.Popen([BATCHER, "run", str(job), "-q"], env=BARE)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if Path(f"/proc/{process.pid}/cmdline").read_bytes().endswith(b"-q\0"):
            peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        time.sleep(0.02)
    assert process.returncode == 0
    return peak


def test_five_megabytes_among_small_rows(tmp_path: Path) -> None:
    """A prompt of 5 MB arrives byte for byte, its row is answered, and so are its small neighbours."""
    texts = [f"row {n}" for n in range(40)]
    texts[7] = long_text("seven", 5 * MEGABYTE)
    texts[31] = long_text("thirty-one", 5 * MEGABYTE)
    write_rows(tmp_path / "rows.jsonl", texts)
    with recording(lambda request: whose(request)) as server:
        job = write_job(tmp_path, server.base_url)
        end = batcher("run", str(job))
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    assert sorted(request.prompt for request in server.requests) == sorted(texts)


def whose(request: Request) -> Answer:
    """An answer that names its prompt."""
    return completion(id=f"chatcmpl-{digest(request.prompt)}")


def test_memory_does_not_grow_with_the_number_of_large_rows(tmp_path: Path) -> None:
    """Four times as many large rows take about the same memory: what is in flight is bounded in bytes."""
    peaks = []
    for rows in (20, 80):
        folder = tmp_path / str(rows)
        folder.mkdir()
        texts = write_rows(folder / "rows.jsonl", (long_text(f"row-{n}", 2 * MEGABYTE) for n in range(rows)))
        with start_simulator(SimulatorOptions(latency_s=0.01, ledger=folder / "ledger.jsonl")) as simulator:
            limits = {"concurrency": 16, "max_inflight_mb": 16}
            job = write_job(folder, simulator.base_url, limits=limits, output={"path": "out", "rows_per_part": 30})
            peaks.append(peak_kb(job))
        check_output(folder / "out", texts)
        assert set(Ledger.read(folder / "ledger.jsonl").asked.values()) == {1}
    assert peaks[1] < 1.6 * peaks[0], peaks


def test_memory_does_not_grow_with_the_number_of_small_rows(tmp_path: Path) -> None:
    """Six times as many rows take about the same memory."""
    peaks = []
    for rows in (2_000, 12_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        write_rows(folder / "rows.jsonl", (f"row {n} " + "z" * 500 for n in range(rows)))
        with start_simulator(SimulatorOptions(latency_s=0.01)) as simulator:
            limits = {"concurrency": 64}
            job = write_job(folder, simulator.base_url, limits=limits, output={"path": "out", "rows_per_part": 500})
            peaks.append(peak_kb(job))
    assert peaks[1] < 1.5 * peaks[0], peaks
