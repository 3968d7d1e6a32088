"""Response bodies of many servers, read into one record."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batcher.completion import MAX_MESSAGE, parse, parse_error
from batcher.records import ApiError, Completion, Fault, FaultKind, Usage

MESSAGE: dict[str, Any] = {"role": "assistant", "content": "Hello"}


def answer(message: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **top: Any) -> bytes:
    """A response body with one choice; `message`, `choice` and `top` add to it or replace."""
    whole = {"index": 0, "message": MESSAGE | (message or {}), "finish_reason": "stop"} | (choice or {})
    return orjson.dumps({"id": "c1", "object": "chat.completion", "choices": [whole]} | top)


def completion(body: bytes) -> Completion:
    """Parse what has to be a completion."""
    parsed = parse(body)
    assert isinstance(parsed, Completion)
    return parsed


def test_every_field_of_the_api_finds_its_place() -> None:
    """The whole answer as OpenAI documents it, with DeepSeek's reasoning."""
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 30,
        "total_tokens": 42,
        "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    body = answer(
        {"reasoning_content": "Hm.", "refusal": None, "tool_calls": None},
        {"logprobs": None, "stop_reason": None},
        created=1_700_000_000,
        model="deepseek-v4-flash",
        system_fingerprint="fp",
        usage=usage,
    )
    assert parse(body) == Completion(
        content="Hello",
        finish_reason="stop",
        usage=Usage(12, 30, 42, {"cached_tokens": 8}, {"reasoning_tokens": 20}, orjson.dumps(usage).decode()),
        reasoning="Hm.",
        id="c1",
        object="chat.completion",
        created=1_700_000_000,
        model="deepseek-v4-flash",
        system_fingerprint="fp",
    )


@pytest.mark.parametrize(
    ("message", "content", "reasoning"),
    [
        ({"content": None}, None, None),
        ({"content": ""}, "", None),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]}, "abc", None),
        ({"content": {"label": "x"}}, '{"label":"x"}', None),  # a gateway that parsed the JSON
        ({"content": 7}, "7", None),
        ({"reasoning": "r"}, "Hello", "r"),  # OpenRouter, vLLM
        ({"reasoning_content": "", "reasoning": "r"}, "Hello", "r"),
        ({"reasoning_content": ["r"]}, "Hello", None),
    ],
)
def test_content_and_reasoning_in_any_dialect(
    message: dict[str, Any], content: str | None, reasoning: str | None
) -> None:
    """Text parts are joined, and reasoning is looked for under both its names."""
    parsed = completion(answer(message))
    assert (parsed.content, parsed.reasoning) == (content, reasoning)


def test_the_old_completions_api_is_read_too() -> None:
    """Its choices hold `text` instead of a message."""
    body = b'{"choices": [{"text": "Hello", "index": 0, "logprobs": null, "finish_reason": "length"}]}'
    assert parse(body) == Completion("Hello", "length", Usage())


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, Usage()),
        ({}, Usage()),
        ("12", Usage()),
        ({"prompt_tokens": True}, Usage(raw='{"prompt_tokens":true}')),
        ({"prompt_tokens": -1}, Usage(raw='{"prompt_tokens":-1}')),
        ({"prompt_tokens": 1.5}, Usage(raw='{"prompt_tokens":1.5}')),
        ({"total_tokens": 2**63}, Usage(raw='{"total_tokens":9223372036854775808}')),
        ({"total_tokens": 10**12}, Usage(raw='{"total_tokens":1000000000000}')),
        ({"total_tokens": 10**12 - 1}, Usage(total_tokens=10**12 - 1, raw='{"total_tokens":999999999999}')),
        ({"prompt_tokens_details": {"a": 2**63}}, Usage(raw='{"prompt_tokens_details":{"a":9223372036854775808}}')),
        ({"prompt_tokens_details": [1]}, Usage(raw='{"prompt_tokens_details":[1]}')),
    ],
)
def test_only_counts_become_counts(usage: Any, expected: Usage) -> None:
    """What does not fit an int64 column is left out of it and stays in the raw text."""
    assert completion(answer(usage=usage)).usage == expected


def test_a_number_of_5000_digits_does_not_spoil_a_paid_answer() -> None:
    """Python refuses to convert it, and the answer beside it is good."""
    body = answer(usage={"prompt_tokens": 1, "total_tokens": 2}).replace(b":2", b":" + b"9" * 5000)
    assert completion(body).usage == Usage(prompt_tokens=1, raw='{"prompt_tokens":1,"total_tokens":null}')


