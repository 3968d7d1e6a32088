"""Every kind of result of an attempt, and what follows from it: one case per row of the tables."""

from __future__ import annotations

import subprocess
import sys
from random import Random
from typing import Any

import orjson
import pytest

from batcher.errors import AccountError, BatcherError, EndpointError, EndpointRefusedError
from batcher.records import ApiError, Fault, FaultKind, Reply, Signal
from batcher.retry import Action, Verdict, backoff_s, is_row_specific, judge
from batcher.retry.rules import FAULTS

COMPLETE, RETRY, RETRY_FREE, FAIL, STOP = Action
NONE, SUCCESS, THROTTLED, OVERLOADED, FAILING, UNREACHABLE = Signal
NOW_S = 1_795_435_200.0


def reply(status: int, body: Any = b"", **headers: str) -> Reply:
    """A reply whose body is JSON, unless it is given as bytes; underscores in header names are hyphens."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def error(code: Any = None, message: str = "m", kind: str | None = None) -> dict[str, Any]:
    """An error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def answer(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A completion."""
    return {"choices": [{"index": 0, "message": {"content": "{}"} | message, "finish_reason": finish}]}


def judged(result: Reply | Fault, *, json_mode: bool = False) -> Verdict:
    """Judge at a fixed moment."""
    return judge(result, json_mode=json_mode, now_s=NOW_S)


#: result, action, signal, may have been paid for, code
TABLE = [
    # 200, finish stop / tool_calls / function_call
    (reply(200, answer("stop")), COMPLETE, SUCCESS, False, None),
    (reply(200, answer("tool_calls", content=None, tool_calls=[{"id": "t"}])), COMPLETE, SUCCESS, False, None),
    (reply(200, answer("function_call", content=None)), COMPLETE, SUCCESS, False, None),
    # the same in other words
    (reply(200, answer("end_turn")), COMPLETE, SUCCESS, False, None),
    (reply(200, answer("STOP")), COMPLETE, SUCCESS, False, None),
    # 200, finish length: paid, so never asked again
    (reply(200, answer("length", content="")), COMPLETE, SUCCESS, False, None),
    # 200, finish content_filter
    (reply(200, answer("content_filter", content=None)), COMPLETE, SUCCESS, False, None),
    # 200, refusal
    (reply(200, answer("stop", content=None, refusal="no")), COMPLETE, SUCCESS, False, None),
    # 200, finish insufficient_system_resource
    (
        reply(200, answer("insufficient_system_resource")),
        *(RETRY_FREE, OVERLOADED, True, "insufficient_system_resource"),
    ),
    # 200, finish error, null, unknown
    (reply(200, answer("error")), RETRY, FAILING, True, "finish_reason_error"),
    (reply(200, answer(None)), RETRY, NONE, True, "no_finish_reason"),
    (reply(200, answer("abort")), RETRY, NONE, True, "unknown_finish_reason"),
    # 200, choices empty or missing
    (reply(200, {"choices": []}), RETRY, FAILING, True, "invalid_response"),
    (reply(200, {"usage": {}}), RETRY, FAILING, True, "invalid_response"),
    # 200 with an error object: by the inner code, which may be a status
    (reply(200, error(429)), RETRY_FREE, THROTTLED, False, "http_429"),
    (reply(200, error("401")), STOP, NONE, False, "http_401"),
    (reply(200, error(500)), RETRY, FAILING, True, "http_500"),
    (reply(200, error("rate_limit_exceeded")), RETRY_FREE, THROTTLED, False, "rate_limit_exceeded"),
    (reply(200, error(kind="overloaded_error")), RETRY_FREE, OVERLOADED, True, "overloaded_error"),
    (reply(200, [{"error": {"status": "RESOURCE_EXHAUSTED"}}]), RETRY_FREE, THROTTLED, False, "RESOURCE_EXHAUSTED"),
    (reply(200, error(kind="BadRequestError")), FAIL, NONE, False, "BadRequestError"),
    (reply(200, error("x", "Model Not Exist")), STOP, NONE, False, "x"),
    (reply(200, error("4001")), RETRY, FAILING, True, "4001"),  # a code of the provider's own, no status
    (reply(200, error("strange", kind="authentication_error")), STOP, NONE, False, "strange"),
    (reply(200, error("insufficient_quota")), STOP, NONE, False, "insufficient_quota"),
    (reply(200, error("strange")), RETRY, FAILING, True, "strange"),
    (reply(200, error()), RETRY, FAILING, True, "error_with_http_200"),
    (reply(200, {"error": "m"}), RETRY, FAILING, True, "error_with_http_200"),
    # the same, old vLLM
    (reply(200, {"object": "error", "message": "m", "code": 400}), FAIL, NONE, False, "http_400"),
    # the same, LM Studio: context overflow without a code
    (reply(200, {"error": "Context length exceeded"}), FAIL, NONE, False, "context_length_exceeded"),
    # 200, body not JSON
    (reply(200, b"<html>login</html>"), RETRY, FAILING, True, "invalid_response"),
    # 200, JSON truncated
    (reply(200, b'{"choices": [{"mess'), RETRY, FAILING, True, "truncated"),
    # 201/202/204 and other 2xx: no chat API
    (reply(201, b"{}"), STOP, NONE, False, "http_201"),
    (reply(202, {"id": "batch"}), STOP, NONE, False, "http_202"),
    (reply(204), STOP, NONE, False, "http_204"),
    # but a paid answer is one, whatever the framework's favourite status
    (reply(201, answer()), COMPLETE, SUCCESS, False, None),
    # 3xx
    (reply(301, location="https://elsewhere"), STOP, NONE, False, "http_301"),
    (reply(300), STOP, NONE, False, "http_300"),
    (reply(302), STOP, NONE, False, "http_302"),
    (reply(307), STOP, NONE, False, "http_307"),
    # 400 context_length_exceeded, or only its message
    (reply(400, error("context_length_exceeded")), FAIL, NONE, False, "context_length_exceeded"),
    (
        reply(400, error(400, "This model's maximum context length is 4096 tokens.", "BadRequestError")),
        *(FAIL, NONE, False, "context_length_exceeded"),
    ),
    (reply(400, error(message="exceeds the context window")), FAIL, NONE, False, "context_length_exceeded"),
    (reply(400, error(400, kind="exceed_context_size_error")), FAIL, NONE, False, "context_length_exceeded"),
    # 400 content_filter / policy
    (reply(400, error("content_filter")), FAIL, NONE, False, "content_filter"),
    (reply(400, error("content_policy_violation")), FAIL, NONE, False, "content_filter"),
    (reply(400, error("ResponsibleAIPolicyViolation")), FAIL, NONE, False, "content_filter"),
    (reply(400, error("data_inspection_failed")), FAIL, NONE, False, "content_filter"),
    (
        reply(400, error(message="The response was filtered due to Azure OpenAI's content management policy.")),
        *(FAIL, NONE, False, "content_filter"),
    ),
    (reply(400, error("invalid_request_error", "Content Exists Risk")), FAIL, NONE, False, "content_filter"),
    # 400/422 other
    (reply(400, error("invalid_request_error")), FAIL, NONE, False, "invalid_request_error"),
    (reply(400, error("invalid_value")), FAIL, NONE, False, "invalid_value"),
    (reply(400, b"Invalid format"), FAIL, NONE, False, "http_400"),
    (reply(422, {"detail": [{"loc": ["body"]}]}), FAIL, NONE, False, "http_422"),
    # 400 that means the model
    (reply(400, error("model_not_found")), STOP, NONE, False, "model_not_found"),
    (reply(400, error("invalid_request_error", "Model Not Exist")), STOP, NONE, False, "invalid_request_error"),
    (reply(400, error(400, "x/y is not a valid model ID")), STOP, NONE, False, "http_400"),
    # 400 that means the key
    (reply(400, error(400, "API key not valid. Please pass one.")), STOP, NONE, False, "http_400"),
    # 400 mentioning the spend limit
    (reply(400, error(message="Your credit balance is too low")), STOP, NONE, False, "http_400"),
    (
        reply(400, error("x", "You have reached your specified API usage limits.")),
        *(STOP, NONE, False, "x"),
    ),
    # 401
    (reply(401, error("invalid_api_key")), STOP, NONE, False, "invalid_api_key"),
    (reply(401), STOP, NONE, False, "http_401"),
    # 402
    (reply(402, error("invalid_request_error", "Insufficient Balance")), STOP, NONE, False, "invalid_request_error"),
    # 402 of OpenRouter, with and without its mark and Retry-After
    (
        reply(402, error(402) | {"limit_source": "openrouter_in_flight_budget"}, retry_after="3"),
        *(RETRY_FREE, THROTTLED, False, "http_402"),
    ),
    (reply(402, error(402) | {"limit_source": "openrouter_in_flight_budget"}), STOP, NONE, False, "http_402"),
    (reply(402, error(402), retry_after="3"), STOP, NONE, False, "http_402"),
    # 403 country / permission / IP
    (reply(403, error("unsupported_country")), STOP, NONE, False, "unsupported_country"),
    (reply(403, error(message="Your account was flagged")), STOP, NONE, False, "http_403"),
    # 403 moderation
    (
        reply(403, error(403, "The model requires moderation and your input was flagged")),
        *(FAIL, NONE, False, "content_filter"),
    ),
    # 404
    (reply(404, error("model_not_found")), STOP, NONE, False, "model_not_found"),
    (reply(404, b"404 page not found"), STOP, NONE, False, "http_404"),
    # 405, 406, 410, 411, 414, 415 and their kin
    *[(reply(status), STOP, NONE, False, f"http_{status}") for status in (405, 406, 407, 410, 411, 414, 415, 426)],
    # 408
    (reply(408), RETRY, NONE, True, "http_408"),
    # 409
    (reply(409), RETRY, NONE, False, "http_409"),
    # 413
    (reply(413, error("x")), FAIL, NONE, False, "request_too_large"),
    # 421, 425
    (reply(421), RETRY, NONE, False, "http_421"),
    (reply(425), RETRY, NONE, False, "http_425"),
    # 424: a generation that broke
    (reply(424), RETRY, FAILING, True, "http_424"),
    # other 4xx
    (reply(418), FAIL, NONE, False, "http_418"),
    # 429, money
    *[
        (reply(429, error(code)), STOP, NONE, False, code)
        for code in (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "insufficient_user_quota",
            "exceeded_current_quota_error",
            "Arrearage",
            "enforced_spend_limit_reached",
        )
    ],
    (reply(429, error(kind="insufficient_quota"), retry_after="5"), STOP, NONE, False, "http_429"),
    # 429 slow_down
    (reply(429, error("slow_down")), RETRY_FREE, THROTTLED, False, "slow_down"),
    # 429 rate_limit_exceeded, or no code
    (reply(429, error("rate_limit_exceeded")), RETRY_FREE, THROTTLED, False, "rate_limit_exceeded"),
    (reply(429), RETRY_FREE, THROTTLED, False, "http_429"),
    # 429 for one request that is above a whole minute's limit: waiting does not help
    (reply(429, error("rate_limit_exceeded", "Request too large for gpt-x")), FAIL, NONE, False, "request_too_large"),
    # 429 daily limit
    (reply(429, error("rpd", "Limit reached on requests per day (RPD)")), RETRY_FREE, THROTTLED, False, "rpd"),
    # 500
    (reply(500, error("server_error")), RETRY, FAILING, True, "server_error"),
    (reply(500, error(code=500)), RETRY, FAILING, True, "http_500"),
    (reply(599), RETRY, FAILING, True, "http_599"),
    # 501, 505, 511
    *[(reply(status), STOP, NONE, False, f"http_{status}") for status in (501, 505, 511)],
    # 502, 503, 520-527, 530
    *[
        (reply(status, b"<html>"), RETRY_FREE, OVERLOADED, False, f"http_{status}")
        for status in (502, 503, 520, 521, 522, 523, 525, 526, 527, 530)
    ],
    (reply(503, error("server_is_overloaded")), RETRY_FREE, OVERLOADED, False, "server_is_overloaded"),
    # 504 and 524 are ambiguous
    (reply(504), RETRY_FREE, OVERLOADED, True, "http_504"),
    (reply(524), RETRY_FREE, OVERLOADED, True, "http_524"),
    # 529
    (reply(529, error(kind="overloaded_error")), RETRY_FREE, OVERLOADED, False, "http_529"),
    # no HTTP status at all
    (reply(999), STOP, NONE, False, "http_999"),
    (reply(199), STOP, NONE, False, "http_199"),
    # SSE: the stream ends without [DONE] and without finish_reason
    (reply(200, b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'), RETRY, FAILING, True, "truncated"),
    # SSE: finish_reason seen but no [DONE]
    (reply(200, b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'), COMPLETE, SUCCESS, False, None),
    # SSE: [DONE] without finish_reason
    (
        reply(200, b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n'),
        *(RETRY, NONE, True, "no_finish_reason"),
    ),
    # SSE: data with an error key
    (reply(200, b'data: {"error": {"code": 503, "message": "m"}}\n\n'), RETRY_FREE, OVERLOADED, True, "http_503"),
    # SSE: comments only
    (reply(200, b": keep-alive\n\n: keep-alive\n\n"), RETRY, FAILING, True, "truncated"),
    # refused, unreachable, name not resolved, connect timeout
    (Fault(FaultKind.CONNECT, "m"), RETRY_FREE, UNREACHABLE, False, "connect_failed"),
    # certificate, handshake
    (Fault(FaultKind.TLS, "m"), STOP, NONE, False, "tls_failed"),
    # a reused connection closed before the first byte
    (Fault(FaultKind.STALE, "m"), RETRY, NONE, True, "connection_was_closed"),
    # disconnected, reset, broken pipe
    (Fault(FaultKind.DISCONNECTED, "m"), RETRY, FAILING, True, "disconnected"),
    # timeouts after the request was sent
    (Fault(FaultKind.TIMEOUT, "m"), RETRY, OVERLOADED, True, "timeout"),
    # short Content-Length, broken chunk
    (Fault(FaultKind.TRUNCATED, "m"), RETRY, FAILING, True, "truncated"),
    # not HTTP
    (Fault(FaultKind.PROTOCOL, "m"), RETRY, FAILING, True, "protocol_error"),
    # larger than max_response_bytes
    (Fault(FaultKind.TOO_LARGE, "m"), FAIL, NONE, False, "response_too_large"),
    # EMFILE, ENFILE
    (Fault(FaultKind.NO_DESCRIPTORS, "m"), STOP, NONE, False, "no_file_descriptors"),
    # whole, but no answer
    (Fault(FaultKind.INVALID, "m"), RETRY, FAILING, True, "invalid_response"),
]


@pytest.mark.parametrize(("result", "action", "signal", "ambiguous", "code"), TABLE)
def test_each_row_of_the_tables(
    result: Reply | Fault, action: Action, signal: Signal, ambiguous: bool, code: str | None
) -> None:
    """Action, limiter signal, whether it may have been paid for, and the code that the row shows."""
    verdict = judged(result)
    assert (verdict.action, verdict.signal, verdict.ambiguous) == (action, signal, ambiguous)
    if action is COMPLETE:
        assert verdict.completion is not None
        assert verdict.error is None
    else:
        assert verdict.error is not None
        assert verdict.error.code == code
        assert verdict.error.http_status == (result.status if isinstance(result, Reply) else None)
    assert (verdict.stop is not None) == (verdict.reason is not None) == (action is STOP)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens.",
        "prompt is too long: 212000 tokens > 200000 maximum",
        "Content Exists Risk",
        "filtered due to our content policy",
        "Model Not Exist",
        "The model `x` does not exist or you do not have access to it.",
        "Invalid API key",
        "Your credit balance is too low",
        "You have reached your usage limit",
    ],
)
def test_a_message_without_a_code_means_the_same_within_a_200(message: str) -> None:
    """Gateways hand on the provider's words and lose its status; the row or the run ends in the same way."""
    within, plain = judged(reply(200, error(message=message))), judged(reply(400, error(message=message)))
    assert within.action is plain.action
    assert within.action in (FAIL, STOP)
    assert within.stop is plain.stop


def test_every_kind_of_fault_has_a_rule() -> None:
    """A new kind is not forgotten here."""
    assert set(FAULTS) == set(FaultKind)


@pytest.mark.parametrize(
    ("result", "bound"),
    [
        (reply(200, answer(None)), 2),
        (reply(200, answer("error")), 2),
        (reply(200, {"choices": []}), 2),
        (reply(200, b"<html>"), 2),
        (reply(200, b'{"a'), 2),
        (reply(200, error("strange")), 2),
        (reply(409), 3),
        (reply(500), None),
        (reply(408), None),
        (Fault(FaultKind.TIMEOUT, "m"), 2),
        (Fault(FaultKind.TRUNCATED, "m"), 2),
        (Fault(FaultKind.PROTOCOL, "m"), 2),
        (Fault(FaultKind.INVALID, "m"), 2),
        (Fault(FaultKind.DISCONNECTED, "m"), None),
        (Fault(FaultKind.STALE, "m"), None),
    ],
)
def test_what_was_probably_paid_is_not_asked_six_times(result: Reply | Fault, bound: int | None) -> None:
    """Such results have a tighter bound than a row's attempts."""
    assert judged(result).max_retries == bound


@pytest.mark.parametrize("content", ["", " \n\t", None])
def test_a_blank_answer_in_json_mode_is_asked_again_twice(content: str | None) -> None:
    """It was paid for with certainty, and keeps its completion, so that its tokens can be counted."""
    verdict = judged(reply(200, answer(content=content)), json_mode=True)
    assert (verdict.action, verdict.max_retries, verdict.ambiguous) == (RETRY, 2, False)
    assert verdict.error == ApiError("the answer is blank", code="blank_content", http_status=200)
    assert verdict.completion is not None


@pytest.mark.parametrize(
    ("body", "json_mode"),
    [
        (answer(content=""), False),
        (answer("length", content=""), True),  # thinking used up max_tokens
        (answer(content="", refusal="no"), True),
        (answer(content="", tool_calls=[{"id": "t"}]), True),
        (answer(content="{}"), True),
    ],
)
def test_an_empty_answer_may_be_the_answer(body: dict[str, Any], json_mode: bool) -> None:
    """Without JSON mode, cut, refused, or made of tool calls."""
    assert judged(reply(200, body), json_mode=json_mode).action is COMPLETE


@pytest.mark.parametrize(
    ("result", "stop", "reason"),
    [
        (reply(401), AccountError, "the endpoint refused the key (HTTP 401)"),
        (reply(400, error("invalid_api_key")), AccountError, "the endpoint refused the key (HTTP 400)"),
        (
            reply(400, error(message="Incorrect API key provided")),
            AccountError,
            "the endpoint refused the key (HTTP 400)",
        ),
        (reply(402), AccountError, "the account has no credit left, or its spending limit is reached (HTTP 402)"),
        (reply(403), AccountError, "the endpoint refuses this account, country or address (HTTP 403)"),
        (
            reply(429, error("insufficient_quota")),
            *(AccountError, "the account has no credit left, or its spending limit is reached (HTTP 429)"),
        ),
        (
            reply(404),
            EndpointRefusedError,
            "there is no such model or no chat-completions API at this address (HTTP 404)",
        ),
        (
            reply(404, error("model_not_found")),
            *(EndpointRefusedError, "the endpoint does not offer the model to this key (HTTP 404)"),
        ),
        (
            reply(300),
            EndpointRefusedError,
            "the endpoint redirects, which is not followed: correct endpoint.base_url (HTTP 300)",
        ),
        (
            reply(405),
            EndpointRefusedError,
            "the endpoint does not accept such requests: is endpoint.base_url right? (HTTP 405)",
        ),
        (
            reply(302, location="https://secret"),
            EndpointRefusedError,
            "the endpoint redirects, which is not followed: correct endpoint.base_url (HTTP 302)",
        ),
        (
            reply(204),
            EndpointRefusedError,
            "the endpoint takes requests but answers without a completion: is it a chat API? (HTTP 204)",
        ),
        (reply(407), EndpointRefusedError, "the proxy asks for credentials (HTTP 407)"),
        (reply(501), EndpointError, "the endpoint cannot serve such requests at all (HTTP 501)"),
        (reply(511), EndpointError, "the network asks for a login before it lets requests through (HTTP 511)"),
        (reply(200, error(401)), AccountError, "the endpoint refused the key (HTTP 401)"),
        (
            Fault(FaultKind.TLS, "m"),
            EndpointRefusedError,
            "no secure connection: the endpoint's certificate or TLS is not accepted",
        ),
        (
            Fault(FaultKind.NO_DESCRIPTORS, "m"),
            BatcherError,
            "no file descriptor is left: raise the limit (ulimit -n) or lower limits.concurrency",
        ),
    ],
)
def test_a_run_that_stops_says_why_in_our_words(result: Reply | Fault, stop: type[BatcherError], reason: str) -> None:
    """The sentence holds nothing that the provider sent, and the class gives the exit code."""
    verdict = judged(result)
    assert (verdict.stop, verdict.reason) == (stop, reason)
    assert type(verdict.as_error()) is stop
    assert str(verdict.as_error()).startswith(reason)


def test_the_providers_text_is_in_the_error_alone() -> None:
    """Messages may repeat the prompt: they belong into the Parquet file, not into what is logged."""
    verdict = judged(reply(401, error("secret_code", "secret prompt", "secret_type")))
    assert verdict.error == ApiError("secret prompt", "secret_type", None, "secret_code", 401)
    assert "secret" not in f"{verdict.as_error()!r} {verdict.reason}"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (reply(502, b"<html>Bad gateway"), "HTTP 502 Bad Gateway"),
        (reply(521), "HTTP 521"),
        (reply(400, b"Invalid format"), "Invalid format"),
        (reply(400, rb'{"error": {"message": "bad \ud83d\u001b[0m"}}'), "bad \ufffd [0m"),
        (reply(400, error(message="m" * 9000)), "m" * 2000),
    ],
)
def test_the_message_of_an_error_is_clean_and_short(result: Reply, message: str) -> None:
    """The provider's words, or the status's own where there are none."""
    verdict = judged(result)
    assert verdict.error is not None
    assert verdict.error.message == message


