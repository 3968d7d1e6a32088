"""The judge judged: each of its rules is broken once in a run that was good, and it has to notice."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import shapes
from tests.checker import check
from tests.command import Command
from tests.fault_server import fault_server, refusing
from tests.harness import Ledger, digest, parts
from tests.trial import KEY, PROMPT, Trial, trial


@dataclass
class Written:
    """An endpoint that is gone, and what it wrote down."""

    written: Ledger
    base_url: str = ""

    def ledger(self) -> Ledger:
        """The same, every time."""
        return self.written


@pytest.fixture(scope="module")
def good_trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A run with a failed row, an answer that was not kept and a stop in between, that the checker finds good."""
    folder = tmp_path_factory.mktemp("good")
    with fault_server() as server:
        made = trial(folder, server, 60, rows_per_part=20)
        faults = dict(zip(made.texts[10:40:10], [shapes.NULL_FINISH, refusing(500), refusing(402)], strict=True))
        server.plan = lambda prompt, attempt: faults.get(prompt) if attempt == 0 else None
        made.run(code=77)
        made.run()
        made.endpoint = Written(server.ledger())
    check(made)
    return made


@pytest.fixture
def made(good_trial: Trial, tmp_path: Path) -> Trial:
    """A copy, to be spoiled."""
    out = tmp_path / "out"
    shutil.copytree(good_trial.out, out)
    spoiled = replace(good_trial, out=out, ends=[*good_trial.ends], endpoint=copy.deepcopy(good_trial.endpoint))
    check(spoiled)
    return spoiled


def rewrite(made: Trial, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write the first part with other rows."""
    path = parts(made.out)[0]
    table = pq.read_table(path)
    rows = change(table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path, write_page_checksum=True)


def with_row(**changes: Any) -> Callable[[Trial], None]:
    """Change columns of the third row."""

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[2].update(changes)
        return rows

    return lambda made: rewrite(made, change)


def with_summary(**changes: Any) -> Callable[[Trial], None]:
    """Change what the summary says."""

    def spoil(made: Trial) -> None:
        path = made.out / ".batcher" / "summary.json"
        path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))

    return spoil


def with_end(**changes: Any) -> Callable[[Trial], None]:
    """Change how the last command ended."""

    def spoil(made: Trial) -> None:
        made.ends[-1] = replace(made.ends[-1], **changes)

    return spoil


def with_ledger(counter: str, by: int) -> Callable[[Trial], None]:
    """Change what the endpoint wrote down about the third row's prompt."""

    def spoil(made: Trial) -> None:
        getattr(made.endpoint.ledger(), counter)[digest(made.texts[2])] += by

    return spoil


def flip(made: Trial) -> None:
    """Damage a page of a part."""
    path = parts(made.out)[1]
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)


SPOILED: dict[str, Callable[[Trial], None]] = {
    "C1 a row is missing": lambda made: rewrite(made, lambda rows: rows[:-1]),
    "C1 two rows have changed places": lambda made: rewrite(made, lambda rows: [rows[1], rows[0], *rows[2:]]),
    "C1 a row failed": with_row(status="failed", error={"code": "x"}),
    "C2 another answer": with_row(completion="something else"),
    "C2 another finish reason": with_row(finish_reason="length"),
    "C3 a committed row was sent again": with_ledger("asked", 1),
    "C4 more was paid twice than is admitted": with_ledger("answered", 5),
    "C4 never answered": with_ledger("answered", -1),
    "C4 more is admitted than was inflicted": lambda made: made.endpoint.ledger().doubtful.clear(),
    "C4 the summary admits something else": with_summary(ambiguous=0),
    "C5 other tokens in a part": with_row(prompt_tokens=1),
    "C5 other tokens in the summary": with_summary(completion_tokens=1),
    "C5 tokens of an answer that was not kept": with_ledger("unkept", 1),
    "C6 something temporary": lambda made: (made.out / ".batcher" / "tmp" / "x").touch(),
    "C6 something beside the parts": lambda made: (made.out / "part-00003.tmp").touch(),
    "C6 a damaged page": flip,
    "C7 another exit code": with_end(returncode=3),
    "C7 a traceback": with_end(stderr="Traceback (most recent call last):"),
    "C7 not finished": with_summary(state="stopped"),
    "C7 a report of something else": with_end(stdout='{"complete": false, "totals": {"ambiguous": 2}}'),
    "C8 the key is said": with_end(stderr=f"using {KEY}"),
    "C8 a prompt is said": with_end(stdout="", stderr=f"asking {PROMPT}"),
    "C8 the key is in a file": with_summary(state="finished", key=KEY),
    "C8 a prompt is in a file": with_summary(state="finished", prompt=PROMPT),
    "C9 too much memory": with_end(peak_kb=2_000_000),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_what_is_wrong_is_noticed(made: Trial, spoil: Callable[[Trial], None]) -> None:
    """Whichever of the rules is broken, the checker does not find the trial good."""
    spoil(made)
    with pytest.raises((AssertionError, OSError, KeyError)):
        check(made)


def test_what_does_not_end_is_noticed() -> None:
    """C10: a command that takes too long is ended, and fails whoever waits for it."""
    with Command("sleep", "100") as command, pytest.raises(AssertionError, match="did not end within"):
        command.wait(0.2)
    assert command.wait().returncode == -9
