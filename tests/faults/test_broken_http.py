"""HTTP that is broken in every way known: rows end right all the same, nothing is stored that is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests import shapes
from tests.checker import check, unsure_of
from tests.command import patched
from tests.fault_server import FaultServer, Shape, fault_server
from tests.harness import answer_to
from tests.trial import Trial, trial

#: minutes of the defaults, scaled to what a test can wait for
TIMEOUTS = {"connect_s": 5, "first_byte_s": 1.5, "total_s": 2.5}


@dataclass(frozen=True)
class Faults:
    """Which rows meet which shape, and how often before they get their answer."""

    shapes: Sequence[Shape]
    times: int
    #: there are this many rows for each that meets a fault, and the first of all is a good one
    spacing: int
    #: good rows at the end
    more: int = 0

    @property
    def places(self) -> range:
        """The rows that meet them."""
        return range(1, self.spacing * len(self.shapes), self.spacing)

    def scripted(self, folder: Path, server: FaultServer, **options: Any) -> Trial:
        """A trial in which these rows meet these shapes."""
        rows = self.spacing * len(self.shapes) + self.more
        made = trial(folder, server, rows, connection={"timeouts": TIMEOUTS}, **options)
        script = {made.texts[place]: shape for place, shape in zip(self.places, self.shapes, strict=True)}
        server.plan = lambda prompt, attempt: script.get(prompt) if attempt < self.times else None
        return made

    def met(self, rows: pa.Table) -> Mapping[str, dict[str, Any]]:
        """The output row of each shape, by its name."""
        found = rows.take(list(self.places)).to_pylist()
        return dict(zip((shape.name for shape in self.shapes), found, strict=True))


def test_every_broken_answer_once(tmp_path: Path) -> None:
    """A row that meets any broken answer is asked once more and completed; what may have been paid is counted."""
    faults = Faults([*shapes.BROKEN, *shapes.GOOD_IN_THE_END, *shapes.ODD], times=1, spacing=3)
    with fault_server() as server:
        made = faults.scripted(tmp_path, server)
        made.run()
    odd = [faults.places[faults.shapes.index(shape)] for shape in shapes.ODD]
    rows = faults.met(check(made, odd=odd))
    assert {name: row["attempts"] for name, row in rows.items()} == {
        shape.name: 1 if shape.usable else 2 for shape in faults.shapes
    }
    assert unsure_of(made) == sum(shape.doubtful for shape in faults.shapes)
    check_odd(rows)


def check_odd(rows: Mapping[str, dict[str, Any]]) -> None:
    """Assert what became of answers that cannot be stored as they are."""
    row = rows[shapes.SURROGATE.name]
    assert row["completion"] == "\ufffd half of it"
    row = rows[shapes.NAN_USAGE.name]
    answer = answer_to(row["text"])
    assert (row["prompt_tokens"], row["completion_tokens"]) == (None, answer.completion_tokens)
    row = rows[shapes.HUGE_NUMBER.name]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (answer_to(row["text"]).usage["prompt_tokens"], None)
    row = rows[shapes.DUPLICATE_KEYS.name]
    assert row["total_tokens"] == answer_to(row["text"]).usage["total_tokens"], "the last of two keys counts"


#: fault -> error code of the failed row, and how often it is asked at least; twice that if it is excused once
FOR_EVER = {
    shapes.SILENT: ("timeout", 3),
    shapes.BLANK_FOR_EVER: ("timeout", 3),
    shapes.COMMENTS_FOR_EVER: ("timeout", 3),
    shapes.TRICKLE: ("timeout", 3),
    shapes.SHORT_LENGTH: ("truncated", 3),
    shapes.SHORT_CHUNKS: ("truncated", 3),
    shapes.BROKEN_CHUNK: ("truncated", 3),
    shapes.SHORT_CLOSE: ("truncated", 3),
    shapes.STREAM_CUT: ("truncated", 3),
    shapes.GARBAGE: ("protocol_error", 3),
    shapes.HUGE_HEADER: ("protocol_error", 3),
    shapes.HTML: ("invalid_response", 3),
    shapes.NESTED: ("truncated", 3),
    shapes.NO_CHOICES: ("invalid_response", 3),
    shapes.NULL_FINISH: ("no_finish_reason", 3),
    shapes.BOMB: ("response_too_large", 1),
}


def test_every_broken_answer_for_ever(tmp_path: Path) -> None:
    """A row that gets nothing but broken answers while others succeed fails alone, after few attempts, and says why."""
    faults = Faults(list(FOR_EVER), times=100, spacing=40, more=400)
    quick = patched({"batcher.retry.judge.LONGEST_BACKOFF_S": 0.3})
    with fault_server() as server:
        server.latency_s = 0.1
        made = faults.scripted(tmp_path, server, program=quick)
        made.run(code=3)
    rows = faults.met(check(made, code=3, failed=faults.places))
    attempts = {shape.name: rows[shape.name]["attempts"] for shape in FOR_EVER}
    for shape, (code, least) in FOR_EVER.items():
        assert rows[shape.name]["error"]["code"] == code, shape
        assert least <= attempts[shape.name] <= 2 * least, (shape, attempts)
    assert unsure_of(made) == sum(attempts.values()) - attempts[shapes.BOMB.name]
