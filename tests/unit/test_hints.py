"""Command lines that are printed for people to copy."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from batcher.cli.hints import command, path_word


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program called batcher in a folder of its own."""
    path = tmp_path / "my tools" / "batcher"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_name_is_enough_where_the_shell_finds_it(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on the PATH is called by its name."""
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert command("run", "my job.yaml") == "batcher run 'my job.yaml'"


@pytest.mark.parametrize("elsewhere", ["/usr/bin", ""])
def test_a_path_that_was_typed_is_repeated(program: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str) -> None:
    """Where the shell would not find the program, or would find another one, the hint says the path."""
    monkeypatch.setenv("PATH", elsewhere)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert shlex.split(command("run")) == [str(program), "run"]
    monkeypatch.chdir(program.parent)
    monkeypatch.setattr(sys, "argv", ["./batcher"])
    assert command("run") == "./batcher run"


def test_a_module_is_called_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m batcher` is repeated with the same Python."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/batcher/__main__.py"])
    assert shlex.split(command("run")) == [sys.executable, "-m", "batcher", "run"]


def test_a_path_is_as_short_as_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near files are named from here, far ones in full, and none is taken for an option."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    assert path_word(tmp_path / "a" / "b" / "c" / "job.yaml") == "job.yaml"
    assert path_word("../job.yaml") == "../job.yaml"
    assert path_word("../../job.yaml") == str(tmp_path / "a" / "job.yaml")
    assert path_word("-v.yaml") == "./-v.yaml"
    monkeypatch.chdir("/")
    assert path_word(tmp_path / "job.yaml") == str(tmp_path / "job.yaml")


def test_a_path_where_there_is_no_folder_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has been deleted a path is said as it was given."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert path_word(tmp_path / "job.yaml") == str(tmp_path / "job.yaml")
