"""Room on the disk that is kept for the answers which are on their way when the disk fills up."""

from __future__ import annotations

import os
from pathlib import Path

#: about what 256 answers of 64 KB take
SIZE_BYTES = 16 << 20


class Reserve:
    """A file of no content that takes up space until it is given up."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lay_in(self) -> None:
        """Take up the space. Raises OSError if there is not as much."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Free the space; False if that was done before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
