"""Numbers as people read them. `UNKNOWN` stands for what nobody said; it is never shown as 0."""

from __future__ import annotations

from datetime import UTC, datetime

UNKNOWN = "unknown"
#: in a table, where there is nothing to say
NOTHING = "\u2013"


def count(number: int | None) -> str:
    """`12,345`."""
    return UNKNOWN if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `12,345 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(number: float) -> str:
    """A number in three digits: `940`, `12.3 k`, `4.56 M`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 9.995 or (letter != "k" and number >= size * 0.9995):
            return f"{_digits(number / size)}\u202f{letter}"
    return f"{number:,.0f}" if number >= 100 or number == int(number) else _digits(number)


def share(part: float, whole: float) -> str:
    """`98.3 %`; what is more than nothing is never shown as nothing, what is less than all never as all."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1\u202f%"
    if 99.9 < percent < 100:
        return "> 99.9\u202f%"
    return f"{percent:.0f}\u202f%" if percent in (0, 100) else f"{percent:.1f}\u202f%"


def duration(seconds: float | None) -> str:
    """`182 ms`, `2.35 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{_digits(seconds * 1000)}\u202fms"
    if seconds < 59.95:
        return f"{_digits(seconds)}\u202fs"
    for size, name, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        steps = round(seconds / smaller)
        if steps * smaller >= size:
            whole, rest = divmod(steps, size // smaller)
            return f"{whole:,}\u202f{name}" + (f" {rest}\u202f{small}" if rest else "")
    raise AssertionError("unreachable")


def rate(number: float | None, noun: str) -> str:
    """`120 rows/s`, or per minute or hour where that is less than one."""
    if number is None:
        return UNKNOWN
    for factor, unit in ((1, "s"), (60, "min")):
        if number * factor >= 1:
            return f"{short(number * factor)} {noun}/{unit}"
    return f"{short(number * 3600)} {noun}/h"


def dollars(amount: float | None) -> str:
    """`$1,234.56`; small amounts with as many digits as say something."""
    if amount is None:
        return UNKNOWN
    if amount >= 1 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.001 else f"${amount:.2g}" if amount >= 1e-4 else f"${amount:.8f}".rstrip("0")


def size(octets: int) -> str:
    """`312 KB`."""
    for limit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if octets >= limit:
            return f"{_digits(octets / limit)}\u202f{name}"
    return f"{octets}\u202fbytes"


def moment(time: datetime | None) -> str:
    """`2026-11-23 20:46:15 UTC`."""
    return UNKNOWN if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _digits(number: float) -> str:
    """Three digits that count, or all before the point."""
    decimals = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:,.{decimals}f}"
