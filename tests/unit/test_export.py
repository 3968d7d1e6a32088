"""Exports to a file: every row, every value, in order; whole or not there; nothing replaced unasked."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli import main
from batcher.errors import InputError, StorageError
from batcher.export import FORMATS, Format, UnfinishedError, export_failed_inputs, export_file
from batcher.export import parquetfile as parquetfile_module
from batcher.results import Results
from tests.fakes import begun, make_job, outcome
from tests.runs import answer, finished, record, rows_of, run_rows, table_of, write_records

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"]
HARMLESS = ["", "a=1", " =1", "5-3", "'=x", '"quoted", and\nmore', "é=", "nul \x00 in it", "\n=1"]


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    """A finished run of rows whose texts are hostile to spreadsheets."""
    records = [{"text": text, "n": -5, "=x,y": 0.5, "flag": True} for text in (*FORMULAS, *HARMLESS)]
    with finished(tmp_path, records) as results:
        yield results


@pytest.fixture
def unfinished(tmp_path: Path) -> Iterator[Results]:
    """A run of twelve rows of which shard 1 has its part, rows 0 and 11 are in the journal and row 7 failed."""
    write_records(tmp_path, [{"text": f"t{n}"} for n in range(12)])
    job = make_job(tmp_path)
    done = [answer(row) if row != 7 else outcome(7, failed="bad") for row in (0, 5, 6, 7, 8, 9, 11)]
    run_rows(job, done, parts=[1])
    with Results.open(job.output.path) as results:
        yield results


def lines(path: Path) -> list[dict[str, Any]]:
    """The values of a file of JSON Lines."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_parquet(tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of all rows: zstd, page index and checksums, several row groups, the run's version in its footer."""
    monkeypatch.setattr(parquetfile_module, "_ROW_GROUP_BYTES", 1)
    assert export_file(results, tmp_path / "all.parquet", "parquet") == (15, [tmp_path / "all.parquet"])
    with pq.ParquetFile(tmp_path / "all.parquet", page_checksum_verification=True) as file:
        assert file.read().equals(table_of(results))
        assert file.num_row_groups == 3
        column = file.metadata.row_group(0).column(0)
        assert (column.compression, column.has_column_index, column.has_offset_index) == ("ZSTD", True, True)
        own = {key: value for key, value in file.metadata.metadata.items() if key.startswith(b"batcher.")}
    assert own == {b"batcher.version": results.version.encode(), b"batcher.rows": b"15"}


def test_jsonl(tmp_path: Path, results: Results) -> None:
    """An object per row: nested values nested, text as it was, times as ISO 8601."""
    export_file(results, tmp_path / "all.jsonl", "jsonl")
    rows = lines(tmp_path / "all.jsonl")
    assert [row["text"] for row in rows] == [*FORMULAS, *HARMLESS]
    assert list(rows[0]) == results.schema.names
    expected = rows_of(results)
    for row, original in zip(rows, expected, strict=True):
        created, requested = row.pop("response_created"), row.pop("requested_at")
        assert datetime.fromisoformat(created) == original.pop("response_created")
        assert datetime.fromisoformat(requested) == original.pop("requested_at")
        assert row == original


