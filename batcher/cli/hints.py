"""Command lines for people to copy: they work as they stand, in the shell and the folder in which they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: str) -> str:
    """Return a command line of ours, quoted for the shell."""
    return shlex.join([*_program(), *words])


def path_word(path: Path | str) -> str:
    """Return a path as a word of a command line: as short as it can be said from here, and never like an option."""
    try:
        here, absolute = os.getcwd(), os.path.abspath(path)  # noqa: PTH100, PTH109 - Path would follow symbolic links
    except FileNotFoundError:  # where we are has been deleted
        return os.fspath(path)
    relative = os.path.relpath(absolute, here)
    shown = absolute if here == "/" or relative.startswith("../../") else relative
    return f"./{shown}" if shown.startswith("-") else shown


def _program() -> list[str]:
    """How this program was started: by a name that the shell finds, by a path, or as a module."""
    started_as = Path(sys.argv[0])
    if started_as.name == "__main__.py":
        return [sys.executable, "-m", "batcher"]
    found = shutil.which("batcher")
    if started_as.name != "batcher" or (found and _same(found, started_as)):
        return ["batcher"]
    return [sys.argv[0]]


def _same(one: str, other: Path) -> bool:
    try:
        return other.samefile(one)
    except OSError:
        return False
