"""`batcher run --limit`: what some rows took, what the others will take, and how to go on."""

from __future__ import annotations

import time
from pathlib import Path

from batcher.cli.bar import cost_words, duration
from batcher.cli.estimating import UNKNOWN, limit_lines, rounded
from batcher.errors import BatcherError
from batcher.forecast import Forecast, forecast
from batcher.job import Job
from batcher.measured import Sums
from batcher.pricing import dollars, prices_of
from batcher.records import Standing
from batcher.results.calibration import counted_by_rule


def forecast_of(report: Standing, job: Job) -> Forecast | None:
    """What the rows that are left will take; None if none is left."""
    if report.measured is None:
        return None
    totals = report.totals
    spent_usd = None if totals.unpriced else totals.known_cost_usd
    rows_left = report.rows - totals.rows
    return forecast(
        report.measured,
        rows_left=rows_left,
        spent_usd=spent_usd,
        prices=prices_of(job),
        now=time.time(),
        prompt_tokens_left=_prompts_left(report, job),
    )


def _prompts_left(report: Standing, job: Job) -> float | None:
    """The tokens of the prompts that are left: those of the input by rule, as the endpoint counts, less those asked."""
    from batcher.run import dry_run

    try:
        ratio, found = counted_by_rule(Path(report.path)), dry_run(job)
    except BatcherError:  # the input is not there any more
        return None
    if ratio is None or report.measured is None or not found.rows_left:
        return None
    of_all = found.prompt_tokens / found.rows_left * report.rows * ratio
    return max(0.0, of_all - report.measured.prompt_tokens.mean * report.totals.rows)


def render_sample(report: Standing, found: Forecast, job: Job, *, found_limit: int, again: str) -> str:
    """The closing lines of a run that was to ask some rows only."""
    totals, measured = report.totals, report.measured
    lines = [
        f"{totals.rows:,} of {report.rows:,} rows: {totals.completed:,} completed, {totals.failed:,} failed;"
        f" {totals.prompt_tokens:,} prompt and {totals.completion_tokens:,} completion tokens,"
        f" cost {cost_words(totals.known_cost_usd, totals.unpriced, report.rows, report.rows)}",
    ]
    if totals.completed and measured is not None:
        lines += [
            f"a row:    {_mean(measured.prompt_tokens)} prompt and {_mean(measured.completion_tokens)} answer tokens,"
            " reasoning included",
            f"to go:    {found.rows_left:,} rows, about {rounded(found.prompt_tokens)} prompt and"
            f" {rounded(found.answer_tokens)} answer tokens",
            f"cost:     {_cost(found)}",
            f"time:     {_time(found, job, found_limit)}",
            *limit_lines(job, _all_tokens(report, found), found.cost_range),
        ]
    return "\n".join([*lines, f"the answers are kept; ask the rest with: {again}"])


def _all_tokens(report: Standing, found: Forecast) -> float:
    totals = report.totals
    return totals.prompt_tokens + totals.completion_tokens + found.prompt_tokens + found.answer_tokens


def _mean(sums: Sums) -> str:
    """A mean, and how far rows are from it."""
    return f"{sums.mean:,.0f} (give or take {sums.deviation:,.0f})" if sums.rows else "an unknown number of"


def _cost(found: Forecast) -> str:
    if found.cost_usd is None or found.cost_range is None:
        return UNKNOWN
    low, high = dollars(found.cost_range.low), dollars(found.cost_range.high)
    words = f"about {dollars(found.cost_usd)} for all rows ({low} to {high})"
    if found.cost_by_hour is not None:
        cheap, dear = dollars(found.cost_by_hour.low), dollars(found.cost_by_hour.high)
        words += f"; {cheap} at the cheapest hours, {dear} at the dearest"
    return words


def _time(found: Forecast, job: Job, found_limit: int) -> str:
    if found.latency_s is None:
        return "unknown"
    ceiling = job.limits.concurrency
    work_s = found.rows_left * found.latency_s
    words = f"about {duration(work_s / ceiling)} with {ceiling:,} requests at once (limits.concurrency)"
    if 0 < found_limit < ceiling:
        words += f", {duration(work_s / found_limit)} with {found_limit:,}, which is how far this run came"
    rate = job.limits.requests_per_minute
    if rate is not None:
        words += f"; at least {duration(60 * found.rows_left / rate)} by limits.requests_per_minute"
    return words
