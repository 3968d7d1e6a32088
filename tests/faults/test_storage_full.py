"""A disk that fills up, a file that may not grow, files that cannot be opened: nothing that was received is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.disks import enlarge, small_disk
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    start,
    unsure,
    write_job,
    write_rows,
    write_script,
)
from tests.simulator_client import wait_until

#: what a small disk has beside the 16 MB that the journal keeps in reserve
ROOM_MB = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the reserve and little more."""
    with small_disk(tmp_path / "disk", 16 + ROOM_MB) as place:
        yield place


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """An endpoint that keeps a ledger."""
    with start_simulator(SimulatorOptions(latency_s=0.05, ledger=tmp_path / "ledger.jsonl")) as simulator:
        yield simulator


def prepare(
    tmp_path: Path, simulator: SimulatorProcess, out: Path, *, rows: int, columns: Any = "all", **limits: Any
) -> tuple[Path, list[str]]:
    """A job over rows of a kilobyte, in parts of a thousand; without columns to carry, in one part."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n} " + "x" * 800 for n in range(rows)))
    output = {"path": str(out), "rows_per_part": 1000 if columns == "all" else 1_000_000, "columns": columns}
    return write_job(tmp_path, simulator.base_url, output=output, limits={"concurrency": 64, **limits}), texts


def environment(tmp_path: Path) -> dict[str, str]:
    """What a run is given: its own folder for temporary files."""
    (tmp_path / "temporary").mkdir(exist_ok=True)
    return {**BARE, "TMPDIR": str(tmp_path / "temporary")}


def test_a_disk_that_stays_full(tmp_path: Path, disk: Path, simulator: SimulatorProcess) -> None:
    """The requests in flight are saved and the run ends; after making room every row was asked once."""
    job, texts = prepare(tmp_path, simulator, disk / "out", rows=6000, max_full_disk_s=0.5)
    first = batcher("run", str(job), env=environment(tmp_path))
    assert first.returncode == 74, first.stderr
    assert "full" in first.stderr or "No space left" in first.stderr
    enlarge(disk, 200)
    second = batcher("run", str(job), env=environment(tmp_path))
    assert second.returncode == 0, second.stderr
    check_output(disk / "out", texts)
    assert not list((tmp_path / "temporary").iterdir())
    assert set(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) == {1}


def test_a_disk_that_gets_room_while_the_run_waits(tmp_path: Path, disk: Path, simulator: SimulatorProcess) -> None:
    """The same run goes on and ends well; every row was asked once."""
    job, texts = prepare(tmp_path, simulator, disk / "out", rows=4500, columns=["text"])
    reserve = disk / "out/.batcher/journal-0.reserve"
    process = start("run", str(job), env=environment(tmp_path))
    try:
        wait_until(reserve.exists)
        wait_until(lambda: not reserve.exists())
        assert process.poll() is None, process.communicate()
        enlarge(disk, 200)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, stderr
    assert "full; waiting for room" in stderr
    check_output(disk / "out", texts)
    assert set(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) == {1}


def test_a_disk_without_room_for_the_reserve(tmp_path: Path, disk: Path, simulator: SimulatorProcess) -> None:
    """Where not even that fits, the run says so and sends nothing."""
    (disk / "filler").write_bytes(b"x" * (10 << 20))
    job, _ = prepare(tmp_path, simulator, disk / "out", rows=1)
    end = batcher("run", str(job), env=environment(tmp_path))
    assert end.returncode == 74, end.stderr
    assert "No space left" in end.stderr
    assert not Ledger.read(tmp_path / "ledger.jsonl").asked


def limited(tmp_path: Path, job: Path, limit: str) -> subprocess.CompletedProcess[str]:
    """Run under a limit of the system."""
    command = ["prlimit", limit, BATCHER, "run", str(job), "-q"]
    environ = environment(tmp_path)
    return subprocess.run(command, env=environ, check=False, timeout=90, capture_output=True, text=True)


def test_files_may_not_grow(tmp_path: Path) -> None:
    """A limit on the size of files, or a quota: what the journal cannot take is saved, and the next run has it."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"{'large' if n % 2 else 'small'} {n}" for n in range(1200)))
    refusal = {"status": 400, "code": "content_filter", "message": "no " * 20_000}
    script = write_script(tmp_path / "script.yaml", {"match": "large", "answers": [refusal], "forever": True})
    output = {"path": "out", "rows_per_part": 10_000}
    with start_simulator(SimulatorOptions(script=script, ledger=tmp_path / "ledger.jsonl")) as simulator:
        job = write_job(tmp_path, simulator.base_url, output=output, limits={"concurrency": 32})
        first = limited(tmp_path, job, f"--fsize={17 << 20}")
        assert first.returncode == 74, first.stderr
        assert "answers wait for it in" in first.stderr
        assert "Traceback" not in first.stderr
        second = batcher("run", str(job), "-q", env=environment(tmp_path))
    assert second.returncode == 3, second.stderr
    check_output(tmp_path / "out", texts, failed=range(1, 1200, 2))
    assert set(Ledger.read(tmp_path / "ledger.jsonl").asked.values()) == {1}


def test_hardly_any_file_may_be_opened(tmp_path: Path, simulator: SimulatorProcess) -> None:
    """With fewer descriptors than requests allowed: it works or stops in words, and pays for nothing in vain."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}" for n in range(600)))
    job = write_job(tmp_path, simulator.base_url, limits={"concurrency": 200})
    first = limited(tmp_path, job, "--nofile=64")
    assert first.returncode in (0, 1, 69, 74), first.stderr
    assert "Traceback" not in first.stderr
    second = batcher("run", str(job), "-q", env=environment(tmp_path))
    assert second.returncode == 0, second.stderr
    check_output(tmp_path / "out", texts)
    check_money(Ledger.read(tmp_path / "ledger.jsonl"), texts, unsure=unsure(tmp_path / "out"))
