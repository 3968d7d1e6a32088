"""The command as a real process: started, struck, awaited, and measured. It does not know what a row is.

What a process says goes to files, so that nobody has to read along and none is lost when it is killed. Whoever waits
says for how long: a process that does not end by then is ended, and the test fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: the command as installed beside the interpreter that runs the tests
BATCHER = str(Path(sys.executable).with_name("batcher"))
#: what only the tests have installed, hidden: see the modules there
_WITHOUT = str(Path(__file__).with_name("without"))
#: none of the caller's environment, as under cron, but for what finds the interpreter, and only what batcher needs
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": _WITHOUT}

_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, what it said, and what it took."""

    #: the exit code, or minus the signal that ended it
    returncode: int
    stdout: str
    stderr: str
    took_s: float
    #: its largest resident set, and its largest address space as far as it was seen
    peak_kb: int
    address_kb: int


class Command:
    """A process of ours. Leaving its `with` block ends it, should it still run."""

    def __init__(self, *arguments: str | Path, env: Mapping[str, str] = BARE, **options: Any) -> None:
        """Start it with nothing on its standard input; `options` are those of `Popen`."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is reaped
        self._complained = tempfile.TemporaryFile()  # noqa: SIM115
        options = {"stdin": subprocess.DEVNULL, "stdout": self._said, "stderr": self._complained, **options}
        self._began_s = time.monotonic()
        self._process = subprocess.Popen([str(word) for word in arguments], env=dict(env), **options)
        #: a child begins with what its parent has used: a peak below this is the tests' and not its own
        self._inherited_kb = _status_kb(os.getpid(), "VmHWM")
        self._seen_kb = self._address_kb = 0
        self._ended: Ended | None = None
        self.pid = self._process.pid

    @property
    def stderr(self) -> str:
        """What it said so far on standard error."""
        return _content(self._complained) if self._ended is None else self._ended.stderr

    def signal(self, signum: int) -> None:
        """Send a signal, unless the process has been reaped."""
        if self._ended is None:
            os.kill(self.pid, signum)

    def poll(self) -> Ended | None:
        """Return how it ended, or None while it runs."""
        if self._ended is None:
            self._seen_kb = max(self._seen_kb, _status_kb(self.pid, "VmHWM"))
            self._address_kb = max(self._address_kb, _status_kb(self.pid, "VmPeak"))
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._reap(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
        return self._ended

    def wait(self, most_s: float = 60.0) -> Ended:
        """Wait for its end and return it; a process that takes longer is ended, and the test fails."""
        deadline = time.monotonic() + most_s
        while (ended := self.poll()) is None:
            if time.monotonic() > deadline:
                said = self.kill().stderr
                raise AssertionError(f"it did not end within {most_s:g} s:\n{said}")
            time.sleep(_LOOK_S)
        return ended

    def kill(self) -> Ended:
        """End it with SIGKILL if it still runs, and return how it ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        while (ended := self.poll()) is None:
            time.sleep(_LOOK_S / 10)
        return ended

    def _reap(self, code: int, rusage_kb: int) -> None:
        self._process.returncode = code  # or Popen would wait for it again
        peak_kb = rusage_kb if rusage_kb > self._inherited_kb else self._seen_kb
        took_s = time.monotonic() - self._began_s
        self._ended = Ended(code, _content(self._said), _content(self._complained), took_s, peak_kb, self._address_kb)
        self._said.close()
        self._complained.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


def patched(constants: Mapping[str, Any], *, scale: Mapping[str, float] | None = None, also: str = "") -> list[str]:
    """The command with some constants replaced, as the beginning of an argument list.

    `constants` maps full names (`batcher.limits.breaker.PROBE_AFTER_S`) to values; those of `scale` are multiplied
    instead, to make minutes of waiting pass in a second. A name that does not exist ends the process at once. `also` is
    Python for what a name and a value cannot say.
    """
    program = f"""
import functools, importlib, sys
def owner(name):
    module, _, rest = name.rpartition(".")
    try:
        return importlib.import_module(module), rest
    except ModuleNotFoundError:
        outer, attribute = owner(module)
        return getattr(outer, attribute), rest
for name, value in {dict(constants)!r}.items():
    place, attribute = owner(name)
    if isinstance(place, dict):
        assert attribute in place, name
        place[attribute] = value
    else:
        getattr(place, attribute)
        setattr(place, attribute, value)
for name, factor in {dict(scale or {})!r}.items():
    place, attribute = owner(name)
    setattr(place, attribute, getattr(place, attribute) * factor)
{also}
from batcher.cli import main
sys.exit(main())
"""
    return [sys.executable, "-P", "-c", program]


def limited(**limits: int) -> list[str]:
    """`prlimit` with these limits (`nofile=64`, `as_=...`), to be put before a command."""
    return ["prlimit", *(f"--{name.rstrip('_')}={value}" for name, value in limits.items())]


def together(*pieces: Sequence[str]) -> list[str]:
    """One argument list of several."""
    return [word for piece in pieces for word in piece]


def _content(file: Any) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _status_kb(pid: int, name: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(name)), 0)
