"""The picture of the figures: CPU per row, CPU and memory by rows in flight, memory by rows. Made of the JSON alone."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.measure import median

Spec = dict[str, Any]

_OURS, _OTHERS = "#2563eb", "#94a3b8"
_WIDTH, _HEIGHT = 360, 200
_ORDER = ["RAW", "engine alone", "batcher", "batcher, asyncio", "NAIVE", "OAI-A", "OAI"]


def png(found: dict[str, Any]) -> bytes:
    """The picture, as PNG of twice the size it is shown in."""
    import vl_convert

    charts = []
    if "compare" in found:
        charts.append(_bars(found["compare"]["programs"]))
    if "memory" in found:
        charts.append(_memory(found["memory"]["rows"]))
    if "sweep" in found:
        charts.append(_lines(found["sweep"]["in_flight"], "cpu_us", "CPU per row, µs, by rows in flight", "log"))
        charts.append(_lines(found["sweep"]["in_flight"], "peak_mb", "Peak memory, MB, by rows in flight", "log"))
    if not charts:
        raise SystemExit("nothing of what is drawn was measured: compare, memory, sweep")
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "padding": 12,
        "columns": 2,
        "concat": charts,
        "resolve": {"scale": {"color": "shared"}},
        "config": {
            "view": {"stroke": None},
            "axis": {"labelFontSize": 12},
            "title": {"fontSize": 13, "anchor": "start"},
        },
    }
    return vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])


def _bars(programs: dict[str, Any]) -> Spec:
    """CPU of a row, whole product and others; a logarithmic axis, or the small ones were lines."""
    values = [
        {"name": name, "us": median(samples, "cpu_us"), "label": f"{median(samples, 'cpu_us'):,.0f}"}
        for name, samples in programs.items()
    ]
    y = {"field": "name", "type": "nominal", "sort": _ORDER, "title": None}
    x = {"field": "us", "type": "quantitative", "scale": {"type": "log"}, "title": None, "axis": {"grid": False}}
    ours = {"condition": {"test": "indexof(datum.name, 'batcher') == 0", "value": _OURS}, "value": _OTHERS}
    return {
        "title": "CPU per row, µs (500 in flight)",
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": values},
        "layer": [
            {"mark": {"type": "bar"}, "encoding": {"y": y, "x": x, "x2": {"datum": 10}, "color": ours}},
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 12},
                "encoding": {"y": y, "x": x, "text": {"field": "label"}},
            },
        ],
    }


def _lines(by_number: dict[str, Any], figure: str, title: str, scale: str) -> Spec:
    values = [
        {"at": int(number), "value": median(samples, figure), "name": name}
        for number, programs in by_number.items()
        for name, samples in programs.items()
    ]
    x = {"field": "at", "type": "quantitative", "scale": {"type": "log"}, "title": None}
    x["axis"] = {"grid": False, "values": sorted({value["at"] for value in values}), "format": ","}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"type": scale}, "axis": {"tickCount": 5}}
    return _chart(title, values, x, y)


def _memory(by_rows: dict[str, Any]) -> Spec:
    values = [
        {"at": f"{int(number):,}", "value": median(samples, "peak_mb"), "name": "batcher"}
        for number, samples in sorted(by_rows.items(), key=lambda item: int(item[0]))
    ]
    x = {"field": "at", "type": "ordinal", "sort": None, "title": None, "axis": {"labelAngle": 0}}
    y = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": True}, "axis": {"tickCount": 5}}
    return _chart("Peak memory, MB, by rows (500 in flight)", values, x, y)


def _chart(title: str, values: list[dict[str, Any]], x: Spec, y: Spec) -> Spec:
    colors = {"domain": ["batcher", "NAIVE", "RAW"], "range": [_OURS, "#ea580c", _OTHERS]}
    color = {"field": "name", "type": "nominal", "scale": colors, "title": None}
    return {
        "title": title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": values},
        "mark": {"type": "line", "point": {"size": 50, "filled": True}},
        "encoding": {"x": x, "y": y, "color": color},
    }
