"""One Parquet file of all rows: zstd, page index, page checksums, row groups of a size that readers like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.part import row_groups
from batcher.results import Results

#: a row group has about this size, in Arrow's memory format; a part's are smaller, and a file of thousands is slow
_ROW_GROUP_BYTES = 32 << 20


def write_parquet(results: Results, file: BinaryIO) -> int:
    """Write all rows that have an outcome; return their number."""
    return write_batches(results, file, results.batches())


def write_batches(results: Results, file: BinaryIO, batches: Iterable[pa.RecordBatch]) -> int:
    """Write record batches that have all columns of `results`; return the number of rows."""
    rows = 0
    options = {"compression": "zstd", "write_page_index": True, "write_page_checksum": True}
    with pq.ParquetWriter(file, results.schema, **options) as writer:
        for table in row_groups(batches, results.schema, _ROW_GROUP_BYTES):
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
        writer.add_key_value_metadata({"batcher.version": results.version, "batcher.rows": str(rows)})
    return rows
