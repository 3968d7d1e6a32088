"""The goals, and what was measured beside them. Knows the JSON's shape and no measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.measure import Sample, median, ratio

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure and its bound."""

    words: str
    value: float
    bound: float
    #: the figure is to be at least the bound; else at most
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the bound is kept to."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def goals(found: Found) -> Iterator[Goal]:
    """Yield the goals whose figures were measured."""
    for section, of in _GOALS.items():
        if section in found:
            yield from of(found[section])


def _compare(found: Found) -> Iterator[Goal]:
    programs = found["programs"]
    for other, bound in (("NAIVE", 0.45), ("OAI-A", 1 / 15), ("OAI", 1 / 30)):
        if other in programs:
            value = ratio(programs["batcher"], programs[other], "cpu_us")[1]
            yield Goal(f"CPU per row, batcher / {other}", value, bound)
    ideal = found["in_flight"] / found["latency_s"]
    yield Goal("rows/s of the ideal, 500 in flight", median(programs["batcher"], "rows_per_s") / ideal, 0.93, True)
    yield Goal("CPU per row, engine alone / RAW", ratio(programs["engine alone"], programs["RAW"], "cpu_us")[1], 2.5)


def _sweep(found: Found) -> Iterator[Goal]:
    few, many = min(found["in_flight"], key=int), max(found["in_flight"], key=int)
    programs, fewer = found["in_flight"][many], found["in_flight"][few]
    value = ratio(programs["batcher"], fewer["batcher"], "cpu_us")[1]
    yield Goal(f"CPU per row, {int(many):,} in flight / {int(few):,}", value, 1.25)
    per_row = {name: _kb_a_row(fewer[name], programs[name], int(many) - int(few)) for name in ("batcher", "NAIVE")}
    yield Goal("memory per row in flight, batcher / NAIVE", per_row["batcher"] / per_row["NAIVE"], 0.7)


def _kb_a_row(few: list[Sample], many: list[Sample], more: int) -> float:
    """Kilobytes of the peak for each row more in flight."""
    return (median(many, "peak_mb") - median(few, "peak_mb")) * 1024 / more


def _saturation(found: Found) -> Iterator[Goal]:
    for in_flight, samples in sorted(found["in_flight"].items(), key=lambda item: int(item[0])):
        words = f"rate of the ideal, {int(in_flight):,} in flight, 1 s ({median(samples, 'cores'):.2f} cores)"
        yield Goal(words, median(samples, "of_ideal"), 0.95, True)
        yield Goal(f"p99 delay of 1 s, {int(in_flight):,} in flight", median(samples, "p99_delay"), 0.05)


def _memory(found: Found) -> Iterator[Goal]:
    few, many = sorted(found["rows"], key=int)[-2:]
    value = median(found["rows"][many], "peak_mb") / median(found["rows"][few], "peak_mb")
    yield Goal(f"peak memory, {int(many):,} rows / {int(few):,}", value, 1.10)


def _tax(found: Found) -> Iterator[Goal]:
    full, alone = found["programs"]["batcher"], found["programs"]["engine alone"]
    yield Goal("CPU with journal and parts / without", ratio(full, alone, "cpu_us")[1], 1.35)
    yield Goal("time with journal and parts / without", 1 / ratio(full, alone, "rows_per_s")[1], 1.03)


def _resume(found: Found) -> Iterator[Goal]:
    runs, rows = found["runs"], f"{found['rows']:,} rows"
    yield Goal(f"finished run of {rows} recognised, s", median(runs["finished"], "wall_s"), 1.0)
    yield Goal(f"first request of half of {rows}, s", median(runs["half"], "first_request_s"), 3.0)


def _plan(found: Found) -> Iterator[Goal]:
    yield Goal("plan, MB/s of JSONL", median(found["plan"], "mb_per_s"), 300, True)


def _starts(found: Found) -> Iterator[Goal]:
    yield Goal("batcher --help, s", median(found["commands"]["batcher --help"], "wall_s"), 0.3)
    yield Goal("import batcher, s", median(found["commands"]["import batcher"], "wall_s"), 0.15)


_GOALS: dict[str, Callable[[Found], Iterator[Goal]]] = {
    "compare": _compare,
    "sweep": _sweep,
    "saturation": _saturation,
    "memory": _memory,
    "tax": _tax,
    "resume": _resume,
    "plan": _plan,
    "starts": _starts,
}
