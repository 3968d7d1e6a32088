"""What rows cost, before and after they are asked: dry runs, runs with a limit, and the figures they end with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from batcher.pricing import dollars
from batcher.simulator import SimulatorOptions, SimulatorProcess
from batcher.simulator import start as start_simulator
from tests.harness import (
    BATCHER,
    Ledger,
    batcher,
    check_money,
    check_output,
    digest,
    kill,
    parts,
    start,
    table,
    unsure,
    write_job,
    write_rows,
    write_script,
)
from tests.simulator_client import wait_until

PRICING = {"input": 1.0, "cached_input": 0.1, "output": 10.0}
#: long enough to be cached by the simulator
SYSTEM = "You sort the letters that people write to a maker of kettles, and answer briefly. " * 8


@contextmanager
def endpoint(folder: Path, **options: Any) -> Iterator[SimulatorProcess]:
    """A simulator that writes `ledger.jsonl`."""
    with start_simulator(SimulatorOptions(**{"latency_s": 0.002, "ledger": folder / "ledger.jsonl", **options})) as one:
        yield one


def ledger(folder: Path) -> Ledger:
    return Ledger.read(folder / "ledger.jsonl")


def letters(folder: Path, count: int) -> list[str]:
    """Write rows of different lengths and languages."""
    random = Random(7)
    words = ["kettle", "billed twice", "refund", "水壶", "我要退款", "where is it", "Wasserkocher"]
    return write_rows(
        folder / "rows.jsonl",
        (f"{n} " + " ".join(random.choices(words, k=random.randrange(3, 60))) for n in range(count)),
    )


def cost_of(row: dict[str, Any]) -> float:
    """What a row costs by the prices of these tests."""
    cached = row["prompt_tokens_details"]["cached_tokens"]
    dollars = (row["prompt_tokens"] - cached) * 1.0 + cached * 0.1 + row["completion_tokens"] * 10.0
    return float(dollars / 1e6)


def summary(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = orjson.loads((folder / "out" / ".batcher" / "summary.json").read_bytes())
    return values


def test_every_row_says_what_it_cost(tmp_path: Path) -> None:
    """Cached and other tokens apart; report, status, summary and JSON agree with the sum over the rows."""
    texts = letters(tmp_path, 120)
    with endpoint(tmp_path) as simulator:
        job = write_job(tmp_path, simulator.base_url, pricing=PRICING, system_prompt=SYSTEM)
        end = batcher("run", str(job), "--json")
    assert end.returncode == 0, end.stderr
    rows = check_output(tmp_path / "out", texts).to_pylist()
    assert [row["cost_usd"] for row in rows] == [pytest.approx(cost_of(row)) for row in rows]
    assert any(row["prompt_tokens_details"]["cached_tokens"] for row in rows)
    total = sum(map(cost_of, rows))
    assert orjson.loads(end.stdout)["totals"]["cost_usd"] == pytest.approx(total)
    assert summary(tmp_path)["cost_usd"] == pytest.approx(total)
    words = dollars(total)
    assert f"cost {words}" in batcher("run", str(job)).stdout
    assert f"cost:   {words}" in batcher("status", str(job)).stdout


def test_answers_that_are_not_kept_cost_too(tmp_path: Path) -> None:
    """A row that was answered twice, because the first answer was blank, costs both."""
    write_rows(tmp_path / "rows.jsonl", ["JSON please"])
    script = write_script(tmp_path / "script.yaml", {"row": 0, "answers": [{"blank": True}]})
    with endpoint(tmp_path, script=script) as simulator:
        parameters = {"response_format": "json_object"}
        job = write_job(tmp_path, simulator.base_url, pricing=PRICING, parameters=parameters)
        end = batcher("run", str(job), "--json")
    assert end.returncode == 0, end.stderr
    assert ledger(tmp_path).asked == {digest("JSON please"): 2}
    (row,) = table(tmp_path / "out").to_pylist()
    usage = orjson.loads(row["usage_raw"])
    assert row["prompt_tokens"] == 2 * usage["prompt_tokens"]
    assert row["cost_usd"] == pytest.approx((row["prompt_tokens"] + 10 * row["completion_tokens"]) / 1e6)
    assert orjson.loads(end.stdout)["totals"]["cost_usd"] == pytest.approx(row["cost_usd"])
    assert summary(tmp_path)["cost_usd"] == pytest.approx(row["cost_usd"])


def test_an_unknown_cost(tmp_path: Path) -> None:
    """Without prices it is called unknown and is null everywhere, never zero."""
    letters(tmp_path, 20)
    with endpoint(tmp_path) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        end = batcher("run", str(job), "--json")
    assert end.returncode == 0, end.stderr
    assert orjson.loads(end.stdout)["totals"]["cost_usd"] is None
    assert summary(tmp_path)["cost_usd"] is None
    assert table(tmp_path / "out")["cost_usd"].to_pylist() == [None] * 20
    assert "cost unknown" in batcher("run", str(job)).stdout
    assert "cost:   unknown" in batcher("status", str(job)).stdout
    assert "$" not in end.stderr


def test_a_limit_in_dollars_without_prices(tmp_path: Path) -> None:
    """Is an error before anything is sent, which says what to set; with prices it is none."""
    letters(tmp_path, 20)
    with endpoint(tmp_path) as simulator:
        job = write_job(tmp_path, simulator.base_url, limits={"concurrency": 4, "max_cost_usd": 1.0})
        end = batcher("run", str(job))
        dry = batcher("run", str(job), "--dry-run")
        with_prices = batcher("run", str(job), "--dry-run", "--set", f"pricing={orjson.dumps(PRICING).decode()}")
    assert (end.returncode, dry.returncode, with_prices.returncode) == (78, 78, 0)
    for one in (end, dry):
        assert "limits.max_cost_usd" in one.stderr
        assert "set pricing" in one.stderr
        assert one.stdout == ""
    assert not ledger(tmp_path).requests


def test_a_dry_run(tmp_path: Path) -> None:
    """Sends nothing, writes nothing, needs no key; what is billed later is within the ranges that it gave."""
    texts = letters(tmp_path, 300)
    with endpoint(tmp_path) as simulator:
        more: dict[str, Any] = {"pricing": PRICING, "system_prompt": SYSTEM, "parameters": {"max_tokens": 60}}
        job = write_job(tmp_path, simulator.base_url, **more)
        keyed = ("--set", "endpoint.api_key_env=NO_SUCH_KEY")
        before = sorted(tmp_path.iterdir())
        dry = batcher("run", str(job), "--dry-run", "--json", *keyed)
        words = batcher("run", str(job), "-n", *keyed)
        assert (dry.returncode, words.returncode) == (0, 0), dry.stderr + words.stderr
        assert dry.stderr == words.stderr == ""
        assert sorted(tmp_path.iterdir()) == before
        assert not ledger(tmp_path).requests
        assert batcher("run", str(job), "-q").returncode == 0
        after = batcher("run", str(job), "--dry-run")
    rows = check_output(tmp_path / "out", texts).to_pylist()
    found = orjson.loads(dry.stdout)
    assert (found["rows"], found["rows_left"], found["refused"]) == (300, 300, 0)
    billed = sum(row["prompt_tokens"] for row in rows)
    assert found["prompt_range"]["low"] <= billed <= found["prompt_range"]["high"]
    assert found["prompt_tokens"] == pytest.approx(billed, rel=0.3)
    assert sum(row["completion_tokens"] for row in rows) <= found["answer_tokens_at_most"] == 300 * 60
    assert found["cost_usd"]["low"] <= sum(map(cost_of, rows)) <= found["cost_usd"]["high"]
    assert found["seconds_per_second"] == 300 / 16
    assert "300 to ask, of 300" in words.stdout
    assert words.stdout.endswith("nothing was sent\n")
    assert after.stdout == "every row has an outcome: nothing would be sent\n"


def test_a_dry_run_of_a_changed_job(tmp_path: Path) -> None:
    """Says what the run would say: that it would not go on."""
    letters(tmp_path, 20)
    with endpoint(tmp_path) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        assert batcher("run", str(job), "-q", "--limit", "5").returncode == 75
        dry = batcher("run", str(job), "--dry-run", "--set", "parameters.temperature=1")
    assert dry.returncode == 78
    assert "parameters" in dry.stderr


def test_some_rows_then_all(tmp_path: Path) -> None:
    """A run with a limit keeps its answers, foretells the rest and exits 75; later runs pay for nothing again."""
    texts = letters(tmp_path, 160)
    with endpoint(tmp_path) as simulator:
        job = write_job(tmp_path, simulator.base_url, pricing=PRICING)
        some = batcher("run", str(job), "--limit", "60")
        assert some.returncode == 75, some.stderr
        assert set(ledger(tmp_path).asked) == {digest(text) for text in texts[:60]}
        assert [path.name for path in parts(tmp_path / "out")] == ["part-00000.parquet"]
        assert "60 of 160 rows: 60 completed, 0 failed" in some.stdout
        assert "100 rows, about" in some.stdout
        hint = shlex.split(some.stdout.splitlines()[-1].split("ask the rest with: ")[1])
        assert hint[1:] == ["run", str(job)]  # the program as it was started: by name, or by path where no PATH has it
        assert "stopped" in batcher("status", str(job)).stdout
        dry = orjson.loads(batcher("run", str(job), "--dry-run", "--json").stdout)
        assert (dry["rows"], dry["rows_left"]) == (160, 100)
        more = batcher("run", str(job), "--limit", "40", "--json")
        assert more.returncode == 75, more.stderr
        rest = batcher("run", str(job))
        assert rest.returncode == 0, rest.stderr
    rows = check_output(tmp_path / "out", texts).to_pylist()
    check_money(ledger(tmp_path), texts, unsure=0)
    assert set(ledger(tmp_path).asked.values()) == {1}
    found = orjson.loads(more.stdout)
    total = sum(map(cost_of, rows))
    assert (found["complete"], found["forecast"]["rows_left"]) == (False, 60)
    assert found["forecast"]["cost_range"]["low"] <= total <= found["forecast"]["cost_range"]["high"]
    assert found["forecast"]["cost_usd"] == pytest.approx(total, rel=0.2)
    assert found["measured"]["completion_tokens"]["rows"] == 100


def test_rows_spread_over_the_input(tmp_path: Path) -> None:
    """With `--spread` they are from all over the input, from many more shards than may be open at a time."""
    texts = letters(tmp_path, 300)
    with endpoint(tmp_path) as simulator:
        output = {"path": "out", "rows_per_part": 2}
        job = write_job(tmp_path, simulator.base_url, output=output, limits={"concurrency": 4})
        some = batcher("run", str(job), "--limit", "100", "--spread")
        assert some.returncode == 75, some.stderr
        asked = sorted(index for index, text in enumerate(texts) if digest(text) in ledger(tmp_path).asked)
        assert asked == list(range(1, 300, 3))
        assert parts(tmp_path / "out") == []
        more = batcher("run", str(job), "--limit", "100", "--spread")
        assert more.returncode == 75, more.stderr
        assert batcher("run", str(job), "-q").returncode == 0
    check_output(tmp_path / "out", texts)
    assert set(ledger(tmp_path).asked.values()) == {1}


def test_a_limit_of_as_many_rows_as_are_left(tmp_path: Path) -> None:
    """Asks them all and ends as any run does; with failed rows among them with 3."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"row {n}{' poison' * (n == 3)}" for n in range(40)))
    refused = {"status": 400, "code": "bad", "message": "no", "type": "invalid_request_error"}
    script = write_script(tmp_path / "script.yaml", {"match": "poison", "answers": [refused], "forever": True})
    with endpoint(tmp_path, script=script) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        assert batcher("run", str(job), "--limit", "15").returncode == 75
        rest = batcher("run", str(job), "--limit", "25", "--spread")
        again = batcher("run", str(job), "--limit", "1")
    assert (rest.returncode, again.returncode) == (3, 3), rest.stderr
    assert rest.stdout == again.stdout
    assert "40 rows: 39 completed, 1 failed" in rest.stdout
    check_output(tmp_path / "out", texts, failed=[3])


