"""What a report says about many rows: sums, distributions, causes and slowest rows, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.part import RESULT, result_columns
from batcher.records import ApiError, Outcome, Totals
from batcher.report.facts import COLUMNS, SLOWEST, Facts, collect
from batcher.report.sketch import SMALLEST, Sketch
from batcher.report.tally import MOST, Causes, Tally
from tests.fakes import body_of, outcome

DETAILED = body_of(
    model="served",
    usage={
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
)


def batch_of(outcomes: list[Outcome]) -> pa.RecordBatch:
    """The rows as a report reads them from parts."""
    batch = pa.RecordBatch.from_arrays(result_columns(outcomes, Totals()), schema=RESULT)
    return batch.select(list(COLUMNS))


def facts_of(outcomes: list[Outcome], size: int = 1000) -> Facts:
    """What the report says about these rows, read so many at a time."""
    return collect(batch_of(outcomes[first : first + size]) for first in range(0, len(outcomes), size))


def failed(row_index: int, code: str | None = "bad", message: str = "no", **changes: Any) -> Outcome:
    """A row that failed with this error."""
    http_status = changes.pop("http_status", 400)
    error = ApiError(message, code=code, http_status=http_status, type=changes.pop("type", None))
    return outcome(row_index, failed="x", error=error, **changes)


# -- sketch


def sketch_of(*numbers: float | None) -> Sketch:
    """A sketch of some numbers."""
    sketch = Sketch()
    sketch.add(pa.array(numbers, pa.float64()))
    return sketch


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_a_quantile_is_within_one_percent(share: float) -> None:
    """Of 20,000 numbers that spread over six powers of ten."""
    random = Random(5)
    numbers = sorted(random.lognormvariate(0, 2) for _ in range(20_000))
    sketch = Sketch()
    for first in range(0, len(numbers), 777):
        sketch.add(pa.array(numbers[first : first + 777]))
    exact = numbers[max(0, math.ceil(share * len(numbers)) - 1)]
    assert sketch.quantile(share) == pytest.approx(exact, rel=0.0101)
    assert (sketch.smallest, sketch.largest, sketch.count) == (numbers[0], numbers[-1], len(numbers))
    assert sketch.mean == pytest.approx(sum(numbers) / len(numbers))
    assert len(sketch._buckets) < 1500


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9, allow_subnormal=False)), max_size=60), st.integers(1, 40))
def test_a_histogram_counts_every_number_once(numbers: list[float | None], most: int) -> None:
    """Its bars are at most as many as asked for, join without a gap, and hold all numbers that are known."""
    bars = sketch_of(*numbers).bars(most)
    known = [number for number in numbers if number is not None]
    assert len(bars) <= most
    assert sum(bar.count for bar in bars) == len(known)
    assert all(left.high == right.low for left, right in itertools.pairwise(bars))
    if known:
        assert bars[0].low <= max(min(known), SMALLEST) * 1.0001
        assert bars[-1].high >= max(*known, SMALLEST) * 0.9999


def test_what_is_no_duration_is_left_out() -> None:
    """Nulls, infinities, what is not a number or negative count nowhere; zero counts."""
    sketch = sketch_of(None, math.nan, math.inf, -math.inf, -1.0, 0.0, 2.0)
    assert (sketch.count, sketch.total, sketch.smallest, sketch.largest) == (2, 2.0, 0.0, 2.0)
    assert sketch_of(None, None).quantile(0.5) is None
    assert sketch_of().mean is None


def test_small_counts_are_exact_when_rounded() -> None:
    """A token count below fifty is what it was."""
    for number in range(1, 50):
        assert round(sketch_of(*[number] * 9, 100.0).quantile(0.5) or 0) == number


# -- tally and causes


def test_a_tally_tells_a_bounded_number_of_texts_apart() -> None:
    """What a server makes up beyond that is counted as others."""
    tally = Tally()
    tally.add(pa.array(["stop"] * 50 + [None] * 7))
    for first in range(0, 1000, 100):
        tally.add(pa.array([f"reason {number}" for number in range(first, first + 100)] + ["stop"]))
    assert len(tally.counts) == MOST
    assert tally.largest(2) == [("stop", 60), (None, 7)]
    assert tally.beyond(2) == 1000


def test_texts_that_only_differ_far_behind_are_one() -> None:
    """A megabyte of text is not kept."""
    tally = Tally()
    tally.add(pa.array(["x" * 1_000_000 + end for end in "abc"]))
    ((text, count),) = tally.counts.items()
    assert count == 3
    assert len(text or "") < 200


def test_failures_are_grouped_by_cause_with_examples() -> None:
    """Code and status make a cause; its examples are different messages, each with the first row that met it."""
    rows = [
        *(failed(row, "filter", f"message {row % 5}") for row in range(40)),
        *(failed(row, "filter", "teapot", http_status=418) for row in range(40, 45)),
        *(failed(row, None, "typed", type="overloaded", http_status=None) for row in range(45, 47)),
        failed(47, None, "mute", http_status=None),
    ]
    causes = facts_of(rows, size=7).causes.sorted()
    assert [(cause.code, cause.http_status, cause.count) for cause in causes] == [
        ("filter", 400, 40),
        ("filter", 418, 5),
        ("overloaded", None, 2),
        (None, None, 1),
    ]
    assert causes[0].examples == {"message 0": 0, "message 1": 1, "message 2": 2}
    assert causes[2].examples == {"typed": 45}


def test_causes_are_bounded() -> None:
    """A server that makes up a code for every row fills no memory."""
    causes = Causes()
    batch = batch_of([failed(row, f"code {row}", "m" * 10_000) for row in range(3 * MOST)])
    causes.add(batch["row_index"], batch["error"])
    assert len(causes.sorted()) == MOST
    assert causes.others == 2 * MOST
    assert all(len(message or "") <= 500 for cause in causes.sorted() for message in cause.examples)


# -- facts


def some_outcomes(count: int) -> Iterator[Outcome]:
    """Rows of every kind, by seed."""
    random = Random(11)
    for row in range(count):
        times: dict[str, Any] = {"latency_s": random.lognormvariate(0, 1), "requested_at": 1000.0 + random.random()}
        times["attempts"] = random.choice([1, 1, 2, 12])
        if random.random() < 0.2:
            yield failed(row, random.choice("abc"), f"message {random.randrange(10)}", **times)
        else:
            yield outcome(row, body=DETAILED, cost_usd=random.choice([None, 0.25]), **times)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400))
def test_the_facts_do_not_depend_on_how_rows_are_read(size: int) -> None:
    """However the rows come in batches, the same is said about them."""
    rows = list(some_outcomes(300))
    one, other = facts_of(rows, len(rows)), facts_of(rows, size)
    for name in ("rows", "completed", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "unpriced"):
        assert getattr(one, name) == getattr(other, name)
    assert one.cost_usd == other.cost_usd
    assert one.attempts == other.attempts
    assert one.slowest == other.slowest
    assert (one.first_at, one.last_at) == (other.first_at, other.last_at)
    assert [one.latency_s.quantile(share) for share in (0.1, 0.5, 0.9)] == [
        other.latency_s.quantile(share) for share in (0.1, 0.5, 0.9)
    ]
    assert {(cause.code, cause.count) for cause in one.causes.sorted()} == {
        (cause.code, cause.count) for cause in other.causes.sorted()
    }


def test_the_facts_are_those_of_the_rows() -> None:
    """Counts, sums and the slowest rows agree with the rows added up one by one."""
    rows = list(some_outcomes(500))
    facts = facts_of(rows, 64)
    completed = [row for row in rows if row.status == "completed"]
    assert (facts.rows, facts.completed, facts.failed) == (500, len(completed), 500 - len(completed))
    assert (facts.prompt_tokens, facts.completion_tokens) == (3 * len(completed), 5 * len(completed))
    assert (facts.cached_tokens, facts.reasoning_tokens) == (2 * len(completed), 4 * len(completed))
    assert facts.cost_usd == 0.25 * sum(row.cost_usd is not None for row in rows)
    assert facts.unpriced == sum(row.cost_usd is None for row in completed)
    assert facts.finish_reasons.counts == {"stop": len(completed)}
    assert facts.models.counts == {"served": len(completed)}
    assert facts.attempts == Counter(min(row.attempts, 10) for row in rows)
    assert facts.latency_s.count == len(completed)
    by_time = sorted(rows, key=lambda row: (-(row.latency_s or 0), row.row_index))
    assert [row["row_index"] for row in facts.slowest] == [row.row_index for row in by_time[:SLOWEST]]
    assert facts.first_at is not None
    assert facts.last_at is not None
    assert facts.first_at.timestamp() == pytest.approx(min(row.requested_at or 0 for row in rows), abs=1e-5)
    ends = [(row.requested_at or 0) + (row.latency_s or 0) for row in rows]
    assert facts.last_at.timestamp() == pytest.approx(max(ends), abs=1e-5)


def test_what_nobody_says_is_unknown() -> None:
    """Without usage and prices there are no cached tokens, no cost, and every completed row is uncounted; never 0."""
    mute = body_of(usage=None)
    rows = [outcome(row, body=mute, prompt_tokens=None, completion_tokens=None) for row in range(3)]
    facts = facts_of([*rows, failed(3)])
    assert (facts.cost_usd, facts.cached_tokens, facts.reasoning_tokens) == (None, None, None)
    assert (facts.uncounted, facts.unpriced, facts.prompt_sizes.count) == (3, 0, 0)


def test_rows_that_were_never_sent() -> None:
    """A row that could not be asked has no times; the others' are told."""
    unsent = failed(0, "bad_row", latency_s=None, requested_at=None, attempts=0)
    facts = facts_of([unsent])
    assert (facts.first_at, facts.last_at, facts.slowest) == (None, None, [])
    facts = facts_of([unsent, outcome(1)], size=1)
    assert facts.first_at is not None
    assert [row["row_index"] for row in facts.slowest] == [1]


def test_counts_that_do_not_fit_are_added_up_all_the_same() -> None:
    """A server that claims 2^62 tokens a row makes no negative sum."""
    huge = 1 << 62
    rows = [outcome(row, prompt_tokens=huge) for row in range(5)]
    assert facts_of(rows).prompt_tokens == 5 * huge


def test_no_rows() -> None:
    """Nothing at all is said about no rows."""
    facts = collect(iter(()))
    assert (facts.rows, facts.slowest, facts.latency_s.count) == (0, [], 0)
    assert facts.causes.sorted() == []
    assert facts.finish_reasons.largest(3) == []
    assert facts.cost_usd is None
