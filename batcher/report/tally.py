"""Counting what servers say: a bounded number of different texts, and of causes of failures with examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

#: different texts that are told apart; what comes later is counted as others
MOST = 200
#: characters of a text that count, and of a message that is kept
_TEXT, _MESSAGE = 120, 400
EXAMPLES = 3


class Tally:
    """How often each text of a column occurs."""

    def __init__(self) -> None:
        self.counts: Counter[str | None] = Counter()
        #: of texts that were one too many
        self.others = 0

    def add(self, texts: pa.Array) -> None:
        """Count the texts of an array, null being one of them."""
        for found in pc.value_counts(_beginning(texts, _TEXT)).to_pylist():
            if found["values"] in self.counts or len(self.counts) < MOST:
                self.counts[found["values"]] += found["counts"]
            else:
                self.others += found["counts"]

    def largest(self, most: int) -> list[tuple[str | None, int]]:
        """Return the most frequent texts, and how often each occurs."""
        return sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0] or ""))[:most]

    def beyond(self, most: int) -> int:
        """How many entries `largest(most)` leaves out."""
        return self.counts.total() + self.others - sum(count for _, count in self.largest(most))


@dataclass(slots=True)
class Cause:
    """Why some rows failed."""

    #: the error's code, or its type where it has no code; None where it has neither
    code: str | None
    http_status: int | None
    count: int = 0
    #: different messages, each with the first row that met it
    examples: dict[str | None, int] = field(default_factory=dict)


class Causes:
    """Failures by cause."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str | None, int | None], Cause] = {}
        #: rows whose cause was one too many
        self.others = 0

    def add(self, row_index: pa.Array, errors: pa.StructArray) -> None:
        """Count the errors of failed rows."""
        code = pc.coalesce(pc.struct_field(errors, "code"), pc.struct_field(errors, "type"))
        failures = pa.table(
            {
                "row": row_index,
                "code": _beginning(code, _TEXT),
                "http_status": pc.struct_field(errors, "http_status"),
                "message": _beginning(pc.struct_field(errors, "message"), _MESSAGE),
            }
        )
        keys = ["code", "http_status"]
        for group in failures.group_by(keys, use_threads=False).aggregate([([], "count_all")]).to_pylist():
            cause = self._cause(group["code"], group["http_status"])
            if cause is None:
                self.others += group["count_all"]
                continue
            cause.count += group["count_all"]
            if len(cause.examples) < EXAMPLES:
                _add_examples(cause, failures)

    def sorted(self) -> list[Cause]:
        """Return the causes, the most frequent one first."""
        return sorted(self._causes.values(), key=lambda cause: (-cause.count, cause.code or "", cause.http_status or 0))

    def _cause(self, code: str | None, http_status: int | None) -> Cause | None:
        key = (code, http_status)
        if key not in self._causes and len(self._causes) < MOST:
            self._causes[key] = Cause(code, http_status)
        return self._causes.get(key)


def _add_examples(cause: Cause, failures: pa.Table) -> None:
    same = pc.and_(_is(failures["code"], cause.code), _is(failures["http_status"], cause.http_status))
    messages = failures.filter(same).group_by("message", use_threads=False).aggregate([("row", "min")])
    for found in messages.sort_by("row_min").slice(0, EXAMPLES + len(cause.examples)).to_pylist():
        if len(cause.examples) < EXAMPLES:
            cause.examples.setdefault(found["message"], found["row_min"])


def _is(column: pa.ChunkedArray, value: str | int | None) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)


def _beginning(texts: pa.Array, characters: int) -> pa.Array:
    """The texts cut to so many characters, and one more by which a cut one is known."""
    return pc.utf8_slice_codeunits(texts, 0, characters + 1)
