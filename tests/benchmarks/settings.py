"""How much is measured, and where: what every section is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.server import Load, Server, serving


@dataclass
class Bench:
    """What a section measures with."""

    #: for inputs and outputs; on the disk whose syncs are to count
    folder: Path
    #: the larger of the two numbers of rows whose difference gives the slope, and how often everything is repeated
    rows: int
    rounds: int
    #: numbers that only show that everything runs
    quick: bool
    #: rows a second that the number in flight and the latency allow, in the sections that fix it. What a row costs
    #: depends on it: the fewer answers come at once, the more often everybody wakes up
    rate: int = 2500
    #: of the servers of the section that runs now, by what they were for
    loads: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def few(self) -> int:
        """The smaller of the two numbers of rows."""
        return self.rows // 3

    def scaled(self, rows: int) -> int:
        """So many rows, a hundredth of them for `quick`."""
        return max(1000, rows // 100) if self.quick else rows

    @contextmanager
    def serving(self, name: str, latency_s: float, **options: Any) -> Iterator[Server]:
        """A server whose load is noted under `name`."""
        with serving(self.folder, latency_s, **options) as server:
            yield server
            if server.native:
                self.note(name, server.load())

    def note(self, name: str, load: Load) -> None:
        """Note what a server did."""
        self.loads[name] = {
            "requests": load.requests,
            "cpu_us_per_request": load.cpu_s / max(1, load.requests) * 1e6,
            "late_us": load.late_us,
            "cut": load.cut,
        }
