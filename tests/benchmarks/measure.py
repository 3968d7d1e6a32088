"""What a program needs, from the system's own count: user and system time, wall time and the largest resident set.

Absolute figures hold for one machine on one day. What is compared is measured in turns, one program after the other,
round by round, so that a slow minute of the machine falls on all of them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Used:
    """What one program needed, with its children."""

    cpu_s: float
    wall_s: float
    #: of the largest of its processes
    peak_mb: float


def measure(command: Sequence[str], *, exit_code: int = 0) -> Used:
    """Run a command to its end and return what it needed.

    Raises:
        SystemExit: it ended with another exit code.
    """
    began = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status) != exit_code:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return Used(used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss / 1024)


#: what `slope` finds, by name
Sample = dict[str, float]


def slope(run: Callable[[int], Used], few: int, many: int) -> Sample:
    """Run with few rows and with many; the difference is what a row costs, whatever the start costs."""
    small, large = run(few), run(many)
    more_s = large.wall_s - small.wall_s  # on a busy machine it may be nothing: then the rate is that of the whole run
    return {
        "cpu_us": (large.cpu_s - small.cpu_s) / (many - few) * 1e6,
        "cpu_us_with_start": large.cpu_s / many * 1e6,
        "rows_per_s": (many - few) / more_s if more_s > 0.1 * large.wall_s else many / large.wall_s,
        "rows_per_s_with_start": many / large.wall_s,
        "peak_mb": large.peak_mb,
    }


def in_turns(runs: dict[str, Callable[[], Sample]], rounds: int, say: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Run each in every round, and return the samples of each."""
    found: dict[str, list[Sample]] = {name: [] for name in runs}
    for number in range(1, rounds + 1):
        for name, run in runs.items():
            found[name].append(run())
            say(f"round {number} of {rounds}, {name}: " + in_words(found[name][-1]))
    return found


def in_words(sample: Sample) -> str:
    """A sample in one line."""
    return ", ".join(
        f"{name} {value:,.4g}" if value < 100 else f"{name} {value:,.0f}" for name, value in sample.items()
    )


def median(samples: Sequence[Sample], name: str) -> float:
    """The median of one figure."""
    return statistics.median(sample[name] for sample in samples)


def ratio(above: Sequence[Sample], below: Sequence[Sample], name: str) -> tuple[float, float, float]:
    """Lowest, median and highest of the ratios of two programs, each of one round."""
    ratios = sorted(one[name] / other[name] for one, other in zip(above, below, strict=True))
    return ratios[0], statistics.median(ratios), ratios[-1]
