"""Real runs of the command against a real endpoint, and the one checker that judges what they leave behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batcher.simulator.question import Question, read_question
from batcher.simulator.writing import Draft, noise, write
from tests.command import BARE, BATCHER

MODEL = "deepseek-v4-flash"
#: statuses after which a request may have been charged though it was refused
UNCLEAR = frozenset({408, 424, 500, 504, 524})


def batcher(*arguments: str, timeout: float = 90, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end and return its exit code and output."""
    options = {"env": BARE, "capture_output": True, "text": True, "check": False, **options}
    return subprocess.run([BATCHER, *arguments], timeout=timeout, **options)


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command and return the process."""
    options.setdefault("env", BARE)
    return subprocess.Popen([BATCHER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def write_rows(path: Path, texts: Iterable[str]) -> list[str]:
    """Write an input of one column `text` and return the texts."""
    texts = list(texts)
    path.write_bytes(b"".join(orjson.dumps({"n": n, "text": text}) + b"\n" for n, text in enumerate(texts)))
    return texts


def write_job(folder: Path, base_url: str, **changes: Any) -> Path:
    """Write a job over `rows.jsonl` into `out`; `changes` replace top-level keys (JSON is YAML)."""
    job: dict[str, Any] = {
        "version": 1,
        "model": MODEL,
        "endpoint": {"base_url": base_url},
        "input": {"path": "rows.jsonl"},
        "prompt": "{{ text }}",
        "limits": {"concurrency": 16},
        "output": {"path": "out", "rows_per_part": 50},
    }
    path = folder / "job.yaml"
    path.write_bytes(orjson.dumps({**job, **changes}))
    return path


def answer_to(prompt: str, *, seed: int = 0) -> Draft:
    """The answer that every endpoint of these tests gives to a prompt: the simulator's. One prompt, one answer."""
    question = read_question(orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": prompt}]}))
    assert isinstance(question, Question)
    return write(question, noise(question.sha256, seed), seed=seed, model=MODEL)


def digest(prompt: str) -> str:
    """What the simulator calls a prompt, in its ledger and in the id of its answer."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def parts(out: Path) -> list[Path]:
    """The parts of a run folder, in order."""
    return sorted(out.glob("part-*.parquet"))


def table(out: Path) -> pa.Table:
    """All rows of a run folder, in the order of its parts, checksums verified."""
    return pa.concat_tables([pq.read_table(path, page_checksum_verification=True) for path in parts(out)])


@dataclass
class Ledger:
    """What an endpoint wrote down, prompt by prompt: how often it was asked, and what came of that."""

    asked: Counter[str] = field(default_factory=Counter)
    #: whole answers with a completion that a client keeps
    answered: Counter[str] = field(default_factory=Counter)
    #: whole answers with tokens to be counted and a completion that a client does not keep
    unkept: Counter[str] = field(default_factory=Counter)
    #: requests that the endpoint ended in a way that leaves open whether they are charged
    doubtful: Counter[str] = field(default_factory=Counter)
    #: the requests as the simulator's ledger has them
    requests: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """Read a ledger file."""
        ledger = cls()
        for line in path.read_bytes().splitlines():
            entry = orjson.loads(line)
            if entry["event"] == "request":
                ledger.asked[entry["digest"]] += 1
                ledger.requests.append(entry)
            else:
                ledger._ended(entry["digest"], entry["status"], whole=entry["whole"], fault=entry["fault"])
        return ledger

    def _ended(self, digest: str, status: int | None, *, whole: bool, fault: str | None) -> None:
        if whole and fault in (None, "finish_reason") and status == 200:
            (self.answered if fault is None else self.unkept)[digest] += 1
        unclear = status in UNCLEAR if fault == "status" else fault is not None
        self.doubtful[digest] += unclear

    def copy(self) -> Ledger:
        """The same figures, which stay as they are now."""
        return Ledger(
            Counter(self.asked), Counter(self.answered), Counter(self.unkept), Counter(self.doubtful), [*self.requests]
        )


def check_output(out: Path, texts: Sequence[str], *, failed: Iterable[int] = ()) -> pa.Table:
    """Assert that the output is what was promised, whatever happened before, and return it.

    One row per input row in input order; every completed row holds the answer to its own prompt; nothing unfinished is
    left behind; one schema in all parts.
    """
    rows = table(out)
    assert rows["row_index"].to_pylist() == list(range(len(texts)))
    assert rows["text"].to_pylist() == list(texts)
    statuses = rows["status"].to_pylist()
    wrong = {index for index, status in enumerate(statuses) if status != "completed"}
    errors = Counter(error["code"] for error in rows["error"].to_pylist() if error)
    assert wrong == set(failed), f"failed for {dict(errors)}"
    for index, answer_id in enumerate(rows["response_id"].to_pylist()):
        own = f"chatcmpl-{digest(texts[index])}"  # a failed row may have had an answer that was not good enough
        assert answer_id == own or (index in wrong and answer_id is None), index
    assert len({pq.read_schema(path).remove_metadata() for path in parts(out)}) == 1
    assert not list((out / ".batcher" / "tmp").iterdir())
    assert {path.name for path in out.iterdir()} == {".batcher", *(path.name for path in parts(out))}
    return rows


def check_money(ledger: Ledger, texts: Sequence[str], *, unsure: int) -> None:
    """Assert that every row was answered, and that what was answered twice is within what batcher calls unsure."""
    copies = Counter(digest(text) for text in texts)
    assert set(ledger.answered) >= set(copies)
    twice = sum((ledger.answered - copies).values())
    assert twice <= unsure, f"{twice} answers were paid for twice, batcher admits {unsure}"


def unsure(out: Path) -> int:
    """How many attempts batcher says may have been paid for without an answer."""
    count: int = orjson.loads((out / ".batcher" / "summary.json").read_bytes())["ambiguous"]
    return count


def kill(process: subprocess.Popen[str], signum: int = signal.SIGKILL) -> int:
    """Send a signal and return the exit code."""
    if process.poll() is None:
        os.kill(process.pid, signum)
    process.communicate()
    return process.returncode


def write_script(path: Path, *rules: dict[str, Any]) -> Path:
    """Write a script of the simulator and return its path (JSON is YAML)."""
    path.write_bytes(orjson.dumps(rules))
    return path