@pytest.mark.parametrize("spread", [(), ("--spread",)])
def test_a_run_with_a_limit_is_killed(tmp_path: Path, spread: tuple[str, ...]) -> None:
    """What it received is kept; a later run asks those in flight again, and says how many."""
    texts = letters(tmp_path, 200)
    with endpoint(tmp_path, latency_s=0.05) as simulator:
        job = write_job(tmp_path, simulator.base_url, output={"path": "out", "rows_per_part": 20})
        process = start("run", str(job), "--limit", "150", *spread)
        wait_until(lambda: (tmp_path / "ledger.jsonl").exists() and len(ledger(tmp_path).answered) > 40)
        kill(process)
        end = batcher("run", str(job), "-q")
    assert end.returncode == 0, end.stderr
    check_output(tmp_path / "out", texts)
    assert 0 < unsure(tmp_path / "out") <= 24
    check_money(ledger(tmp_path), texts, unsure=unsure(tmp_path / "out"))


def test_a_run_with_a_limit_is_interrupted(tmp_path: Path) -> None:
    """The command to carry on with has the same limit: whoever wanted a few rows should not pay for all."""
    letters(tmp_path, 200)
    with endpoint(tmp_path, latency_s=0.2) as simulator:
        job = write_job(tmp_path, simulator.base_url)
        process = start("run", str(job), "--limit", "150", "--spread", "--set", "name=x")
        wait_until(lambda: (tmp_path / "ledger.jsonl").exists() and ledger(tmp_path).requests)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"carry on with: {BATCHER} run {job} --limit 150 --spread --set name=x" in errors


@pytest.mark.parametrize("options", [("--spread",), ("--limit", "0"), ("--limit", "some")])
def test_options_that_do_not_fit(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Are wrong usage, and nothing is sent."""
    letters(tmp_path, 2)
    end = batcher("run", str(write_job(tmp_path, "simulator")), *options)
    assert end.returncode == 2
    assert not (tmp_path / "out").exists()
