"""What to do with an attempt's result: complete the row, ask again, fail the row or stop the run. Pure.

`judge` takes a whole reply, or the fault met instead of one, and returns a `Verdict`; the tables it follows are in
`rules`. The server's word comes before ours: `x-should-retry`, `retry-after`. What it does not know: how often
the row was asked before, how many requests are in flight, how long an outage may last. Counting is the worker's.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from random import Random
from typing import TYPE_CHECKING

from batcher.completion import parse, parse_error
from batcher.errors import AccountError, BatcherError, EndpointError, EndpointRefusedError
from batcher.records import ApiError, Completion, Fault, Reply, Signal
from batcher.retry.retry_after import retry_after_s, should_retry
from batcher.retry.rules import (
    BLANK,
    BROKEN_OFF,
    FAULTS,
    FINISHED,
    IN_FLIGHT_BUDGET,
    IN_FLIGHT_BUDGET_MARK,
    NAMES,
    NO_API,
    NO_RESOURCES,
    PATTERNS,
    ROW_SPECIFIC_CODES,
    STATUS_OF_NAME,
    UNFINISHED,
    UNKNOWN_ERROR,
    UNKNOWN_FINISH,
    Action,
    Doubt,
    Rule,
    rule_of_status,
)

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Action", "Doubt", "Verdict", "backoff_s", "is_row_specific", "judge", "safely_judged"]

#: a longer wait concerns everybody, not one row's attempts
LONGEST_ROW_WAIT_S = 120.0
#: the ceiling of our own backoff
LONGEST_BACKOFF_S = 60.0

_log = logging.getLogger(__name__)

#: what a person can do, by what the run ends with
_ADVICE: dict[type[BatcherError], str] = {
    AccountError: "put it right and run the same command again",
    EndpointRefusedError: "correct the job file and run the same command again",
    EndpointError: "run the same command again later",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from the result of one attempt."""

    action: Action
    #: why the row is not complete; its `code` is never None. None with COMPLETE
    error: ApiError | None = None
    #: the answer, also where it is not good enough to complete the row
    completion: Completion | None = None
    #: when to ask again as the server says; None leaves it to the backoff. Above 120 s it is a pause of the whole run
    wait_s: float | None = None
    #: the attempt may have been paid for, though its answer cannot be used
    ambiguous: bool = False
    signal: Signal = Signal.NONE
    #: how often a row may be retried for this `error.code`, where that is less often than it may be asked at all
    max_retries: int | None = None
    #: what the run ends with, and why in words of ours; None unless the action is STOP
    stop: type[BatcherError] | None = None
    reason: str | None = None
    #: what is to be found out first in a run that has had answers; None: nothing
    doubt: Doubt | None = None

    def as_error(self) -> BatcherError:
        """Return what a run that stops for this verdict ends with, free of the provider's words."""
        stop = self.stop or BatcherError
        parts = [self.reason, _ADVICE.get(stop)]
        return stop("; ".join(part for part in parts if part) or None)


def judge(result: Reply | Fault, *, json_mode: bool, now_s: float) -> Verdict:
    """Return what follows from `result`.

    With `json_mode` a blank answer is no answer. `now_s`, seconds since 1970, is what dates in headers count from.
    """
    if isinstance(result, Fault):
        return _judge_fault(result, None)
    if not _is_success(result.status):
        return _judge_error(result, parse_error(result.body) or ApiError(""), now_s)
    answer = parse(result.body)
    if isinstance(answer, Completion):
        return _judge_completion(answer, result.status, json_mode)
    if isinstance(answer, ApiError):
        return _judge_error(result, answer, now_s)
    if result.status == 200:
        return _judge_fault(answer, 200)
    rule = replace(NO_API, reason=f"{NO_API.reason} (HTTP {result.status})")
    return _verdict(rule, ApiError(answer.message, code=f"http_{result.status}", http_status=result.status))


def safely_judged(result: Reply | Fault, *, json_mode: bool, now_s: float) -> Verdict:
    """Return what `judge` does; should that ever fail on an answer, the row fails and its answer is kept."""
    try:
        return judge(result, json_mode=json_mode, now_s=now_s)
    except Exception as error:
        _log.warning("an answer could not be judged: %s", type(error).__name__)
        return Verdict(Action.FAIL, ApiError("batcher cannot read this answer", type="batcher", code="unreadable"))


def is_row_specific(error: ApiError) -> bool:
    """Whether an error is the row's own by nature, so that even many of them say nothing about the job."""
    return error.code in ROW_SPECIFIC_CODES


def backoff_s(failures: int, random: Random, wait_s: float | None) -> float:
    """Return how long to wait after so many failures (from 1): full jitter up to a minute, or the server's `wait_s`.

    What the server asks for is kept to and exceeded a little, or everybody would come back at the same moment.
    """
    if wait_s is not None:
        return wait_s and wait_s + random.uniform(0, 0.1 * wait_s + 1)
    return random.uniform(0, _ceiling()(failures))


def _judge_completion(completion: Completion, status: int, json_mode: bool) -> Verdict:
    reason = completion.finish_reason
    if reason not in FINISHED and (reason is None or reason.lower() not in FINISHED):
        rule = _rule_of_finish(reason)
    elif json_mode and reason == "stop" and _is_blank(completion):
        rule = BLANK
    else:
        return Verdict(Action.COMPLETE, completion=completion, signal=Signal.SUCCESS)
    message = "the answer is blank" if rule is BLANK else "the answer is not finished"
    return _verdict(rule, ApiError(message, code=rule.code, http_status=status), completion=completion)


