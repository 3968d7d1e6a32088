"""One answer of a script: what is sent instead of a normal answer, and how the connection ends.

The keys are those of `CHECKS`. At most one of `BODIES` (what the body is) and one of `ENDINGS` (how it ends) stand
together; `delay_s`, `keepalive_lines` and `headers` go with any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batcher.simulator.checks import (
    Check,
    header_value,
    number,
    one_of,
    text,
    text_or_null,
    text_or_whole,
    unknown_keys,
    whole,
    yes,
)
from batcher.simulator.refusal import Refusal, usual

LONGEST_S = 86400.0
BODIES = ("blank", "misfit", "html", "not_json", "empty_choices", "error_in_200", "finish_reason", "stream_cut")
ENDINGS = ("cut", "drop", "reset", "silent")
ERROR_KEYS = ("code", "type", "message", "param")
HEADER_NAME = re.compile("[A-Za-z0-9_-]+")
#: finish reasons a client keeps the answer for
KEPT_REASONS = ("stop", "length", "content_filter", "tool_calls")


def _error_mapping(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be a mapping"
    problems = [*unknown_keys(value, ERROR_KEYS)]
    problems += [f"{key}: {found}" for key in ERROR_KEYS if (found := text_or_whole(value.get(key, "")))]
    return "; ".join(problems) or None


def _header_mapping(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be a mapping"
    for name, content in value.items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            return f"'{name}' is not the name of a header"
        if problem := header_value(content):
            return f"{name}: {problem}"
    return None


CHECKS: dict[str, Check] = {
    "status": whole(200, 599),
    "retry_after": header_value,
    "code": text_or_whole,
    "type": text,
    "message": text,
    "param": text,
    "headers": _header_mapping,
    "delay_s": number(0, LONGEST_S),
    "keepalive_lines": whole(1, 100_000),
    "cut": number(0, 0.999),
    "drop": one_of("before", "headers"),
    "reset": yes,
    "silent": yes,
    "blank": yes,
    "misfit": yes,
    "html": yes,
    "not_json": yes,
    "empty_choices": yes,
    "error_in_200": _error_mapping,
    "finish_reason": text_or_null,
    "stream_cut": yes,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one attempt gets."""

    status: int = 200
    #: one of `BODIES`; None is a normal answer, or with another status than 200 an error object
    body: str | None = None
    #: one of `ENDINGS`; None is a whole answer on a connection that stays open
    ending: str | None = None
    #: the error to send; None with an error status means the usual one of that status
    error: Refusal | None = None
    headers: tuple[tuple[str, str], ...] = ()
    #: on top of the usual latency
    delay_s: float = 0.0
    keepalive_lines: int = 0
    #: the share of the body that is sent, with the ending `cut`
    cut: float = 1.0
    #: with the ending `drop`: `before` a single byte, or after the `headers`
    drop: str = ""
    #: with the body `finish_reason`
    finish_reason: str | None = None

    @property
    def fault(self) -> str | None:
        """A word for what goes wrong, or None."""
        return self.ending or self.body or (None if self.status == 200 else "status")

    @property
    def usable(self) -> bool:
        """The answer holds a completion that a client keeps."""
        return self.fault is None or (
            self.ending is None and self.body == "finish_reason" and self.finish_reason in KEPT_REASONS
        )


NORMAL = Step()


def step_problems(step: Any) -> Iterator[str]:
    """What is wrong with an answer of a script."""
    if not isinstance(step, dict) or not step:
        yield "must be a mapping such as {status: 503}"
        return
    yield from unknown_keys(step, CHECKS)
    for key, value in step.items():
        if key in CHECKS and (problem := CHECKS[key](value)):
            yield f"{key}: {problem}"
    yield from _contradictions(step)


def _contradictions(step: dict[str, Any]) -> Iterator[str]:
    for group in (BODIES, ENDINGS):
        given = [key for key in group if key in step]
        if len(given) > 1:
            yield f"{' and '.join(given)} exclude each other"
    failing = step.get("status", 200) != 200
    for key in ("retry_after", *ERROR_KEYS):
        if key in step and not failing:
            yield f"{key}: needs a status other than 200"
    for key in BODIES:
        if key in step and failing and key not in ("html", "not_json"):
            yield f"{key}: needs status 200"
    if "keepalive_lines" in step and any(key in step for key in ("drop", "reset", "silent")):
        yield "keepalive_lines: needs an answer that follows"


def read_step(step: dict[str, Any]) -> Step:
    """Turn an answer of a script without problems into a `Step`."""
    headers = [(str(name).lower(), str(value)) for name, value in step.get("headers", {}).items()]
    if "retry_after" in step:
        headers.append(("retry-after", str(step["retry_after"])))
    status = step.get("status", 200)
    return Step(
        status=status,
        body=next((key for key in BODIES if key in step), None),
        ending=next((key for key in ENDINGS if key in step), None),
        error=_error(step, status),
        headers=tuple(headers),
        delay_s=step.get("delay_s", 0.0),
        keepalive_lines=step.get("keepalive_lines", 0),
        cut=step.get("cut", 1.0),
        drop=step.get("drop", ""),
        finish_reason=step.get("finish_reason"),
    )


def _error(step: dict[str, Any], status: int) -> Refusal | None:
    if "error_in_200" in step:
        return usual(500, **step["error_in_200"])
    if status == 200:
        return None
    return usual(status, **{key: step[key] for key in ERROR_KEYS if key in step})
