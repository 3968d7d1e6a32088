"""`batcher check` says what tokens will cost, by whose word, or how to say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.cli.checking import check_job
from batcher.cli.wanted import Wanted
from tests.harness import write_job, write_rows


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ([], 0, "  ok  prices     unknown; the simulator costs nothing"),
        (["endpoint.base_url=https://a.example"], 0, "  ok  prices     unknown: set pricing in the job file, or"),
        (
            ["pricing={input: 1.5, cached_input: 0.5, output: 2.0}"],
            0,
            "  ok  prices     $1.50 prompts, $0.50 cached, $2.00 answers a million tokens\n"
            "  ok  prices     by pricing in the job file",
        ),
        (["limits.max_cost_usd=1.0"], 78, "FAIL  prices     limits.max_cost_usd: what the tokens of"),
    ],
    ids=["simulator", "unknown", "own", "budget"],
)
def test_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], code: int, words: str) -> None:
    """Own prices, unknown ones, and a budget in dollars that nothing can be held against."""
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "simulator", model="some-model")
    assert check_job(Wanted(job, settings), offline=True) == code
    assert words in capsys.readouterr().out


def test_prices_by_the_hour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A listed model has its prices of the coming day, each with its hours, and the list's name."""
    pytest.importorskip("genai_prices")
    write_rows(tmp_path / "rows.jsonl", ["a"])
    job = write_job(tmp_path, "https://api.deepseek.com", model="deepseek-v4-flash")
    assert check_job(Wanted(job), offline=True) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ok  prices ")]
    assert len(lines) >= 2
    assert all("prompts," in line and "UTC" in line for line in lines[:-1])
    assert "by genai-prices" in lines[-1]
