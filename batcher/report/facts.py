"""What the rows of a run say together: one pass over them, in memory that does not grow with their number.

Knows the columns that batcher adds (`part.RESULT`), not where the rows come from.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batcher.report.sketch import Sketch
from batcher.report.tally import Causes, Tally

#: columns of a part that are read; of `Facts.add`'s batches
COLUMNS = (
    "row_index",
    "status",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cost_usd",
    "response_model",
    "error",
    "attempts",
    "latency_s",
    "requested_at",
)
#: the slowest rows that are listed
SLOWEST = 10


@dataclass(slots=True)
class Facts:
    """Sums, distributions and examples over rows with an outcome."""

    rows: int = 0
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: None where no row says
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    #: completed rows for which the server counted no tokens
    uncounted: int = 0
    #: None where no row has a price
    cost_usd: float | None = None
    #: rows that used tokens at an unknown price
    unpriced: int = 0
    #: when the first of the deciding requests was sent, and the last one answered
    first_at: datetime | None = None
    last_at: datetime | None = None
    #: seconds from sending to the last byte, of completed rows
    latency_s: Sketch = field(default_factory=Sketch)
    prompt_sizes: Sketch = field(default_factory=Sketch)
    completion_sizes: Sketch = field(default_factory=Sketch)
    #: rows by the number of attempts they took
    attempts: Counter[int] = field(default_factory=Counter)
    #: of completed rows
    finish_reasons: Tally = field(default_factory=Tally)
    models: Tally = field(default_factory=Tally)
    causes: Causes = field(default_factory=Causes)
    #: (latency_s, -row_index, values) of the rows that took longest, as a heap
    _slowest: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows: a batch with `COLUMNS`."""
        completed = batch.filter(pc.equal(batch["status"], "completed"))
        failed = batch.filter(pc.not_equal(batch["status"], "completed"))
        self.rows += batch.num_rows
        self.completed += completed.num_rows
        self.failed += failed.num_rows
        self._add_usage(batch)
        self.uncounted += pc.and_(*map(pc.is_null, _tokens(completed))).true_count
        self._add_times(batch)
        self._add_slowest(batch)
        self.latency_s.add(completed["latency_s"])
        self.finish_reasons.add(completed["finish_reason"])
        self.models.add(completed["response_model"])
        if failed.num_rows:
            self.causes.add(failed["row_index"], failed["error"])
        for found in pc.value_counts(batch["attempts"]).to_pylist():
            self.attempts[min(found["values"] or 0, 10)] += found["counts"]

    @property
    def slowest(self) -> list[dict[str, Any]]:
        """The rows that took longest, the slowest one first, as mappings with `COLUMNS`."""
        return [values for _, _, values in sorted(self._slowest, reverse=True, key=lambda entry: entry[:2])]

    def _add_usage(self, batch: pa.RecordBatch) -> None:
        prompt, completion = _tokens(batch)
        self.prompt_tokens += _sum(prompt) or 0
        self.completion_tokens += _sum(completion) or 0
        self.prompt_sizes.add(prompt)
        self.completion_sizes.add(completion)
        self.cached_tokens = _plus(self.cached_tokens, batch["prompt_tokens_details"], "cached_tokens")
        self.reasoning_tokens = _plus(self.reasoning_tokens, batch["completion_tokens_details"], "reasoning_tokens")
        cost = batch["cost_usd"]
        if cost.null_count < len(cost):
            self.cost_usd = (self.cost_usd or 0.0) + pc.sum(cost).as_py()
        used = pc.or_(*(pc.fill_null(pc.greater(tokens, 0), False) for tokens in (prompt, completion)))
        self.unpriced += pc.and_(used, pc.is_null(cost)).true_count

    def _add_times(self, batch: pa.RecordBatch) -> None:
        first = pc.min(batch["requested_at"]).as_py()
        took_us = pc.cast(pc.round(pc.multiply(pc.fill_null(batch["latency_s"], 0.0), 1e6)), pa.int64())
        last = pc.max(pc.add(batch["requested_at"], pc.cast(took_us, pa.duration("us")))).as_py()
        if first is not None:
            self.first_at = first if self.first_at is None else min(first, self.first_at)
            self.last_at = last if self.last_at is None else max(last, self.last_at)

    def _add_slowest(self, batch: pa.RecordBatch) -> None:
        timed = batch.filter(pc.is_finite(batch["latency_s"]))
        if not timed.num_rows:
            return
        order = [("latency_s", "descending"), ("row_index", "ascending")]
        for row in timed.take(pc.select_k_unstable(timed, SLOWEST, order)).to_pylist():
            entry = (row["latency_s"], -row["row_index"], row)
            if len(self._slowest) < SLOWEST:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heappushpop(self._slowest, entry)


def collect(batches: Iterable[pa.RecordBatch]) -> Facts:
    """Return the facts of all rows of `batches`."""
    facts = Facts()
    for batch in batches:
        if batch.num_rows:
            facts.add(batch)
    return facts


def _tokens(batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    return batch["prompt_tokens"], batch["completion_tokens"]


def _plus(total: int | None, details: pa.StructArray, name: str) -> int | None:
    found = _sum(pc.struct_field(details, name))
    return total if found is None else (total or 0) + found


def _sum(counts: pa.Array) -> int | None:
    """The sum of the counts that are known, also of counts that only a server without shame sends."""
    largest: int | None = pc.max(counts).as_py()
    if largest is None:
        return None
    if largest >= 1 << 40:  # Arrow's own sum turns negative without a word where it does not fit
        total: int = sum(count for count in counts.to_pylist() if count is not None)
    else:
        total = pc.sum(counts).as_py()
    return total
