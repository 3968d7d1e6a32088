"""All journals of a run folder for those who only look: as one, however many processes write them.

A row may move from the first journal into another one when a run begins, and back when it ends. It is copied before it
is deleted, so whoever looks into the first journal before and after the others meets it at least once. Sums may count
such rows twice, or not, for the moment of the move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from batcher.journal.gathering import journal_path, journals_of
from batcher.journal.reader import JournalReader
from batcher.records import Outcome, Totals

T = TypeVar("T")


class JournalsReader:
    """Answers the questions of a `JournalReader` about all journals of a folder. Use from one thread."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._readers: dict[Path, JournalReader] = {}

    def outcomes(self, first_row: int, end_row: int, *, max_bytes: int = 8 << 20) -> list[Outcome]:
        """Return outcomes in row order, from `first_row` up to, not including, `end_row`.

        Stops early, after at least one, once the bodies exceed `max_bytes`; ask again for the rest.
        """
        readers = self._all()
        if len(readers) == 1:
            return readers[0].outcomes(first_row, end_row, max_bytes=max_bytes)
        found: dict[int, Outcome] = {}
        for reader in self._twice():
            part = reader.outcomes(first_row, end_row, max_bytes=max_bytes)
            if sum(len(outcome.body) for outcome in part) > max_bytes:
                end_row = part[-1].row_index + 1  # what this one holds beyond is not known
            found |= {outcome.row_index: outcome for outcome in part}
        return [found[row] for row in sorted(found) if row < end_row]

    def holds_outcomes(self, first_row: int, end_row: int) -> bool:
        """Whether any row of the range has an outcome here."""
        return self._any(lambda reader: reader.holds_outcomes(first_row, end_row))

    def knows_part(self, shard: int) -> bool:
        """Whether the part of this shard was published."""
        return self._any(lambda reader: reader.knows_part(shard))

    def totals(self, ranges: Sequence[tuple[int, int]]) -> Totals:
        """Return the sums over the outcomes and attempts of the rows in `ranges` (first row, end)."""
        totals = Totals()
        for reader in self._all():
            totals.add(reader.totals(ranges))
        return totals

    def reopened(self) -> frozenset[int]:
        """Return the numbers of the shards some rows of whose part are being asked again."""
        return frozenset().union(*(reader.reopened() for reader in self._twice()))

    def reopened_totals(self, shard: int, first_row: int, end_row: int) -> tuple[Totals, int]:
        """Return the sums over a reopened part with its newer outcomes, and how many rows have none yet.

        The latter count as they stood.
        """
        found = (reader.reopened_totals(shard, first_row, end_row) for reader in self._twice())
        return next((one for one in found if one is not None), (Totals(), 0))

    def on_their_way(self) -> int:
        """Return how many rows are noted as sent and not answered: in flight, or orphaned if the process is gone."""
        return sum(reader.on_their_way() for reader in self._all())

    def attempts(self, row_index: int) -> int:
        """Return how often a row without an outcome was asked so far; what is on its way is not counted."""
        return max(reader.attempts(row_index) for reader in self._all())

    def close(self) -> None:
        """Give the files back."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _any(self, question: Callable[[JournalReader], bool]) -> bool:
        return any(map(question, self._twice()))

    def _twice(self) -> list[JournalReader]:
        """All of them, and the first one once more: what was on its way out of it and into it is met."""
        readers = self._all()
        return readers if len(readers) == 1 else [*readers, readers[0]]

    def _all(self) -> list[JournalReader]:
        """Those that are there at the moment, the first one first, which may be still to come."""
        paths = [journal_path(self._state, 0), *journals_of(self._state)]
        for path in self._readers.keys() - set(paths):
            self._readers.pop(path).close()
        return [self._readers.setdefault(path, JournalReader(path)) for path in dict.fromkeys(paths)]
