"""Measure batcher beside what one would write instead, and beside its goals.

    python -m tests.benchmarks [SECTION ...] [--rows N] [--rounds N] [--rate N] [--quick] [--results FILE]

Sections: compare server sweep saturation memory tax tls setups resume plan starts; `all` is every one of them and the
default. Each adds itself to the JSON file when it is done, so that a matrix can be measured piece by piece. Then, or by
themselves: `show` prints the tables, `plot` draws results.png and `readme` writes them into the README and
results.md, all from the JSON alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import results, sections, starting
from tests.benchmarks.settings import Bench

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "starts": starting.starts,
    "server": sections.server,
    "compare": sections.compare,
    "tax": sections.tax,
    "tls": sections.tls,
    "setups": sections.setups,
    "plan": starting.plan,
    "sweep": sections.sweep,
    "saturation": sections.saturation,
    "memory": sections.memory,
    "resume": starting.resume,
}
SHOWS = ("show", "plot", "readme")


def main() -> None:
    """Measure and show what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{' '.join(SECTIONS)} all {' '.join(SHOWS)}")
    parser.add_argument("--rows", type=int, default=60_000, help="rows of a measurement (60000)")
    parser.add_argument("--rate", type=int, default=2500, help="rows a second that the server allows at most (2500)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is repeated (5)")
    parser.add_argument("--quick", action="store_true", help="see that everything runs: few rows, one round")
    parser.add_argument("--results", type=Path, default=results.FILE, help="the JSON to add to")
    parser.add_argument("--folder", type=Path, default=None, help="where inputs and outputs go while it runs")
    wanted = parser.parse_args()
    names = wanted.sections or ["all"]
    if unknown := set(names) - {*SECTIONS, *SHOWS, "all"}:
        parser.error(f"no such section: {' '.join(sorted(unknown))}")
    rows, rounds = (6000, 1) if wanted.quick else (wanted.rows, wanted.rounds)
    for name, section in SECTIONS.items():
        if name in names or "all" in names:
            with tempfile.TemporaryDirectory(prefix="batcher-benchmark-", dir=wanted.folder) as folder:
                bench = Bench(Path(folder), rows, rounds, wanted.quick, wanted.rate)
                load = os.getloadavg()[0]
                found = section(bench)
            results.add(wanted.results, name, {**found, "rounds": rounds, "load": load, "servers": bench.loads})
    if "plot" in names or "readme" in names:
        results.draw(wanted.results)
    if "readme" in names:
        results.write_readme(wanted.results)
    print(results.in_words(wanted.results), end="")


if __name__ == "__main__":
    main()
