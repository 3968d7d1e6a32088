"""The lock of a run folder: one run at a time works on it.

It is the kernel's (flock), so it is free as soon as its process is gone, and the worker processes that inherited it,
however that ended. The file says who took it: `pid 4711 on host since 2026-01-31T01:00:00+00:00`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from batcher.errors import LockedError, StorageError


class FolderLock:
    """Holds a run folder until `close`; makes the folder where it is missing."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            LockedError: another run holds it; its message names that run.
            StorageError: somebody else may have prepared the folder.
            OSError: the folder cannot be written.
        """
        self._folder, self._path = folder, folder / ".batcher" / "lock"
        self._made_folder = not folder.exists()
        state = self._path.parent
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if state.is_symlink() or state.stat().st_mode & 0o022:
            raise StorageError(f"{state} is a link, or others can write in it; move it away or use a new output.path")
        #: of the open file that holds the lock; a process that inherits it holds the folder as well
        self.descriptor = _take(self._path)

    def withdraw(self) -> None:
        """Leave no trace of a run that has not begun, since its job or its input was wrong."""
        with contextlib.suppress(OSError):  # there is more in the folder
            self._path.unlink()
            self._path.parent.rmdir()
            if self._made_folder:
                self._folder.rmdir()

    def close(self) -> None:
        """Give the folder free."""
        os.close(self.descriptor)


class InheritedLock(FolderLock):
    """The lock in a process that was started by the one that took it: the folder is free once both are gone."""

    def __init__(self, descriptor: int) -> None:
        """Hold on to an open file that this process has inherited."""
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor

    def withdraw(self) -> None:
        """Leave everything where it is: the run has begun."""


def _take(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise LockedError(f"another run is working on {path.parent.parent} ({holder}); nothing was sent") from None
    if not _is_in_place(descriptor, path):  # a run that did not begin has just withdrawn it
        os.close(descriptor)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _take(path)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
    return descriptor


def _is_in_place(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
