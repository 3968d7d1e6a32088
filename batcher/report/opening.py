"""The top of the page: how the run stands, the six numbers that matter most, and what to know before the others."""

from __future__ import annotations

from typing import Any

from batcher.report import words
from batcher.report.gather import Findings
from batcher.report.visible import one_line
from batcher.report.words import count, counted, dollars, duration, moment, rate, share, short


def head(findings: Findings) -> dict[str, Any]:
    facts = findings.facts
    state, tone = _state(findings)
    return {
        "name": one_line(findings.name, 120),
        "state": state,
        "tone": tone,
        "model": one_line(findings.model, 120),
        "endpoint": one_line(findings.endpoint, 200),
        "began": moment(facts.first_at) if facts.first_at else "",
        "ended": moment(facts.last_at),
        "progress": f"{count(facts.completed)} completed, {count(facts.failed)} failed, "
        f"{count(max(0, findings.rows - facts.rows))} without an outcome, of {counted(findings.rows, 'row')}",
    }


def _state(findings: Findings) -> tuple[str, str]:
    """How the run stands, and whether that is good, bad or neither."""
    if findings.summary is not None and findings.summary.get("state") == "running":
        return "running", "plain"
    if findings.facts.rows < findings.rows:
        return "unfinished", "mixed"
    if not findings.facts.completed:
        return "finished, every row failed", "bad"
    return ("finished, some rows failed", "mixed") if findings.facts.failed else ("finished", "good")


def _worked_s(findings: Findings) -> float | None:
    """Seconds of work: of the record over time, or else from the first request to the last answer."""
    facts = findings.facts
    if findings.pace.active_s:
        return findings.pace.active_s
    return None if facts.first_at is None or facts.last_at is None else (facts.last_at - facts.first_at).total_seconds()


def tiles(findings: Findings) -> list[dict[str, str]]:
    facts, worked_s = findings.facts, _worked_s(findings)
    rows = findings.pace.rows if findings.pace.active_s else facts.rows
    per_second = rows / worked_s if worked_s else None
    tokens = facts.prompt_tokens + facts.completion_tokens
    used = bool(facts.prompt_sizes.count or facts.completion_sizes.count)
    of_all = f"{'all ' if facts.completed == findings.rows else ''}of {counted(findings.rows, 'row')}"
    latency = facts.latency_s
    tiles = [
        {"name": "Completed", "value": count(facts.completed), "more": of_all},
        {
            "name": "Failed",
            "value": count(facts.failed),
            "more": f"{share(facts.failed, facts.rows)} of rows with an outcome" if facts.failed else "no row",
            "tone": "bad" if facts.failed else "",
        },
        {
            "name": "Throughput",
            "value": rate(per_second, "rows"),
            "more": f"in {duration(worked_s)} of work" if worked_s else "nothing was timed",
        },
        {
            "name": "Latency, median",
            "value": duration(latency.quantile(0.5)),
            "more": f"95\u202f% within {duration(latency.quantile(0.95))}" if latency.count else "no row was completed",
        },
        {
            "name": "Tokens",
            "value": short(tokens) if used else words.UNKNOWN,
            "more": f"{short(facts.prompt_tokens)} prompt, {short(facts.completion_tokens)} completion"
            if used
            else "none were counted",
        },
        {"name": "Cost", "value": cost(findings), "more": cost_note(findings)},
    ]
    return [{"tone": "", **tile} for tile in tiles]


def cost(findings: Findings) -> str:
    known = dollars(findings.facts.cost_usd)
    return f"≥ {known}" if findings.facts.cost_usd is not None and findings.facts.unpriced else known


def cost_note(findings: Findings) -> str:
    facts = findings.facts
    if facts.cost_usd is None:
        return "no price is known"
    if facts.unpriced:
        return f"{counted(facts.unpriced, 'row')} at an unknown price"
    return f"{dollars(1000 * facts.cost_usd / facts.rows)} per 1,000 rows"


def notices(findings: Findings) -> list[str]:
    """What a reader should know before the numbers."""
    facts, said = findings.facts, []
    if facts.rows < findings.rows:
        left = findings.rows - facts.rows
        said.append(f"{counted(left, 'row')} of {count(findings.rows)} have no outcome yet and are not in this report.")
    if findings.in_parts < facts.rows:
        waiting = facts.rows - findings.in_parts
        said.append(f"{counted(waiting, 'row')} of those shown here have their outcome, but are not in a part yet.")
    if findings.invalid:
        said.append(f"The answers of {counted(findings.invalid, 'completed row')} do not match the JSON schema.")
    if findings.ambiguous:
        sent = counted(findings.ambiguous, "request")
        said.append(f"{sent} may have been paid for without a usable answer.")
    return said
