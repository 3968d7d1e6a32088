"""The input files: which they are, and their bytes.

Knows names, suffixes and compression; does not know what a row is. Every failure of the disk or of a decompressor
becomes an `InputError` that names the file.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from batcher.errors import InputError

Format = Literal["jsonl", "parquet"]

_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_FORMATS: dict[str, Format] = {
    **{text + packed: "jsonl" for text in (".jsonl", ".ndjson") for packed in ("", *_COMPRESSION)},
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SKIP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file as it was when it was found."""

    path: Path
    format: Format
    size_bytes: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """The name without the folder: what the problem of a row calls the file."""
        return self.path.name

    @property
    def compression(self) -> str | None:
        """`gzip`, `zstd` or None."""
        return _COMPRESSION.get(self.path.suffix.lower())


@contextmanager
def failures_name(path: Path) -> Iterator[None]:
    """Turn what the disk, a decompressor or a Parquet reader raises into an `InputError` that names `path`."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or "out of memory"
        raise InputError(f"{path} cannot be read: {reason}") from error


def find_files(patterns: Iterable[str | Path]) -> list[InputFile]:
    """Return the files that `patterns` (files, folders, globs) name: in that order, and sorted within each of them.

    Below a folder, names that begin with a dot or an underscore and unknown suffixes are passed over.

    Raises:
        InputError: a pattern names nothing, a file of an unknown kind, or a file that another one names too.
    """
    files: list[InputFile] = []
    seen: set[str] = set()
    for pattern in patterns:
        with failures_name(Path(pattern)):
            paths = _expand(os.path.abspath(pattern))  # noqa: PTH100 - Path.resolve() would follow symbolic links
        for path in paths:
            files.append(_describe(path))
            real = os.path.realpath(path)
            if real in seen:
                raise InputError(f"input.path names {path} twice")
            seen.add(real)
    return files


def check_unchanged(file: InputFile) -> None:
    """Do nothing if `file` is still as it was when it was found.

    Raises:
        InputError: it is not.
    """
    if _describe(file.path) != file:
        raise changed(file)


def changed(file: InputFile) -> InputError:
    """The error that says that the rows of `file` are not those the plan was made from."""
    return InputError(f"{file.path} changed while this run was using it")


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        files = set(_below(path))
        missing = f"{path} holds no input file ({', '.join(_FORMATS)})"
    else:
        fixed = len(list(takewhile(lambda part: not glob.has_magic(part), path.parts)))
        found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern is absolute
        shown = (path for path in found if all(map(_is_shown, path.parts[fixed:])))
        # a set, because `**` finds a folder and also what is in it
        files = {file for path in shown for file in _below(path)}
        missing = f"no file matches {pattern}"
    if not files:
        raise InputError(missing)
    return sorted(files)


def _below(path: Path) -> list[Path]:
    """The known files below a folder; a path that is no folder is itself."""
    if not path.is_dir():
        return [path]

    def refuse(error: OSError) -> None:
        raise error

    files = []
    for parent, folders, names in os.walk(path, onerror=refuse):
        folders[:] = filter(_is_shown, folders)
        files += [Path(parent, name) for name in names if _is_shown(name) and _format(name)]
    return files


def _is_shown(name: str) -> bool:
    return not name.startswith((".", "_"))


def _format(name: str) -> Format | None:
    return next((kind for suffix, kind in _FORMATS.items() if name.lower().endswith(suffix)), None)


def _describe(path: Path) -> InputFile:
    with failures_name(path):
        found = path.stat()
    if not str(path).isprintable() or any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise InputError(f"{str(path)!r} has characters in its name that cannot be written down")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file")
    kind = _format(path.name)
    if kind is None:
        raise InputError(f"{path} has an unknown suffix; known are {', '.join(_FORMATS)}")
    return InputFile(path, kind, found.st_size, found.st_mtime_ns)


class GivenUp(Exception):  # noqa: N818 - nothing is wrong
    """Nobody wants any more what is being read."""


class ByteStream:
    """The uncompressed bytes of a file, forwards."""

    def __init__(self, file: InputFile) -> None:
        self._path = file.path
        #: offset of the next byte
        self.position = 0
        self._raw: Any
        #: going to any position costs nothing
        self.can_jump = file.compression is None
        check_unchanged(file)
        with failures_name(self._path):
            if self.can_jump:
                self._raw = file.path.open("rb", buffering=0)
            else:
                self._raw = pa.CompressedInputStream(pa.OSFile(str(file.path)), file.compression)

    def read(self, size_bytes: int) -> bytes:
        """Return up to that many bytes; none at the end."""
        with failures_name(self._path):
            data: bytes = self._raw.read(size_bytes)
        self.position += len(data)
        return data

    def move_to(self, position: int, given_up: Callable[[], bool] = lambda: False) -> None:
        """Go to `position`; in a compressed file only forwards, at the price of decompressing what lies between.

        Raises:
            GivenUp: `given_up` said so on the way.
        """
        if self.can_jump:
            with failures_name(self._path):
                self.position = self._raw.seek(position)
        while self.position < position and self.read(min(_SKIP_BYTES, position - self.position)):
            if given_up():
                raise GivenUp

    def close(self) -> None:
        """Give the file back."""
        self._raw.close()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
