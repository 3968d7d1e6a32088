"""What the endpoint answered: the bytes of a response body -> `Completion`, `ApiError` or `Fault`. Pure.

Knows the chat-completions object in the dialects of OpenAI, DeepSeek, vLLM, Ollama, llama.cpp, LM Studio, OpenRouter
and Gemini, and the shapes of their error objects; JSON and event streams are told apart by content. It does not know
the HTTP status or headers and does not judge: whether an answer is good, an error worth a retry, is `retry`'s to say.
Nothing here raises, whatever the bytes; every text it returns is valid UTF-8 and every number fits an int64.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from batcher.completion.event_stream import BrokenStreamError, is_event_stream, merged
from batcher.completion.lenient_json import NotJsonError, dumps, loads
from batcher.records import ApiError, Completion, Fault, FaultKind, Usage

#: characters of a provider's error message that are kept
MAX_MESSAGE = 2_000
#: the same for its type, param and code
_MAX_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
#: no request uses more tokens; a larger number is nonsense, and sums of such would leave 64 bits
_TOO_MANY = 10**12
#: seconds since 1970 at the end of the year 9999; what is later is no timestamp, or one in milliseconds
_LAST_SECOND = 253_402_300_799

#: what the fields of a `Completion` hold
_MESSAGE_KEYS = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal"})
#: the same for a choice, and book-keeping that some servers add to every answer
_CHOICE_KEYS = frozenset(
    {"index", "message", "text", "finish_reason", "native_finish_reason", "stop_reason", "matched_stop", "usage"}
    | {"content_filter_results", "logprobs"}
)


def parse(body: bytes) -> Completion | ApiError | Fault:
    """Read a response body; an error object wins over a completion beside it."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _read_otherwise(body)
        if isinstance(value, Fault):
            return value
    if isinstance(value, list) and len(value) == 1:  # Gemini wraps its errors
        value = value[0]
    if not isinstance(value, dict):
        return Fault(FaultKind.INVALID, "the answer is JSON, but not an object", body)
    error = _error_object(value)
    if error is not None:
        return error
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Fault(FaultKind.INVALID, "the answer holds no choices", body)
    return _error_object(choices[0]) or _completion(value, choices)


def parse_error(body: bytes) -> ApiError | None:
    """Read the body of a refusal: an error object, the looser shapes of frameworks and gateways, or plain text."""
    parsed = parse(body)
    if isinstance(parsed, ApiError):
        return parsed
    try:
        value = loads(body)
    except NotJsonError:
        value = body[: 4 * MAX_MESSAGE].decode("utf-8", "replace").lstrip()
        if value.startswith("<"):  # a web page, which says less than its status
            return None
    if isinstance(value, str):
        return _api_error({}, value) if value else None
    if not isinstance(value, dict):
        return None
    message = value.get("message") or value.get("detail") or value.get("msg") or value.get("errors")
    return _api_error(value, message) if message else None


def _read_otherwise(body: bytes) -> Any:
    """Return the JSON value of an event stream, or of JSON that needs repair; a `Fault` if there is none."""
    try:
        return merged(body) if is_event_stream(body) else loads(body)
    except BrokenStreamError as error:
        return Fault(FaultKind.TRUNCATED if error.truncated else FaultKind.INVALID, str(error), body)
    except NotJsonError as error:
        if error.truncated:
            what = "the answer is cut short" if body.strip() else "the answer is empty"
            return Fault(FaultKind.TRUNCATED, what, body)
    like = " (starts like HTML)" if body.lstrip()[:1] == b"<" else ""
    return Fault(FaultKind.INVALID, f"the answer is not JSON{like}", body)


def _completion(value: dict[str, Any], choices: list[Any]) -> Completion:
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}  # the old completions API
    content = message.get("content")
    return Completion(
        content=content if content is None or type(content) is str else _flat_text(content),
        finish_reason=_text(choice.get("finish_reason")),
        usage=_usage(value.get("usage")),
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")) or None,
        refusal=_text(message.get("refusal")),
        id=_text(value.get("id")),
        object=_text(value.get("object")),
        created=_second(value.get("created")),
        model=_text(value.get("model")),
        system_fingerprint=_text(value.get("system_fingerprint")),
        choices_raw=dumps(choices) if _hold_more(choices, choice, message) else None,
    )


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def _second(value: Any) -> int | None:
    return int(value) if type(value) in (int, float) and 0 <= value <= _LAST_SECOND else None


