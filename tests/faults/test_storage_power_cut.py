"""A power cut: a run goes on from what had reached its disk, which is an image that is copied while it works."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from batcher.journal import Journal
from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.disks import copy_image, image_disk
from tests.harness import (
    BARE,
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    parts,
    unsure,
    write_job,
    write_rows,
)
from tests.simulator_client import counts, wait_until

CONCURRENCY = 8
MOST_CUTS = 3
ROWS_PER_PART = 20

RECORDING = """
import os, sys
from pathlib import Path
from batcher.journal import Journal
from tests.fakes import Heard, outcome
acknowledge = lambda batch: os.write(1, b"".join(b"%d\\n" % one.row_index for one in batch.outcomes))
journal = Journal(Path(sys.argv[1]))
journal.listener = Heard(acknowledge)
for row in range(1_000_000):
    journal.record(outcome(row, body=b"x" * (row % 5000)))
    if row % 7 == 0:
        journal.attempts()
"""


def stands_still(pid: int) -> bool:
    """Every thread of a process was stopped by a signal."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def test_what_the_journal_acknowledged_is_there(tmp_path: Path) -> None:
    """Whenever the power is cut: every answer that was reported as committed has reached the disk."""
    moments = Random(5)
    cuts: list[tuple[Path, set[int]]] = []
    with image_disk(tmp_path / "image", tmp_path / "disk") as disk:
        command = [sys.executable, "-c", RECORDING, str(disk / "journal.sqlite")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            wait_until(lambda: (disk / "journal.sqlite-wal").exists())
            acknowledged = bytearray()

            def heard() -> int:
                assert process.stdout is not None
                acknowledged.extend(process.stdout.read() or b"")
                return len(acknowledged)

            for number in range(6):
                before = heard()
                wait_until(lambda before=before: heard() > before)
                threading.Event().wait(moments.uniform(0.0, 0.1))  # any moment will do
                process.send_signal(signal.SIGSTOP)
                wait_until(lambda: stands_still(process.pid))
                heard()
                cuts.append((tmp_path / f"cut-{number}", {int(row) for row in acknowledged.split(b"\n")[:-1]}))
                copy_image(tmp_path / "image", cuts[-1][0])
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()
            process.communicate()
    assert len(cuts[-1][1]) > len(cuts[0][1]) > 0
    for image, rows in cuts:
        with image_disk(image, image.with_suffix(".disk")) as disk:
            journal = Journal(disk / "journal.sqlite")
            found = set()
            while more := journal.outcomes(len(found), 1_000_000):
                found |= {one.row_index for one in more}
            journal.close()
        assert found >= rows
        assert found == set(range(len(found))), "a prefix, without a gap"


class Cuts:
    """A run on an image disk that is stopped again and again right after a system call, and an image from each time."""

    def __init__(self, folder: Path, simulator: SimulatorProcess) -> None:
        self.folder, self.simulator = folder, simulator
        self.texts = write_rows(folder / "rows.jsonl", (f"row {n}" for n in range(100)))
        self.log = folder / "log"
        #: the copied image, and how long the ledger was then
        self.cuts: list[tuple[Path, int]] = []

    def job_at(self, out: Path) -> Path:
        return write_job(
            self.folder,
            self.simulator.base_url,
            output={"path": str(out), "rows_per_part": ROWS_PER_PART},
            limits={"concurrency": CONCURRENCY},
        )

    def ledger_bytes(self) -> int:
        """Length of the ledger when all requests that were sent are answered: nobody sends more at the moment."""
        wait_until(lambda: counts(self.simulator)["in_flight"] == 0)
        return (self.folder / "ledger.jsonl").stat().st_size

    def make(self, calls: str, when: str) -> None:
        """Run, be stopped right after some of these calls, and be killed in the end."""
        with image_disk(self.folder / "image", self.folder / "disk") as disk:
            job = self.job_at(disk / "out")
            inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=STOP:when={when}"]
            command = ["strace", "-f", "-qq", "-o", str(self.log), *inject, BATCHER, "run", str(job), "-q"]
            tracer = subprocess.Popen(command, env=BARE, stderr=subprocess.PIPE)
            pid = None
            try:
                while len(self.cuts) < MOST_CUTS and tracer.poll() is None:
                    pid = self._stopped()
                    if pid is not None:
                        self.cuts.append((self.folder / f"cut-{len(self.cuts)}", self.ledger_bytes()))
                        copy_image(self.folder / "image", self.cuts[-1][0])
                        os.kill(pid, signal.SIGCONT)
                    else:
                        threading.Event().wait(0.002)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid or tracer.pid, signal.SIGKILL)
                tracer.communicate()

    def _stopped(self) -> int | None:
        """The traced process, if all of it was stopped after the last cut."""
        text = self.log.read_text() if self.log.exists() else ""
        stops = text.split("--- SIGSTOP {")
        if len(stops) <= len(self.cuts) + 1:
            return None
        thread = stops[-2].rpartition("\n")[2].strip()
        threads = list(Path(f"/proc/{thread}/task").iterdir())
        if stops[-1].count("--- stopped by SIGSTOP ---") < len(threads):
            return None
        return int(thread)

    def resume(self, image: Path, ledger_bytes: int) -> None:
        """Carry on from one cut, and judge the result."""
        with image_disk(image, image.with_suffix(".disk")) as disk:
            for path in parts(disk / "out"):
                assert pq.read_table(path, page_checksum_verification=True).num_rows == ROWS_PER_PART, "a torn part"
            before = self.ledger_bytes()
            end = batcher("run", str(self.job_at(disk / "out")), "-q")
            assert end.returncode == 0, end.stderr
            check_output(disk / "out", self.texts)
            admitted = unsure(disk / "out")
        self.ledger_bytes()
        lines = (self.folder / "ledger.jsonl").read_bytes()
        (self.folder / "ledger.one").write_bytes(lines[:ledger_bytes] + lines[before:])
        check_money(Ledger.read(self.folder / "ledger.one"), self.texts, unsure=admitted)
        assert admitted <= CONCURRENCY * 3 // 2


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to stop a process at a chosen system call")
@pytest.mark.parametrize(
    "calls, when",
    [
        ("fdatasync", "6+6"),  # commits of the journal
        ("link,unlink", "1+2"),  # a part gets its name
        ("fsync", "2+2"),  # the manifest, a part, its folder
        ("write", "20+15"),  # anywhere between
    ],
)
def test_the_power_is_cut(tmp_path: Path, calls: str, when: str) -> None:
    """From each cut the run completes; no part is torn, and only what was in flight is asked again."""
    with start_simulator(SimulatorOptions(latency_s=0.002, ledger=tmp_path / "ledger.jsonl")) as simulator:
        cuts = Cuts(tmp_path, simulator)
        cuts.make(calls, when)
        assert len(cuts.cuts) == MOST_CUTS
        for image, ledger_bytes in cuts.cuts:
            cuts.resume(image, ledger_bytes)
