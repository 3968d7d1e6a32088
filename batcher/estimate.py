"""What a run would ask and use, before anything is sent: an estimate from a sample of its requests.

Tokens are counted by DeepSeek's rule of thumb, 0.3 a character and 0.6 a Chinese one, which is right to about 30 %; how
long answers get is not known, only how long `max_tokens` lets them be. So the results are ranges, from the least that
is plausible to the most. Requests are built by the run's own builder, from rows spread over the whole input.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Final

import orjson

from batcher.budget import answer_limit
from batcher.job import Job
from batcher.plan import Plan
from batcher.pricing import Prices, Rates
from batcher.prompt import Builder
from batcher.records import Row, Shard
from batcher.selection import spread_rows
from batcher.source import read

#: rows whose requests are built: at most so many, and of long rows fewer, so that they stay within so many bytes
_SAMPLE: Final = 400
_LEAST_SAMPLE: Final = 20
_SAMPLE_BYTES: Final = 64 << 20
#: above this size only the beginnings of shards are read for a choice of rows, for the sample of so many shards
LARGE_BYTES: Final = 256 << 20
_SAMPLE_SHARDS: Final = 40
#: bytes read at a time: little, as there are long jumps between rows
_BLOCK_BYTES: Final = 128 << 10
#: tokens of a character: Chinese, Japanese or Korean, and any other
_WIDE_TOKENS: Final = 0.6
_TOKENS: Final = 0.3
_WIDE: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+")
#: how wrong that rule may be, either way
_ERROR: Final = 0.3
#: standard errors of the sample's mean that count
_ERRORS_OF_MEAN: Final = 2.0
#: a shorter common beginning is not cached by anybody
_LEAST_CACHED: Final = 64


@dataclass(frozen=True, slots=True)
class Range:
    """From the least to the most that is plausible."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What asking the rows that are left may take; sums over these rows."""

    #: rows of the input, and those among them without an outcome
    rows: int
    rows_left: int
    #: rows of the sample, and those among them that cannot be asked
    sampled: int
    refused: int
    prompt_tokens: float
    prompt_range: Range
    #: None: nothing bounds them
    answer_tokens_at_most: int | None
    #: None: prices are unknown
    cost_usd: Range | None
    #: False: `cost_usd.high` is that of the prompts alone, since nothing bounds the answers
    cost_is_bounded: bool
    #: where the prices come from, and which rates begin when, from now on for a day; None and empty: unknown
    price_source: str | None
    price_periods: tuple[tuple[float, Rates], ...]
    #: seconds that the run takes for each second that an answer does
    seconds_per_second: float
    #: seconds that the job's own rates make it take at least
    least_s: float


def estimate(job: Job, plan: Plan, builder: Builder, prices: Prices | None, *, rows_left: int, now: float) -> Estimate:
    """Return what `rows_left` rows of a plan may take, if they are like those of a sample.

    Raises:
        InputError: the input cannot be read.
    """
    sample = _take_sample(plan, builder)
    askable = rows_left * len(sample.counts) / max(1, sample.rows)
    tokens, spread = _tokens_of_one(sample.counts, of_rows=plan.rows)
    prompts = Range(askable * tokens * (1 - spread), askable * tokens * (1 + spread))
    most = answer_limit(job)
    answers = None if most is None else round(askable * most)
    periods = tuple(prices.periods(now, tokens)) if prices else ()
    cached = sample.cached_tokens / tokens if tokens else 0.0
    costs = [
        Range(
            _cost(rates, askable, prompts.low, askable, cached_share=cached),
            _cost(rates, askable, prompts.high, answers or askable, cached_share=0.0),
        )
        for _, rates in periods
    ]
    limits = job.limits
    return Estimate(
        rows=plan.rows,
        rows_left=rows_left,
        sampled=sample.rows,
        refused=sample.rows - len(sample.counts),
        prompt_tokens=askable * tokens,
        prompt_range=prompts,
        answer_tokens_at_most=answers,
        cost_usd=Range(min(cost.low for cost in costs), max(cost.high for cost in costs)) if costs else None,
        cost_is_bounded=answers is not None,
        price_source=prices.words() if prices else None,
        price_periods=periods,
        seconds_per_second=askable / limits.concurrency,
        least_s=max(
            60 * askable / limits.requests_per_minute if limits.requests_per_minute else 0.0,
            60 * askable * tokens / limits.tokens_per_minute if limits.tokens_per_minute else 0.0,
        ),
    )


