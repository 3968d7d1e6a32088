"""The estimate before anything is sent: tokens by characters, costs as ranges, time by the limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from batcher import estimate as estimate_module
from batcher.cli.estimating import estimate_values, render_estimate
from batcher.estimate import Estimate, count_tokens, estimate, text_of
from batcher.job import Job
from batcher.plan import make_plan
from batcher.pricing import prices_of
from batcher.source import find_files
from tests.fakes import builder_of, make_job
from tests.input_files import write_records

PRICING = {"input": 1.0, "cached_input": 0.1, "output": 10.0}
#: noon of a Monday, UTC, and an hour at which DeepSeek is dearer
NOW = 1_795_435_200.0
PEAK = NOW - 9.5 * 3600


def estimated(
    folder: Path, texts: Sequence[Any], *, rows_left: int | None = None, now: float = NOW, **changes: Any
) -> Estimate:
    """The estimate for rows with these texts."""
    write_records(folder / "rows.jsonl", [{"text": text} for text in texts])
    job = make_job(folder, **changes)
    plan = make_plan(job, find_files(job.input.path))
    left = len(texts) if rows_left is None else rows_left
    return estimate(job, plan, builder_of(job), prices_of(job), rows_left=left, now=now)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("x" * 10, 3), ("退款" * 5, 6), ("ab退款", 1.8), ("Straße 12", 2.7), ("カナ한국", 2.4)],
)
def test_tokens_of_a_text(text: str, tokens: float) -> None:
    """Three tenths of a token a character, six tenths a Chinese, Japanese or Korean one."""
    assert count_tokens(text) == pytest.approx(tokens)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}, "a\nb"),
        ({"system_prompt": "a", "prompt": "b", "max_tokens": 5}, "a\nb"),
        ({"messages": [{"content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, {"content": None}]}, "a"),
    ],
)
def test_what_the_model_reads(request_: dict[str, Any], text: str) -> None:
    """All texts of a request, in both formats, and nothing else of it."""
    assert text_of(request_) == text


def test_tokens_of_all_rows(tmp_path: Path) -> None:
    """The prompts of the rows that are left, right to thirty percent; the answers as long as they can be."""
    found = estimated(tmp_path, ["x" * 100, "x" * 300], rows_left=10, parameters={"max_tokens": 50})
    assert (found.rows, found.rows_left, found.sampled, found.refused) == (2, 10, 2, 0)
    assert found.prompt_tokens == pytest.approx(600)
    assert (found.prompt_range.low, found.prompt_range.high) == (pytest.approx(420), pytest.approx(780))
    assert found.answer_tokens_at_most == 500
    assert (found.cost_usd, found.price_source, found.price_periods) == (None, None, ())


def test_answers_without_a_bound(tmp_path: Path) -> None:
    """Without `max_tokens` nothing is said of the answers, and the cost is that of the prompts."""
    found = estimated(tmp_path, ["x" * 100, "y" * 100], pricing=PRICING)
    assert (found.answer_tokens_at_most, found.cost_is_bounded) == (None, False)
    assert found.cost_usd is not None
    assert found.cost_usd.low == pytest.approx((42 + 20) / 1e6)
    assert found.cost_usd.high == pytest.approx((78 + 20) / 1e6)


def test_the_cost(tmp_path: Path) -> None:
    """At least prompts whose common beginning is cached and answers of one token, at most the longest of both."""
    system = "s" * 1000
    found = estimated(
        tmp_path, ["a" * 100, "b" * 100], system_prompt=system, pricing=PRICING, parameters={"max_tokens": 50}
    )
    assert found.cost_usd is not None
    tokens = 2 * 0.3 * (1000 + 1 + 100)
    cached = 2 * 0.3 * (1000 + 1)
    assert found.cost_usd.low == pytest.approx((0.7 * (tokens - 0.9 * cached) + 2 * 10) / 1e6)
    assert found.cost_usd.high == pytest.approx((1.3 * tokens + 100 * 10) / 1e6)


def test_a_short_common_beginning(tmp_path: Path) -> None:
    """Is cached by nobody."""
    found = estimated(tmp_path, ["a" * 100, "b" * 100], system_prompt="s" * 100, pricing=PRICING)
    assert found.cost_usd is not None
    assert found.cost_usd.low == pytest.approx((0.7 * 2 * 0.3 * 201 + 20) / 1e6)


@pytest.mark.parametrize("now", [NOW, PEAK])
def test_prices_by_the_hour(tmp_path: Path, now: float) -> None:
    """The range reaches from the cheapest hour of the next day to the dearest."""
    endpoint = {"base_url": "https://api.deepseek.com"}
    parameters = {"max_tokens": 1000}
    model = "deepseek-v4-flash"
    found = estimated(tmp_path, ["a" * 100], now=now, model=model, endpoint=endpoint, parameters=parameters)
    assert found.cost_usd is not None
    dearest, cheapest = (select(rates.output for _, rates in found.price_periods) for select in (max, min))
    assert dearest > cheapest
    assert found.cost_usd.high == pytest.approx(39 * dearest / 4 + 1000 * dearest, rel=0.01)
    assert found.cost_usd.low == pytest.approx(21 * cheapest / 4 + cheapest, rel=0.01)


@pytest.mark.parametrize("prompt", ["{{ text }}", "x" * 100])
def test_rows_that_cannot_be_asked(tmp_path: Path, prompt: str) -> None:
    """They cost nothing: their share of the sample is left out, also where the prompt needs nothing of the row."""
    lines = [b'{"text":"%s"}' % (b"x" * 100), b"[]", b'{"text":"%s"}' % (b"x" * 100), b"{broken"]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([*lines, b""]))
    job = make_job(tmp_path, prompt=prompt)
    plan = make_plan(job, find_files(job.input.path))
    found = estimate(job, plan, builder_of(job), None, rows_left=4, now=NOW)
    assert (found.sampled, found.refused) == (4, 2)
    assert found.prompt_tokens == pytest.approx(60)
    assert "2 of the 4 sampled rows cannot be asked" in render_estimate(found, job)


def test_a_sample_of_a_large_input(tmp_path: Path) -> None:
    """Four hundred rows spread over the input say what all are like, and the range is wider for rows that differ."""
    random = Random(7)
    texts = ["x" * (random.randrange(0, 500) if number > 2500 else 10) for number in range(5000)]
    found = estimated(tmp_path, texts)
    true = sum(map(count_tokens, texts))
    assert found.sampled == 400
    assert found.prompt_tokens == pytest.approx(true, rel=0.15)
    assert found.prompt_range.low <= true <= found.prompt_range.high
    assert found.prompt_range.high > 1.35 * found.prompt_tokens
    assert estimated(tmp_path, texts) == found, "the same rows are sampled again"


def test_only_the_beginnings_of_shards_are_read_of_a_huge_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an estimate takes seconds: of each shard that is sampled the first rows."""
    monkeypatch.setattr(estimate_module, "LARGE_BYTES", 10)
    monkeypatch.setattr(estimate_module, "_SAMPLE", 5)
    texts = ["x" * (100 if number % 10 < 3 else 1) for number in range(50)]
    found = estimated(tmp_path, texts, output={"path": "out", "rows_per_part": 10})
    assert found.sampled == 5
    assert found.prompt_tokens == pytest.approx(50 * 30)
    monkeypatch.setattr(estimate_module, "_SAMPLE_SHARDS", 2)
    texts[10:20] = texts[20:30] = ["x" * 1000] * 10
    few = estimated(tmp_path, texts, output={"path": "out", "rows_per_part": 10})
    assert few.sampled == 5
    assert few.prompt_tokens == pytest.approx(50 * 30), "of every third shard"