def _flat_text(content: Any) -> str | None:
    """Return content that is no string as one: a list's text parts joined, anything else as JSON text."""
    if not isinstance(content, list):
        return dumps(content)
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _hold_more(choices: list[Any], choice: dict[str, Any], message: dict[str, Any]) -> bool:
    """Whether the choices hold something that no column of a part does."""
    content = message.get("content")
    return (
        len(choices) > 1
        or not (_MESSAGE_KEYS.issuperset(message) or _is_silent(message, _MESSAGE_KEYS))
        or not (_CHOICE_KEYS.issuperset(choice) or _is_silent(choice, _CHOICE_KEYS))
        or choice.get("logprobs") is not None
        or bool(_text(message.get("refusal")))
        or (type(content) is list and not all(map(_is_text_part, content)))
    )


def _is_silent(mapping: dict[str, Any], known: frozenset[str]) -> bool:
    """Whether everything beside the known keys is empty, such as the `tool_calls: []` of some servers."""
    return not any(_says_something(value) for key, value in mapping.items() if key not in known)


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(inner not in (None, "", [], {}) for inner in value.values())
    return value not in (None, "", [])


def _is_text_part(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type", "text") == "text")


def _usage(value: Any) -> Usage:
    if not isinstance(value, dict) or not value:
        return Usage()
    prompt_details = _counts(value.get("prompt_tokens_details"))
    if "cached_tokens" not in prompt_details:
        _take(prompt_details, "cached_tokens", value.get("prompt_cache_hit_tokens"))  # DeepSeek
    completion_details = _counts(value.get("completion_tokens_details"))
    if "reasoning_tokens" not in completion_details:
        _take(completion_details, "reasoning_tokens", value.get("reasoning_tokens"))  # SGLang
    return Usage(
        _count(value.get("prompt_tokens")),
        _count(value.get("completion_tokens")),
        _count(value.get("total_tokens")),
        prompt_details,
        completion_details,
        dumps(value),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _TOO_MANY else None


def _counts(details: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    if isinstance(details, dict):
        for key, value in details.items():  # a loop: a third faster here than a comprehension
            if type(value) is int and 0 <= value < _TOO_MANY:
                counts[key] = value
    return counts


def _take(details: dict[str, int], name: str, value: Any) -> None:
    count = _count(value)
    if count is not None:
        details[name] = count


def _error_object(value: dict[str, Any]) -> ApiError | None:
    """Return the error that an answer or a choice carries, in whichever shape."""
    error = value.get("error")
    if not error:
        is_old_vllm = value.get("object") == "error"
        return _api_error(value, value.get("message")) if is_old_vllm else None
    if isinstance(error, dict):
        return _api_error(error, error.get("message") or error.get("detail"))
    if isinstance(error, str):  # Ollama; or, beside a message, a framework's name for the status
        return _api_error(value, value.get("message") or error)
    if error is True:
        return _api_error(value, value.get("message"))
    return _api_error({"code": error}, value.get("message"))


def _api_error(fields: dict[str, Any], message: Any) -> ApiError:
    code = fields.get("code")
    if code is None:
        code = fields.get("error_code")
    return ApiError(
        message=_clean(message if isinstance(message, str) else dumps(message) or "", MAX_MESSAGE) if message else "",
        type=_name(fields.get("type")) or _name(fields.get("status")),  # Gemini says `status`
        param=_name(fields.get("param")),
        code=str(code) if type(code) is int else _name(code),
    )


def _name(value: Any) -> str | None:
    return _clean(value, _MAX_NAME) or None if isinstance(value, str) else None


def _clean(text: str, limit: int) -> str:
    return _CONTROL.sub(" ", text[: 2 * limit]).strip()[:limit]
