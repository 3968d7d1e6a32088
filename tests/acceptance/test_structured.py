"""Answers that match a schema, with the real command: repairs, what they cost, a kill in between, and the columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars as pl

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import batcher, digest, kill, start, table, unsure, write_job, write_rows, write_script
from tests.simulator_client import wait_until

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"enum": ["good", "bad"]},
        "urgent": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["label", "urgent", "count", "score", "tags"],
    "additionalProperties": False,
}
MISFIT, SLOW = {"misfit": True}, {"delay_s": 100}
#: what goes wrong with which rows
RULES = [
    {"match": "stubborn", "answers": [MISFIT], "forever": True},
    {"match": "slow", "answers": [MISFIT, SLOW]},
    {"match": "odd", "answers": [MISFIT]},
]
KINDS = ["fine", "odd", "fine", "stubborn", "odd", "slow", "fine", "odd"]
#: an answer per row, a further one for each repair, and a request that the kill cut off
ATTEMPTS = [1, 2, 1, 2, 2, 3, 1, 2]
PRICING = {"input": 1.0, "output": 10.0}


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in ledger.read_bytes().splitlines()] if ledger.exists() else []


def test_a_killed_run_with_a_schema_ends_as_promised(tmp_path: Path) -> None:
    """Repaired rows are valid, nothing received is asked for again after a kill -9, every answer's tokens are counted,
    and the columns have the types of the schema for those who read the parts."""
    texts = write_rows(tmp_path / "rows.jsonl", (f"{kind} {n}" for n, kind in enumerate(KINDS)))
    ledger = tmp_path / "ledger.jsonl"
    script = write_script(tmp_path / "script.yaml", *RULES)
    (tmp_path / "answer.json").write_bytes(orjson.dumps(SCHEMA))
    with start_simulator(SimulatorOptions(latency_s=0.002, ledger=ledger, script=script)) as one:
        job = write_job(
            tmp_path,
            one.base_url,
            parameters={"response_format": {"json_schema": "answer.json"}},
            output={"path": "out", "rows_per_part": 50, "flatten": True},
            pricing=PRICING,
        )
        process = start("run", str(job))
        slow = digest(texts[5])
        wait_until(lambda: sum(e["event"] == "request" and e["digest"] == slow for e in entries(ledger)) == 2)
        wait_until(lambda: sum(e["event"] == "answered" for e in entries(ledger)) == 12)
        kill(process)
        done = batcher("run", str(job))
        assert done.returncode == 0, done.stderr
        assert "1 answer does not match the schema: " in done.stdout
        assert "1 requests were on their way" in done.stderr
    out = tmp_path / "out"
    rows = table(out)
    assert rows["status"].to_pylist() == ["completed"] * len(KINDS)
    assert rows["valid"].to_pylist() == [kind != "stubborn" for kind in KINDS]
    assert rows["attempts"].to_pylist() == ATTEMPTS
    assert unsure(out) == 1
    assert orjson.loads((out / ".batcher" / "summary.json").read_bytes())["invalid"] == 1
    _check_money(entries(ledger), rows.to_pylist(), texts)
    _check_columns(out)
    _check_words(out)


def _check_money(entries: list[dict[str, Any]], rows: list[dict[str, Any]], texts: list[str]) -> None:
    """A row was asked as often as it says, and its tokens are those of all answers that the endpoint sent in full."""
    for row, text in zip(rows, texts, strict=True):
        own = [entry for entry in entries if entry["digest"] == digest(text)]
        assert sum(entry["event"] == "request" for entry in own) == row["attempts"]
        sent = [entry["completion_tokens"] for entry in own if entry["event"] == "answered" and entry["whole"]]
        assert sum(sent) == row["completion_tokens"]
        cost = (row["prompt_tokens"] * PRICING["input"] + row["completion_tokens"] * PRICING["output"]) / 1e6
        assert abs(row["cost_usd"] - cost) < 1e-12


def _check_columns(out: Path) -> None:
    types = {"label": "VARCHAR", "urgent": "BOOLEAN", "count": "BIGINT", "score": "DOUBLE", "tags": "VARCHAR"}
    parts = f"FROM '{out}/*.parquet'"
    described = duckdb.sql(f"DESCRIBE {parts} SELECT parsed, valid, {', '.join(types)}").fetchall()
    assert {name: kind for name, kind, *_ in described} == {"parsed": "VARCHAR", "valid": "BOOLEAN", **types}
    frame = pl.read_parquet(f"{out}/*.parquet")
    assert frame.schema["count"] == pl.Int64
    for row in frame.iter_rows(named=True):
        answer = orjson.loads(row["parsed"])
        told = {name: row[name] for name in types}
        if row["valid"]:
            assert {**told, "tags": orjson.loads(told["tags"])} == answer == orjson.loads(row["completion"])
        else:
            assert set(told.values()) == {None}
            assert isinstance(answer, list)


def _check_words(out: Path) -> None:
    """The commands that look at results say which answer does not match, and why."""
    page = batcher("show", str(out), "--invalid").stdout
    assert "stubborn 3" in page
    assert "matches this JSON schema" in page
    assert "does not match the schema:\n  must be of type object" in page
    assert "fine" not in page
    assert "schema: 1 of the completed rows do not match it" in batcher("status", str(out)).stdout
    assert batcher("report", str(out), "--to", str(out.parent / "r.html")).returncode == 0
    assert "The answers of 1 completed row do not match the JSON schema." in (out.parent / "r.html").read_text()
    exported = out.parent / "rows.csv"
    assert batcher("export", str(out), "--to", str(exported)).returncode == 0
    header = exported.read_text().splitlines()[0].replace('"', "")
    assert header.endswith("parsed,valid,label,urgent,count,score,tags")
