"""Parts and exports open as they are with the programs that people use, and every value is what the run stored."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import polars as pl
import pytest

from batcher.simulator import SimulatorOptions
from batcher.simulator import start as start_simulator
from tests.harness import BARE, batcher, table, write_job, write_script

Rows = list[dict[str, Any]]

TEXTS = [
    "plain",
    "",
    "=1+1",
    "-5",
    "@x",
    "\ttab",
    'quo"te, comma\nand line',
    "Grüße 你好 👩‍👩‍👧",
    "nul \x00",
    "'apostrophe",
]


@dataclass(frozen=True)
class Outputs:
    """A finished run and what was exported of it."""

    out: Path
    exports: Path
    #: the rows as pyarrow reads them from the parts
    rows: Rows


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """120 rows in three parts, every tenth of them failed, and each export of them."""
    folder = tmp_path_factory.mktemp("readers")
    records = [
        {
            "custom_id": f"c-{n}",
            "text": f"{TEXTS[n % 10]} {n}" if n % 10 else "",
            "n": n,
            "half": n / 2,
            "flag": n % 3 == 0,
        }
        for n in range(120)
    ]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    refusal = {"status": 400, "code": "bad_image", "message": "=no such image", "type": "invalid_request_error"}
    script = write_script(folder / "script.yaml", {"match": "comma", "answers": [refusal], "forever": True})
    with start_simulator(SimulatorOptions(latency_s=0.002, script=script)) as simulator:
        job = write_job(folder, simulator.base_url, prompt="Say {{ text }} to {{ n }}.")
        assert batcher("run", str(job), "-q").returncode == 3
    exports = folder / "exports"
    exports.mkdir()
    for arguments in (
        ("--to", "all.parquet"),
        ("--to", "all.jsonl"),
        ("--to", "all.csv"),
        ("--to", "batch.jsonl", "--format", "openai-batch"),
        ("--hf", "dataset"),
    ):
        end = batcher("export", str(job), *arguments, cwd=exports)
        assert end.returncode == 0, end.stderr
    return Outputs(folder / "out", exports, table(folder / "out").to_pylist())


# -- one way of writing values, whoever read them


def plain(value: Any) -> Any:
    """A value without the reader's own types: times in UTC, no missing values but None, structs without them."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if plain(inner) is not None} or None
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp):
        value = value.to_pydatetime()
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return value.item() if hasattr(value, "item") else value


def plain_rows(rows: Rows) -> Rows:
    return [plain(row) for row in rows]


def timed(rows: Rows) -> Rows:
    """Rows in whose texts the two times are times again."""
    for row in rows:
        for name in ("response_created", "requested_at"):
            if isinstance(row.get(name), str):
                row[name] = datetime.fromisoformat(row[name])
    return rows


#: what `datasets` loads, by name: one process reads all of it, since its start takes longer than everything else
LOADED = {
    "out/part-*.parquet": "load_dataset('parquet', data_files='out/part-*.parquet', split='train')",
    "exports/all.parquet": "load_dataset('parquet', data_files='exports/all.parquet', split='train')",
    "exports/dataset/data/*.parquet": "load_dataset('exports/dataset/data', split='train')",
    "out": "load_dataset('out', split='train')",
    "exports/dataset": "load_dataset('exports/dataset')['train']",
    "exports/all.jsonl": "load_dataset('json', data_files='exports/all.jsonl', split='train')",
    "exports/batch.jsonl": "load_dataset('json', data_files='exports/batch.jsonl', split='train')",
    "exports/batch.errors.jsonl": "load_dataset('json', data_files='exports/batch.errors.jsonl', split='train')",
    "exports/all.csv": "load_dataset('csv', data_files='exports/all.csv', split='train', keep_default_na=False,"
    " na_values=[''])",
}


