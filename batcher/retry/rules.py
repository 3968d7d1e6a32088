"""What each status, error code, fault and finish reason means for a row and for the run: tables, without a decision.

`retry.judge` looks things up here, in this order: the provider's error code, its error type, the few patterns of
messages that providers send without a code, the HTTP status. A rule that stops the run leaves its rows pending,
because a wrong key or an empty account is no property of a row. These tables know no headers and no clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from batcher.errors import AccountError, BatcherError, EndpointError, EndpointRefusedError
from batcher.records import FaultKind, Signal


class Action(Enum):
    """What to do with the row, or with the run."""

    #: the row is completed, also when the answer was cut by `max_tokens` or by a filter: it is paid for
    COMPLETE = "complete"
    #: ask again; uses one of the row's attempts
    RETRY = "retry"
    #: ask again; uses no attempt, since the endpoint is busy or away and the row is innocent
    RETRY_FREE = "retry free"
    #: the row fails for good, the run goes on
    FAIL = "fail"
    #: every row would meet the same: stop the run and leave the rows pending
    STOP = "stop"


class Doubt(Enum):
    """Why a run that has had answers does not stop at once: it asks again to find out whether every row is refused."""

    #: it may pass, since a key is exchanged or a certificate renewed; then the refused row is asked again
    PASSING = "passing"
    #: it may be about this one row, such as a prompt that a firewall dislikes; then the refused row fails
    ROW = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a table."""

    action: Action
    signal: Signal = Signal.NONE
    #: the attempt may have been paid for
    ambiguous: bool = False
    #: a bound on retries that is tighter than the row's attempts
    max_retries: int | None = None
    #: how long to wait if the server does not say; None leaves it to the backoff
    wait_s: float | None = None
    #: what a run that stops ends with
    stop: type[BatcherError] | None = None
    #: what a run that has had answers finds out before it stops; None: nothing, it is sure
    doubt: Doubt | None = None
    #: why it stops, for people
    reason: str | None = None
    #: the code the row shows instead of the provider's
    code: str | None = None


def _stop(stop: type[BatcherError], reason: str, doubt: Doubt | None = None) -> Rule:
    return Rule(action=Action.STOP, stop=stop, reason=reason, doubt=doubt)


#: where a message says "per day" and nobody says until when: look again every quarter of an hour
DAILY_LIMIT_WAIT_S = 900.0

_RETRY = Rule(action=Action.RETRY)
_MAYBE_PAID = Rule(action=Action.RETRY, signal=Signal.FAILING, ambiguous=True)
_MAYBE_PAID_TWICE = replace(_MAYBE_PAID, max_retries=2)
_THROTTLED = Rule(action=Action.RETRY_FREE, signal=Signal.THROTTLED)
_OVERLOADED = Rule(action=Action.RETRY_FREE, signal=Signal.OVERLOADED)
_GATEWAY_TIMEOUT = replace(_OVERLOADED, ambiguous=True)
_FAIL = Rule(action=Action.FAIL)
_TOO_LARGE = Rule(action=Action.FAIL, code="request_too_large")
_TOO_LONG = Rule(action=Action.FAIL, code="context_length_exceeded")
_FILTERED = Rule(action=Action.FAIL, code="content_filter")
_KEY = _stop(AccountError, "the endpoint refused the key", Doubt.PASSING)
_MONEY = _stop(AccountError, "the account has no credit left, or its spending limit is reached")
_FORBIDDEN = _stop(AccountError, "the endpoint refuses this account, country or address", Doubt.ROW)
_MODEL = _stop(EndpointRefusedError, "the endpoint does not offer the model to this key", Doubt.ROW)
_ADDRESS = _stop(EndpointRefusedError, "there is no such model or no chat-completions API at this address", Doubt.ROW)
_REQUEST = _stop(
    EndpointRefusedError, "the endpoint does not accept such requests: is endpoint.base_url right?", Doubt.ROW
)
_REDIRECT = _stop(
    EndpointRefusedError, "the endpoint redirects, which is not followed: correct endpoint.base_url", Doubt.ROW
)
_STRANGE = _stop(
    EndpointRefusedError, "the endpoint answered with a status that no chat-completions API sends", Doubt.ROW
)
_UNABLE = _stop(EndpointError, "the endpoint cannot serve such requests at all", Doubt.ROW)
_LOGIN = _stop(EndpointError, "the network asks for a login before it lets requests through", Doubt.PASSING)