@pytest.mark.parametrize(
    ("result", "action", "wait_s"),
    [
        (reply(429), RETRY_FREE, None),
        (reply(429, retry_after="30"), RETRY_FREE, 30.0),
        (reply(503, retry_after_ms="1500"), RETRY_FREE, 1.5),
        (reply(500, retry_after="120"), RETRY, 120.0),
        (reply(500, retry_after="121"), RETRY_FREE, 121.0),  # a pause of the run, which costs no attempt
        (reply(408, retry_after="Mon, 23 Nov 2026 13:00:00 GMT"), RETRY_FREE, 3600.0),
        (reply(200, error(429), retry_after="5"), RETRY_FREE, 5.0),
        (reply(429, error(message="free-models-per-day")), RETRY_FREE, 900.0),  # nobody says until when
        (reply(429, error(message="per day"), retry_after="40"), RETRY_FREE, 40.0),
        (reply(400, retry_after="30"), FAIL, None),
        (reply(401, retry_after="30"), STOP, None),
        (Fault(FaultKind.STALE, "m"), RETRY, 0.0),
        (Fault(FaultKind.DISCONNECTED, "m"), RETRY, None),
    ],
)
def test_the_servers_word_on_waiting(result: Reply | Fault, action: Action, wait_s: float | None) -> None:
    """Any Retry-After on what is retried counts, and one above two minutes pauses the run."""
    verdict = judged(result)
    assert (verdict.action, verdict.wait_s) == (action, wait_s)


