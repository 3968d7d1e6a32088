"""What holds for every response body: nothing raises, everything can be stored, streaming changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from batcher.completion import parse, parse_error
from batcher.records import ApiError, Completion, Fault, FaultKind, Reply
from batcher.retry import judge

#: any code point, halves of pairs included
any_text = st.text(st.characters(exclude_categories=()))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
#: values of the wrong kind for nearly every field, and pieces of what servers send
odd = any_json | st.sampled_from([{}, [], "", 0, -1, 2**63, 10**400, "429", 429, "stop", True])


def _object(*names: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, odd) | fields) | odd


message = _object("role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "audio")
choice = _object("index", "finish_reason", "logprobs", "text", "usage", message=message, delta=message, error=odd)
details = _object("cached_tokens", "reasoning_tokens")
usage = _object("prompt_tokens", "total_tokens", "prompt_cache_hit_tokens", prompt_tokens_details=details)
error = _object("message", "type", "param", "code", "status", "detail")
body = _object(
    *("id", "object", "created", "model", "message", "code", "detail"),
    choices=st.lists(choice, max_size=2) | odd,
    usage=usage,
    error=st.none() | error,
)


def assert_storable(value: Any) -> None:
    """Every text is UTF-8 and every integer fits 64 bits."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, int):
        assert 0 <= value < 10**12
    elif isinstance(value, dict):
        for key, inner in value.items():
            assert_storable(key)
            assert_storable(inner)


def assert_all_well(data: bytes) -> None:
    """Read `data` in every way there is."""
    parsed = parse(data)
    if isinstance(parsed, Fault):
        assert parsed.body == data
    else:
        assert_storable(asdict(parsed))
    refused = parse_error(data)
    assert refused is None or isinstance(refused, ApiError)
    for status in (200, 400, 500):
        verdict = judge(Reply(status, {}, data), json_mode=True, now_s=0.0)
        assert verdict.completion or verdict.error
        if verdict.error:
            assert_storable(asdict(verdict.error))
            assert verdict.error.code


@given(st.binary() | st.builds(bytes.__add__, st.sampled_from([b"{", b"[", b'{"a":"', b"data: {", b":"]), st.binary()))
def test_no_bytes_raise(data: bytes) -> None:
    """Whatever a server sends, there is an answer to what it is."""
    assert_all_well(data)


@given(body, st.booleans())
def test_no_json_of_any_shape_raises(value: Any, ascii_only: bool) -> None:
    """Fields of any type in any place; `json.dumps` also writes NaN, huge numbers and lone surrogates."""
    assert_all_well(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(st.lists(body, max_size=4))
def test_no_event_stream_of_any_shape_raises(chunks: list[Any]) -> None:
    """The same as the chunks of a stream."""
    assert_all_well(b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))


#: the texts of a message, tool calls, usage
answers = st.fixed_dictionaries(
    {"content": st.text()},
    optional={
        "reasoning_content": st.text(min_size=1),
        "refusal": st.text(min_size=1),
        "tool_calls": st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=3),
    },
)
counts = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), st.integers(0, 10**12 - 1))


def _tool_call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _whole(answer: dict[str, Any], usage: dict[str, int]) -> bytes:
    """The answer in one piece."""
    message = {"role": "assistant"} | answer
    if "tool_calls" in answer:
        message["tool_calls"] = [_tool_call(*call) for call in answer["tool_calls"]]
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return orjson.dumps(head | {"choices": [choice], "usage": usage})


def _cut(data: st.DataObject, text: str) -> list[str]:
    """`text` in pieces, at least one."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _deltas(data: st.DataObject, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer in pieces, those of different fields in any order."""
    queues: list[list[dict[str, Any]]] = []
    for key in answer.keys() - {"tool_calls"}:
        queues.append([{key: piece} for piece in _cut(data, answer[key])])
    for index, (name, arguments) in enumerate(answer.get("tool_calls", ())):
        first, *rest = _cut(data, arguments)
        pieces = [_tool_call(name, first), *({"function": {"arguments": piece}} for piece in rest)]
        queues.append([{"tool_calls": [{"index": index} | piece]} for piece in pieces])
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    while queues := [queue for queue in queues if queue]:
        deltas.append(data.draw(st.sampled_from(queues)).pop(0))
    return deltas


def _stream(data: st.DataObject, answer: dict[str, Any], usage: dict[str, int]) -> list[bytes]:
    """The answer as events, laid out in any way that the standard allows. The last one but two finishes it."""
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in _deltas(data, answer)]
    chunks = [head | {"choices": [choice]} for choice in [*choices, {"delta": {}, "finish_reason": "stop"}]]
    events = []
    for chunk in [*chunks, head | {"choices": [], "usage": usage}, None]:
        several_lines = orjson.OPT_INDENT_2 if data.draw(st.booleans()) else None
        text = b"[DONE]" if chunk is None else orjson.dumps(chunk, option=several_lines)
        colon = data.draw(st.sampled_from([b"data:", b"data: "]))
        extra = data.draw(st.sampled_from([b"", b": keep-alive" + end, b"event: x" + end, b": a" + end + end]))
        events.append(extra + b"".join(colon + line + end for line in text.split(b"\n")) + end)
    return events


def _readable(parsed: object) -> dict[str, Any]:
    """A completion's fields, with the raw choices as values, whose order of keys means nothing."""
    assert isinstance(parsed, Completion)
    fields = asdict(parsed)
    fields["choices_raw"] = parsed.choices_raw and orjson.loads(parsed.choices_raw)
    return fields


@given(st.data(), answers, counts)
def test_a_stream_gives_the_same_completion_as_the_whole_answer(
    data: st.DataObject, answer: dict[str, Any], usage: dict[str, int]
) -> None:
    """However the text is cut and the lines are laid out."""
    stream = b"".join(_stream(data, answer, usage))
    assert _readable(parse(stream)) == _readable(parse(_whole(answer, usage)))


@given(st.data(), answers, counts)
def test_a_stream_cut_anywhere_is_truncated_or_whole(
    data: st.DataObject, answer: dict[str, Any], usage: dict[str, int]
) -> None:
    """A part of the text is never taken for the answer; what is lost after the finish reason is only the usage."""
    events = _stream(data, answer, usage)
    stream = b"".join(events)
    finished = len(b"".join(events[:-2]))
    length = data.draw(st.integers(6, len(stream)))
    parsed = parse(stream[:length])
    if isinstance(parsed, Completion):
        assert parsed.content == answer["content"]
        assert length > len(b"".join(events[:-3]))
    else:
        assert isinstance(parsed, Fault)
        assert parsed.kind is FaultKind.TRUNCATED
        assert length < finished


@given(st.data(), answers, counts)
def test_an_answer_cut_anywhere_is_truncated(
    data: st.DataObject, answer: dict[str, Any], usage: dict[str, int]
) -> None:
    """JSON that is cut short is told apart from what never was JSON."""
    whole = _whole(answer, usage)
    parsed = parse(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert isinstance(parsed, Fault)
    assert parsed.kind is FaultKind.TRUNCATED
