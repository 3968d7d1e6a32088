"""The tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from batcher.config.document import mask
from batcher.report import words
from batcher.report.gather import CAUSES, Findings
from batcher.report.opening import cost, cost_note
from batcher.report.sketch import Sketch
from batcher.report.visible import one_line
from batcher.report.words import count, counted, duration, moment, share

#: entries of a table; the rest is added up in one line
_MOST = 12


def attempts(findings: Findings) -> list[tuple[str, str, str]]:
    return [
        (f"{number} or more" if number == 10 else str(number), count(times), share(times, findings.facts.rows))
        for number, times in sorted(findings.facts.attempts.items())
    ]


def tokens(findings: Findings) -> dict[str, Any]:
    facts = findings.facts
    both = facts.prompt_tokens + facts.completion_tokens
    prompt_known, completion_known = bool(facts.prompt_sizes.count), bool(facts.completion_sizes.count)
    return {
        "rows": [
            ("prompt", "", *_sizes(facts.prompt_tokens, facts.prompt_sizes)),
            *_part_of("from the cache", facts.cached_tokens, facts.prompt_tokens),
            ("completion", "", *_sizes(facts.completion_tokens, facts.completion_sizes)),
            *_part_of("for reasoning", facts.reasoning_tokens, facts.completion_tokens),
            ("total", "", count(both if prompt_known or completion_known else None), "", "", "", ""),
        ],
        "uncounted": counted(facts.uncounted, "completed row") if facts.uncounted else "",
        "cost": cost(findings),
        "cost_note": cost_note(findings),
    }


def _sizes(total: int, sketch: Sketch) -> Sequence[str]:
    """A total, and mean, median, 95 % quantile and maximum per row."""
    if not sketch.count:
        return (words.UNKNOWN, "", "", "", "")
    numbers = (sketch.mean, sketch.quantile(0.5), sketch.quantile(0.95), sketch.largest)
    return (count(total), *(count(round(number or 0)) for number in numbers))


def _part_of(name: str, tokens: int | None, whole: int) -> Sequence[tuple[str, ...]]:
    return () if tokens is None else [(name, share(tokens, whole), count(tokens), "", "", "", "")]


def reasons(findings: Findings) -> list[tuple[str, str, str, str]]:
    tally, completed = findings.facts.finish_reasons, findings.facts.completed
    found = [
        (one_line(reason or "none given", 80), _MEANINGS.get(reason or "", ""), count(times), share(times, completed))
        for reason, times in tally.largest(_MOST)
    ]
    if others := tally.beyond(_MOST):
        found.append(("others", "", count(others), share(others, completed)))
    return found


_MEANINGS = {
    "stop": "the model came to its end",
    "length": "cut off by max_tokens or by the context",
    "content_filter": "held back by the provider's filter",
    "tool_calls": "the model calls a tool",
}


def models(findings: Findings) -> list[tuple[str, str]]:
    tally = findings.facts.models
    return [(one_line(name or "none named", 120), counted(times, "row")) for name, times in tally.largest(_MOST)]


def versions(findings: Findings) -> list[dict[str, Any]]:
    """The versions of the job, if rows may have come from several: when each began, what it changed, its rows."""
    if len(findings.versions) < 2:
        return []
    return [
        {
            "number": one.number,
            "began": moment(datetime.fromisoformat(one.began_at)).removesuffix(" UTC"),
            "rows": counted(one.rows, "row"),
            "share": share(one.rows, findings.facts.rows),
            "changes": [one_line(mask(change)) for change in one.changes] or ["as the run began"],
        }
        for one in findings.versions
    ]


def causes(findings: Findings) -> dict[str, Any] | None:
    facts = findings.facts
    if not facts.failed:
        return None
    causes = facts.causes.sorted()
    shown = sum(cause.count for cause in causes[:CAUSES])
    return {
        "shown": [
            {
                "code": one_line(cause.code or "no code", 120),
                "http_status": "" if cause.http_status is None else f"HTTP {cause.http_status}",
                "count": counted(cause.count, "row"),
                "share": share(cause.count, facts.failed),
                "examples": [
                    {**_row(findings, row), "message": one_line(message or "no message")}
                    for message, row in cause.examples.items()
                ],
            }
            for cause in causes[:CAUSES]
        ],
        "others": counted(facts.failed - shown, "row") if shown < facts.failed else "",
    }


def _row(findings: Findings, row_index: int) -> dict[str, str]:
    name = findings.ids.get(row_index)
    return {"row": count(row_index), "id": "" if name is None else one_line(name, 60)}


def slowest(findings: Findings) -> dict[str, Any]:
    rows = [
        {
            **_row(findings, row["row_index"]),
            "latency": duration(row["latency_s"]),
            "attempts": count(row["attempts"]),
            "end": one_line(row["finish_reason"] or "", 40) if row["status"] == "completed" else "failed",
            "prompt": _known(row["prompt_tokens"]),
            "completion": _known(row["completion_tokens"]),
            "at": moment(row["requested_at"]).removesuffix(" UTC"),
        }
        for row in findings.facts.slowest
    ]
    return {"rows": rows, "id_column": one_line(findings.id_column or "", 40) if findings.ids else ""}


def _known(number: int | None) -> str:
    return words.NOTHING if number is None else count(number)