@pytest.mark.parametrize(
    ("status", "word", "action"),
    [
        (500, "false", FAIL),
        (503, "false", FAIL),
        (429, "false", FAIL),
        (400, "true", RETRY),
        (422, "true", RETRY),
        (500, "true", RETRY),
        (503, "true", RETRY_FREE),
        (401, "true", STOP),  # to stop loses nothing
        (401, "false", STOP),
        (500, "perhaps", RETRY),
    ],
)
def test_the_server_says_whether_to_retry(status: int, word: str, action: Action) -> None:
    """`x-should-retry` overrides the status, but never turns a problem of the run into a million failed rows."""
    assert judged(reply(status, x_should_retry=word)).action is action


@pytest.mark.parametrize(
    "message",
    [
        "invalid prompt: 'the model I bought does not exist, says the ticket'",
        "invalid prompt: 'my api key not valid'",
        "invalid prompt: 'your credit balance is too low'",
    ],
)
def test_a_prompt_repeated_in_an_error_does_not_stop_the_run(message: str) -> None:
    """Providers quote the request; what a row says must not be taken for what the provider says."""
    assert judged(reply(400, error(message=message))).action is FAIL


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("context_length_exceeded", True),
        ("content_filter", True),
        ("request_too_large", True),
        ("blank_content", True),
        ("invalid_row", True),
        ("row_cannot_be_asked", True),
        ("http_400", False),
        ("invalid_request_error", False),
        ("timeout", False),
        ("response_too_large", False),
        (None, False),
    ],
)
def test_some_errors_are_a_rows_own_by_nature(code: str | None, expected: bool) -> None:
    """They do not count as a sign that the whole job is wrong."""
    assert is_row_specific(ApiError("m", code=code)) is expected


