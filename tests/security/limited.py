"""A child process with little memory, so that a test shows what something costs instead of measuring it."""

from __future__ import annotations

import resource
from collections.abc import Callable


def limited(size_bytes: int) -> Callable[[], None]:
    """Return what `subprocess` calls in the child before the program: no more address space than this."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