#: 2xx without a completion or an error object; 200 itself is a fault of the attempt, see FAULTS
NO_API = _stop(
    EndpointRefusedError, "the endpoint takes requests but answers without a completion: is it a chat API?", Doubt.ROW
)
#: an error within a 200 that nothing else here knows
UNKNOWN_ERROR = _MAYBE_PAID_TWICE
#: OpenRouter: the money of the requests in flight is reserved; wait until they are through
IN_FLIGHT_BUDGET = _THROTTLED
IN_FLIGHT_BUDGET_MARK = b"openrouter_in_flight_budget"

_STATUSES: dict[int, Rule] = {
    401: _KEY,
    402: _MONEY,
    403: _FORBIDDEN,
    404: _ADDRESS,
    405: _REQUEST,
    406: _REQUEST,
    407: _stop(EndpointRefusedError, "the proxy asks for credentials", Doubt.PASSING),
    408: replace(_MAYBE_PAID, signal=Signal.NONE),
    409: replace(_RETRY, max_retries=3),
    410: _ADDRESS,
    411: _REQUEST,
    413: _TOO_LARGE,
    414: _REQUEST,
    415: _REQUEST,
    421: _RETRY,
    424: _MAYBE_PAID,  # Hugging Face's TGI: the generation broke
    425: _RETRY,
    426: _REQUEST,
    429: _THROTTLED,
    501: _UNABLE,
    502: _OVERLOADED,
    503: _OVERLOADED,
    504: _GATEWAY_TIMEOUT,
    505: _UNABLE,
    511: _LOGIN,
    **dict.fromkeys((*range(520, 528), 530), _OVERLOADED),
    524: _GATEWAY_TIMEOUT,
    529: _OVERLOADED,
}


def rule_of_status(status: int) -> Rule:
    """Return the rule of an HTTP status outside 2xx; what is not listed follows the first of its hundred."""
    if rule := _STATUSES.get(status):
        return rule
    if 300 <= status < 400:
        return _REDIRECT
    if 400 <= status < 500:
        return _FAIL
    return _MAYBE_PAID if 500 <= status < 600 else _STRANGE


#: error codes and types whose meaning does not depend on the status they come with, in lower case
NAMES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "insufficient_quota",
            "insufficient_user_quota",  # One API gateways
            "enforced_spend_limit_reached",
            "exceeded_current_quota_error",  # Moonshot
            "arrearage",  # Alibaba
        ),
        _MONEY,
    ),
    **dict.fromkeys(("invalid_api_key", "account_deactivated"), _KEY),
    **dict.fromkeys(("model_not_found", "invalid_model", "unknown_model", "model_not_exist"), _MODEL),
    **dict.fromkeys(("context_length_exceeded", "exceed_context_size_error"), _TOO_LONG),
    **dict.fromkeys(
        ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"),
        _FILTERED,
    ),
    "request_too_large": _TOO_LARGE,
    "slow_down": _THROTTLED,
}