class Highest(Random):
    """Draws the upper end, and notes what was asked for."""

    def uniform(self, a: float, b: float) -> float:
        self.low = a
        return b


@pytest.mark.parametrize(
    ("failures", "wait_s", "highest_s"),
    [
        (1, None, 2.0),  # 2 ** n
        (2, None, 4.0),
        (5, None, 32.0),
        (6, None, 60.0),  # the cap
        (100_000, None, 60.0),
        (1, 10.0, 12.0),  # 10 + 10 % + 1
        (9, 0.5, 1.55),
        (3, 0.0, 0.0),  # at once
    ],
)
def test_backoff_has_full_jitter_and_never_undercuts_the_server(
    failures: int, wait_s: float | None, highest_s: float
) -> None:
    """Uniform from 0 to min(60, 2 ** n); with the server's word from there to a tenth and a second more."""
    random = Highest()
    assert backoff_s(failures, random, wait_s) == pytest.approx(highest_s)
    assert getattr(random, "low", 0) == 0
    for seed in range(50):
        assert (wait_s or 0) <= backoff_s(failures, Random(seed), wait_s) <= highest_s


def test_tenacity_is_not_imported_before_the_first_failure() -> None:
    """It takes 45 ms, and `--help` and a run without a failure need none of it."""
    code = "import sys, batcher.retry as r; a = 'tenacity' in sys.modules; from random import Random;"
    code += "r.backoff_s(1, Random(0), None); sys.exit((a, 'tenacity' in sys.modules) != (False, True))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
