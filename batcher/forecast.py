"""What the rest of a run will take, from what its first rows took. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batcher.estimate import Range
from batcher.measured import Measured, Sums
from batcher.pricing import Prices, Rates

#: standard errors either way that a range covers
_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rows that are left will use if they are like those that were asked; sums over these rows."""

    rows_left: int
    prompt_tokens: float
    answer_tokens: float
    #: of all rows, those that were asked included; None: what the answers cost is not known
    cost_usd: float | None
    cost_range: Range | None
    #: of all rows at the cheapest and at the dearest hour of the day; None where prices do not change
    cost_by_hour: Range | None
    #: how long an answer takes
    latency_s: float | None


def forecast(
    measured: Measured,
    *,
    rows_left: int,
    spent_usd: float | None,
    prices: Prices | None,
    now: float,
    prompt_tokens_left: float | None = None,
) -> Forecast:
    """Return what `rows_left` rows will take; `spent_usd` is what the others cost.

    Answers are taken to be like those that came. Prompts can be looked at before they are sent: `prompt_tokens_left` is
    what that gave for the rows that are left, None if they are to be taken as like the others.
    """
    cost = measured.cost_usd
    as_measured = rows_left * measured.prompt_tokens.mean
    prompts = as_measured if prompt_tokens_left is None else prompt_tokens_left
    rest, by_hour, spread = None, None, None
    if cost.rows and spent_usd is not None:
        rest = max(0.0, rows_left * cost.mean + (prompts - as_measured) * _input_rate(measured, prices, now))
        within = _uncertainty(cost, rows_left)
        spread = Range(spent_usd + max(0.0, rest - within), spent_usd + rest + within)
        scales = _scales(measured, prices, now)
        if scales is not None:
            by_hour = Range(spent_usd + rest * scales.low, spent_usd + rest * scales.high)
    return Forecast(
        rows_left=rows_left,
        prompt_tokens=prompts,
        answer_tokens=rows_left * measured.completion_tokens.mean,
        cost_usd=None if rest is None or spent_usd is None else spent_usd + rest,
        cost_range=spread,
        cost_by_hour=by_hour,
        latency_s=measured.latency_s.mean if measured.latency_s.rows else None,
    )


def _input_rate(measured: Measured, prices: Prices | None, now: float) -> float:
    """US dollars of a token of a prompt, now; 0 if nobody knows."""
    periods = prices.periods(now, measured.prompt_tokens.mean) if prices else ()
    return periods[0][1].input if periods else 0.0


def _uncertainty(sums: Sums, rows_left: int) -> float:
    """How far the sum over further rows may be from what the mean says: the mean is uncertain, and so is each row."""
    return _ERRORS * sums.deviation * rows_left * math.sqrt(1 / sums.rows + 1 / max(1, rows_left))


def _scales(measured: Measured, prices: Prices | None, now: float) -> Range | None:
    """How much of the present price is asked at the cheapest and the dearest hour."""
    if prices is None or len(periods := prices.periods(now, measured.prompt_tokens.mean)) < 2:
        return None
    costs = [_cost(measured, rates) for _, rates in periods]
    return Range(min(costs) / costs[0], max(costs) / costs[0]) if costs[0] else None


def _cost(measured: Measured, rates: Rates) -> float:
    return measured.prompt_tokens.mean * rates.input + measured.completion_tokens.mean * rates.output + rates.request
