"""The JSON of what was measured, and the tables that are made of it, for a terminal and for the README."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.benchmarks.goals import goals
from tests.benchmarks.measure import Sample, median, ratio

FILE = Path(__file__).with_name("results.json")
PICTURE = FILE.with_name("results.png")
TABLES = FILE.with_name("results.md")
README = Path(__file__).parents[2] / "README.md"
_BEGIN, _END = "<!-- figures: written by `python -m tests.benchmarks readme` -->", "<!-- end of figures -->"

Found = dict[str, Any]
Table = list[tuple[str, ...]]


def read(path: Path = FILE) -> Found:
    """Everything measured so far, by section."""
    return json.loads(path.read_text()) if path.exists() else {}


def add(path: Path, section: str, found: Found) -> None:
    """Put what a section found in the place of what it found before."""
    everything = read(path)
    everything[section] = _rounded({"at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "on": machine(), **found})
    path.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def _rounded(value: Any) -> Any:
    """Numbers of four digits: more of them were not measured."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def machine() -> dict[str, Any]:
    """What the figures depend on, as far as it is no secret of the machine."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        cpu = next((ln.split(":")[1].strip() for ln in information.open() if ln.startswith("model name")), cpu)
    packages = {name: _version(name) for name in ("aiohttp", "httptools", "openai", "orjson", "pyarrow", "uvloop")}
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu, "cores": cores, "python": platform.python_version(), "packages": packages}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# -- tables


def in_words(path: Path) -> str:
    """Every table, as text."""
    return "".join(f"\n{title}\n\n{_as_text(table)}" for title, table in tables(read(path)))


def tables(found: Found) -> Iterator[tuple[str, Table]]:
    """Yield the title and the rows of every table there are figures for; the first row is the heading."""
    if "compare" in found:
        yield "The same rows, 500 in flight", _programs(found["compare"])
    if "sweep" in found:
        yield "CPU per row, us, by rows in flight at the same rate", _sweep(found["sweep"])
    if "memory" in found:
        yield "Peak memory by rows, 500 in flight", _memory(found["memory"])
    if "tls" in found:
        yield "TLS beside plain HTTP", _tls(found["tls"])
    if "setups" in found:
        yield "One thing at a time set otherwise than batcher/tuning.py sets it", _setups(found["setups"])
    if reached := list(goals(found)):
        head = ("goal", "measured", "bound", "")
        rows = [
            (g.words, _short(g.value), f"{'>=' if g.at_least else '<='} {g.bound:.3g}", _met(g.met)) for g in reached
        ]
        yield "The goals", [head, *rows]
    if servers := list(_servers(found)):
        yield "The server was not what was waited for", servers


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _programs(found: Found) -> Table:
    programs = found["programs"]
    table: Table = [("", "CPU us/row", "batcher / it", "with start", "rows/s", "peak MB", "server busy")]
    for name in ("RAW", "NAIVE", "OAI-A", "OAI", "engine alone", "batcher, asyncio", "batcher"):
        if name not in programs:
            table.append((name, "not installed", *[""] * 5))
            continue
        samples = programs[name]
        low, middle, high = ratio(programs["batcher"], samples, "cpu_us")
        times = "1" if name == "batcher" else f"{_short(middle)} ({_short(low)} to {_short(high)})"
        spread = f"{median(samples, 'cpu_us'):.0f} ({_span(samples, 'cpu_us')})"
        others = (f"{median(samples, key):,.0f}" for key in ("cpu_us_with_start", "rows_per_s", "peak_mb"))
        table.append((name, spread, times, *others, f"{median(samples, 'server_busy'):.2f}"))
    return table


def _span(samples: Sequence[Sample], name: str) -> str:
    values = [sample[name] for sample in samples]
    return f"{min(values):.0f} to {max(values):.0f}"


def _sweep(found: Found) -> Table:
    numbers = sorted(found["in_flight"], key=int)
    table: Table = [("in flight", *(f"{int(number):,}" for number in numbers))]
    for name in ("RAW", "NAIVE", "batcher"):
        table.append((name, *(f"{median(found['in_flight'][n][name], 'cpu_us'):.0f}" for n in numbers)))
    for name in ("NAIVE", "batcher"):
        table.append((f"{name}, peak MB", *(f"{median(found['in_flight'][n][name], 'peak_mb'):.0f}" for n in numbers)))
    return table


def _memory(found: Found) -> Table:
    numbers = sorted(found["rows"], key=int)
    peaks = (f"{median(found['rows'][number], 'peak_mb'):.0f} MB" for number in numbers)
    return [("rows", *(f"{int(number):,}" for number in numbers)), ("peak", *peaks)]


def _tls(found: Found) -> Table:
    programs, more = found["programs"], found["many"] - found["few"]
    table: Table = [("", "plain, CPU us/row", "TLS, CPU us/row", "plain, KB a connection", "TLS, KB a connection")]
    for name in ("NAIVE", "batcher"):
        cpu = (f"{median(programs[kind][name], 'cpu_us'):.0f}" for kind in ("plain", "tls"))
        kb = (
            (median(programs[f"{kind} {found['many']}"][name], "peak_mb") - median(programs[kind][name], "peak_mb"))
            * 1024
            / more
            for kind in ("plain", "tls")
        )
        table.append((name, *cpu, *(f"{one:.0f}" for one in kb)))
    return table


def _setups(found: Found) -> Table:
    programs = found["programs"]
    table: Table = [("", "CPU us/row", "CPU / as it is", "peak MB")]
    for name, samples in programs.items():
        times = _short(ratio(samples, programs["as it is"], "cpu_us")[1])
        table.append((name, f"{median(samples, 'cpu_us'):.0f}", times, f"{median(samples, 'peak_mb'):.0f}"))
    return sorted(table, key=lambda row: row[0] not in ("", "as it is"))


def _servers(found: Found) -> Iterator[tuple[str, ...]]:
    if "server" in found:
        yield "", "requests", "CPU us/request", "late, us", "on one core, requests/s at most"
        yield "at once", "", "", "", f"{found['server']['of_a_core']:,.0f}"
        for section in ("compare", "sweep", "saturation"):
            for name, load in found.get(section, {}).get("servers", {}).items():
                yield name, f"{load['requests']:,}", f"{load['cpu_us_per_request']:.0f}", f"{load['late_us']:.0f}", ""


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def _as_text(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        + "\n"
        for row in table
    )


# -- the README


def write_readme(path: Path) -> None:
    """Put the first table and the picture between the two marks of the README, and every table into `results.md`.

    Raises:
        SystemExit: the marks are not there.
    """
    found, text = read(path), README.read_text()
    if _BEGIN not in text or _END not in text:
        raise SystemExit(f"README.md lacks the marks {_BEGIN} and {_END}")
    written = [f"**{title}**\n\n{_as_markdown(table)}" for title, table in tables(found)]
    picture, rest = (file.relative_to(README.parent) for file in (PICTURE, TABLES))
    words = f"![CPU per row and peak memory of batcher and what it is measured against]({picture})\n"
    more = f"The other tables, and the goals with what was measured beside them, are in [{rest.name}]({rest}).\n"
    figures = "\n".join([_where(found), words, written[0], more])
    before, _, after = text.partition(_BEGIN)
    README.write_text(f"{before}{_BEGIN}\n\n{figures}\n{_END}{after.partition(_END)[2]}")
    TABLES.write_text("\n".join(["# What was measured\n", _where(found), *written]))


def _where(found: Found) -> str:
    """Machine, versions and load, of the first section: all are measured on one machine."""
    some = found.get("compare") or next(iter(found.values()))
    on = some["on"]
    packages = ", ".join(f"{name} {number}" for name, number in on["packages"].items() if number)
    loads = [section["load"] for section in found.values()]
    busy = f"the load when a section began was {min(loads):.1f} to {max(loads):.1f}"
    if max(loads) > 1:
        busy += " (others used the machine: ratios say more than times)"
    return (
        f"{on['cpu']}, {on['cores']} cores, shared by server and clients; {busy}. Python {on['python']}, {packages}."
        f" Medians of {some['rounds']} rounds in turns, with lowest and highest.\n"
    )


def _as_markdown(table: Table) -> str:
    head, *rows = [f"| {' | '.join(row)} |" for row in table]
    rule = "| --- " + "| ---: " * (len(table[0]) - 1) + "|"
    return "\n".join([head, rule, *rows]) + "\n"


# -- the picture


def draw(path: Path) -> None:
    """Draw what was measured as PNG, beside the JSON."""
    from tests.benchmarks.plot import png

    path.with_suffix(".png").write_bytes(png(read(path)))
