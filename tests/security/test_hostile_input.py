"""Hostile input files: lines without end, bombs, and Parquet whose metadata lie. Each costs a row or the run, in words.

Every child here may take no more than a fixed address space, far less than the file asks for. Details of parsing are
tested in tests/unit/test_jsonl.py, test_source.py, test_inputs.py and test_parquet.py.
"""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.errors import InputError
from tests.fakes import ScriptedClient, begun, good, make_job, work
from tests.harness import BARE, batcher, table, write_job
from tests.input_files import plan_of, rows_of
from tests.security.hostile_parquet import MAGIC, claiming_page, claiming_rows, nested, parted, with_footer, written
from tests.security.limited import limited

ROOT = Path(__file__).parents[2]
#: what a run over a small input needs of address space, most of it never touched, and a reserve
LITTLE = 1 << 30
SIZE = 5 << 28


def sparse(path: Path) -> None:
    """A hole of more than a gigabyte in one line."""
    with path.open("wb") as file:
        file.write(b'{"text": "first"}\n')
        file.seek(SIZE)
        file.write(b'\n{"text": "last"}\n')


def zstd(path: Path) -> None:
    """The same, compressed to some kilobytes."""
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(b'{"text": "first"}\n')
        for _ in range(SIZE >> 26):
            file.write(bytes(1 << 26))
        file.write(b'\n{"text": "last"}\n')


def gz(path: Path) -> None:
    """Half a gigabyte in a few hundred kilobytes."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "first"}\n')
        for _ in range(8):
            file.write(bytes(1 << 26))
        file.write(b'\n{"text": "last"}\n')


@pytest.mark.parametrize("name, write", [("a.jsonl", sparse), ("a.jsonl.zst", zstd), ("a.jsonl.gz", gz)])
def test_row_17_a_line_of_gigabytes_is_one_bad_row(tmp_path: Path, name: str, write: object) -> None:
    """A line without end, plain or out of a bomb, is a failed row with its number; the rows around it are asked."""
    assert callable(write)
    write(tmp_path / name)
    job = write_job(tmp_path, "simulator", input={"path": name})
    end = batcher("run", str(job), "-q", preexec_fn=limited(LITTLE))
    assert end.returncode == 3, end.stderr
    rows = table(tmp_path / "out")
    assert rows["status"].to_pylist() == ["completed", "failed", "completed"]
    assert rows["text"].to_pylist() == ["first", None, "last"]
    assert rows["error"][1].as_py()["message"] == f"{name}:2: longer than 64 MiB"


def test_row_17_a_frame_that_asks_for_two_gigabytes_is_refused(tmp_path: Path) -> None:
    """A zstd window larger than usual is not laid in for a file that merely claims to need it."""
    (tmp_path / "a.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00")
    with pytest.raises(InputError, match="too much memory"):
        plan_of(tmp_path / "a.jsonl.zst")


#: lines as they come, and what their rows are: a text, or what is wrong
LINES: list[tuple[bytes, str | None]] = [
    (b'\xef\xbb\xbf{"text": "after a byte order mark"}\r\n', "after a byte order mark"),
    (b"\r\n", None),
    (b"  \t \n", None),
    (b'{"text": "nul \\u0000 escaped"}\n', "nul \0 escaped"),
    (b'{"text": "nul \x00 raw"}\n', "!not valid JSON"),
    (b"\x00\x00\x00\n", "!not valid JSON"),
    (b'{"text": "\xff\xfe"}\n', "!not valid UTF-8"),
    ('{"text": "utf-16"}\n'.encode("utf-16-le"), "!not valid JSON"),  # its last byte begins the next line
    (b'{"text": NaN}\n', "!not valid JSON"),
    (b'{"text": "\\ud800"}\n', "!not valid JSON"),
    (b'{"text": "cut\n', "!not valid JSON"),
    (b'["text"]\n', "!not a JSON object"),
    (b"[" * 300_000 + b"\n", "!not valid JSON"),
    (b'{"text": "one", "text": "the last of two keys"}\n', "the last of two keys"),
    (b'{"text": "a carriage \\r return"}\r\n', "a carriage \r return"),
    (b'{"text": "no line end"}', "no line end"),
]


def test_row_17_odd_lines_are_rows_or_reasons(tmp_path: Path) -> None:
    """Marks, line ends and blank lines are no rows, bad lines are failed rows with their line, all others are asked."""
    (tmp_path / "rows.jsonl").write_bytes(b"".join(line for line, _ in LINES))
    expected, number = [], 0
    for line, text in LINES:
        if text is not None:
            problem = f"rows.jsonl:{number + 1}: {text[1:]}" if text.startswith("!") else None
            expected.append((None if problem else text, problem))
        number += line.count(b"\n")
    client = ScriptedClient(lambda row, attempt: good())
    client.under_way = nothing  # type: ignore[method-assign]
    with begun(make_job(tmp_path, prompt="0 {{ text }}")) as run:
        assert work(run, client) is None
    rows = table(tmp_path / "out")
    found = [(text, error and error["message"]) for text, error in zip(
        rows["text"].to_pylist(), rows["error"].to_pylist(), strict=True)]  # fmt: skip
    assert found == expected


async def nothing(number: int) -> None:
    """Answer at once."""


def test_row_17_utf_16_is_named(tmp_path: Path) -> None:
    """A file in UTF-16 is refused as what it is, not as a million bad rows."""
    for codec in ("utf-16-le", "utf-16-be"):
        (tmp_path / "rows.jsonl").write_bytes("\ufeff".encode(codec) + '{"text": "a"}\n'.encode(codec))
        with pytest.raises(InputError, match="UTF-16"):
            plan_of(tmp_path / "rows.jsonl")


def hostile_files() -> dict[str, bytes]:
    """Files that are no Parquet or lie, by name."""
    honest = written(12_345)
    body, footer = parted(honest)
    files = {
        "no byte": b"",
        "magic only": MAGIC,
        "twice the magic": MAGIC + MAGIC,
        "cut": honest[: len(honest) // 2],
        "footer of 4 GB": MAGIC + bytes(200) + struct.pack("<I", 0xFFFFFFF0) + MAGIC,
        "footer of 2 GB": MAGIC + bytes(200) + struct.pack("<I", 0x7FFFFFFF) + MAGIC,
        "empty footer": with_footer(MAGIC, b""),
        "list of 4 G": with_footer(MAGIC, b"\x15\x02\x19\xfc\xff\xff\xff\xff\x0f" + footer[4:]),
        "list of 2 G": with_footer(MAGIC, b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07" + footer[4:]),
        "name of 2 GB": with_footer(MAGIC, b"\x15\x02\x19\x2c\x48\xff\xff\xff\xff\x07schema"),
        "footer of noise": with_footer(body, bytes((7 * n) % 251 for n in range(len(footer)))),
        "encrypted": MAGIC + bytes(100) + struct.pack("<I", 60) + b"PARE",
        "rows: 10^9": claiming_rows(12_345, 10**9),
        "rows: 2^62": claiming_rows(12_345, 2**62),
        "rows: -1": claiming_rows(12_345, -1),
        "100,000 levels": nested(100_000),
    }
    for field in ("uncompressed", "compressed", "values"):
        files |= {f"page {field}: {claim}": claiming_page(field, claim) for claim in (2**31 - 1, -1)}
    return files


#: reads the rows of each file and prints how that ended
READ = """
import sys
from pathlib import Path
from batcher.errors import InputError
from tests.input_files import plan_of, rows_of
for name in sys.argv[1:]:
    try:
        print(len(rows_of(plan_of(Path(name), rows_per_part=50))))
    except InputError as error:
        print("refused" if name in str(error) and chr(10) not in str(error) else repr(str(error)))
