"""The forecast from some rows: sums, how far they may be off, and the hours of the day."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest

from batcher.cli.sampling import forecast_of, render_sample
from batcher.forecast import forecast
from batcher.measured import Measured, Sums
from batcher.pricing import Prices, Rates, Tariff
from batcher.records import Standing, Totals
from tests.fakes import make_job

BY_HOUR = Prices("test", lambda at: Tariff(Rates(2e-6, 2e-6, 2e-6) if at % 86400 < 3600 else Rates(1e-6, 1e-6, 4e-6)))


def sums(values: Sequence[float]) -> Sums:
    return Sums(len(values), sum(values), sum(value * value for value in values))


def measured(prompt: Sequence[float], answer: Sequence[float], cost: Sequence[float] = ()) -> Measured:
    return Measured(sums(prompt), sums(answer), sums(cost), sums([2.0] * len(prompt)))


def test_sums() -> None:
    """Mean and deviation are the usual ones, added up as well as at once; of nothing they are 0."""
    random = Random(7)
    values = [random.uniform(0, 1e6) for _ in range(100)]
    found = sums(values[:30])
    found.add(sums(values[30:]))
    assert found.mean == pytest.approx(fmean(values))
    assert found.deviation == pytest.approx(stdev(values))
    assert (Sums().mean, Sums().deviation, sums([5.0]).deviation, sums([0.1] * 3).deviation) == (0, 0, 0, 0)


def test_the_rest() -> None:
    """Rows that are left use what others did on average; the cost is that of all rows, in a range."""
    found = forecast(measured([10, 20], [4, 6], [0.1, 0.3]), rows_left=100, spent_usd=0.4, prices=None, now=0.0)
    assert (found.rows_left, found.prompt_tokens, found.answer_tokens, found.latency_s) == (100, 1500, 500, 2.0)
    assert found.cost_usd == pytest.approx(20.4)
    assert found.cost_range is not None
    within = 2 * stdev([0.1, 0.3]) * 100 * (1 / 2 + 1 / 100) ** 0.5
    assert found.cost_range.high == pytest.approx(20.4 + within)
    assert found.cost_range.low == pytest.approx(0.4), "not less than is spent"
    assert found.cost_by_hour is None


def test_prompts_that_are_longer_than_those_asked() -> None:
    """What is known of the prompts that are left counts, in tokens and in dollars; answers are like the others."""
    known = {"rows_left": 100, "spent_usd": 0.4, "now": 3600.0, "prices": BY_HOUR}
    alike, longer = (
        forecast(measured([10, 20], [4, 6], [0.1, 0.3]), prompt_tokens_left=left, **known)  # type: ignore[arg-type]
        for left in (None, 5000.0)
    )
    assert (alike.prompt_tokens, longer.prompt_tokens, longer.answer_tokens) == (1500, 5000, 500)
    assert longer.cost_usd == pytest.approx((alike.cost_usd or 0) + 3500 * 1e-6)


def test_the_range_holds_the_truth() -> None:
    """Of many samples of rows that differ, nineteen in twenty give a range in which the cost of all rows is."""
    random = Random(7)
    rows = [random.uniform(0.5, 1.5) for _ in range(1000)]
    hits = 0
    for _ in range(200):
        random.shuffle(rows)
        found = forecast(
            measured([1] * 50, [1] * 50, rows[:50]), rows_left=950, spent_usd=sum(rows[:50]), prices=None, now=0.0
        )
        assert found.cost_range is not None
        hits += found.cost_range.low <= sum(rows) <= found.cost_range.high
    assert 180 <= hits < 200


def test_unknown_costs() -> None:
    """Without the price of any row, or of those that were asked, nothing is said."""
    for cost, spent in (((), 0.0), ((0.1,), None)):
        found = forecast(measured([10], [4], cost), rows_left=9, spent_usd=spent, prices=None, now=0.0)
        assert (found.cost_usd, found.cost_range, found.cost_by_hour) == (None, None, None)


def test_prices_by_the_hour() -> None:
    """What was measured now is scaled to the cheapest and the dearest hour."""
    found = forecast(measured([100], [100], [0.5]), rows_left=10, spent_usd=1.0, prices=BY_HOUR, now=7200.0)
    assert found.cost_by_hour is not None
    assert (found.cost_by_hour.low, found.cost_by_hour.high) == (pytest.approx(1 + 5 * 4 / 5), pytest.approx(6.0))


def report(totals: Totals, found: Measured | None) -> Standing:
    return Standing("out", 100, totals, 0, found)


def test_in_words(tmp_path: Path) -> None:
    """What a row used and how rows differ, what is to come, which limits are in the way, and how to go on."""
    found = measured([10.0] * 4, [4, 6, 4, 6], [0.1] * 4)
    totals = Totals(completed=4, prompt_tokens=40, completion_tokens=20, cost_usd=0.4)
    job = make_job(tmp_path, pricing={"input": 1.0, "output": 1.0}, limits={"concurrency": 64, "max_cost_usd": 5.0})
    given = report(totals, found)
    rest = forecast_of(given, job)
    assert rest is not None
    words = render_sample(given, rest, job, found_limit=16, again="batcher run job.yaml")
    assert words.splitlines() == [
        "4 of 100 rows: 4 completed, 0 failed; 40 prompt and 20 completion tokens, cost $0.40",
        "a row:    10 (give or take 0) prompt and 5 (give or take 1) answer tokens, reasoning included",
        "to go:    96 rows, about 960 prompt and 480 answer tokens",
        "cost:     about $10.00 for all rows ($10.00 to $10.00)",
        "time:     about 3 s with 64 requests at once (limits.concurrency), 12 s with 16,"
        " which is how far this run came",
        "limits:   limits.max_cost_usd ($5.00) may end the run earlier",
        "the answers are kept; ask the rest with: batcher run job.yaml",
    ]


def test_in_words_without_prices(tmp_path: Path) -> None:
    """An unknown cost is called so, also where only some rows have none; no completed row foretells nothing."""
    found = measured([10.0] * 4, [4] * 4, [0.1] * 2)
    for totals in (Totals(completed=4, prompt_tokens=40, cost_usd=0.2, unpriced=2), Totals(completed=4)):
        rest = forecast_of(report(totals, found), make_job(tmp_path))
        assert rest is not None
        words = render_sample(report(totals, found), rest, make_job(tmp_path), found_limit=300, again="again")
        assert "\ncost:     unknown" in words
        assert "how far this run came" not in words
    failed = report(Totals(failed=4), measured([], []))
    rest = forecast_of(failed, make_job(tmp_path))
    assert rest is not None
    assert len(render_sample(failed, rest, make_job(tmp_path), found_limit=8, again="again").splitlines()) == 2


def test_nothing_is_left(tmp_path: Path) -> None:
    """A run that asked all rows has no forecast."""
    assert forecast_of(report(Totals(completed=100), None), make_job(tmp_path)) is None