def test_of_long_rows_few_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the sample takes little memory and time; but some are, however long."""
    monkeypatch.setattr(estimate_module, "_SAMPLE_BYTES", 50_000)
    assert estimated(tmp_path, ["x" * 989] * 100).sampled == 49
    assert estimated(tmp_path, ["x" * 98_900] * 30).sampled == 20


def test_the_time(tmp_path: Path) -> None:
    """Rows by requests at once are the seconds per second of an answer; the job's rates bound it from below."""
    limits = {"concurrency": 4}
    found = estimated(tmp_path, ["x" * 100] * 20, limits=limits)
    assert (found.seconds_per_second, found.least_s) == (5.0, 0.0)
    assert estimated(tmp_path, ["x" * 100] * 20, limits={**limits, "requests_per_minute": 10}).least_s == 120.0
    tokens = {**limits, "requests_per_minute": 10, "tokens_per_minute": 60}
    assert estimated(tmp_path, ["x" * 100] * 20, limits=tokens).least_s == pytest.approx(600.0)


def job_of(folder: Path, **changes: Any) -> Job:
    return make_job(folder, parameters={"max_tokens": 50}, **changes)


def test_in_words(tmp_path: Path) -> None:
    """A line for each thing, unknown where it is unknown, and that nothing was sent."""
    unknown = estimated(tmp_path, ["x" * 100] * 20)
    words = render_estimate(unknown, make_job(tmp_path))
    assert "rows:     20 to ask, of 20 in the input" in words
    assert "about 600 tokens (420 to 780, by the characters of 20 requests)" in words
    assert "answers:  of any length" in words
    assert "cost:     unknown" in words
    assert "prices:" not in words
    assert words.endswith("nothing was sent")
    nothing = estimated(tmp_path, ["x"], rows_left=0)
    assert render_estimate(nothing, make_job(tmp_path)) == "every row has an outcome: nothing would be sent"


def test_in_words_with_prices(tmp_path: Path) -> None:
    """Hours with the same price stand together; limits that are less than what may be used are named."""
    more: dict[str, Any] = {"model": "deepseek-v4-flash", "endpoint": {"base_url": "https://api.deepseek.com"}}
    more["limits"] = {"max_cost_usd": 1e-9, "max_total_tokens": 10}
    found = estimated(tmp_path, ["x" * 100] * 20, parameters={"max_tokens": 50}, **more)
    words = render_estimate(found, job_of(tmp_path, **more))
    prices = [line for line in words.splitlines() if "a million tokens" in line]
    assert len(prices) == 2
    assert prices[0].endswith("now to 01:00 and 04:00 to 06:00 and 10:00 on UTC")
    assert prices[1].endswith("01:00 to 04:00 and 06:00 to 10:00 UTC")
    assert "by genai-prices" in words
    assert "limits.max_cost_usd ($0.0000000010) may end the run earlier" in words
    assert "limits.max_total_tokens (10) may end the run earlier" in words
    values = orjson.loads(orjson.dumps(estimate_values(found)))
    assert values["cost_usd"].keys() == {"low", "high"}
    assert values["price_periods"][0]["from"] == NOW
    assert values["price_periods"][0].keys() == {"from", "input", "cached_input", "output", "request"}
