"""Answers that are not whole because `max_tokens` cut them off."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from batcher.results.folder import Results


def cut_off(path: Path) -> int:
    """Return how many rows of a run folder are completed with an answer that was cut off.

    Raises:
        BatcherError: the folder cannot be read.
    """
    with Results.open(path) as results:
        name = results.column("finish_reason")
        batches = results.batches([name], status="completed")
        return sum(pc.sum(pc.equal(batch[name].cast("string"), "length")).as_py() or 0 for batch in batches)
