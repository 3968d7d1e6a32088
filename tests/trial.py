"""A trial: one job over its endpoint, everything that is done to it, and what is on disk after each blow.

A test makes a trial, runs and strikes its command as it likes, and hands it to `checker.check`, which needs to be told
little more. The trial keeps what cannot be known afterwards: which rows had their result committed each time the
command ended, and what the endpoint had been asked until then. Keys and prompts of a trial are canaries.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.command import BARE, BATCHER, Command, Ended
from tests.harness import Ledger, digest, parts, write_job, write_rows
from tests.simulator_client import WAIT_S, counts, wait_until

KEY = "sk-canary-key-5b1f0c"
PROMPT = "canary-prompt-9e2d"
#: exit codes of a run that asked every row
DONE = (0, 3)


class Endpoint(Protocol):
    """What a trial needs to know of an endpoint."""

    base_url: str

    def ledger(self) -> Ledger: ...


@dataclass(frozen=True)
class Simulated:
    """A simulator with a ledger, as an endpoint of a trial."""

    process: SimulatorProcess
    path: Path

    @property
    def base_url(self) -> str:
        """What a job's `endpoint.base_url` would be."""
        return self.process.base_url

    def ledger(self) -> Ledger:
        """What it wrote down so far."""
        counts(self.process)  # it brings the file up to date
        return Ledger.read(self.path)


@contextmanager
def simulated(folder: Path, **options: Any) -> Iterator[Simulated]:
    """Run a simulator that writes its ledger into `folder`."""
    path = folder / "ledger.jsonl"
    with start_simulator(SimulatorOptions(ledger=path, **options)) as process:
        yield Simulated(process, path)


@dataclass(frozen=True)
class Snapshot:
    """How things stood when a command had ended."""

    #: prompts whose result was committed, and what had been asked, by digest
    committed: Counter[str]
    asked: Counter[str]


@dataclass
class Trial:
    """One job, one endpoint, and what happened."""

    job: Path
    out: Path
    texts: list[str]
    endpoint: Endpoint
    concurrency: int
    #: the endpoint's, which decides its answers
    seed: int = 0
    #: how the command is called, for instance as `patched` does
    program: Sequence[str] = (BATCHER,)
    #: commands that were ended while requests were in flight
    kills: int = 0
    ends: list[Ended] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def start(self, *options: str, program: Sequence[str] | None = None, **settings: Any) -> Command:
        """Start `batcher run`; a command that has ended is to be handed to `ended`."""
        if "-q" not in options:
            options = ("--json", *options)
        settings.setdefault("env", {**BARE, "MY_KEY": KEY})
        return Command(*(program or self.program), "run", self.job, *options, **settings)

    def run(self, *options: str, code: int = 0, most_s: float = 60.0, **settings: Any) -> Ended:
        """Run the command to its end, which must be this exit code."""
        with self.start(*options, **settings) as command:
            ended = self.ended(command, most_s)
        assert ended.returncode == code, (ended.returncode, ended.stderr)
        return ended

    def ended(self, command: Command, most_s: float = 60.0, *, killed: bool = False) -> Ended:
        """Wait for a command's end and note it; `killed` if requests were in flight that nobody waited for."""
        ended = command.wait(most_s)
        self.kills += killed
        self.ends.append(ended)
        self.snapshots.append(Snapshot(self._committed(), self.endpoint.ledger().asked))
        return ended

    def kill(self, command: Command) -> Ended:
        """Strike a command dead; it counts as killed if it still ran."""
        ran = command.poll() is None
        command.kill()
        return self.ended(command, killed=ran)

    def _committed(self) -> Counter[str]:
        """Prompts whose result is on disk, by digest: in a part, or in the journal of an open shard."""
        rows = {row for path in parts(self.out) for row in _rows_of_part(path)}
        for path in (self.out / ".batcher").glob("journal-*.sqlite"):
            rows.update(_rows_of_journal(path))
        return Counter(digest(self.texts[row]) for row in rows)


def trial(
    folder: Path,
    endpoint: Endpoint,
    texts: Iterable[str] | int,
    *,
    concurrency: int = 16,
    limits: Mapping[str, Any] | None = None,
    connection: Mapping[str, Any] | None = None,
    program: Sequence[str] = (BATCHER,),
    out: Path | None = None,
    rows_per_part: int = 50,
    seed: int = 0,
) -> Trial:
    """Write rows and a job; `limits` and `connection` go into the job's limits and endpoint."""
    if isinstance(texts, int):
        texts = (f"row {n}" for n in range(texts))
    texts = write_rows(folder / "rows.jsonl", (f"{PROMPT} {text}" for text in texts))
    out = out or folder / "out"
    job = write_job(
        folder,
        "",
        endpoint={"base_url": endpoint.base_url, "api_key_env": "MY_KEY", **(connection or {})},
        limits={"concurrency": concurrency, **(limits or {})},
        output={"path": str(out), "rows_per_part": rows_per_part},
    )
    return Trial(job, out, texts, endpoint, concurrency, seed, program)


def until(command: Command, condition: Callable[[], object], most_s: float = WAIT_S) -> None:
    """Look again and again until the condition holds; a command that ends before fails the test."""

    def holds() -> bool:
        if condition():
            return True
        ended = command.poll()
        assert ended is None, f"it ended too early, with {ended.returncode}:\n{ended.stderr}"
        return False

    wait_until(holds, most_s)


def _rows_of_part(path: Path) -> list[int]:
    column = pq.read_table(path, columns=["row_index"], page_checksum_verification=True)["row_index"]
    rows: list[int] = column.to_pylist()
    return rows


def _rows_of_journal(path: Path) -> list[int]:
    """Read a copy: opening the journal itself would recover it, which is the next run's business."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (path.name, f"{path.name}-wal"):
            if path.with_name(name).exists():
                shutil.copy(path.with_name(name), folder)
        with contextlib.closing(sqlite3.connect(Path(folder, path.name))) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if "outcomes" not in tables:  # killed before they were made
                return []
            return [row for (row,) in db.execute("SELECT row_index FROM outcomes")]
