"""The failed rows of a run, grouped by cause: the error code and the HTTP status that they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from batcher.results.folder import Results

#: causes that are told apart; further ones are counted together, should a provider put a row's own words into a code
MOST_CAUSES = 500
OTHERS = "(further codes)"


@dataclass(slots=True)
class Cause:
    """Failed rows that show the same code and status."""

    code: str
    http_status: int | None
    rows: int = 0
    #: (row index, message) of the first of them
    samples: list[tuple[int, str]] = field(default_factory=list)


def causes(results: Results, *, samples: int = 1) -> list[Cause]:
    """Return why rows failed, the most frequent cause first; memory does not grow with the rows.

    Raises:
        StorageError: a part is damaged or gone, or the journal cannot be read.
    """
    found: dict[tuple[str, int | None], Cause] = {}
    for row_index, code, http_status, message in _failures(results):
        key = (code, http_status)
        if key not in found and len(found) >= MOST_CAUSES:
            key = (OTHERS, None)
        cause = found.setdefault(key, Cause(*key))
        cause.rows += 1
        if len(cause.samples) < samples:
            cause.samples.append((row_index, message))
    return sorted(found.values(), key=lambda cause: (-cause.rows, cause.code, cause.http_status or 0))


def _failures(results: Results) -> Iterator[tuple[int, str, int | None, str]]:
    names = [results.column("row_index"), results.column("error")]
    for batch in results.batches(names, status="failed"):
        for row_index, error in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            error = error or {}
            yield row_index, error.get("code") or "unknown", error.get("http_status"), error.get("message") or ""
