"""How many rows that have an outcome may be asked again: failed ones, and answers that `max_tokens` cut off."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from batcher.results.folder import Results


def failed_rows(path: Path, only: Collection[str] = ()) -> int:
    """Return how many rows of a run folder failed; with `only`, with one of these error codes or HTTP statuses.

    Raises:
        BatcherError: the folder cannot be read.
    """
    with Results.open(path) as results:
        name = results.column("error")
        return sum(_with_code(batch[name], only) for batch in results.batches([name], status="failed"))


def cut_off(path: Path) -> int:
    """Return how many rows of a run folder are completed with an answer that was cut off.

    Raises:
        BatcherError: the folder cannot be read.
    """
    with Results.open(path) as results:
        name = results.column("finish_reason")
        batches = results.batches([name], status="completed")
        return sum(
            pc.sum(pc.equal(pc.utf8_lower(batch[name].cast("string")), "length")).as_py() or 0 for batch in batches
        )


def _with_code(errors: pa.StructArray, only: Collection[str]) -> int:
    if not only:
        return len(errors)
    codes, statuses = (errors.field(name).cast("string").to_pylist() for name in ("code", "http_status"))
    return sum(code in only or status in only for code, status in zip(codes, statuses, strict=True))
