"""Whether a file is on a file system that several hosts may share.

SQLite's write-ahead log keeps its index in memory that is shared by the processes of one host, so two hosts that open
one journal would not see each other. The run folder's lock may not reach across hosts either.
"""

from __future__ import annotations

import os
from pathlib import Path

_SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse", "afs", "ceph", "lustre", "gpfs", "beegfs"})


def shared_file_system(path: Path) -> str | None:
    """Return the kind of the file system that holds `path` if hosts may share it; None otherwise, or if unknown."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return None
    kind = kind_of(device, mounts)
    return kind if kind is not None and (kind in _SHARED or kind.startswith("fuse.")) else None


def kind_of(device: int, mounts: str) -> str | None:
    """Return the kind of the file system of a device, from the text of /proc/self/mountinfo."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        place, _, system = line.partition(" - ")
        if place.split()[2:3] == [number]:
            return system.split()[0]
    return None
