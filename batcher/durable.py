"""Files that are there whole or not at all, also after a power cut.

The rule everywhere: write under a temporary name, fsync the file, give it its name, fsync the folder. Without the
first fsync a file may be named and empty after a power cut; without the second its name may be gone.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO


def create(path: Path) -> BinaryIO:
    """Open a new file for writing that its owner alone can read.

    What has this name already, such as the remains of a writer that died, makes room; a link is never followed.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` in place of `path` in one step; a reader sees the old content or the new one.

    `durable=False` leaves out the fsyncs, for files that only inform.
    """
    temporary = path.with_name(f".{path.name}.new")
    with create(temporary) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        fsync_folder(path.parent)


def publish(temporary: Path, final: Path) -> None:
    """Give a finished, synced file its final name, and never take the name of another.

    Raises:
        FileExistsError: `final` exists; both files are left as they are.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links; the run folder's lock keeps other writers away
        if final.exists():
            raise FileExistsError(final) from None
        temporary.rename(final)
    else:
        temporary.unlink()
    fsync_folder(final.parent)


def replace_with(temporary: Path, final: Path) -> None:
    """Give a finished, synced file the name of another, which it replaces in one step."""
    temporary.replace(final)
    fsync_folder(final.parent)


def write_all(descriptor: int, content: bytes) -> None:
    """Write to the last byte: one call may write less than it was given, on a disk that fills up for example."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def crc32_of(path: Path) -> int:
    """Return the checksum of a whole file, read a piece at a time."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return checksum