def count_tokens(text: str) -> float:
    """Return roughly what a tokenizer would count."""
    wide = 0 if text.isascii() else sum(map(len, _WIDE.findall(text)))
    return _TOKENS * (len(text) - wide) + _WIDE_TOKENS * wide


@dataclass(slots=True)
class _Sample:
    """What is known of the requests of some rows."""

    rows: int = 0
    #: tokens of each prompt that can be asked
    counts: list[float] = field(default_factory=list)
    #: how all of them begin
    beginning: str = ""

    def add(self, text: str | None) -> None:
        """Count a row by what the model would read; None for one that cannot be asked."""
        self.rows += 1
        if text is not None:
            self.beginning = os.path.commonprefix([self.beginning, text]) if self.counts else text  # noqa: RUF071 - so meant
            self.counts.append(count_tokens(text))

    @property
    def cached_tokens(self) -> float:
        """Tokens of the common beginning, if it is long enough for a provider's cache."""
        common = count_tokens(self.beginning) if len(self.counts) > 1 else 0.0
        return common if common >= _LEAST_CACHED else 0.0


def _take_sample(plan: Plan, builder: Builder) -> _Sample:
    """Build the requests of rows spread over the input."""
    sample = _Sample()
    for chunk in read(plan.files, _chosen(plan), plan.schema, max_bytes=_BLOCK_BYTES):
        only = chunk.shard.only
        for row in chunk.rows:
            if only is None or row.row_index in only:
                sample.add(_text(row, builder))
    return sample


def _chosen(plan: Plan) -> list[Shard]:
    """The shards with the rows of the sample in them; of a large input few, and only their beginnings."""
    count = int(_SAMPLE_BYTES * plan.rows / max(1, plan.input_bytes))
    count = min(_SAMPLE, max(_LEAST_SAMPLE, count))
    is_large = plan.input_bytes > LARGE_BYTES
    step = math.ceil(len(plan.shards) / _SAMPLE_SHARDS) if is_large else 1
    return spread_rows(plan.shards[::step], lambda _: frozenset(), count, at_heads=is_large)


def _text(row: Row, builder: Builder) -> str | None:
    if row.problem is not None:
        return None
    try:
        return text_of(orjson.loads(builder.build(row.values).body))
    except Exception:  # as in a run: whatever its values do, the row is one that cannot be asked
        return None


def text_of(request: dict[str, Any]) -> str:
    """Return all that the model reads of a request, as one text."""
    parts = [request.get("system_prompt"), request.get("prompt")]
    for message in request.get("messages", ()):
        content = message.get("content")
        parts += [part.get("text") for part in content] if isinstance(content, list) else [content]
    return "\n".join(part for part in parts if isinstance(part, str))


def _tokens_of_one(counts: Sequence[float], *, of_rows: int) -> tuple[float, float]:
    """Tokens of an average prompt, and by which share of it that may be wrong."""
    if not counts or not sum(counts):
        return 0.0, _ERROR
    mean = fmean(counts)
    if len(counts) == 1:
        return mean, _ERROR
    unseen = max(0.0, 1 - len(counts) / of_rows)
    return mean, min(1.0, _ERROR + _ERRORS_OF_MEAN * math.sqrt(unseen / len(counts)) * stdev(counts) / mean)


def _cost(rates: Rates, requests: float, prompt_tokens: float, answer_tokens: float, *, cached_share: float) -> float:
    prompt = cached_share * rates.cached_input + (1 - cached_share) * rates.input
    return prompt_tokens * prompt + answer_tokens * rates.output + requests * rates.request