@pytest.fixture(scope="module")
def loaded(outputs: Outputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """The rows that `datasets` reads offline, its caches in a folder of their own."""
    lines = ["import json", "from datasets import load_dataset"]
    lines += [f"print(json.dumps([{name!r}, list({code})], default=str))" for name, code in LOADED.items()]
    home = str(tmp_path_factory.mktemp("home"))
    offline = {"PATH": BARE["PATH"], "HF_HOME": home, "HOME": home, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-c", "\n".join(lines)]
    end = subprocess.run(command, env=offline, cwd=outputs.out.parent, capture_output=True, check=False, timeout=100)
    assert end.returncode == 0, end.stderr.decode()
    return dict(map(orjson.loads, end.stdout.splitlines()))


def with_duckdb(query: str) -> Rows:
    rows: Rows = duckdb.sql(query).to_arrow_table().to_pylist()
    return rows


# -- Parquet

PARQUET: dict[str, Callable[[Path], Rows]] = {
    "duckdb": lambda files: with_duckdb(f"FROM '{files}' ORDER BY row_index"),
    "polars": lambda files: pl.scan_parquet(files).collect().to_dicts(),
    "pandas": lambda files: [
        row for file in sorted(files.parent.glob(files.name)) for row in pd.read_parquet(file).to_dict("records")
    ],
}


@pytest.mark.parametrize("reader", [*PARQUET, "datasets"])
@pytest.mark.parametrize("files", ["out/part-*.parquet", "exports/all.parquet", "exports/dataset/data/*.parquet"])
def test_parquet(outputs: Outputs, loaded: dict[str, Rows], reader: str, files: str) -> None:
    """The parts, the single file and the dataset's files hold the same values for everybody."""
    rows = timed(loaded[files]) if reader == "datasets" else PARQUET[reader](outputs.out.parent / files)
    assert plain_rows(rows) == plain_rows(outputs.rows)
    assert list(rows[0]) == list(outputs.rows[0])


@pytest.mark.parametrize("reader", ["duckdb", "pandas", "datasets"])
def test_the_whole_run_folder(outputs: Outputs, loaded: dict[str, Rows], reader: str) -> None:
    """Whoever reads the folder, not its files, gets the rows and nothing of what else is in there."""
    read: dict[str, Callable[[], Rows]] = {
        "duckdb": lambda: with_duckdb(f"FROM '{outputs.out}/**/*.parquet' ORDER BY row_index"),
        "pandas": lambda: pd.read_parquet(outputs.out).to_dict("records"),
        "datasets": lambda: timed(loaded["out"]),
    }
    assert plain_rows(read[reader]()) == plain_rows(outputs.rows)


def test_the_dataset_as_it_is_published(outputs: Outputs, loaded: dict[str, Rows]) -> None:
    """The loader finds the split by the card."""
    assert plain_rows(timed(loaded["exports/dataset"])) == plain_rows(outputs.rows)


# -- JSON Lines

JSONL: dict[str, Callable[[Path], Rows]] = {
    "duckdb": lambda file: with_duckdb(f"FROM read_json('{file}', sample_size=-1)"),
    "polars": lambda file: pl.read_ndjson(file, infer_schema_length=None).to_dicts(),
    # by itself, pandas rounds numbers and takes text for numbers
    "pandas": lambda file: pd.read_json(file, lines=True, dtype=False, precise_float=True).to_dict("records"),
}


@pytest.mark.parametrize("reader", [*JSONL, "datasets"])
def test_jsonl(outputs: Outputs, loaded: dict[str, Rows], reader: str) -> None:
    """The same values, nested where they are nested; times are ISO 8601, whoever takes them for times."""
    name = "exports/all.jsonl"
    rows = timed(loaded[name] if reader == "datasets" else JSONL[reader](outputs.out.parent / name))
    assert plain_rows(rows) == plain_rows(outputs.rows)


@pytest.mark.parametrize("reader", [*JSONL, "datasets"])
def test_openai_batch(outputs: Outputs, loaded: dict[str, Rows], reader: str) -> None:
    """Both files open, and joined on custom_id they tell of every row what the parts do."""
    names = ("exports/batch.jsonl", "exports/batch.errors.jsonl")
    files = (loaded[name] if reader == "datasets" else JSONL[reader](outputs.out.parent / name) for name in names)
    answered, failed = files
    by_id = {line["custom_id"]: line for line in (*answered, *failed)}
    assert len(by_id) == len(answered) + len(failed) == len(outputs.rows)
    for row in outputs.rows:
        line = by_id[row["custom_id"]]
        if row["status"] == "failed":
            error = {name: value for name, value in row["error"].items() if name != "http_status"}
            assert plain(line["error"]) == {"code": "bad_image", "message": "=no such image"}
            assert plain(line["response"]["body"]["error"]) == plain(error)
            assert line["response"]["status_code"] == 400
            continue
        assert plain(line["error"]) is None
        assert line["response"]["status_code"] == 200
        body = line["response"]["body"]
        assert (body["id"], body["model"]) == (row["response_id"], row["response_model"])
        assert body["choices"][0]["message"]["content"] == row["completion"]
        assert body["choices"][0]["finish_reason"] == row["finish_reason"]
        assert body["usage"]["total_tokens"] == row["total_tokens"]


# -- CSV

CSV: dict[str, Callable[[Path], Rows]] = {
    "duckdb": lambda file: with_duckdb(f"FROM read_csv('{file}', header=true, sample_size=-1)"),
    "polars": lambda file: pl.read_csv(file, infer_schema_length=None).to_dicts(),
    "pandas": lambda file: pd.read_csv(file, keep_default_na=False, na_values=[""]).to_dict("records"),
}
NESTED = ("prompt_tokens_details", "completion_tokens_details", "error")


def from_csv(rows: Rows) -> Rows:
    """Rows in which nested values are values again and guarded text is as it was; no text is null."""
    for row in timed(rows):
        for name, value in row.items():
            if isinstance(value, str):
                guarded = value[:1] == "'" and value[1:2] in ("=", "+", "-", "@", "\t", "\r")
                row[name] = orjson.loads(value) if name in NESTED and value else value[guarded:] or None
    return rows


@pytest.mark.parametrize("reader", [*CSV, "datasets"])
def test_csv(outputs: Outputs, loaded: dict[str, Rows], reader: str) -> None:
    """The same values, but that no text and an empty one are the same; numbers are numbers."""
    name = "exports/all.csv"
    rows = from_csv(loaded[name] if reader == "datasets" else CSV[reader](outputs.out.parent / name))
    expected = [{name: None if value == "" else value for name, value in row.items()} for row in outputs.rows]
    assert plain_rows(rows) == plain_rows(expected)
    assert {type(plain(row["n"])) for row in rows} == {int}
