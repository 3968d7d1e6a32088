"""What is set once for the whole process, and why. Measured on 2 cores with 1 KB rows; `python -m tests.benchmarks
setups` measures it again, one thing at a time set otherwise.

* As many sockets as the system permits; a soft limit of 1,024 would stop a run with 1,000 requests in flight.
* The garbage collector looks rarely: the rows in flight are thousands of live objects without cycles, which it would
  walk again and again. With 2,000 in flight it took 2.5 % of the CPU time, start included; as Python sets it 10 %, and
  12 % when it looks at what exists at the start as well, which it never does here.
* The event loop is uvloop's where that is installed (extra `speed`; see `engines/local.py`).
* Two arenas for glibc's malloc and no second allocator for Arrow: with an arena a thread and Arrow's own pool the peak
  was 190 to 220 MB, with these 145 to 165 MB, since parts are built on other threads than the one that frees them.
  What a finished part leaves behind is given back at once.
* Where pandas is installed, pyarrow imports it to see whether a list is one of its columns: 54 MB and half a second
  for a process that uses none, a peak of 250 MB instead of 204. Our own processes keep it from doing so.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa

_GC_THRESHOLDS = (50_000, 20, 100)
#: glibc's parameter number, from malloc.h
_M_ARENA_MAX = -8
_ARENAS = 2


@contextmanager
def tuned_process() -> Iterator[None]:
    """Set up the process for a run, and put back what can be put back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    _glibc("mallopt", _M_ARENA_MAX, _ARENAS)
    try:
        yield
    finally:
        pa.set_memory_pool(pool)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _NoPandas(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ImportError for pandas; leave everything else to others."""
        if fullname == "pandas":
            raise ImportError("pandas is not imported here")


def spare_pandas() -> None:
    """Let pyarrow work without pandas in this process; it looks once and remembers. For processes of our own only."""
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


def give_back_memory() -> None:
    """Return freed memory to the system; for after something large."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Call a function of glibc; other C libraries do without."""
    found = getattr(ctypes.CDLL(None), function, None)
    if found is not None:
        found(*arguments)
