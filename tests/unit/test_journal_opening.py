"""What the journal refuses or remarks when it is opened."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

import pytest

from batcher.errors import StorageError
from batcher.journal import Journal, opening
from batcher.journal.filesystem import kind_of, shared_file_system
from tests.fakes import outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 27 0:45 / /mnt/my\\040data rw,relatime shared:7 master:1 - nfs4 server:/export rw,vers=4.2
32 27 0:46 / /mnt/keys rw - fuse.sshfs me@host: rw
33 27 0:47 / /mnt/disk rw - fuseblk /dev/sdb1 rw
torn
"""


def test_the_kind_of_a_file_system() -> None:
    """It is found by the number of its device, whatever else stands in the line."""
    kinds = {minor: kind_of(os.makedev(0, minor), MOUNTS) for minor in (45, 46, 47, 48)}
    assert kinds == {45: "nfs4", 46: "fuse.sshfs", 47: "fuseblk", 48: None}
    assert kind_of(os.makedev(254, 0), MOUNTS) == "ext4"


@pytest.mark.parametrize(
    "kind, shared",
    [("nfs4", True), ("cifs", True), ("9p", True), ("fuse.sshfs", True), ("ext4", False), ("fuseblk", False)],
)
def test_a_file_system_that_hosts_may_share(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, shared: bool
) -> None:
    """A warning says that the journal needs one host; it works all the same."""
    monkeypatch.setattr("batcher.journal.filesystem.kind_of", lambda device, mounts: kind)
    journal = Journal(path)
    journal.record(outcome(1))
    journal.close()
    assert (f"({kind}) that several hosts may share" in caplog.text) == shared


def test_the_file_system_of_this_machine(tmp_path: Path) -> None:
    """It can be asked for every existing place, and for others the answer is that nobody knows."""
    assert kind_of(tmp_path.stat().st_dev, Path("/proc/self/mountinfo").read_text()) is not None
    assert shared_file_system(tmp_path / "nowhere") is None


def test_an_old_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused in words, before there is a file."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(StorageError, match=r"^SQLite 3\.37 or newer is needed, this Python has "):
        Journal(path)
    assert not path.exists()


@pytest.mark.parametrize("clean", [True, False])
def test_a_whole_check_after_an_unclean_end(path: Path, monkeypatch: pytest.MonkeyPatch, clean: bool) -> None:
    """The database is looked through where a log was left over, or rows that were on their way; not otherwise."""
    journal = Journal(path)
    journal.record(outcome(1))
    if not clean:
        journal.lease([2])
    journal.close()
    checked: list[sqlite3.Connection] = []
    monkeypatch.setattr(opening, "_check", checked.append)
    Journal(path).close()
    assert bool(checked) == (not clean)


def test_a_log_that_was_left_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without rows on their way, it means that nobody closed the journal."""
    journal = Journal(path)
    journal.record(outcome(1))
    journal.attempts()
    copy = path.with_name("copy.sqlite")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    journal.close()
    checked: list[sqlite3.Connection] = []
    monkeypatch.setattr(opening, "_check", checked.append)
    Journal(copy).close()
    assert checked


def test_a_damaged_database(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error says what is damaged, what can be done and what it costs; the files stay."""
    journal = Journal(path)
    for row in range(200):
        journal.record(outcome(row, body=b"x" * 500))
    journal.lease([999])
    journal.close()
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 6] = bytes(4096)
    path.write_bytes(content)
    saved = path.with_name("rescued-1.jsonl")
    saved.write_bytes(b"")
    caplog.set_level(logging.INFO)
    with pytest.raises(StorageError, match=r"journal\.sqlite is damaged \(.*move it away.*asked, and paid for, again"):
        Journal(path)
    assert path.read_bytes() == content
    assert saved.exists()
