"""A part that was torn or changed on disk is refused in words, wherever the damage is."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batcher.errors import StorageError
from batcher.part import check_part
from tests.fakes import outcome
from tests.unit.test_part import FORM, write


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_part(tmp_path: Path, share: float) -> None:
    """A part whose end is missing is no part."""
    path = tmp_path / "p"
    shard, _ = write(path, [outcome(0), outcome(1)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StorageError):
        check_part(path, shard, FORM)


def test_a_bit_flips_in_the_row_indexes(tmp_path: Path) -> None:
    """The page's checksum shows it, at every byte."""
    path = tmp_path / "p"
    shard, _ = write(path, [outcome(n) for n in range(50)])
    column = pq.read_metadata(path).row_group(0).column(2)
    assert column.path_in_schema == "row_index"
    content = path.read_bytes()
    end = column.data_page_offset + column.total_compressed_size
    for at in range(column.data_page_offset + 30, end):  # behind the page's header
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(StorageError):
            check_part(path, shard, FORM)


@pytest.mark.parametrize("key", ["batcher.fingerprint", "batcher.shard", "batcher.totals"])
def test_a_bit_flips_in_the_footer(tmp_path: Path, key: str) -> None:
    """Whatever stands in a key's place, the answer is a StorageError."""
    path = tmp_path / "p"
    shard, _ = write(path, [outcome(0)])
    content = path.read_bytes()
    start = content.rindex(key.encode())
    for at in range(start, start + len(key)):
        for bit in (0x01, 0x80):
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            with pytest.raises(StorageError):
                check_part(path, shard, FORM)
