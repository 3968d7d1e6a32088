"""Answers that are saved outside the journal: they come back as they were, or not at all, and only to their own run."""

from __future__ import annotations

import json
import logging
import os
import stat
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import StorageError
from batcher.journal.rescue import Rescue, _add, _as_json, _entry, _line, find_rescued
from batcher.journal.tables import Batch
from batcher.records import ApiError, Draft, Outcome
from tests.fakes import outcome

RUN = "this run"
DRAFT = Draft(5, b"\xff{}", 0.5, 1.75, 1)
RELEASE = (3, 1, '{"prompt_tokens":7}', 5)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which others may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path, shared: Path) -> Path:
    """The journal's folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def save(folder: Path, *rows: int, run: str = RUN) -> Path:
    """Save outcomes of some rows, each with a sync of its own, and return the file."""
    rescue = Rescue(folder, run)
    for row in rows:
        rescue.save(Batch(outcomes=[outcome(row)]))
    rescue.close()
    return rescue.files[-1]


def found(folder: Path) -> list[int]:
    """Rows whose outcomes the next start finds."""
    rows = []
    for rescued in find_rescued(folder, RUN):
        with rescued:
            rows += [one.row_index for batch in rescued.batches() for one in batch.outcomes]
    return rows


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OUTCOMES = st.builds(
    Outcome,
    row_index=st.integers(0, 2**40),
    status=st.sampled_from(["completed", "failed"]),
    body=st.binary(),
    attempts=st.integers(0, 99),
    ambiguous=st.integers(0, 99),
    latency_s=st.none() | st.floats(0, 1e6),
    requested_at=st.none() | st.floats(0, 2e9),
    error=st.none()
    | st.builds(ApiError, message=TEXT, code=st.none() | TEXT, http_status=st.none() | st.integers(100, 599)),
    prompt_tokens=st.none() | st.integers(0, 2**40),
    cost_usd=st.none() | st.floats(0, 1e3),
    valid=st.none() | st.booleans(),
)


@given(OUTCOMES)
def test_an_outcome_comes_back_as_it_went_in(given: Outcome) -> None:
    """Whatever its bytes and texts are; and it takes exactly one line."""
    line = _line({"outcome": _as_json(given)})
    assert line.count(b"\n") == 1
    assert json.loads(line)["entry"]["outcome"]["row_index"] == given.row_index
    batch = Batch()
    _add(batch, _entry(line))
    assert batch.outcomes == [given]


def test_batches_are_saved_and_found(folder: Path) -> None:
    """In the order in which they came, in one private file, and gone once it is removed."""
    rescue = Rescue(folder, RUN)
    rescue.save(Batch(leases=[1, 2]))
    assert list(folder.iterdir()) == [], "a lease is nothing to be saved"
    rescue.save(Batch(outcomes=[outcome(7), outcome(3)]))
    rescue.save(Batch(outcomes=[outcome(5)], releases=[RELEASE], drafts=[DRAFT]))
    rescue.close()
    assert rescue.answers == 4
    (path,) = rescue.files
    assert path.parent == folder
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (rescued,) = find_rescued(folder, RUN)
    with rescued:
        (batch,) = rescued.batches()
    assert batch == Batch(outcomes=[outcome(7), outcome(3), outcome(5)], releases=[RELEASE], drafts=[DRAFT])
    rescued.remove()
    assert list(find_rescued(folder, RUN)) == []


def test_large_files_come_in_pieces(folder: Path) -> None:
    """Some megabytes at a time, so that memory does not grow with what was saved."""
    rescue = Rescue(folder, RUN)
    rescue.save(Batch(outcomes=[outcome(row, body=b"x" * (3 << 20)) for row in range(6)]))
    rescue.close()
    (rescued,) = find_rescued(folder, RUN)
    with rescued:
        sizes = [len(batch.outcomes) for batch in rescued.batches()]
    assert sum(sizes) == 6
    assert max(sizes) <= 3


def test_it_is_synced_before_it_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file after every batch, and its folder after the first."""
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    monkeypatch.setattr(os, "fsync", note)
    save(folder, 1, 2)
    assert synced == ["file", "folder", "file"]


def test_a_call_that_writes_less_than_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is followed by another one."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(content[:7])))
    save(folder, 1, 2)
    assert found(folder) == [1, 2]


