"""Writing new files: all of them or none, and never over another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.cli.initializing import AlreadyThereError, write_new
from batcher.errors import StorageError


def test_a_file_that_came_in_the_meantime_is_kept(tmp_path: Path) -> None:
    """What is there when the moment of writing comes stays, and what was written before it is taken back."""
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(AlreadyThereError, match="taken is there already; nothing was written"):
        write_new({tmp_path / "first": b"1", tmp_path / "taken": b"2", tmp_path / "third": b"3"})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """Any other failure is one of the storage."""
    with pytest.raises(StorageError, match="cannot be written: No such file or directory"):
        write_new({tmp_path / "first": b"1", tmp_path / "gone" / "second": b"2"})
    assert not list(tmp_path.iterdir())
