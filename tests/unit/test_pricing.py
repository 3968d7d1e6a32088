"""What tokens cost: the job's own prices, the price list's, or unknown."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.types import ModelPrice, Tier, TieredPrices

from batcher.errors import JobError
from batcher.pricing import Prices, Rates, Tariff, _tariff, dollars, prices_of
from batcher.records import Usage
from tests.fakes import make_job

DEEPSEEK = {"base_url": "https://api.deepseek.com"}
#: a Monday
PEAK = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
OFF_PEAK = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def prices(folder: Path, **changes: Any) -> Prices | None:
    return prices_of(make_job(folder, **changes))


def known(folder: Path, **changes: Any) -> Prices:
    found = prices(folder, **changes)
    assert found is not None
    return found


def usage(prompt: int | None, cached: int | None, answer: int | None) -> Usage:
    return Usage(prompt, answer, None, {} if cached is None else {"cached_tokens": cached})


def test_prices_of_the_job(tmp_path: Path) -> None:
    """The job's own prices win, are per million tokens, and tell cached tokens from others."""
    pricing = {"input": 1.0, "cached_input": 0.1, "output": 4.0}
    own = known(tmp_path, model="deepseek-v4-flash", endpoint=DEEPSEEK, pricing=pricing)
    assert own.cost_usd(usage(1_000_000, 400_000, 500_000), 0.0) == pytest.approx(0.6 + 0.04 + 2.0)
    assert own.cost_usd(usage(1_000_000, None, 0), 0.0) == pytest.approx(1.0)
    assert own.cost_usd(usage(10, 1_000_000, 0), 0.0) == pytest.approx(10 * 0.1e-6), "never more cached than there are"
    assert own.words() == "pricing in the job file"
    ((begins, rates),) = own.periods(5.0)
    assert (begins, rates) == (5.0, pytest.approx(Rates(1e-6, 0.1e-6, 4e-6)))


def test_no_price_for_cached_tokens(tmp_path: Path) -> None:
    """Without `cached_input` they cost what others do, for the simulator too."""
    own = known(tmp_path, endpoint={"base_url": "simulator"}, pricing={"input": 2.0, "output": 0.0})
    assert own.cost_usd(usage(1_000_000, 900_000, 10), 0.0) == pytest.approx(2.0)


@pytest.mark.parametrize("tokens", [(None, None, 5), (5, None, None), (None, None, None)])
def test_unknown_usage(tmp_path: Path, tokens: tuple[int | None, int | None, int | None]) -> None:
    """Where the provider does not say what was used, the cost is unknown and not zero."""
    assert known(tmp_path, pricing={"input": 1.0, "output": 1.0}).cost_usd(usage(*tokens), 0.0) is None


@pytest.mark.parametrize("at", [PEAK, OFF_PEAK])
@pytest.mark.parametrize(
    ("url", "model", "tokens"),
    [
        ("https://api.deepseek.com", "deepseek-v4-flash", (1000, 400, 100)),
        ("https://api.deepseek.com/v1", "deepseek-flash", (1000, 0, 100)),
        ("https://api.openai.com/v1", "gpt-5.4", (300_000, 1000, 100)),
        ("https://api.openai.com/v1", "gpt-5.4", (272_000, 0, 100)),
        ("https://api.perplexity.ai", "sonar", (100, 0, 10)),
        ("https://openrouter.ai/api/v1", "deepseek/deepseek-v3.2", (1000, 400, 100)),
    ],
)
def test_the_price_list(tmp_path: Path, url: str, model: str, tokens: tuple[int, int, int], at: datetime) -> None:
    """Our multiplications give what the list's own calculation gives: by the hour, by length, per request."""
    prompt, cached, answer = tokens
    listed = known(tmp_path, model=model, endpoint={"base_url": url})
    expected = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=answer),
        model,
        provider_api_url=url,
        genai_request_timestamp=at,
    )
    assert listed.cost_usd(usage(*tokens), at.timestamp()) == pytest.approx(float(expected.total_price))
    assert "genai-prices" in listed.words()