def test_the_folder_of_the_journal_cannot_be_written(folder: Path, shared: Path) -> None:
    """Then the folder for temporary files is used, and the next start looks there too."""
    folder.rename(folder.with_name("away"))
    path = save(folder, 1)
    assert path.parent == shared
    folder.with_name("away").rename(folder)
    assert found(folder) == [1]


def test_another_way_to_the_same_folder(folder: Path, shared: Path) -> None:
    """The name in the folder for temporary files follows from where the journal really is."""
    link = folder.with_name("link")
    link.symlink_to(folder)
    rescue = Rescue(link, RUN)
    folder.rename(folder.with_name("away"))
    rescue.save(Batch(outcomes=[outcome(1)]))
    rescue.close()
    (path,) = rescue.files
    folder.with_name("away").rename(folder)
    assert path.parent == shared
    assert found(folder) == [1]


def test_a_place_fails_later(folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not trusted again, the batch goes to the next one, and what was saved before is found too."""
    sync, calls = os.fsync, 0

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(5, "input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    rescue = Rescue(folder, RUN)
    for row in range(3):
        rescue.save(Batch(outcomes=[outcome(row)]))
    rescue.close()
    assert [path.parent for path in rescue.files] == [folder, shared]
    assert set(found(folder)) == {0, 1, 2}


def test_a_place_that_never_took_anything(folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is removed: on a full disk it would take up room, and nothing is in it."""
    sync = os.fsync
    fails = iter([True])

    def fail(descriptor: int) -> None:
        if next(fails, False):
            raise OSError(28, "no space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    path = save(folder, 1)
    assert path.parent == shared
    assert list(folder.iterdir()) == []


def test_no_place_is_left(folder: Path, shared: Path) -> None:
    """Whoever saves hears of it."""
    folder.rename(folder.with_name("away"))
    shared.rename(shared.with_name("away too"))
    with pytest.raises(OSError, match="No such file"):
        save(folder, 1)


@pytest.mark.parametrize("missing", [1, 10, 200])
def test_a_torn_end(folder: Path, missing: int) -> None:
    """The last line was not synced, so nobody was told of it; the others are taken."""
    path = save(folder, 1, 2, 3)
    path.write_bytes(path.read_bytes()[:-missing])
    assert found(folder) == [1, 2]


@pytest.mark.parametrize("length", [0, 1, 30])
def test_a_torn_first_line(folder: Path, length: int) -> None:
    """Then there is nothing in the file, and it can be removed."""
    path = save(folder, 1)
    path.write_bytes(path.read_bytes()[:length])
    (rescued,) = find_rescued(folder, RUN)
    with rescued:
        assert list(rescued.batches()) == [Batch()]


def test_every_flipped_bit_is_seen(folder: Path) -> None:
    """Whatever byte changes: the answers come back as they were, or there is an error that names the file."""
    path = save(folder, 1, 2)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x04]) + content[at + 1 :])
        if at == len(content) - 1:
            assert found(folder) == [1], "the end of the last line is missing"
        else:
            with pytest.raises(StorageError, match=f"{path}, line [123]: damaged"):
                found(folder)


def test_a_line_in_an_unknown_form(folder: Path) -> None:
    """A later version's, for example: refused with file and line, not skipped."""
    path = save(folder, 1)
    for entry in ({"outcome": {"row_index": 1}}, {"other": 1}, {"release": [1]}, {"outcome": None}):
        path.write_bytes(_line({"run": RUN}) + _line(entry))
        with pytest.raises(StorageError, match="line 2: damaged"):
            found(folder)
    content = b"[nonsense"
    path.write_bytes(_line({"run": RUN}) + b'{"crc32":%d,"entry":%s}\n' % (zlib.crc32(content), content))
    with pytest.raises(StorageError, match="line 2: damaged"):
        found(folder)


def test_answers_of_another_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Are left where they are, with a warning: they answer other questions."""
    path = save(folder, 1, run="another")
    assert found(folder) == []
    assert f"{path} was not saved by this run" in caplog.text
    assert path.exists()


def link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def second_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def given_away(path: Path) -> None:
    os.chown(path, 12345, -1)


def writable_by_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("change", [link, second_name, fifo, given_away, writable_by_all])
def test_what_others_may_have_put_into_the_shared_folder(
    folder: Path, shared: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    """Is not taken for ours, whatever it is called, and stays."""
    if change is given_away and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    folder.rename(folder.with_name("away"))
    path = save(folder, 1)
    change(path)
    caplog.set_level(logging.WARNING)
    assert found(folder) == []
    assert f"{path} is not a file of this user's own" in caplog.text
    assert path.exists()
