"""`batcher run --dry-run`: what a run would ask and cost, in a few lines or as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from batcher.cli.again import accepted
from batcher.cli.bar import duration
from batcher.cli.talk import say, visible_json
from batcher.cli.wanted import Wanted
from batcher.estimate import Estimate, Range
from batcher.job import Job
from batcher.pricing import Rates, dollars

if TYPE_CHECKING:
    from batcher.reopening import Retry

#: a cost nobody knows
UNKNOWN = "unknown: set pricing in the job file, or see what `pip install genai-prices` knows"


def show_estimate(
    wanted: Wanted, *, limit: int | None, as_json: bool, retry: Retry | None = None, accept_changes: bool = False
) -> int:
    """Print what a run would take; nothing is sent. Return 0."""
    from batcher.run import dry_run  # which takes the place of the function of that name in the package

    job = wanted.load()
    keys = accepted(retry, wanted.overrides, accept_changes=accept_changes)
    found = dry_run(job, limit=limit, retry=retry, accept_changes=keys)
    if as_json:
        say(visible_json(orjson.dumps(estimate_values(found)).decode()), sys.stdout)
    else:
        say(render_estimate(found, job), sys.stdout)
    return 0


def estimate_values(found: Estimate) -> dict[str, Any]:
    """The estimate as JSON values; prices in dollars per token, their times in seconds since 1970."""
    periods = [{"from": at, **rates._asdict()} for at, rates in found.price_periods]
    return {**asdict(found), "price_periods": periods}


def render_estimate(found: Estimate, job: Job) -> str:
    """The estimate in a line for each thing that a run takes."""
    lines = [
        f"rows:     {found.rows_left:,} to ask, of {found.rows:,} in the input",
        f"prompts:  about {rounded(found.prompt_tokens)} tokens"
        f" ({rounded(found.prompt_range.low)} to {rounded(found.prompt_range.high)}, by {_sampled(found)})",
        f"answers:  {_answers(found)}",
        f"cost:     {_cost(found)}",
        *_price_lines(found),
        f"time:     {_time(found, job)}",
        *limit_lines(job, found.prompt_range.high + (found.answer_tokens_at_most or 0), found.cost_usd),
        "nothing was sent",
    ]
    if found.refused:
        lines.insert(1, f"          {found.refused} of the {found.sampled} sampled rows cannot be asked and would fail")
    return "\n".join(lines) if found.rows_left else "every row has an outcome: nothing would be sent"


def rounded(number: float) -> str:
    """A number of which two digits are worth saying."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _sampled(found: Estimate) -> str:
    return f"the characters of {found.sampled:,} requests" if found.sampled > 1 else "the characters of one request"


def _answers(found: Estimate) -> str:
    if found.answer_tokens_at_most is None:
        return "of any length: parameters.max_tokens is not set"
    return f"at most {found.answer_tokens_at_most:,} tokens (parameters.max_tokens)"


def _cost(found: Estimate) -> str:
    if found.cost_usd is None:
        return UNKNOWN
    low, high = dollars(found.cost_usd.low), dollars(found.cost_usd.high)
    if not found.cost_is_bounded:
        return f"at least {low} to {high} for the prompts; the answers come on top"
    return f"{low} to {high}, if the answers are as short or as long as can be"


def limit_lines(job: Job, tokens: float, cost_usd: Range | None) -> list[str]:
    """Say which limits of the job are less than what may be used."""
    found = []
    if job.limits.max_total_tokens is not None and tokens > job.limits.max_total_tokens:
        found.append(f"limits:   limits.max_total_tokens ({job.limits.max_total_tokens:,}) may end the run earlier")
    if job.limits.max_cost_usd is not None and cost_usd is not None and cost_usd.high > job.limits.max_cost_usd:
        found.append(f"limits:   limits.max_cost_usd ({dollars(job.limits.max_cost_usd)}) may end the run earlier")
    return found


def _price_lines(found: Estimate) -> list[str]:
    if found.price_source is None:
        return []
    lines = price_words(found.price_source, found.price_periods)
    return [f"{'' if number else 'prices:':<9} {line}" for number, line in enumerate(lines)]


def price_words(source: str, periods: Sequence[tuple[float, Rates]]) -> list[str]:
    """Return lines that say what a million tokens cost at which hours of a day, and who says so."""
    hours: dict[Rates, list[str]] = {}
    begins = [at for at, _ in periods]
    for (at, rates), end in zip(periods, [*begins[1:], None], strict=True):
        since = "now" if at == begins[0] else _hour(at)
        hours.setdefault(rates, []).append(f"{since} on" if end is None else f"{since} to {_hour(end)}")
    lines = [
        _rates(rates) + (f", {' and '.join(spans)} UTC" if len(hours) > 1 else "") for rates, spans in hours.items()
    ]
    return [*lines, f"by {source}"]


def _hour(at: float) -> str:
    return time.strftime("%H:%M", time.gmtime(at))


def _rates(rates: Rates) -> str:
    prompt, cached, answer = (dollars(rate * 1e6) for rate in rates[:3])
    request = f", {dollars(rates.request)} a request" if rates.request else ""
    return f"{prompt} prompts, {cached} cached, {answer} answers a million tokens{request}"


def _time(found: Estimate, job: Job) -> str:
    words = (
        f"{duration(found.seconds_per_second)} for each second that an answer takes,"
        f" if the endpoint takes {job.limits.concurrency:,} requests at once"
    )
    return f"{words}; at least {duration(found.least_s)} by the rates in limits" if found.least_s else words