def test_csv(tmp_path: Path, results: Results) -> None:
    """No text begins like a formula; numbers and truth values do not change; nested values are JSON text."""
    export_file(results, tmp_path / "all.csv", "csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [*(f"'{text}" for text in FORMULAS), *HARMLESS]
    assert {(row["n"], row["'=x,y"], row["flag"]) for row in rows} == {("-5", "0.5", "true")}
    assert orjson.loads(rows[0]["usage_raw"])["total_tokens"] == 8
    assert rows[0]["response_created"] == "2023-11-14T22:13:20Z"
    assert (rows[0]["error"], rows[0]["reasoning"], rows[0]["status"]) == ("", "", "completed")
    for row in rows:
        for name, value in row.items():
            assert name == "n" or not (name + value).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_csv_of_failed_rows(tmp_path: Path) -> None:
    """An error is JSON text; its message cannot become a formula."""
    write_records(tmp_path, [{"text": "a"}])
    job = make_job(tmp_path)
    run_rows(job, [outcome(0, failed="=cmd")], parts=[0])
    with Results.open(job.output.path) as results:
        export_file(results, tmp_path / "all.csv", "csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert orjson.loads(row["error"]) == {
        "message": "no", "type": None, "param": None, "code": "=cmd", "http_status": 400,
    }  # fmt: skip
    assert row["completion"] == ""


def test_values_of_parquet_inputs(tmp_path: Path) -> None:
    """Dates, decimals, bytes, lists and what no JSON can hold survive in every format, each in the nearest form."""
    columns = {
        "day": pa.array([date(2024, 2, 29), None]),
        "at": pa.array([datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC), None]),
        "money": pa.array([Decimal("-12.50"), None]),
        "raw": pa.array([b"\x00\xff", None]),
        "tags": pa.array([["x", "y"], []]),
        "nested": pa.array([{"a": 1, "b": None}, None]),
        "map": pa.array([[(1, "x")], None], pa.map_(pa.int64(), pa.string())),
        "big": pa.array([2**64 - 1, None], pa.uint64()),
        "nan": pa.array([float("nan"), 1e300]),
        "broken": pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xffz", b"ok"]).buffers()),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    job = make_job(tmp_path, input={"path": "rows.parquet"}, prompt="x")
    run_rows(job, [answer(0), answer(1)], parts=[0])
    with Results.open(job.output.path) as results:
        for kind in FORMATS:
            export_file(results, tmp_path / f"all.{kind}", kind)
        assert pq.read_table(tmp_path / "all.parquet").select(["day", "money", "raw", "big"]).to_pylist() == [
            {"day": date(2024, 2, 29), "money": Decimal("-12.50"), "raw": b"\x00\xff", "big": 2**64 - 1},
            {"day": None, "money": None, "raw": None, "big": None},
        ]
    first, second = lines(tmp_path / "all.jsonl")
    assert {name: first[name] for name in columns} == {
        "day": "2024-02-29", "at": "2024-01-02T03:04:05.000678Z", "money": "-12.50", "raw": "AP8=", "tags": ["x", "y"],
        "nested": {"a": 1}, "map": {"1": "x"}, "big": 2**64 - 1, "nan": None, "broken": "\ufffdz",
    }  # fmt: skip
    assert (second["tags"], second["nested"], second["nan"], second["broken"]) == ([], None, 1e300, "ok")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["day"], first["money"], first["raw"], first["broken"]) == ("2024-02-29", "-12.50", "AP8=", "\ufffdz")
    assert (first["tags"], first["nested"], second["tags"]) == ('["x","y"]', '{"a":1}', "[]")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_unfinished_run(tmp_path: Path, unfinished: Results, kind: Format) -> None:
    """It is refused with what to do, and nothing is written; --partial exports what is done, in row order."""
    target = tmp_path / "all.x"
    with pytest.raises(UnfinishedError, match=r"7 of 12 rows .* --partial"):
        export_file(unfinished, target, kind)
    assert not list(tmp_path.glob("*all*"))
    rows, files = export_file(unfinished, target, kind, partial=True)
    assert (rows, files[0]) == (7, target)
    if kind == "jsonl":
        assert [(row["row_index"], row["text"]) for row in lines(target)] == [
            (row, f"t{row}") for row in (0, 5, 6, 7, 8, 9, 11)
        ]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_in_the_way(tmp_path: Path, results: Results, kind: Format) -> None:
    """A file is replaced only if that is asked for, an input and a folder never; nothing is left beside it."""
    target = tmp_path / "export" / "all.x"
    target.parent.mkdir()
    target.write_text("mine")
    with pytest.raises(StorageError, match=r"exists; --force"):
        export_file(results, target, kind)
    assert target.read_text() == "mine"
    assert_refused_early(results, target, kind)
    export_file(results, target, kind, force=True)
    assert target.read_bytes() != b"mine"
    names = {"all.x", "all.errors.x"} if kind == "openai-batch" else {"all.x"}
    assert {path.name for path in target.parent.iterdir()} == names
    for place, words in [
        (tmp_path / "rows.jsonl", "is an input"),
        (target.parent, "is a folder"),
        (tmp_path / "missing" / "x", "cannot be written"),
        (results.path / ".batcher" / "manifest.json", "lies in the run folder"),
    ]:
        with pytest.raises(StorageError, match=words):
            export_file(results, place, kind, force=True)
    assert results.rows == len(lines(tmp_path / "rows.jsonl"))


