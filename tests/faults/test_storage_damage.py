"""Files of a killed run that were torn or changed on the disk: the next run completes them, or refuses in words."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import batcher, check_output, kill, start, write_job, write_rows
from tests.simulator_client import counts, wait_until

ROWS = 400
SEEDS = range(4)


class Killed:
    """A run that was killed half-way, with finished parts and answers in its journal."""

    def __init__(self, folder: Path, simulator: SimulatorProcess) -> None:
        self.folder, self.simulator = folder, simulator
        self.texts = write_rows(folder / "rows.jsonl", (f"row {n}: {'x' * (n % 200)}" for n in range(ROWS)))
        process = start("run", str(self.job_at(folder / "out")), "-q")
        try:
            wait_until(lambda: counts(simulator)["answered"] > ROWS * 3 / 5 and list((folder / "out").glob("part-*")))
        finally:
            kill(process)
        assert process.returncode == -9, "it ended before it could be killed"

    def job_at(self, out: Path) -> Path:
        """The job with another output folder, which is no part of what determines the result."""
        return write_job(self.folder, self.simulator.base_url, output={"path": str(out), "rows_per_part": 50})

    def copy(self, name: str) -> Path:
        """A copy of the run folder."""
        return Path(shutil.copytree(self.folder / "out", self.folder / name))

    def run(self, out: Path) -> subprocess.CompletedProcess[str]:
        """Carry on in a copy; whatever it says, it says it in words."""
        end = batcher("run", str(self.job_at(out)), "-q")
        assert end.returncode in (0, 74), end.stderr
        assert "Traceback" not in end.stderr
        return end

    def asked(self) -> int:
        """How many requests there were so far."""
        requests: int = counts(self.simulator)["requests"]
        return requests


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """One killed run, of which every test damages copies."""
    folder = tmp_path_factory.mktemp("killed")
    with start_simulator(SimulatorOptions(latency_s=0.02)) as simulator:
        yield Killed(folder, simulator)


def flip(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    start = random.randrange(len(content))
    for at in range(start, min(start + random.choice([1, 8, 600]), len(content))):
        content[at] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def tear(path: Path, random: Random) -> None:
    os.truncate(path, random.randrange(path.stat().st_size))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_journal(killed: Killed, seed: int) -> None:
    """No wrong answer comes out of it; where it is refused, the way that the message names completes the run."""
    random = Random(seed)
    out = killed.copy(f"journal-{seed}")
    state = out / ".batcher"
    name = ("journal-0.sqlite", "journal-0.sqlite-wal")[seed % 2]
    (flip, tear)[seed // 2 % 2](state / name, random)
    end = killed.run(out)
    if end.returncode == 74:
        assert f"{state / 'journal-0.sqlite'} is damaged" in end.stderr
        assert "move it away with its -wal and -shm files" in end.stderr
        for path in state.glob("journal-0.sqlite*"):
            path.rename(killed.folder / f"{seed}-{path.name}")
        assert killed.run(out).returncode == 0
    check_output(out, killed.texts)


def delete(path: Path, random: Random) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [flip, tear, delete])
def test_a_damaged_part(killed: Killed, change: Callable[[Path, Random], None]) -> None:
    """A finished part that is not what it was stops the run before anything is asked; put back, the run goes on."""
    out = killed.copy(f"part-{change.__name__}")
    part = min(out.glob("part-*"))
    content, asked = part.read_bytes(), killed.asked()
    change(part, Random(7))
    end = killed.run(out)
    assert end.returncode == 74
    assert str(part) in end.stderr
    assert killed.asked() == asked
    part.write_bytes(content)
    assert killed.run(out).returncode == 0
    check_output(out, killed.texts)
    assert killed.asked() - asked < ROWS, "finished parts were asked again"
