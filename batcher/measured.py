"""What rows used, so that it can be said what others like them will: sums, means and how far rows are apart. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Sums:
    """What is known of a quantity: of how many rows, their sum and the sum of their squares."""

    rows: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, other: Sums) -> None:
        """Add other rows."""
        self.rows += other.rows
        self.sum += other.sum
        self.squares += other.squares

    @property
    def mean(self) -> float:
        """Of one row; 0 if nothing is known."""
        return self.sum / self.rows if self.rows else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation between rows; 0 of fewer than two."""
        if self.rows < 2:
            return 0.0
        return math.sqrt(max(0.0, self.squares - self.sum * self.mean) / (self.rows - 1))


@dataclass(frozen=True, slots=True)
class Measured:
    """What completed rows used."""

    prompt_tokens: Sums
    #: reasoning included
    completion_tokens: Sums
    cost_usd: Sums
    latency_s: Sums

    def add(self, other: Measured) -> None:
        """Add other rows."""
        self.prompt_tokens.add(other.prompt_tokens)
        self.completion_tokens.add(other.completion_tokens)
        self.cost_usd.add(other.cost_usd)
        self.latency_s.add(other.latency_s)