def _rule_of_finish(reason: str | None) -> Rule:
    if reason is None:
        return UNFINISHED
    return {"insufficient_system_resource": NO_RESOURCES, "error": BROKEN_OFF}.get(reason, UNKNOWN_FINISH)


def _is_blank(completion: Completion) -> bool:
    """Whether there is no answer in any form: tool calls and further choices are in `choices_raw`."""
    return not ((completion.content or "").strip() or completion.refusal or completion.choices_raw)


def _judge_fault(fault: Fault, http_status: int | None) -> Verdict:
    return _verdict(FAULTS[fault.kind], ApiError(fault.message, code=fault.kind.value, http_status=http_status))


def _judge_error(reply: Reply, error: ApiError, now_s: float) -> Verdict:
    """Judge a refusal, or an error object that came with a 200."""
    status = _status(reply, error)
    rule = _rule_of_error(reply, error, status)
    if _is_success(reply.status) and _is_retried(rule) and rule.signal is not Signal.THROTTLED:  # broke off midway
        rule = replace(rule, ambiguous=True)
    rule = _heed_headers(rule, reply, now_s)
    if rule.reason is not None:
        rule = replace(rule, reason=f"{rule.reason} (HTTP {status or reply.status})")
    error = replace(
        error,
        message=error.message or _phrase(reply.status),
        code=rule.code or _grouping_code(error, reply.status),
        http_status=reply.status,
    )
    return _verdict(rule, error)


def _status(reply: Reply, error: ApiError) -> int | None:
    """Return the HTTP status of a refusal; of an error within a 2xx the one its code or type stands for, or None."""
    if not _is_success(reply.status):
        return reply.status
    for name in (error.code, error.type):
        if name is not None:
            status = int(name) if _is_status(name) else STATUS_OF_NAME.get(name.lower())
            if status is not None:
                return status
    return None


def _is_retried(rule: Rule) -> bool:
    return rule.action in (Action.RETRY, Action.RETRY_FREE)


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _is_status(code: str) -> bool:
    return len(code) == 3 and code.isascii() and code.isdigit() and code[0] in "345"


def _rule_of_error(reply: Reply, error: ApiError, status: int | None) -> Rule:
    for name in (error.code, error.type):
        if name is not None and (named := NAMES.get(name.lower())):
            return named
    if status == 402 and IN_FLIGHT_BUDGET_MARK in reply.body and "retry-after" in reply.headers:
        return IN_FLIGHT_BUDGET
    for pattern in PATTERNS:
        if (200 if status is None else status) in pattern.statuses and pattern.message.search(error.message):
            return pattern.rule
    return UNKNOWN_ERROR if status is None else rule_of_status(status)


def _heed_headers(rule: Rule, reply: Reply, now_s: float) -> Rule:
    """Return `rule` as the response headers change it. A run that is to stop stops: it loses nothing by that."""
    if rule.action is Action.STOP:
        return rule
    wanted = should_retry(reply.headers)
    if wanted is False:
        return replace(rule, action=Action.FAIL, wait_s=None, max_retries=None)
    if wanted is True and rule.action is Action.FAIL:
        rule = replace(rule, action=Action.RETRY)
    if rule.action is Action.FAIL:
        return rule
    wait_s = retry_after_s(reply.headers, now_s=now_s)
    wait_s = rule.wait_s if wait_s is None else wait_s
    if wait_s is not None and wait_s > LONGEST_ROW_WAIT_S:
        return replace(rule, action=Action.RETRY_FREE, wait_s=wait_s, max_retries=None)
    return replace(rule, wait_s=wait_s)


def _grouping_code(error: ApiError, status: int) -> str:
    """Return the provider's code, unless it only repeats a status; then, and without one, `http_<status>`."""
    code = error.code
    if code is not None and not _is_status(code):
        return code
    if code is None and _is_success(status):
        return error.type or "error_with_http_200"
    return f"http_{code or status}"


def _phrase(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _verdict(rule: Rule, error: ApiError, *, completion: Completion | None = None) -> Verdict:
    return Verdict(
        action=rule.action,
        error=error,
        completion=completion,
        wait_s=rule.wait_s,
        ambiguous=rule.ambiguous,
        signal=rule.signal,
        max_retries=rule.max_retries,
        stop=rule.stop,
        reason=rule.reason,
        doubt=rule.doubt,
    )


@functools.cache
def _ceiling() -> Callable[[int], float]:
    """Return the ceiling of the backoff by failures: 2, 4, 8 ... 60 s.

    The curve is tenacity's, without its jitter, which draws from the global random numbers. Imported here because that
    takes 45 ms, and a run without a failure needs none of it.
    """
    from tenacity import wait_exponential

    curve = wait_exponential(multiplier=2, exp_base=2, max=LONGEST_BACKOFF_S)

    def ceiling(failures: int) -> float:
        state: RetryCallState = _state(failures)
        return curve(state)

    return ceiling


def _state(failures: int) -> RetryCallState:
    """Return the one thing that a wait of tenacity looks at: which attempt it was."""
    from tenacity import RetryCallState, Retrying

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = failures
    return state
