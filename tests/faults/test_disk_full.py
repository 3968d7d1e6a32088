"""A disk that fills up: what was received is kept, the run stops with 74, and carries on once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import Ledger, batcher, check_output, write_job, write_rows


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB, of which the journal keeps 16 in reserve."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_loses_no_answer_and_pays_for_none_twice(tmp_path: Path, small_disk: Path) -> None:
    """When the disk is full the requests in flight are still saved; after making room every row was asked once."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n} " + "x" * 800 for n in range(6000)))
    options = SimulatorOptions(latency_s=0.05, ledger=tmp_path / "ledger.jsonl")
    with start_simulator(options) as simulator:
        output = {"path": str(small_disk / "out"), "rows_per_part": 1000}
        job = write_job(tmp_path, simulator.base_url, output=output, limits={"concurrency": 64})
        first = batcher("run", str(job))
        assert first.returncode == 74, first.stderr
        assert "full" in first.stderr or "No space left" in first.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
        second = batcher("run", str(job))
    assert second.returncode == 0, second.stderr
    check_output(small_disk / "out", texts)
    assert max(Ledger.read(tmp_path / "ledger.jsonl").answered.values()) == 1


def test_a_disk_without_room_for_the_reserve_is_refused_before_anything_is_sent(
    tmp_path: Path, small_disk: Path
) -> None:
    """Where not even the reserve fits, the run says so and sends nothing."""
    (small_disk / "filler").write_bytes(b"x" * (10 << 20))
    write_rows(tmp_path / "rows.jsonl", ["one"])
    with start_simulator(SimulatorOptions(ledger=tmp_path / "ledger.jsonl")) as simulator:
        job = write_job(tmp_path, simulator.base_url, output={"path": str(small_disk / "out")})
        end = batcher("run", str(job))
    assert end.returncode == 74, end.stderr
    assert "No space left" in end.stderr
    assert not Ledger.read(tmp_path / "ledger.jsonl").asked
