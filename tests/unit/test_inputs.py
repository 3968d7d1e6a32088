"""Which files an input is, and their bytes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest

from batcher.errors import InputError
from batcher.source.inputs import ByteStream, check_unchanged, find_files
from tests.input_files import pack

TEXT = b"".join(b'{"n": %d}\n' % n for n in range(5000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as other programs leave them."""
    (tmp_path / "notes").mkdir()
    for name in (
        "b.jsonl",
        "a.parquet",
        "A.NDJSON.GZ",
        "sub/c.jsonl.zst",
        "_SUCCESS",
        ".b.jsonl",
        "_tmp/d.jsonl",
        "x.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    return tmp_path


def names(folder: Path, *patterns: str) -> list[str]:
    return [str(file.path.relative_to(folder)) for file in find_files([folder / pattern for pattern in patterns])]


def test_a_folder_gives_its_known_files_sorted_and_passes_over_hidden_and_unknown_ones(folder: Path) -> None:
    """What other programs leave beside the data (`_SUCCESS`, dot files, notes) is no input."""
    assert names(folder, ".") == ["A.NDJSON.GZ", "a.parquet", "b.jsonl", "sub/c.jsonl.zst"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jsonl", ["b.jsonl"]),
        ("**/*.jsonl*", ["b.jsonl", "sub/c.jsonl.zst"]),
        ("s*", ["sub/c.jsonl.zst"]),
        ("*/**", ["sub/c.jsonl.zst"]),
        ("[ab].*", ["a.parquet", "b.jsonl"]),
    ],
)
def test_a_glob_gives_its_visible_matches_sorted(folder: Path, pattern: str, found: list[str]) -> None:
    """A glob names files or whole folders, each once, in an order that does not depend on the file system."""
    assert names(folder, pattern) == found


def test_a_list_keeps_its_order(folder: Path) -> None:
    """The order of patterns is the order of rows."""
    assert names(folder, "b.jsonl", "a.parquet", "sub") == ["b.jsonl", "a.parquet", "sub/c.jsonl.zst"]


def test_a_name_with_brackets_is_itself_if_it_exists(tmp_path: Path) -> None:
    """A file may be called `rows[1].jsonl`."""
    (tmp_path / "rows[1].jsonl").touch()
    (tmp_path / "rows1.jsonl").touch()
    assert names(tmp_path, "rows[1].jsonl") == ["rows[1].jsonl"]


def test_facts_of_a_file_are_kept(folder: Path) -> None:
    """Size and time tell later whether the file is still the same; the suffix tells how to read it."""
    (file,) = find_files([folder / "A.NDJSON.GZ"])
    facts = (folder / "A.NDJSON.GZ").stat()
    assert (file.format, file.compression, file.name) == ("jsonl", "gzip", "A.NDJSON.GZ")
    assert (file.size_bytes, file.mtime_ns) == (facts.st_size, facts.st_mtime_ns)


def test_a_file_named_twice_is_refused_even_through_a_link(folder: Path) -> None:
    """Overlapping patterns would ask, and pay for, the same rows twice."""
    (folder / "link.jsonl").symlink_to(folder / "b.jsonl")
    for patterns in (["b.jsonl", "*.jsonl"], ["b.jsonl", "link.jsonl"]):
        with pytest.raises(InputError, match=r"names .*\.jsonl twice"):
            names(folder, *patterns)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("missing.jsonl", "No such file"),
        ("b.jsonl/c.jsonl", "Not a directory"),
        ("x" * 300 + ".jsonl", "name too long"),
        ("*.csv", "no file matches"),
        ("x.md", "unknown suffix; known are .jsonl"),
        ("_tmp/empty", "holds no input file"),
        ("pipe.jsonl", "not a regular file"),
        ("dangling.jsonl", "No such file"),
        ("nul\0.jsonl", "null"),
    ],
)
def test_what_cannot_be_an_input_is_refused_with_the_reason(folder: Path, pattern: str, words: str) -> None:
    """The message names the path and says what the operating system said."""
    (folder / "_tmp/empty").mkdir()
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "dangling.jsonl").symlink_to("nowhere.jsonl")
    with pytest.raises(InputError, match=words) as caught:
        names(folder, pattern)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_a_stream_gives_the_uncompressed_bytes_from_any_place_on(tmp_path: Path, name: str) -> None:
    """Offsets are those of the text, compressed or not."""
    (file,) = find_files([pack(tmp_path / name, TEXT)])
    with ByteStream(file) as stream:
        assert stream.read(10) == TEXT[:10]
        stream.move_to(20_000)
        assert stream.read(10) == TEXT[20_000:20_010]
        assert stream.position == 20_010
        stream.move_to(10**9)
        assert stream.read(10) == b""


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.jsonl.zst"])
def test_compressed_files_that_were_put_together_are_read_to_the_end(tmp_path: Path, name: str) -> None:
    """`cat a.gz b.gz` is a valid file."""
    path = pack(tmp_path / name, TEXT)
    path.write_bytes(path.read_bytes() * 2)
    with ByteStream(find_files([path])[0]) as stream:
        assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == TEXT * 2


GZ = gzip.compress(TEXT)
ZST = pa.compress(TEXT, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.jsonl.gz", GZ[: len(GZ) // 2]),
        ("checksum-missing.jsonl.gz", GZ[:-8]),
        ("checksum-wrong.jsonl.gz", GZ[:-8] + b"wxyz" + GZ[-4:]),
        ("trailing.jsonl.gz", GZ + b"garbage"),
        ("plain.jsonl.gz", TEXT),
        ("cut.jsonl.zst", ZST[:-1]),
        ("plain.jsonl.zst", TEXT),
    ],
)
def test_a_corrupt_or_cut_stream_is_an_error_that_names_the_file(tmp_path: Path, name: str, data: bytes) -> None:
    """Half an input must never look like a whole one."""
    (tmp_path / name).write_bytes(data)
    with (
        ByteStream(find_files([tmp_path / name])[0]) as stream,
        pytest.raises(InputError, match=rf"{name} cannot be read: \w+"),
    ):
        list(iter(lambda: stream.read(1 << 16), b""))


def test_a_decompression_bomb_comes_in_pieces_of_the_size_asked_for(tmp_path: Path) -> None:
    """A small file that unpacks to a huge one costs time, not memory."""
    path = pack(tmp_path / "bomb.jsonl.gz", bytes(50 << 20))
    with ByteStream(find_files([path])[0]) as stream:
        sizes = [len(block) for block in iter(lambda: stream.read(1 << 18), b"")]
    assert path.stat().st_size < 1 << 20
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= 1 << 18


def test_a_file_that_changed_since_it_was_found_is_refused(tmp_path: Path) -> None:
    """Rows of a plan must not be read from another file of the same name."""
    (file,) = find_files([pack(tmp_path / "t.jsonl", TEXT)])
    check_unchanged(file)
    os.utime(file.path, ns=(0, file.mtime_ns + 1))
    with pytest.raises(InputError, match="changed while"):
        ByteStream(file)