def assert_refused_early(results: Results, target: Path, kind: Format) -> None:
    """What cannot be kept is said before the work, not after."""
    real = results.batches
    results.batches = None  # type: ignore[method-assign, assignment]
    with pytest.raises(StorageError):
        export_file(results, target, kind)
    results.batches = real  # type: ignore[method-assign]


def test_it_is_durable_before_it_has_its_name(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it is named, the folder after."""
    events: list[str] = []
    sync, link, replace = os.fsync, os.link, Path.replace

    def synced(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().suffix or "folder")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", lambda *names: (events.append("named"), link(*names)))
    monkeypatch.setattr(Path, "replace", lambda *names: (events.append("named"), replace(*names))[1])
    for force in (False, True):
        export_file(results, tmp_path / "all.csv", "csv", force=force)
        assert events == [".partial", "named", "folder"]
        events.clear()


def test_no_parquet_among_the_parts(results: Results) -> None:
    """Beside the parts a further Parquet file would be read as rows; other formats do no harm."""
    for place in (results.path / "all.parquet", results.path / "sub" / "all.parquet"):
        with pytest.raises(StorageError, match="lies in the run folder"):
            export_file(results, place, "parquet")
    assert export_file(results, results.path / "all.csv", "csv")[0] == 15


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_fails_midway(tmp_path: Path, unfinished: Results, kind: Format) -> None:
    """Nothing is left of it, and what was there before is untouched."""
    target = tmp_path / "export" / "all.x"
    target.parent.mkdir()
    target.write_text("mine")
    part = unfinished.path / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    offset = pq.read_metadata(part).row_group(0).column(1).data_page_offset
    content[offset + 30] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(StorageError, match="part-00001"):
        export_file(unfinished, target, kind, partial=True, force=True)
    assert [path.name for path in target.parent.iterdir()] == ["all.x"]
    assert target.read_text() == "mine"


KILLED = """
import os, signal, sys
from pathlib import Path
from batcher.export import export_file
from batcher.results import Results
with Results.open(Path(sys.argv[1])) as results:
    real = results.batches
    def batches(*arguments, **options):
        yield next(real(*arguments, **options))
        os.kill(os.getpid(), signal.SIGKILL)
    results.batches = batches
    export_file(results, Path(sys.argv[2]), sys.argv[3], force=True)
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_killed_while_it_writes(tmp_path: Path, results: Results, kind: Format) -> None:
    """What was there before is untouched; what is left has a name that no reader takes for data; again, it works."""
    target = tmp_path / "export" / "all.parquet"
    target.parent.mkdir()
    target.write_text("mine")
    command = [sys.executable, "-c", KILLED, str(results.path), str(target), kind]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert target.read_text() == "mine"
    left = [path.name for path in target.parent.iterdir() if path != target]
    assert left
    assert all(name.startswith(".") and name.endswith(".partial") for name in left)
    assert export_file(results, target, kind, force=True)[0] == 15


def test_a_new_file_has_the_usual_mode(tmp_path: Path, results: Results) -> None:
    """Exports are readable as the user's umask says, unlike temporary files."""
    export_file(results, tmp_path / "all.csv", "csv")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "all.csv").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_finished_run_that_lacks_rows(tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export of a finished run holds every row or is not there."""
    real = results.batches
    monkeypatch.setattr(results, "batches", lambda *names, **options: list(real(*names, **options))[:-1])
    with pytest.raises(StorageError, match="of 15 rows"):
        export_file(results, tmp_path / "all.csv", "csv")
    assert not (tmp_path / "all.csv").exists()


def test_failed_rows_as_a_new_input(tmp_path: Path, unfinished: Results) -> None:
    """The input rows of failed rows, with the values that a template saw; those that cannot be read are counted."""
    assert export_failed_inputs(unfinished, tmp_path / "again.jsonl") == (1, 0)
    assert lines(tmp_path / "again.jsonl") == [{"text": "t7"}]
    with pytest.raises(StorageError, match="--force"):
        export_failed_inputs(unfinished, tmp_path / "again.jsonl")
    (tmp_path / "rows.jsonl").write_text("gone")
    with pytest.raises(InputError, match="the failed rows cannot be read"):
        export_failed_inputs(unfinished, tmp_path / "other.jsonl")


def test_failed_rows_of_any_kind(tmp_path: Path) -> None:
    """Lists stay lists and long integers keep their digits, also of columns that the output does not carry."""
    first = '{"text":"a","tags":["x",{"y":null}],"n":1180591620717411303424}\n'
    (tmp_path / "rows.jsonl").write_text(f'{first}no json\n{{"text":"c"}}\n')
    job = make_job(tmp_path, output={"path": "out", "columns": []})
    run_rows(job, [outcome(0, failed="bad"), outcome(1, failed="invalid_row"), answer(2)], parts=[0])
    with Results.open(job.output.path) as results:
        assert export_failed_inputs(results, tmp_path / "again.jsonl") == (1, 1)
    assert (tmp_path / "again.jsonl").read_text() == first


def cli(*arguments: str | Path) -> int:
    return main(["export", *map(str, arguments)])


def test_the_command(tmp_path: Path, results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    """The suffix says the format, or --format does; what was written is said on standard output."""
    for suffix in ("parquet", "jsonl", "csv"):
        assert cli(results.path, "--to", tmp_path / f"all.{suffix}") == 0
        assert capsys.readouterr().out == f"15 rows: {tmp_path / f'all.{suffix}'}\n"
    assert cli(results.path, "--to", tmp_path / "all.txt", "--format", "jsonl") == 0
    assert (tmp_path / "all.txt").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
    assert cli(results.path, "--to", tmp_path / "other.CSV") == 0
    assert (tmp_path / "other.CSV").read_bytes() == (tmp_path / "all.csv").read_bytes()
    assert cli(results.path, "--to", tmp_path / "all.csv") == 74
    assert cli(results.path, "--to", tmp_path / "all.csv", "--force") == 0


def test_wrong_use_of_the_command(tmp_path: Path, results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a usage error that says what to do; nothing is written."""
    before = set(tmp_path.iterdir())
    for arguments in (
        (),
        ("--to", tmp_path / "x.csv", "--hf", tmp_path / "y"),
        ("--to", tmp_path / "x.xlsx"),
        ("--to", tmp_path / "x.csv", "--format", "tsv"),
        ("--to", tmp_path / "x.csv", "--failed"),
        ("--hf", tmp_path / "y", "--failed"),
    ):
        assert cli(results.path, *arguments) == 2
        end = capsys.readouterr()
        assert end.out == ""
        assert "Traceback" not in end.err
    assert cli(tmp_path, "--to", tmp_path / "x.csv") == 65
    assert set(tmp_path.iterdir()) == before


def test_the_command_on_an_unfinished_run(
    tmp_path: Path, unfinished: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    """75, as for every command that should be tried again later; --failed needs no finished run."""
    assert cli(unfinished.path, "--to", tmp_path / "all.csv") == 75
    assert "--partial" in capsys.readouterr().err
    assert cli(unfinished.path, "--to", tmp_path / "all.csv", "--partial") == 0
    assert cli(unfinished.path, "--to", tmp_path / "again.jsonl", "--failed") == 0
    assert capsys.readouterr().out.endswith(f"1 input rows of failed rows: {tmp_path / 'again.jsonl'}\n")


def test_while_a_run_holds_the_folder(tmp_path: Path) -> None:
    """What is committed at the moment is exported; the run is not disturbed."""
    write_records(tmp_path, [{"text": f"t{n}"} for n in range(12)])
    job = make_job(tmp_path)
    with begun(job) as run:
        record(run, [answer(3), answer(10)])
        with Results.open(job.output.path) as results:
            export_file(results, tmp_path / "some.jsonl", "jsonl", partial=True)
        record(run, [answer(4)])
    assert [row["row_index"] for row in lines(tmp_path / "some.jsonl")] == [3, 10]
