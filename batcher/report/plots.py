"""The plots of a report: Vega-Lite specifications, drawn as SVG without a browser and without a network.

Only numbers of ours and fixed words go into a plot, never text of rows or servers. Colours are CSS variables of the
page, so that one drawing suits a light, a dark and a printed page; every plot is drawn wide and narrow, for a screen
and for a phone. The only module that knows the plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import vl_convert

from batcher.report.pace import Slice
from batcher.report.sketch import Bar

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The size of a drawing, in CSS pixels, and how much goes on it."""

    width: int
    height: int
    font: int
    slices: int
    bars: int
    ticks: int


WIDE = Canvas(width=860, height=170, font=12, slices=150, bars=60, ticks=9)
NARROW = Canvas(width=380, height=170, font=13, slices=70, bars=30, ticks=6)


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot, drawn twice (SVG), and what it shows in a sentence."""

    wide: str
    narrow: str
    words: str


def draw(specification: Callable[[Canvas], Spec], words: str) -> Plot:
    """Draw a plot for both widths."""
    return Plot(_svg(specification(WIDE), WIDE), _svg(specification(NARROW), NARROW), words)


def _svg(spec: Spec, canvas: Canvas) -> str:
    text = {"labelFontSize": canvas.font, "labelColor": "var(--muted)", "labelFont": "var(--font)"}
    axis = {**text, "domainColor": "var(--line)", "tickColor": "var(--line)", "gridColor": "var(--line)"}
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": canvas.width,
        "height": canvas.height,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        "padding": {"left": 0, "right": 8, "top": 8, "bottom": 0},
        "config": {"view": {"stroke": None}, "axis": axis, "text": {"font": "var(--font)", "fontSize": canvas.font}},
        **spec,
    }
    return vl_convert.vegalite_to_svg(whole, allowed_base_urls=[])


# -- over time


@dataclass(frozen=True, slots=True)
class Series:
    """A number of a slice, and how it is drawn."""

    name: str
    label: str
    #: a variable of the style sheet
    color: str
    mark: Literal["area", "line"]


def over_time(canvas: Canvas, slices: Sequence[Slice], series: Sequence[Series], restarts: Sequence[float]) -> Spec:
    """Steps over the time of work, with a rule wherever the run was resumed."""
    unit_s, unit = _unit(slices[-1].end_s)
    rows = [{**asdict(part), "at": part.start_s / unit_s} for part in slices]
    rows.append({**rows[-1], "at": slices[-1].end_s / unit_s})
    highest = max(row[one.name] for row in rows for one in series) or 1.0
    x: Spec = {
        "field": "at",
        "type": "quantitative",
        "scale": {"domain": [0, rows[-1]["at"]], "nice": False},
        "axis": {"grid": False, "tickCount": canvas.ticks, "title": None, "labelExpr": f"datum.label + ' {unit}'"},
    }
    layers: list[Spec] = [{"data": {"values": rows}, "layer": [_steps(one, x, highest) for one in series]}]
    if restarts:
        times = [{"at": at / unit_s} for at in restarts]
        rule = {"type": "rule", "color": "var(--muted)", "strokeDash": [3, 3], "strokeWidth": 1}
        layers.append({"data": {"values": times}, "mark": rule, "encoding": {"x": x}})
    return {"layer": layers}


def _steps(one: Series, x: Spec, highest: float) -> Spec:
    color = f"var(--{one.color})"
    mark: Spec = {"type": one.mark, "interpolate": "step-after", "color": color, "strokeWidth": 1.5}
    if one.mark == "area":
        mark |= {"fillOpacity": 0.18, "line": {"color": color, "strokeWidth": 1.5}, "strokeWidth": 0}
    y: Spec = {
        "field": one.name,
        "type": "quantitative",
        "stack": None,
        "scale": {"domain": [0, highest], "nice": True, "zero": True},
        "axis": _height_axis(highest),
    }
    return {"mark": mark, "encoding": {"x": x, "y": y}}


def _unit(seconds: float) -> tuple[float, str]:
    """The unit in which so many seconds are best told."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 3 * size:
            return size, name
    return 1, "s"


def _height_axis(highest: float) -> Spec:
    """A vertical axis that goes up to `highest`, as wide in every plot so that they stand exactly below each other."""
    number = "~s" if highest >= 10_000 else ",.2~f" if highest >= 1 else ".2~r"
    return {
        "title": None,
        "format": number,
        "labelExpr": "datum.value ? datum.label : '0'",
        "tickCount": 4,
        "minExtent": 46,
        "domain": False,
        "ticks": False,
    }


# -- distributions


def durations(canvas: Canvas, bars: Sequence[Bar], marks: dict[str, float]) -> Spec:
    """A histogram of seconds on a logarithmic axis, with a rule at each of `marks`."""
    low, high = bars[0].low, bars[-1].high
    if high / low < 2:  # one row, or rows like one another: a bar needs an axis around it
        low, high = low / 1.5, high * 1.5
    x = {"type": "quantitative", "scale": {"type": "log", "domain": [low, high], "nice": False}}
    highest = max(bar.count for bar in bars)
    axis = {"grid": False, "title": None, "values": _ticks(low, high, canvas.ticks), "labelExpr": _IN_WORDS}
    y = {
        "field": "count",
        "type": "quantitative",
        "scale": {"domain": [0, highest * 1.3]},  # room for the names of the rules
        "axis": {**_height_axis(highest), **({"values": [*range(highest + 1)]} if highest <= 4 else {})},
    }
    edges = {"x": {**x, "field": "low", "axis": axis}, "x2": {"field": "high"}}
    return {
        "layer": [
            {
                "data": {"values": [asdict(bar) for bar in bars]},
                "mark": {"type": "bar", "color": "var(--accent)", "fillOpacity": 0.75, "binSpacing": 1},
                "encoding": {**edges, "y": y, "y2": {"datum": 0}},
            },
            *(_mark(name, value, row, x, canvas) for row, (name, value) in enumerate(marks.items())),
        ]
    }


def _mark(name: str, value: float, row: int, x: Spec, canvas: Canvas) -> Spec:
    """A rule with its name beside it; names stand in rows, so that rules close to each other stay readable."""
    at = {"x": {**x, "field": "at"}}
    label = {"type": "text", "text": name, "align": "left", "baseline": "top", "dx": 4, "color": "var(--ink)"}
    return {
        "data": {"values": [{"at": value}]},
        "layer": [
            {"mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1}, "encoding": at},
            {"mark": {**label, "y": row * (canvas.font + 3)}, "encoding": at},
        ],
    }


_IN_WORDS = (
    "datum.value < 0.9995 ? format(datum.value * 1000, '~r') + ' ms'"
    " : datum.value < 60 ? format(datum.value, '~r') + ' s'"
    " : datum.value < 3600 ? format(datum.value / 60, '~r') + ' min'"
    " : format(datum.value / 3600, '~r') + ' h'"
)
#: round numbers of seconds, in their units
_ROUND = [
    *(number * 10**power for power in range(-4, 1) for number in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400),
]


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most about so many; at least one number."""
    inside = [number for number in _ROUND if low <= number <= high]
    if not inside:
        return [float(f"{math.sqrt(low * high):.2g}")]
    return inside[:: math.ceil(len(inside) / most)]