"""


def test_row_16_parquet_that_lies_is_refused(tmp_path: Path) -> None:
    """Whatever its metadata claim, the file is named as unreadable before much memory is spent on the claim."""
    files = hostile_files()
    (tmp_path / "honest.parquet").write_bytes(written(100))
    names = [str(tmp_path / "honest.parquet")]
    for number, data in enumerate(files.values()):
        names.append(str(tmp_path / f"{number}.parquet"))
        Path(names[-1]).write_bytes(data)
    end = subprocess.run(
        [sys.executable, "-c", READ, *names],
        cwd=ROOT, env=BARE, preexec_fn=limited(LITTLE), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert end.returncode == 0, end.stderr[-500:]
    assert dict(zip(["honest", *files], end.stdout.splitlines(), strict=True)) == {
        "honest": "100",
        **dict.fromkeys(files, "refused"),
    }


def test_row_16_a_file_that_lies_ends_the_command_with_65(tmp_path: Path) -> None:
    """A user sees one line that names the file."""
    (tmp_path / "rows.parquet").write_bytes(claiming_rows(12_345, 2**62))
    job = write_job(tmp_path, "simulator", input={"path": "rows.parquet"})
    end = batcher("run", str(job), preexec_fn=limited(LITTLE))
    assert end.returncode == 65
    assert len(end.stderr.splitlines()) == 1
    assert str(tmp_path / "rows.parquet") in end.stderr


def test_row_16_a_constant_column_of_many_rows_is_no_lie(tmp_path: Path) -> None:
    """What compresses well is not taken for a claim: two million equal texts in one row group are read."""
    rows = 2_000_000
    column = pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), ["the same"]).cast(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "rows.parquet", row_group_size=rows, compression="zstd")
    assert plan_of(tmp_path / "rows.parquet").rows == rows


def test_row_16_a_cell_larger_than_a_row_may_be_is_one_bad_row(tmp_path: Path) -> None:
    """A cell that unfolds beyond the longest line of JSON fails its row; its neighbours in the same batch are asked."""
    texts = ["first", "x" * (65 << 20), "last"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet", compression="zstd", use_dictionary=False)
    rows = rows_of(plan_of(tmp_path / "rows.parquet"))
    assert [(row.values, row.problem) for row in rows] == [
        ({"text": "first"}, None),
        ({}, "rows.parquet: row 1: longer than 64 MiB"),
        ({"text": "last"}, None),
    ]


def test_row_18_rows_are_told_apart_by_their_place(tmp_path: Path) -> None:
    """Ids that are missing, null, repeated or look like paths cost no row and make no file."""
    ids = ["a", "a", None, "../../../escaped", "/etc/escaped", "part-00000.parquet", "x\0y", ""]
    lines = [{"id": name, "text": "0"} for name in ids] + [{"text": "0"}]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    client = ScriptedClient(lambda row, attempt: good())
    with begun(make_job(tmp_path, input={"path": "rows.jsonl", "id": "id"})) as run:
        assert work(run, client) is None
    rows = table(tmp_path / "out")
    assert rows["id"].to_pylist() == [*ids, None]
    assert set(rows["status"].to_pylist()) == {"completed"}
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".batcher",
        *map("part-{:05d}.parquet".format, (0, 1)),
    }