def test_several_tiers() -> None:
    """The rates are those of the longest tier that the prompt exceeds."""
    tiers = ((200, Rates(3.0, 3.0, 3.0)), (100, Rates(2.0, 2.0, 2.0)))
    prices = Prices("test", lambda _: Tariff(Rates(1.0, 1.0, 1.0), tiers), constant=True)
    assert [prices.cost_usd(usage(prompt, 0, 0), 0.0) for prompt in (100, 101, 200, 201)] == [100, 202, 400, 603]
    longer = [Tier(start=100_000, price=Decimal(2)), Tier(start=200_000, price=Decimal(3))]
    listed = ModelPrice(input_mtok=TieredPrices(base=Decimal(1), tiers=longer), output_mtok=Decimal(5))
    tariff = _tariff(listed)
    assert tariff is not None
    found = [round(rates.input * 1e6) for rates in map(tariff.rates, (100_000, 100_001, 200_001))]
    assert (found, round(tariff.base.output * 1e6)) == ([1, 2, 3], 5)


def test_prices_by_the_hour(tmp_path: Path) -> None:
    """A request costs what its own time says, whatever was asked before, and the changes of a day are known."""
    listed = known(tmp_path, model="deepseek-v4-flash", endpoint=DEEPSEEK)
    spent = usage(1000, 0, 100)
    peak, off_peak = (listed.cost_usd(spent, at.timestamp()) for at in (PEAK, OFF_PEAK))
    assert peak is not None
    assert off_peak is not None
    assert peak == pytest.approx(2 * off_peak)
    assert listed.cost_usd(spent, PEAK.timestamp()) == peak
    edge = datetime(2026, 11, 23, 4, 0, tzinfo=UTC).timestamp()
    assert listed.cost_usd(spent, edge - 1) == peak
    assert listed.cost_usd(spent, edge) == off_peak
    begins = [datetime.fromtimestamp(at, UTC).strftime("%H:%M") for at, _ in listed.periods(PEAK.timestamp())]
    assert begins == ["02:30", "04:00", "06:00", "10:00", "01:00"]
    assert "by the hour" in listed.words()


def test_what_is_remembered_is_bounded() -> None:
    """Each minute is looked up once, and old minutes are forgotten."""
    asked: list[float] = []

    def tariff_at(at: float) -> Tariff:
        asked.append(at)
        return Tariff(Rates(1e-6, 1e-6, 1e-6))

    prices = Prices("test", tariff_at)
    for second in range(0, 60 * 30_000, 30):
        prices.cost_usd(usage(1, 0, 1), second)
    assert len(asked) == 30_000
    assert len(prices._by_minute) <= 10_080


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("simulator", "deepseek-v4-flash"),
        ("http://localhost:8000/v1", "deepseek-v4-flash"),
        ("https://api.deepseek.com", "a-model-of-tomorrow"),
        ("https://api.groq.com/openai/v1", "whisper-large-v3"),
    ],
)
def test_unknown_prices(tmp_path: Path, url: str, model: str) -> None:
    """The simulator, an unknown host, an unknown model and one that is not priced by tokens have no prices."""
    assert prices(tmp_path, model=model, endpoint={"base_url": url}) is None


@pytest.mark.parametrize("installed", [True, False])
def test_a_limit_in_dollars_needs_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """It is an error of the job that says what to set, and what to install if that is missing."""
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"limits\.max_cost_usd: .*some-model.*pricing: \{input:") as raised:
        prices(tmp_path, limits={"max_cost_usd": 1.0})
    assert ("pip install genai-prices" in str(raised.value)) is not installed
    assert prices(tmp_path, limits={"max_cost_usd": 1.0}, pricing={"input": 1.0, "output": 1.0}) is not None


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the list prices are unknown; the job's own are not."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert prices(tmp_path, model="deepseek-v4-flash", endpoint=DEEPSEEK) is None
    assert prices(tmp_path, pricing={"input": 1.0, "output": 1.0}) is not None


def test_the_list_is_not_imported_unless_asked() -> None:
    """Importing the module, or having prices of one's own, does not load half a second of price list."""
    code = (
        "import sys; from pathlib import Path\n"
        "from batcher.pricing import prices_of; from tests.fakes import make_job\n"
        "prices_of(make_job(Path('/'), pricing={'input': 1.0, 'output': 1.0}))\n"
        "print('genai_prices' in sys.modules)"
    )
    folder = Path(__file__).parents[2]
    end = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert end.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "$0.00"), (0.12, "$0.12"), (3.4, "$3.40"), (1234.5, "$1,234.50"), (0.00041, "$0.00041"), (0.05, "$0.050")],
)
def test_dollars(amount: float, words: str) -> None:
    """Amounts are in cents; what is less than ten cents has two digits that count."""
    assert dollars(amount) == words