def test_cache_and_reasoning_counts_of_other_dialects_fill_the_gaps() -> None:
    """DeepSeek counts cache hits and SGLang reasoning beside the details; OpenAI's own word wins."""
    flat = {"prompt_cache_hit_tokens": 5, "reasoning_tokens": 6}
    usage = completion(answer(usage=flat)).usage
    assert (usage.prompt_tokens_details, usage.completion_tokens_details) == (
        {"cached_tokens": 5},
        {"reasoning_tokens": 6},
    )
    usage = completion(answer(usage=flat | {"prompt_tokens_details": {"cached_tokens": 1}})).usage
    assert usage.prompt_tokens_details == {"cached_tokens": 1}


@pytest.mark.parametrize(
    ("message", "choice"),
    [
        ({"tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {}),
        ({"function_call": {"name": "f", "arguments": "{}"}}, {}),
        ({"annotations": [{"type": "url_citation"}]}, {}),
        ({"audio": {"id": "a"}}, {}),
        ({"content": [{"type": "thinking", "thinking": []}]}, {}),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, {}),
        ({}, {"logprobs": {"content": []}}),
        ({}, {"token_ids": [1, 2]}),
        ({"content": None, "refusal": "I cannot help with that."}, {}),
    ],
)
def test_what_no_column_holds_is_kept_as_json(message: dict[str, Any], choice: dict[str, Any]) -> None:
    """Tool calls, logprobs, annotations, parts that are no text, and what is not invented yet."""
    raw = completion(answer(message, choice)).choices_raw
    assert raw is not None
    assert orjson.loads(raw) == orjson.loads(answer(message, choice))["choices"]


def test_further_choices_are_kept_as_json() -> None:
    """With n > 1 the first choice fills the columns."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in ("a", "b")]
    parsed = completion(answer(choices=choices))
    assert parsed.content == "a"
    assert parsed.choices_raw == orjson.dumps(choices).decode()


@pytest.mark.parametrize(
    ("message", "choice"),
    [
        ({"tool_calls": [], "annotations": None, "audio": None, "function_call": {}, "name": ""}, {}),
        ({"provider_specific_fields": {"refusal": None}}, {}),  # LiteLLM
        ({"content": ["a", {"text": "b"}, {"type": "text", "text": "c"}]}, {}),
        ({}, {"native_finish_reason": "STOP", "matched_stop": 2, "stop_reason": None, "token_ids": None}),
        ({}, {"content_filter_results": {"hate": {"filtered": False}}}),  # Azure, with every answer
    ],
)
def test_empty_extras_and_bookkeeping_do_not_double_the_answer(message: dict[str, Any], choice: dict[str, Any]) -> None:
    """`choices_raw` repeats the content, so it is only filled where it adds something."""
    assert completion(answer(message, choice)).choices_raw is None


@pytest.mark.parametrize(
    ("created", "expected"),
    [(0, 0), (1_700_000_000.9, 1_700_000_000), (-1, None), (1_700_000_000_000, None), ("now", None), (10**30, None)],
)
def test_created_is_a_moment_or_nothing(created: Any, expected: int | None) -> None:
    """What a timestamp column cannot hold is left out."""
    body = answer().replace(b'"id"', b'"created": ' + str(created).encode() + b', "id"') if created == 10**30 else None
    assert completion(body or answer(created=created)).created == expected


def test_fields_of_the_wrong_type_are_left_out() -> None:
    """A server may send anything anywhere; a column holds one type."""
    body = answer(
        {"refusal": 1}, {"finish_reason": 7}, id=1, object=[], model={}, system_fingerprint=True, created=None
    )
    assert parse(body) == Completion("Hello", None, Usage())


def test_lone_surrogates_are_replaced_everywhere() -> None:
    """Arrow cannot store them, and the answer is paid for."""
    body = answer({"content": "x", "reasoning": "y"}, id="z", usage={"k": "w"})
    for letter in b"xyzw":
        body = body.replace(b'"%c"' % letter, b'"%c\\ud83d"' % letter)
    parsed = completion(body)
    assert (parsed.content, parsed.reasoning, parsed.id) == ("x\ufffd", "y\ufffd", "z\ufffd")
    assert parsed.usage.raw == '{"k":"w\ufffd"}'


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (
            {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}},
            ApiError("m", "t", "p", "c"),
        ),
        ({"error": {"message": "m", "code": 429}}, ApiError("m", code="429")),  # OpenRouter, vLLM
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, ApiError("m", "overloaded_error")),
        ({"object": "error", "message": "m", "type": "t", "param": None, "code": 400}, ApiError("m", "t", code="400")),
        ({"error": "m"}, ApiError("m")),  # Ollama
        ({"error": "Not Found", "message": "m", "status": 404}, ApiError("m")),  # Spring
        ([{"error": {"code": 429, "message": "m", "status": "T"}}], ApiError("m", "T", code="429")),  # Gemini
        ({"error": True, "message": "m", "code": "c"}, ApiError("m", code="c")),
        ({"error": 500}, ApiError("", code="500")),
        ({"error": {"message": ["a"], "code": True, "type": 1}}, ApiError('["a"]')),
        ({"error": {"detail": {"a": 1}}}, ApiError('{"a":1}')),
        ({"error": {"message": "a\x1b[31m\n\x85b\x00 "}}, ApiError("a [31m b")),
        ({"error": {"message": "m" * 9000, "code": "c" * 900}}, ApiError("m" * MAX_MESSAGE, code="c" * 200)),
    ],
)
def test_an_error_object_in_any_shape(value: Any, error: ApiError) -> None:
    """Codes become strings, messages are capped and cannot control a terminal."""
    assert parse(orjson.dumps(value)) == error


def test_an_error_wins_over_the_completion_beside_it() -> None:
    """OpenRouter sends what it has, and why there is no more."""
    assert parse(answer(error={"message": "m", "code": 502})) == ApiError("m", code="502")
    assert parse(answer(choice={"error": {"message": "m", "code": 502}})) == ApiError("m", code="502")


@pytest.mark.parametrize("nothing", [None, {}, "", False])
def test_an_empty_error_is_none(nothing: Any) -> None:
    """Some servers send the field with every answer."""
    assert completion(answer(error=nothing)).content == "Hello"


def test_a_lone_surrogate_in_an_error_message_is_replaced() -> None:
    """The message goes into the Parquet file."""
    assert parse(rb'{"error": {"message": "bad \ud83d"}}') == ApiError("bad \ufffd")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{}", FaultKind.INVALID, "the answer holds no choices"),
        (b'{"choices": []}', FaultKind.INVALID, "the answer holds no choices"),
        (b'{"choices": {}}', FaultKind.INVALID, "the answer holds no choices"),
        (b'{"choices": [null, {}]}', FaultKind.INVALID, "the answer holds no choices"),
        (b"[]", FaultKind.INVALID, "the answer is JSON, but not an object"),
        (b"null", FaultKind.INVALID, "the answer is JSON, but not an object"),
        (b"  <!doctype html>secret", FaultKind.INVALID, "the answer is not JSON (starts like HTML)"),
        (b"secret", FaultKind.INVALID, "the answer is not JSON"),
        (b"data: {secret}\n\ndata: [DONE]\n\n", FaultKind.INVALID, "an event of the stream is not JSON"),
        (b"data: [DONE]\n\n", FaultKind.INVALID, "the answer holds no choices"),
        (b"\n\n\n", FaultKind.TRUNCATED, "the answer is empty"),
        (b'{"choices": [{"message": {"content": "secret', FaultKind.TRUNCATED, "the answer is cut short"),
        (b'data: {"choices": []}\n\n', FaultKind.TRUNCATED, "the stream ended without a finish reason"),
    ],
)
def test_what_is_no_answer_is_a_fault_that_keeps_the_body(body: bytes, kind: FaultKind, message: str) -> None:
    """The message quotes nothing of the body, which is kept beside it."""
    assert parse(body) == Fault(kind, message, body)


def test_a_stream_becomes_the_same_record_as_a_whole_answer() -> None:
    """The columns do not depend on `stream`."""
    stream = (
        b": keep-alive\n\n"
        b'data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
        b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'
        b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
        b"data: [DONE]\n\n"
    )
    assert parse(stream) == parse(answer(usage={"total_tokens": 3}))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error": {"message": "m", "code": 404}}', ApiError("m", code="404")),
        (b'{"detail": "Not Found"}', ApiError("Not Found")),  # FastAPI
        (b'{"detail": [{"loc": ["body"]}]}', ApiError('[{"loc":["body"]}]')),
        (b'{"message": "no Route matched", "request_id": "x"}', ApiError("no Route matched")),  # Kong
        (b'{"error_code": 17, "msg": "m"}', ApiError("m", code="17")),
        (b'"Not Found"', ApiError("Not Found")),
        (b"Invalid format\n", ApiError("Invalid format")),
        (b"\xff" * 50_000, ApiError("\ufffd" * MAX_MESSAGE)),
        (b"<html>502 Bad Gateway</html>", None),
        (b"", None),
        (b"{}", None),
        (b"[1]", None),
    ],
)
def test_the_body_of_a_refusal_may_be_anything(body: bytes, error: ApiError | None) -> None:
    """Gateways and frameworks have shapes of their own; a web page says less than the status."""
    assert parse_error(body) == error
