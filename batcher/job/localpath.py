"""Paths in a job file: relative to the folder of that file, `~/` for the home folder, absolute from then on.

The folder comes as `folder` of pydantic's validation context; without one it is the current folder.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo


def expanded(text: str) -> Path:
    """Return a path with `~/` replaced."""
    return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)


def folder_of(info: ValidationInfo) -> Path:
    """Return the folder that relative paths start from."""
    folder = (info.context or {}).get("folder")
    return Path.cwd() if folder is None else Path(folder)  # asked for only if needed: it may have been deleted


def _resolved(value: Any, info: ValidationInfo) -> Any:
    """Return a path as an absolute one; what is no path is left to the type check."""
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text or "\0" in text:
        raise ValueError("must name a file or folder")
    if "://" in text:
        raise ValueError("must be a path on this machine, not a URL")
    return Path(os.path.normpath(folder_of(info) / expanded(text)))


def _patterns(value: Any, info: ValidationInfo) -> Any:
    """Return one or several paths or globs as a tuple of absolute ones."""
    several = [value] if isinstance(value, str | Path) else value
    if not isinstance(several, list | tuple):
        return value
    if not several:
        raise ValueError("must name at least one file")
    return tuple(_pattern(inner, info) for inner in several)


def _pattern(value: Any, info: ValidationInfo) -> Any:
    path = _resolved(value, info)
    if not isinstance(path, Path):
        return value
    if glob.has_magic(str(value)) and not path.exists():
        # what looks like a glob in the folder's own name is none
        return os.path.normpath(Path(glob.escape(str(folder_of(info)))) / expanded(str(value)))
    return str(path)


#: one file or folder
LocalPath = Annotated[Path, BeforeValidator(_resolved)]
#: files, folders and globs, one or a list of them
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
