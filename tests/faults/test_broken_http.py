"""HTTP that is broken in every way known: rows end right all the same, nothing is stored that is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
#: there are this many rows for each that meets a fault
SPACING = 3


def places(faults: Sequence[Shape]) -> range:
    """The rows that meet them; the first row of all is a good one."""
    return range(1, SPACING * len(faults), SPACING)


def scripted(
    folder: Path, server: FaultServer, faults: Sequence[Shape], *, times: int, more: int = 0, **options: Any
) -> Trial:
    """A trial of which every third row meets one of `faults`, in its first so many attempts; `more` rows follow."""
    made = trial(folder, server, SPACING * len(faults) + more, connection={"timeouts": TIMEOUTS}, **options)
    script = {made.texts[place]: fault for place, fault in zip(places(faults), faults, strict=True)}
    server.plan = lambda prompt, attempt: script.get(prompt) if attempt < times else None
    return made


def met(rows: pa.Table, faults: Sequence[Shape]) -> Mapping[str, dict[str, Any]]:
    """The output row of each fault."""
    return dict(zip((fault.name for fault in faults), rows.take(list(places(faults))).to_pylist(), strict=True))


def test_every_broken_answer_once(tmp_path: Path) -> None:
    """A row that meets any broken answer is asked once more and completed; what may have been paid is counted."""
    faults = [*shapes.BROKEN, *shapes.GOOD_IN_THE_END, *shapes.ODD]
    with fault_server() as server:
        made = scripted(tmp_path, server, faults, times=1)
        made.run()
    odd = [places(faults)[faults.index(shape)] for shape in shapes.ODD]
    rows = met(check(made, odd=odd), faults)
    assert {name: row["attempts"] for name, row in rows.items()} == {
        shape.name: 1 if shape.usable else 2 for shape in faults
    }
    assert unsure_of(made) == sum(shape.doubtful for shape in faults)
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


#: fault -> error code of the failed row, and how often it was asked
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
    """A row that gets nothing but broken answers fails alone, after few attempts, and says what it met."""
    faults = list(FOR_EVER)
    quick = patched({"batcher.retry.judge.LONGEST_BACKOFF_S": 0.3})
    with fault_server() as server:
        server.latency_s = 0.1
        made = scripted(tmp_path, server, faults, times=100, more=1000, program=quick)  # while others succeed
        made.run(code=3)
    rows = met(check(made, code=3, failed=places(faults)), faults)
    assert {name: (row["error"]["code"], row["attempts"]) for name, row in rows.items()} == {
        fault.name: ending for fault, ending in FOR_EVER.items()
    }
    assert unsure_of(made) == sum(attempts for _, attempts in FOR_EVER.values()) - FOR_EVER[shapes.BOMB][1]
