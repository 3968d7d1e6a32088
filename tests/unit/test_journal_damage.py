"""A journal whose files were torn or changed on the disk: what it still gives back is what went in."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from batcher.errors import StorageError
from batcher.journal import Journal, Part
from batcher.journal.tables import Damaged, outcome_of
from batcher.records import ApiError, Outcome, Totals
from tests.fakes import outcome

SEEDS = 60
ROWS = 120
PART = Part(7, 4711, Totals(1000, 2, 3, 4, 5), 123, 456)


def outcomes() -> list[Outcome]:
    """Answers of all sizes, some of them with an error."""
    random = Random(1)
    failed = {"failed": "x", "error": ApiError("no", type="t", http_status=400)}
    paid = {"latency_s": 0.1, "cost_usd": 0.5}
    return [
        outcome(row, body=random.randbytes(random.choice([10, 300, 6000])), **(paid if row % 3 else failed))
        for row in range(ROWS)
    ]


KNOWN = outcomes()


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two journals with the same rows: all of them in the database, and most of them still in its log."""
    folder = tmp_path_factory.mktemp("journals")
    journal = Journal(folder / "closed.sqlite")
    journal.published(PART)
    for number, one in enumerate(KNOWN):
        journal.record(one)
        if number == ROWS // 4:
            journal.close()
            shutil.copy(folder / "closed.sqlite", folder / "open.sqlite")
            journal = Journal(folder / "open.sqlite")
        journal.attempts()
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"open.sqlite{suffix}", folder / f"logged.sqlite{suffix}")
    journal.close()
    shutil.move(folder / "open.sqlite", folder / "closed.sqlite")
    return folder


def copied(journals: Path, folder: Path, name: str) -> Path:
    for path in journals.glob(f"{name}.sqlite*"):
        shutil.copy(path, folder)
    return folder / f"{name}.sqlite"


def given_back(path: Path) -> Iterator[Outcome]:
    """All outcomes that a journal gives back, until it notices the damage."""
    journal = Journal(path)
    try:
        first = 0
        while found := journal.outcomes(first, ROWS):
            yield from found
            first = found[-1].row_index + 1
        assert journal.parts() in ({}, {7: PART})
    finally:
        journal.tell_nobody()
        journal.close()


def judged(path: Path) -> list[int]:
    """Assert that nothing comes back that did not go in; the rows, or none if the damage was noticed."""
    rows = []
    with contextlib.suppress(StorageError):
        for one in given_back(path):
            assert one == KNOWN[one.row_index]
            rows.append(one.row_index)
        return rows
    return []


def test_undamaged_journals(journals: Path, tmp_path: Path) -> None:
    """Both give back everything, so what the other tests miss is missing because of the damage."""
    for name in ("closed", "logged"):
        assert judged(copied(journals, tmp_path, name)) == list(range(ROWS))


def damaged(journals: Path, tmp_path: Path, *names: str) -> Iterator[tuple[Random, Path]]:
    """Copies to be damaged, each in a folder of its own, with random numbers for it."""
    for seed in range(SEEDS):
        random = Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        yield random, copied(journals, folder, random.choice(names))


def flip(path: Path, random: Random) -> None:
    """Change some bytes that lie close together."""
    content = bytearray(path.read_bytes())
    start = random.randrange(len(content))
    for at in range(start, min(start + random.choice([1, 1, 8, 600]), len(content))):
        content[at] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def test_bytes_change_in_the_database(journals: Path, tmp_path: Path) -> None:
    """A changed answer is an error; it never comes back as if it had been received so."""
    noticed = 0
    for random, path in damaged(journals, tmp_path, "closed", "logged"):
        flip(path, random)
        noticed += not judged(path)
    assert noticed > SEEDS / 3


def test_bytes_change_in_the_log(journals: Path, tmp_path: Path) -> None:
    """What was committed before the damage is there, without a gap."""
    found = set()
    for random, path in damaged(journals, tmp_path, "logged"):
        flip(log_of(path), random)
        rows = judged(path)
        assert rows == list(range(len(rows)))
        assert len(rows) > ROWS // 4
        found.add(len(rows))
    assert len(found) > 10


def test_the_log_is_torn(journals: Path, tmp_path: Path) -> None:
    """What was committed before its end is there, without a gap."""
    found = set()
    for random, path in damaged(journals, tmp_path, "logged"):
        os.truncate(log_of(path), random.randrange(log_of(path).stat().st_size))
        rows = judged(path)
        assert rows == list(range(len(rows)))
        assert len(rows) > ROWS // 4
        found.add(len(rows))
    assert len(found) > 10


def test_the_database_is_torn(journals: Path, tmp_path: Path) -> None:
    """Its missing end is noticed, or held nothing that is asked for."""
    for random, path in damaged(journals, tmp_path, "closed", "logged"):
        os.truncate(path, random.randrange(1, path.stat().st_size))
        assert judged(path) in ([], list(range(ROWS)))


def test_a_bit_of_an_answer(journals: Path, tmp_path: Path) -> None:
    """A single bit that flips within a body, where SQLite itself sees no damage, is an error."""
    path = copied(journals, tmp_path, "closed")
    content = path.read_bytes()
    row = next(row for row, one in enumerate(KNOWN) if len(one.body) == 6000)
    at = content.index(KNOWN[row].body[:200]) + 5
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    journal = Journal(path)
    with pytest.raises(StorageError, match=rf"closed\.sqlite is damaged \(the answer to row {row} is not what was"):
        journal.outcomes(row, row + 1)
    with pytest.raises(StorageError):
        journal.close()


def test_a_value_of_another_kind() -> None:
    """A bit that makes a number of SQLite's something else is damage as well, not an internal error."""
    row = (7, "completed", b"{}", 1, 0, b"0.5", 1.7e9, None, 3, None, 5, None, 123)
    with pytest.raises(Damaged, match="the answer to row 7 is not what was written"):
        outcome_of(row)


def test_a_digit_in_the_totals_of_a_part(journals: Path, tmp_path: Path) -> None:
    """Sums that the report takes from there are checked as answers are."""
    path = copied(journals, tmp_path, "closed")
    content = path.read_bytes()
    assert content.count(b'"completed":1000') == 1
    path.write_bytes(content.replace(b'"completed":1000', b'"completed":9000'))
    journal = Journal(path)
    with pytest.raises(StorageError, match="the entry of part 7 is not what was written"):
        journal.parts()
    with pytest.raises(StorageError):
        journal.close()
