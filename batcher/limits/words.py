"""Lengths of time, for people. Knows no clock."""

from __future__ import annotations

from math import ceil


def in_words(seconds: float) -> str:
    """Return a length of time rounded up for a person: `12 s`, `3 min`, `26 h`, `4 days`."""
    if seconds <= 120:
        return f"{ceil(seconds)} s"
    if seconds <= 7200:
        return f"{ceil(seconds / 60)} min"
    if seconds <= 172800:
        return f"{ceil(seconds / 3600)} h"
    return f"{ceil(seconds / 86400)} days"