#: error codes and types that say within a 200, or in an event stream, what the status would have said
STATUS_OF_NAME: dict[str, int] = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "service_unavailable": 503,
    "server_is_overloaded": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A message that says what no code does. Anchored where a message may repeat the prompt."""

    #: statuses it is looked for with; 200 stands for an error within a 200
    statuses: frozenset[int]
    message: re.Pattern[str]
    rule: Rule


def _pattern(statuses: set[int], message: str, rule: Rule) -> Pattern:
    return Pattern(frozenset(statuses), re.compile(message, re.IGNORECASE), rule)


PATTERNS: tuple[Pattern, ...] = (
    _pattern(
        {200, 400, 413, 422},  # vLLM, SGLang, llama.cpp, LM Studio, Anthropic
        r"maximum context length|context[ _](?:window|length|size|overflow)|\bprompt is too long",
        _TOO_LONG,
    ),
    _pattern({200, 400}, r"^content exists risk", _FILTERED),  # DeepSeek
    _pattern({200, 400}, r"^.{0,200}content (?:management )?policy", _FILTERED),  # Azure
    _pattern({403}, r"requires moderation|input was flagged", _FILTERED),  # OpenRouter
    _pattern(
        {200, 400},  # DeepSeek says "Model Not Exist", OpenRouter "x is not a valid model ID"
        r"^(?:the )?(?:requested )?model\b.{0,200}\b(?:not exist|not found)\b|^\S{1,200} is not a valid model\b",
        _MODEL,
    ),
    _pattern({200, 400}, r"^(?:incorrect|invalid) api key|^api key not valid", _KEY),  # xAI, Gemini
    _pattern(  # Anthropic
        {200, 400}, r"^you(?:r| have)\b.{0,80}\b(?:credit balance|spend(?:ing)? limit|usage limits?)\b", _MONEY
    ),
    _pattern({429}, r"^request too large", _TOO_LARGE),  # one request above the limit of a whole minute
    _pattern({429}, r"\bper[ -]day\b|\bdaily\b|\b[RT]PD\b", replace(_THROTTLED, wait_s=DAILY_LIMIT_WAIT_S)),
)

FAULTS: dict[FaultKind, Rule] = {
    FaultKind.CONNECT: Rule(action=Action.RETRY_FREE, signal=Signal.UNREACHABLE),
    FaultKind.TLS: _stop(
        EndpointRefusedError,
        "no secure connection: the endpoint's certificate or TLS is not accepted",
        Doubt.PASSING,
    ),
    FaultKind.STALE: Rule(action=Action.RETRY, ambiguous=True, wait_s=0.0),
    FaultKind.DISCONNECTED: _MAYBE_PAID,
    FaultKind.TIMEOUT: replace(_MAYBE_PAID_TWICE, signal=Signal.OVERLOADED),
    FaultKind.TRUNCATED: _MAYBE_PAID_TWICE,
    FaultKind.PROTOCOL: _MAYBE_PAID_TWICE,
    FaultKind.TOO_LARGE: _FAIL,
    FaultKind.NO_DESCRIPTORS: _stop(
        BatcherError, "no file descriptor is left: raise the limit (ulimit -n) or lower limits.concurrency"
    ),
    FaultKind.INVALID: _MAYBE_PAID_TWICE,
}

#: finish reasons of an answer that is whole, or was cut where the job or the provider's rules say so
FINISHED = frozenset(
    {"stop", "length", "content_filter", "tool_calls", "function_call"}
    | {"end_turn", "stop_sequence", "max_tokens", "tool_use"}  # Anthropic
    | {"model_length", "eos", "eos_token", "safety", "recitation"}  # Mistral, TGI, Gemini
)
#: DeepSeek broke off, for lack of machines
NO_RESOURCES = replace(_OVERLOADED, ambiguous=True, code="insufficient_system_resource")
UNFINISHED = replace(_MAYBE_PAID_TWICE, signal=Signal.NONE, code="no_finish_reason")
BROKEN_OFF = replace(_MAYBE_PAID_TWICE, code="finish_reason_error")
UNKNOWN_FINISH = replace(_MAYBE_PAID_TWICE, signal=Signal.NONE, code="unknown_finish_reason")
#: JSON was asked for and nothing came: known to be paid, so not ambiguous
BLANK = Rule(action=Action.RETRY, signal=Signal.SUCCESS, max_retries=2, code="blank_content")

#: codes that are a row's own by nature: many of them in succession say nothing about the job
ROW_SPECIFIC_CODES = frozenset(
    {"context_length_exceeded", "content_filter", "request_too_large", "blank_content", "string_above_max_length"}
    | {"invalid_row", "row_cannot_be_asked"}  # ours
)
