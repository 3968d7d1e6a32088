"""The budget of a run: how much of `limits.max_total_tokens` and `limits.max_cost_usd` is used, and what still fits.

It counts all runs of a run folder together, and what is in flight: before a request is sent, its estimated tokens are
reserved; when it ends, what it used takes their place. So the budget is exceeded by no more than the estimates are
wrong, and by the last request, since one may always be sent while the budget is not used up and nothing is in flight.

The estimate: the prompt by its bytes, a third of a token each until answers have shown the ratio; the answer by the
job's `max_tokens`, and once some answers are known by four times their mean, if that is less.

Pure: the time is an argument. It sends and stops nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from batcher.pricing import Prices, Rates, dollars
from batcher.records import Spent, Totals

if TYPE_CHECKING:
    from batcher.job import Job

#: before answers are known: tokens of a byte of the request (English has 0.3, Chinese 0.2), and of an answer
_TOKENS_PER_BYTE: Final = 1 / 3
_ANSWER_TOKENS: Final = 1000.0
#: answers after which the estimates follow them
_ENOUGH: Final = 20
#: an answer is estimated at so many times the mean
_HEADROOM: Final = 4


class Reserved(NamedTuple):
    """What is put aside for one request in flight."""

    tokens: float
    usd: float
    prompt_bytes: int


_NOTHING: Final = Reserved(0.0, 0.0, 0)


class Budget:
    """What may still be spent. Without limits it costs one look per request and always has room."""

    def __init__(
        self,
        max_total_tokens: float | None,
        max_cost_usd: float | None,
        prices: Prices | None,
        spent: Totals,
        answer_tokens: int | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`spent` is what the run folder holds, `answer_tokens` the job's `max_tokens`, `clock` gives UTC seconds.

        Raises:
            ValueError: there is a limit in dollars, but no prices.
        """
        if max_cost_usd is not None and prices is None:
            raise ValueError("a limit in dollars needs prices")
        self._limited = max_total_tokens is not None or max_cost_usd is not None
        self._max_tokens, self._max_usd = max_total_tokens, max_cost_usd
        self._prices, self._clock = prices, clock
        self._most_answer_tokens = answer_tokens
        self._used_tokens = float(spent.prompt_tokens + spent.completion_tokens)
        self._used_usd = spent.cost_usd + self._unpriced_usd(spent)
        self._reserved_tokens = self._reserved_usd = 0.0
        self._in_flight = 0
        self._answers, self._answer_tokens = spent.completed, float(spent.completion_tokens)
        self._prompts, self._prompt_tokens, self._prompt_bytes = 0, 0, 0
        self._short_of_tokens = self._short_of_usd = False
        #: this process may use a part of the budget, and other processes have the rest (see `lease`)
        self.is_leased = False
        self._before_tokens, self._before_usd = self._used_tokens, self._used_usd
        #: what did not fit, tokens and US dollars; None if the last request did
        self.asked: Reserved | None = None

    def __repr__(self) -> str:
        return f"<Budget: {self.reason() or 'has room'}, {self._in_flight} in flight>"

    def reserve(self, prompt_bytes: int) -> Reserved | None:
        """Put aside what one more request may use; None if that does not fit beside what is used and in flight.

        None while something is in flight means "not now": what is in flight may use less than it has reserved. None
        when nothing is means that the budget is used up.
        """
        if not self._limited:
            return _NOTHING
        reserved = self._estimate(prompt_bytes)
        self._short_of_tokens = self._is_short(
            self._max_tokens, self._used_tokens, self._reserved_tokens + reserved.tokens
        )
        self._short_of_usd = self._is_short(self._max_usd, self._used_usd, self._reserved_usd + reserved.usd)
        self.asked = reserved if self._short_of_tokens or self._short_of_usd else None
        if self.asked is not None:
            return None
        self._reserved_tokens += reserved.tokens
        self._reserved_usd += reserved.usd
        self._in_flight += 1
        return reserved

    def settle(self, reserved: Reserved, spent: Spent | None) -> None:
        """Note that a request ended, and what its answer used.

        None: nothing was used. `Spent()`: nobody says what was, and what was reserved counts as used.
        """
        if not self._limited:
            return
        self._in_flight -= 1
        self._reserved_tokens -= reserved.tokens
        self._reserved_usd -= reserved.usd
        if not self._in_flight:  # sums of fractions leave a trace
            self._reserved_tokens = self._reserved_usd = 0.0
        if spent is None:
            return
        if spent.prompt_tokens is None and spent.completion_tokens is None:
            self._used_tokens += reserved.tokens
            self._used_usd += reserved.usd if spent.cost_usd is None else spent.cost_usd
            return
        prompt, answer = spent.prompt_tokens or 0, spent.completion_tokens or 0
        self._used_tokens += prompt + answer
        self._used_usd += self._usd(prompt, answer) if spent.cost_usd is None else spent.cost_usd
        self._learn(reserved.prompt_bytes, spent)

    def lease(self, tokens: float | None, usd: float | None) -> None:
        """Let this process use so much in all, from its beginning on, and never more; None where there is no limit."""
        self.is_leased = True
        if tokens is not None:
            self._max_tokens = self._before_tokens + tokens
        if usd is not None:
            self._max_usd = self._before_usd + usd

    @property
    def tokens_taken(self) -> float:
        """Tokens that this process has used or put aside for what is in flight."""
        return self._used_tokens - self._before_tokens + self._reserved_tokens

    @property
    def usd_taken(self) -> float:
        """US dollars that this process has used or put aside for what is in flight."""
        return self._used_usd - self._before_usd + self._reserved_usd

    def left(self) -> tuple[float | None, float | None]:
        """Return how many tokens and US dollars are neither used nor put aside; None where there is no limit."""
        tokens = None if self._max_tokens is None else self._max_tokens - self._used_tokens - self._reserved_tokens
        usd = None if self._max_usd is None else self._max_usd - self._used_usd - self._reserved_usd
        return tokens, usd

    def reason(self) -> str | None:
        """Say which limit the last request did not fit into, and how much of it is used; None if it did fit."""
        if self.is_leased and (self._short_of_tokens or self._short_of_usd):
            name = "limits.max_total_tokens" if self._short_of_tokens else "limits.max_cost_usd"
            return f"{name}: this process's part of it is used up"
        if self._short_of_tokens:
            return f"limits.max_total_tokens: {self._used_tokens:,.0f} of {self._max_tokens:,.0f} tokens used"
        if self._short_of_usd and self._max_usd is not None:
            return f"limits.max_cost_usd: {dollars(self._used_usd)} of {dollars(self._max_usd)} used"
        return None

    def _is_short(self, limit: float | None, used: float, reserved: float) -> bool:
        if limit is None:
            return False
        if self.is_leased:
            return used + reserved > limit
        return used >= limit or (self._in_flight > 0 and used + reserved > limit)

    def _estimate(self, prompt_bytes: int) -> Reserved:
        ratio = self._prompt_tokens / self._prompt_bytes if self._prompts >= _ENOUGH else _TOKENS_PER_BYTE
        prompt, answer = prompt_bytes * ratio, self._expected_answer()
        usd = self._usd(prompt, answer) if self._max_usd is not None else 0.0
        return Reserved(prompt + answer, usd, prompt_bytes)

    def _expected_answer(self) -> float:
        most = self._most_answer_tokens
        if self._answers < _ENOUGH or not self._answer_tokens:
            return _ANSWER_TOKENS if most is None else most
        expected = _HEADROOM * self._answer_tokens / self._answers
        return expected if most is None else min(most, expected)

    def _learn(self, prompt_bytes: int, spent: Spent) -> None:
        if spent.prompt_tokens is not None and prompt_bytes:
            self._prompts += 1
            self._prompt_tokens += spent.prompt_tokens
            self._prompt_bytes += prompt_bytes
        if spent.completion_tokens is not None:
            self._answers += 1
            self._answer_tokens += spent.completion_tokens

    def _usd(self, prompt_tokens: float, answer_tokens: float) -> float:
        """What tokens cost now, none of them cached."""
        rates = self._prices.rates(self._clock(), prompt_tokens) if self._prices else Rates(0.0, 0.0, 0.0)
        return prompt_tokens * rates.input + answer_tokens * rates.output + rates.request

    def _unpriced_usd(self, spent: Totals) -> float:
        """What the rows without a known cost may have cost: as many average rows, at today's price."""
        if not spent.unpriced or self._prices is None:
            return 0.0
        rows = max(spent.unpriced, spent.completed)
        return spent.unpriced * self._usd(spent.prompt_tokens / rows, spent.completion_tokens / rows)


def answer_limit(job: Job) -> int | None:
    """Return the most tokens that a job lets an answer have, as far as its parameters say."""
    extra = job.parameters.get("extra", {})
    for name in ("max_completion_tokens", "max_tokens"):
        found = job.parameters.get(name, extra.get(name))
        if isinstance(found, int):
            return found
    return None
