"""The plots of the page, with what stands beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import minijinja

from batcher.report.gather import Findings
from batcher.report.pace import Slice
from batcher.report.plots import NARROW, WIDE, Canvas, Plot, Series, draw, durations, over_time
from batcher.report.visible import one_line
from batcher.report.words import count, duration, share, short

#: reasons that are listed
_WAITS = 12
#: rules that say where a run was resumed; more of them would hide the plot
_RESTARTS = 30
_QUANTILES = (("median", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))


_IN_FLIGHT = (
    Series("in_flight", "in flight", "accent", "area"),
    Series("limit", "limit", "second", "line"),
)
_ROWS = (
    Series("completed", "completed", "accent", "area"),
    Series("failed", "failed", "bad", "area"),
)
_TOKENS = (
    Series("completion_tokens", "completion", "accent", "area"),
    Series("prompt_tokens", "prompt", "second", "line"),
)


def pace(findings: Findings) -> dict[str, Any] | None:
    """Plots of the record over time; None if there is none."""
    record = findings.pace
    slices = {canvas: record.slices(canvas.slices) for canvas in (WIDE, NARROW)}
    if not slices[WIDE]:
        return None
    restarts = record.restarts()
    shown = [("Rows per second", _ROWS if findings.facts.failed else _ROWS[:1]), ("Requests in flight", _IN_FLIGHT)]
    if any(part.prompt_tokens or part.completion_tokens for part in slices[WIDE]):
        shown.append(("Tokens per second", _TOKENS))
    return {
        "plots": [_over_time(title, series, slices, restarts[:_RESTARTS]) for title, series in shown],
        "resumed": len(restarts),
        "retries": count(record.retries),
        "waits": [
            (one_line(reason, 200), duration(seconds), share(seconds, record.active_s))
            for reason, seconds in record.waits()[:_WAITS]
        ],
    }


def _over_time(
    title: str, series: Sequence[Series], slices: Mapping[Canvas, Sequence[Slice]], restarts: Sequence[float]
) -> dict[str, Any]:
    highest = (f"{one.label} at most {short(max(getattr(part, one.name) for part in slices[WIDE]))}" for one in series)
    plot = draw(lambda canvas: over_time(canvas, slices[canvas], series, restarts), f"{title}: {', '.join(highest)}")
    return {"title": title, "legend": series, **_drawn(plot)}


def _drawn(plot: Plot) -> dict[str, Any]:
    return {"wide": minijinja.safe(plot.wide), "narrow": minijinja.safe(plot.narrow), "words": plot.words}


def latency(findings: Findings) -> dict[str, Any] | None:
    sketch = findings.facts.latency_s
    if not sketch.count:
        return None
    at = {name: sketch.quantile(part) or 0.0 for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    said = f"half of the rows within {duration(at['p50'])}, 99 % within {duration(at['p99'])}"
    fine_enough = math.ceil(3 * math.sqrt(sketch.count))  # more bars than rows can fill would only show chance
    plot = draw(lambda canvas: durations(canvas, sketch.bars(min(canvas.bars, fine_enough)), at), said)
    return {
        **_drawn(plot),
        "numbers": [
            ("fastest", duration(sketch.smallest)),
            *((name, duration(sketch.quantile(part))) for name, part in _QUANTILES),
            ("slowest", duration(sketch.largest)),
            ("mean", duration(sketch.mean)),
        ],
    }
