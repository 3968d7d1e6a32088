"""How positive numbers are distributed, in bounded memory however many there are.

Numbers are counted in buckets whose bounds grow by 2 %, so that every quantile is within 1 % of the true one; sum,
smallest and largest are exact. The same numbers in any order give the same sketch.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

#: ratio of a bucket's upper bound to its lower one
GROWTH = 1.02
#: numbers below this, zero among them, count as this small
SMALLEST = 1e-4
_LN_GROWTH = math.log(GROWTH)


@dataclass(frozen=True, slots=True)
class Bar:
    """Of a histogram: `count` numbers from `low` up to `high`."""

    low: float
    high: float
    count: int


class Sketch:
    """A distribution; numbers are added an Arrow array at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.smallest = math.inf
        self.largest = -math.inf
        self._buckets: Counter[int] = Counter()

    def add(self, numbers: pa.Array | pa.ChunkedArray) -> None:
        """Count the numbers of an array; nulls, infinities and what is negative are left out."""
        numbers = pc.cast(numbers, pa.float64(), safe=False)  # a count of 2^60 loses its last digits
        numbers = numbers.filter(pc.and_(pc.is_finite(numbers), pc.greater_equal(numbers, 0)))
        if not len(numbers):
            return
        self.count += len(numbers)
        self.total += pc.sum(numbers).as_py()
        bounds = pc.min_max(numbers).as_py()
        self.smallest = min(self.smallest, bounds["min"])
        self.largest = max(self.largest, bounds["max"])
        scaled = pc.divide(pc.ln(pc.max_element_wise(numbers, SMALLEST)), _LN_GROWTH)
        for found in pc.value_counts(pc.cast(pc.floor(scaled), pa.int32())).to_pylist():
            self._buckets[found["values"]] += found["counts"]

    @property
    def mean(self) -> float | None:
        """None if there is no number."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return the number that `share` (0 to 1) of all are not above, within 1 %; None if there is no number."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                middle = 2 * GROWTH ** (bucket + 1) / (GROWTH + 1)
                return min(max(middle, self.smallest), self.largest)
        return self.largest

    def bars(self, most: int) -> list[Bar]:
        """Return a histogram over all numbers of at most `most` bars, as wide as each other on a logarithmic axis."""
        if not self._buckets:
            return []
        first, last = min(self._buckets), max(self._buckets)
        step = math.ceil((last - first + 1) / most)
        counts: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            counts[(bucket - first) // step] += count
        lows = [GROWTH ** (first + position * step) for position in range(max(counts) + 2)]
        return [Bar(lows[position], lows[position + 1], counts[position]) for position in range(max(counts) + 1)]
