"""What the tokens of a job cost: its own `pricing`, else the price list of the `cost` extra, else unknown.

The list (genai-prices) knows a model by its name and the provider by the host of `endpoint.base_url`. To import it
takes half a second and to ask it 70 us, so it is imported only when a price is asked for, and asked once per minute of
requests; what is done per answer are a few multiplications. Nothing is sent: the list is part of the package.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from batcher.errors import JobError
from batcher.records import Usage

if TYPE_CHECKING:
    from batcher.job import Job

_MILLION = 1e6
_DAY_S = 86_400
#: minutes whose tariff is remembered: a week
_MOST_MINUTES = 10_080
_EXTRA = "pip install genai-prices"


class Rates(NamedTuple):
    """US dollars per token, and per request."""

    input: float
    cached_input: float
    output: float
    request: float = 0.0


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of one moment."""

    base: Rates
    #: (tokens, rates) of prompts longer than so many tokens, the longest first; for the whole request
    tiers: tuple[tuple[int, Rates], ...] = ()

    def rates(self, prompt_tokens: float) -> Rates:
        """Return the rates of a request with a prompt of this length."""
        for start, rates in self.tiers:
            if prompt_tokens > start:
                return rates
        return self.base


class Prices:
    """What a model's tokens cost at which time."""

    def __init__(self, source: str, tariff_at: Callable[[float], Tariff], *, constant: bool = False) -> None:
        """`tariff_at` says which tariff holds at a time, exact to the minute; `constant`: the same one at all times."""
        self._source = source
        self._tariff_at = tariff_at
        self._fixed = tariff_at(0.0) if constant else None
        self._by_minute: dict[int, Tariff] = {}

    def __repr__(self) -> str:
        return f"<Prices: {self._source}>"

    def words(self) -> str:
        """Where the prices come from."""
        return self._source

    def cost_usd(self, usage: Usage, at: float) -> float | None:
        """Return what an answer to a request sent `at` (seconds since 1970) costs; None if its usage is unknown."""
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        if prompt is None or answer is None:
            return None
        tariff = self._fixed or self._tariff(at)
        rates = tariff.rates(prompt) if tariff.tiers else tariff.base
        cached = usage.prompt_tokens_details.get("cached_tokens", 0)
        if cached > prompt:  # some gateways count them beside the prompt
            cached = prompt
        return (prompt - cached) * rates[0] + cached * rates[1] + answer * rates[2] + rates[3]

    def rates(self, at: float, prompt_tokens: float = 0.0) -> Rates:
        """Return the rates of a request sent `at`, with a prompt of this length."""
        return (self._fixed or self._tariff(at)).rates(prompt_tokens)

    def periods(self, at: float, prompt_tokens: float = 0.0) -> list[tuple[float, Rates]]:
        """Return when which rates begin, for the day from `at` on, `at` first; one entry if they do not change."""
        found = [(at, self.rates(at, prompt_tokens))]
        if self._fixed is not None:
            return found
        first = math.floor(at / 60) * 60
        for minute in range(first + 60, first + _DAY_S, 60):
            rates = self._tariff_at(minute).rates(prompt_tokens)
            if rates != found[-1][1]:
                found.append((minute, rates))
        return found

    def _tariff(self, at: float) -> Tariff:
        minute = int(at) // 60
        known = self._by_minute.get(minute)
        if known is None:
            if len(self._by_minute) >= _MOST_MINUTES:
                self._by_minute.clear()
            known = self._by_minute[minute] = self._tariff_at(at)
        return known


def prices_of(job: Job) -> Prices | None:
    """Return the prices of a job's model at its endpoint; None if they are unknown.

    Raises:
        JobError: they are unknown, but `limits.max_cost_usd` needs them.
    """
    prices = _own(job) or _listed(job)
    if prices is None and job.limits.max_cost_usd is not None:
        install = "" if _has_list() else f" or install the price list: {_EXTRA}"
        raise JobError(
            f"limits.max_cost_usd: what the tokens of {job.model} cost is not known;"
            " set pricing: {input: ..., output: ...} in US dollars per million tokens" + install
        )
    return prices


def dollars(amount: float) -> str:
    """An amount as people write it: cents, or two digits of what is less."""
    if amount == 0 or abs(amount) >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.{min(12, 1 - math.floor(math.log10(abs(amount))))}f}"


def _own(job: Job) -> Prices | None:
    pricing = job.pricing
    if pricing is None:
        return None
    cached = pricing.input if pricing.cached_input is None else pricing.cached_input
    rates = Rates(pricing.input / _MILLION, cached / _MILLION, pricing.output / _MILLION)
    return Prices("pricing in the job file", lambda _: Tariff(rates), constant=True)


def _has_list() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


def _listed(job: Job) -> Prices | None:
    """The price list's prices; a model or a host that it does not know has none."""
    if job.endpoint.base_url == "simulator" or not _has_list():
        return None
    from genai_prices import __version__
    from genai_prices.data_snapshot import get_snapshot

    try:
        provider, model = get_snapshot().find_provider_model(job.model, None, None, job.endpoint.base_url)
    except LookupError:
        return None
    source = f"genai-prices {__version__}, {model.id} of {provider.name}"
    if not isinstance(model.prices, list):
        constant = _tariff(model.prices)
        return None if constant is None else Prices(source, lambda _: constant, constant=True)
    tariffs = {}
    for conditional in model.prices:
        tariff = _tariff(conditional.prices)
        if tariff is None:
            return None
        tariffs[id(conditional.prices)] = tariff
    if any(hasattr(conditional.constraint, "start_time") for conditional in model.prices):
        source += ", by the hour (days off are counted like others)"
    return Prices(source, lambda at: tariffs[id(model.get_prices(datetime.fromtimestamp(at, UTC)))])


def _tariff(price: Any) -> Tariff | None:
    """A model's price of the list, None if it is not one of prompts and answers."""
    if price.input_mtok is None or price.output_mtok is None:
        return None
    cached = price.input_mtok if price.cache_read_mtok is None else price.cache_read_mtok
    parts = (price.input_mtok, cached, price.output_mtok)
    request = float(price.requests_kcount or 0) / 1e3
    starts = sorted({tier.start for part in parts for tier in getattr(part, "tiers", ())}, reverse=True)

    def rates(tokens: int) -> Rates:
        prompt, read, answer = (_per_million(part, tokens) / _MILLION for part in parts)
        return Rates(prompt, read, answer, request)

    return Tariff(rates(0), tuple((start, rates(start + 1)) for start in starts))


def _per_million(price: Any, prompt_tokens: int) -> float:
    """A price that may depend on the length of the prompt."""
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return float(price)
    reached = [tier.price for tier in tiers if prompt_tokens > tier.start]
    return float(reached[-1] if reached else price.base)
