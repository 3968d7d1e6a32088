"""What a person reads of the cost: on the bar, in the lines, in the status and in the closing report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from batcher.cli.bar import Bar, Lines, cost_words
from batcher.cli.running import as_values, render_report
from batcher.cli.status import render_status
from batcher.progress import Figures
from batcher.records import Standing, Totals


@pytest.mark.parametrize(
    ("cost", "unpriced", "done", "total", "words"),
    [
        (None, 0, 50, 100, "unknown"),
        (None, 7, 50, 100, "unknown"),
        (0.12, 0, 50, 100, "$0.12, about $0.24 in all"),
        (0.12, 0, 20, 1000, "$0.12, about $6.00 in all"),
        (0.12, 0, 19, 1000, "$0.12"),
        (0.12, 3, 50, 100, "at least $0.12"),
        (0.12, 0, 100, 100, "$0.12"),
        (0.12, 0, 2, 3, "$0.12, about $0.18 in all"),
        (0.0, 0, 0, 1, "$0.00"),
    ],
)
def test_cost_in_words(cost: float | None, unpriced: int, done: int, total: int, words: str) -> None:
    """The sum so far, what all rows may cost once some are done, and unknown where it is."""
    assert cost_words(cost, unpriced, done, total) == words


def test_what_answers_cost_adds_up() -> None:
    """An unknown cost is counted, and does not make the sum unknown or zero."""
    figures = Figures()
    figures.paid(None)
    assert (figures.cost_usd, figures.unpriced) == (None, 1)
    figures.paid(0.25)
    figures.paid(0.5)
    assert (figures.cost_usd, figures.unpriced) == (0.75, 1)


@pytest.mark.parametrize(
    ("totals", "cost"),
    [
        (Totals(), 0.0),
        (Totals(completed=3, prompt_tokens=9, cost_usd=0.5), 0.5),
        (Totals(completed=3, prompt_tokens=9, cost_usd=0.5, unpriced=1), 0.5),
        (Totals(completed=3, prompt_tokens=9, unpriced=3), None),
        (Totals(completed=3), None),
        (Totals(failed=3), 0.0),
        (Totals(completed=3, prompt_tokens=9), 0.0),
    ],
)
def test_the_known_cost_of_rows(totals: Totals, cost: float | None) -> None:
    """Nothing is known where no row has a price, or no answer says what it used; free is not unknown."""
    assert totals.known_cost_usd == cost


def report(**totals: Any) -> Standing:
    return Standing("out", 4, Totals(**{"completed": 4, "prompt_tokens": 80, "completion_tokens": 20, **totals}), 1)


def test_the_closing_report() -> None:
    """It says what the run cost; where that is unknown it says so, in words and as null."""
    assert "20 completion tokens, cost $0.12\n" in render_report(report(cost_usd=0.12))
    assert as_values(report(cost_usd=0.12))["totals"]["cost_usd"] == 0.12
    assert "cost unknown\n" in render_report(report(unpriced=4))
    assert as_values(report(unpriced=4))["totals"]["cost_usd"] is None
    assert "cost at least $0.12\n" in render_report(report(cost_usd=0.12, unpriced=2))


@pytest.mark.parametrize("make", [Bar, Lines])
def test_watchers_show_the_cost(make: type[Bar] | type[Lines]) -> None:
    """The bar and the lines show it as soon as it is known, and nothing before."""
    stream = io.StringIO()
    watcher = make(stream)
    watcher.started(Figures(total=100))
    assert "$" not in stream.getvalue()
    assert "unknown" not in stream.getvalue()
    watcher.finished(Figures(total=100, completed=50, cost_usd=0.12))
    assert "$0.12, about $0.24 in all" in stream.getvalue()


@pytest.mark.parametrize(
    ("more", "words"), [({"cost_usd": 0.12, "unpriced": 0}, "$0.12, about $0.24 in all"), ({}, "unknown")]
)
def test_the_status_shows_the_cost(more: dict[str, Any], words: str) -> None:
    """Of a summary that an older version wrote it is unknown."""
    counts = {"completed": 50, "failed": 0, "total": 100, "in_flight": 0, "waiting": 0, "ambiguous": 0}
    tokens = {"prompt_tokens": 1, "completion_tokens": 1}
    summary = {"state": "finished", "pid": 1, "why_waiting": None, "updated_at": "now", **counts, **tokens, **more}
    assert f"\ncost:   {words}\n" in render_status(Path("out"), summary)
