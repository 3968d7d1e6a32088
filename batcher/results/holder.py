"""Who works on a run folder at the moment, found out without touching its lock.

To try the lock would, for a moment, turn away a run that is just starting. So its text is read, which names the process
that took it last, and that process is looked at: a pid alone proves nothing, since it may belong to somebody else by
now, but the process of a run holds the lock file open.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_TEXT = re.compile(r"pid (\d+) on (.*) since (\S+)\n")
#: seconds by which the kernel's account of a start may differ from the clock's
_SLACK_S = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that took a run folder's lock last."""

    pid: int
    host: str
    since: datetime
    #: it is still at work; None where that cannot be seen, as on another machine
    at_work: bool | None


def holder_of(folder: Path) -> Holder | None:
    """Return who took the folder last; None if nobody did."""
    lock = folder / ".batcher" / "lock"
    try:
        match = _TEXT.fullmatch(lock.read_text(errors="replace"))
        since = datetime.fromisoformat(match[3]) if match else None
    except (OSError, ValueError):
        return None
    if match is None or since is None:
        return None
    pid, host = int(match[1]), match[2]
    return Holder(pid, host, since, _is_at_work(pid, lock, since) if host == platform.node() else None)


def _is_at_work(pid: int, lock: Path, since: datetime) -> bool | None:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX":
            return False
        return _holds_open(pid, lock)
    except PermissionError:
        return _started_s(int(fields[19])) <= since.timestamp() + _SLACK_S
    except (OSError, IndexError, ValueError):  # no /proc, or the process ended just now
        return None


def _holds_open(pid: int, lock: Path) -> bool:
    found = lock.stat()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - only the numbers are of interest
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), found):  # noqa: PTH116 - what the link leads to
                return True
        except OSError:  # closed just now
            continue
    return False


def _started_s(ticks: int) -> float:
    """When a process started, in seconds since 1970, by the ticks since boot that the kernel gives."""
    boot = next(line.split()[1] for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot) + ticks / os.sysconf("SC_CLK_TCK")
