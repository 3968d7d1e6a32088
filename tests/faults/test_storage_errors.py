"""Input/output errors at every step of a run: what was received is saved, and nothing is asked again that was saved.

strace makes the system calls fail; its counters are kept for each thread, so the N-th call of the journal is struck.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    digest,
    unsure,
    write_job,
    write_rows,
)
from tests.simulator_client import counts

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make system calls fail")

ROWS = 40


@dataclass
class Endpoint:
    """One simulator for all cases of this file."""

    simulator: SimulatorProcess
    ledger: Path


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint that answers after 2 ms."""
    ledger = tmp_path_factory.mktemp("endpoint") / "ledger.jsonl"
    with start_simulator(SimulatorOptions(latency_s=0.002, ledger=ledger)) as simulator:
        yield Endpoint(simulator, ledger)


class Case:
    """A job over forty rows that no other case asks for."""

    def __init__(self, endpoint: Endpoint, folder: Path, *, rows_per_part: int = 10) -> None:
        folder.mkdir(parents=True)
        self.endpoint, self.out, self.folder = endpoint, folder / "out", folder
        self.texts = write_rows(folder / "rows.jsonl", (f"{folder}: row {n}" for n in range(ROWS)))
        limits = {"concurrency": 8, "max_full_disk_s": 0.2}
        output = {"path": "out", "rows_per_part": rows_per_part}
        self.job = write_job(folder, endpoint.simulator.base_url, output=output, limits=limits)
        (folder / "tmp").mkdir()

    def strike(self, *failures: str, paths: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
        """Run with some system calls failing, each given as `calls:error=NAME:when=WHEN`."""
        only = [argument for path in paths for argument in ("-P", str(path))]
        calls = ",".join(failure.partition(":")[0] for failure in failures)
        inject = [argument for failure in failures for argument in ("-e", f"inject={failure}")]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", *only, "-e", f"trace={calls}", *inject]
        env = {**BARE, "TMPDIR": str(self.folder / "tmp")}
        command += [BATCHER, "run", str(self.job), "-q"]
        return subprocess.run(command, env=env, check=False, timeout=60, capture_output=True, text=True)

    def resume(self) -> None:
        """Run once more, which must complete everything."""
        end = batcher("run", str(self.job), "-q", env={**BARE, "TMPDIR": str(self.folder / "tmp")})
        assert end.returncode == 0, end.stderr
        check_output(self.out, self.texts)
        assert not list((self.out / ".batcher").glob("*rescued*"))
        assert not list((self.folder / "tmp").iterdir())

    def asked(self) -> Ledger:
        """What the endpoint saw of this case."""
        counts(self.endpoint.simulator)  # brings the file up to date
        everything, own = Ledger.read(self.endpoint.ledger), set(map(digest, self.texts))
        ledger = Ledger()
        for mine, all_of_them in ((ledger.asked, everything.asked), (ledger.answered, everything.answered)):
            mine.update({key: all_of_them[key] for key in own if key in all_of_them})
        return ledger

    def check_that_nothing_was_lost(self) -> None:
        """Every row was asked once, so every answer that came was kept, and nothing is called unsure."""
        assert set(self.asked().asked.values()) == {1}
        assert len(self.asked().asked) == ROWS
        assert unsure(self.out) == 0


def in_words(struck: subprocess.CompletedProcess[str]) -> bool:
    """The run ended with 74 and a message, not with a traceback."""
    assert "Traceback" not in struck.stderr
    assert "internal error" not in struck.stderr
    return struck.returncode == 74


@pytest.mark.parametrize("calls, numbers", [("fdatasync", (1, 2, 3, 8, 16)), ("fsync", (1, 2, 3, 5))])
def test_a_sync_fails_once(tmp_path: Path, endpoint: Endpoint, calls: str, numbers: Sequence[int]) -> None:
    """The 1st, the 2nd ...: the run stops with 74, or did not need it; the next one has all that was answered."""
    struck = 0
    for number in numbers:
        case = Case(endpoint, tmp_path / str(number))
        end = case.strike(f"{calls}:error=EIO:when={number}")
        assert end.returncode == 0 or in_words(end), (number, end.stderr)
        struck += end.returncode == 74
        case.resume()
        case.check_that_nothing_was_lost()
    assert struck >= len(numbers) - 2


def test_the_journal_cannot_be_synced_any_more(tmp_path: Path, endpoint: Endpoint) -> None:
    """From one sync on all of the journal fail: the answers are saved beside it, and the run ends."""
    saved = 0
    for number in (4, 11, 16):
        case = Case(endpoint, tmp_path / str(number))
        end = case.strike(f"fdatasync:error=EIO:when={number}+")
        assert in_words(end), (number, end.stderr)
        saved += f"answers wait for it in {case.out}/.batcher/rescued-" in end.stderr
        case.resume()
        case.check_that_nothing_was_lost()
    assert saved, end.stderr


def test_nothing_beside_the_journal_can_be_synced_either(tmp_path: Path, endpoint: Endpoint) -> None:
    """Then answers are saved in the folder for temporary files, the message says so, and the next start has them."""
    saved = 0
    for number in (12, 16):
        case = Case(endpoint, tmp_path / str(number), rows_per_part=ROWS)
        assert in_words(case.strike("fdatasync:error=EIO:when=4+")), "it has a manifest by then, and has sent nothing"
        assert not case.asked().asked
        # on the journal's thread, the first sync is that of the folder, the second that of the file beside the journal
        end = case.strike(f"fdatasync:error=EIO:when={number}", "fsync:error=EIO:when=2")
        assert in_words(end), (number, end.stderr)
        saved += f"answers wait for it in {case.folder}/tmp/batcher-" in end.stderr
        case.resume()
        case.check_that_nothing_was_lost()
    assert saved, end.stderr


@pytest.mark.parametrize("number", [3, 8])
def test_nothing_can_be_synced_any_more(tmp_path: Path, endpoint: Endpoint, number: int) -> None:
    """Where no file can be synced, nothing is acknowledged, and what was paid for in vain is counted as such."""
    case = Case(endpoint, tmp_path / "case")
    end = case.strike(f"fdatasync,fsync:error=EIO:when={number}+")
    assert in_words(end), end.stderr
    case.resume()
    check_money(case.asked(), case.texts, unsure=unsure(case.out))
    assert unsure(case.out) <= 8 * 9 // 8


def test_the_disk_is_full_for_one_write(tmp_path: Path, endpoint: Endpoint) -> None:
    """Wherever that is in the journal: the run waits for room, finds it, and goes on to its end."""
    for number in (2, 9, 40, 70):
        case = Case(endpoint, tmp_path / str(number))
        end = case.strike(f"pwrite64:error=ENOSPC:when={number}")
        assert end.returncode == 0 or in_words(end), (number, end.stderr)
        if number > 30:
            assert end.returncode == 0, "the journal was open by then"
        case.resume()
        case.check_that_nothing_was_lost()


def test_the_disk_stays_full(tmp_path: Path, endpoint: Endpoint) -> None:
    """From one write of the journal on: the run ends with 74, and its answers are saved in another way."""
    for number in (1, 30, 70):
        case = Case(endpoint, tmp_path / str(number))
        end = case.strike(f"pwrite64:error=ENOSPC:when={number}+")
        assert in_words(end), (number, end.stderr)
        assert "full" in end.stderr or "cannot be written" in end.stderr or "No space left" in end.stderr
        case.resume()
        case.check_that_nothing_was_lost()


@pytest.mark.parametrize(
    "name, when",
    [(".manifest.json.new", "1+"), ("tmp/shard-00001.columns.arrow", "1+"), ("tmp/shard-00001.part", "1")],
)
def test_a_file_beside_the_journal_cannot_be_written(tmp_path: Path, endpoint: Endpoint, name: str, when: str) -> None:
    """The run may get over it or stop; what was answered stays."""
    case = Case(endpoint, tmp_path / "case")
    end = case.strike(f"write:error=ENOSPC:when={when}", paths=[case.out / ".batcher" / name])
    assert end.returncode == 0 or in_words(end), end.stderr
    case.resume()
    case.check_that_nothing_was_lost()
