"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import pytest

from batcher.durable import crc32_of, publish, replace_file


def refuse_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced(tmp_path: Path, durable: bool) -> None:
    """It holds the new content, and nothing else is left in the folder."""
    path = tmp_path / "f"
    for content in (b"old and longer", b"new"):
        replace_file(path, content, durable=durable)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads sees the old content as long as the new one is not synced."""
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output error"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_the_order_of_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the file's content is synced, then, when it has its name, the folder."""
    events: list[tuple[bool, bool]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        events.append((os.path.isdir(f"/proc/self/fd/{descriptor}"), (tmp_path / "f").exists()))  # noqa: PTH112

    monkeypatch.setattr(os, "fsync", note)
    replace_file(tmp_path / "f", b"content")
    assert events == [(False, False), (True, True)]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """It has its final name and no other, with or without hard links."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    temporary, final = tmp_path / "t", tmp_path / "f"
    temporary.write_bytes(b"content")
    publish(temporary, final)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert final.read_bytes() == b"content"


@pytest.mark.parametrize("links", [True, False])
def test_the_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Both files stay as they are."""
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    temporary, final = tmp_path / "t", tmp_path / "f"
    temporary.write_bytes(b"new")
    final.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        publish(temporary, final)
    assert (temporary.read_bytes(), final.read_bytes()) == (b"new", b"somebody else's")


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_the_checksum_of_a_file(tmp_path: Path, size: int) -> None:
    """Covers it to the last byte, also beyond the piece that is read at a time."""
    content = os.urandom(size) + b"end"
    (tmp_path / "f").write_bytes(content)
    assert crc32_of(tmp_path / "f") == zlib.crc32(content)
