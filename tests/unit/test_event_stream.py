"""Event streams: what is one, how its lines and deltas add up, and when it is broken."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batcher.completion.event_stream import BrokenStreamError, is_event_stream, merged


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, index: int = 0, **top: Any) -> bytes:
    """One chunk as an event."""
    choices = [{"index": index, "delta": delta or {}, "finish_reason": finish}]
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "choices": choices} | top) + b"\n\n"


DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: {}\n\n", True),
        (b"event: x\ndata: {}\n\n", True),
        (b"id: 1\n", True),
        (b"retry: 1\n", True),
        (b": keep-alive\n\n", True),
        (b"\n\r\n\ndata: {}\n\n", True),  # blank lines are keep-alives
        (b"\xef\xbb\xbfdata: {}\n\n", True),
        (b'{"data": 1}', False),
        (b"<html>data:</html>", False),
        (b"", False),
    ],
)
def test_an_event_stream_is_known_by_its_first_line(body: bytes, expected: bool) -> None:
    """Content decides, because servers send streams with any content type."""
    assert is_event_stream(body) is expected


def test_text_of_all_chunks_is_joined() -> None:
    """Content, reasoning and refusal are each appended in order; the head comes from the first chunk that has it."""
    stream = (
        event({"role": "assistant", "reasoning_content": "Let "}, id="c1", created=7, model="m")
        + event({"reasoning_content": "me.", "content": None}, id="c1")
        + event({"content": "Hel"}, id="c1")
        + event({"content": "lo", "refusal": "no"})
        + event(finish="stop")
        + DONE
    )
    assert merged(stream) == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "reasoning_content": "Let me.",
                    "content": "Hello",
                    "refusal": "no",
                },
            }
        ],
    }


def test_tool_calls_are_joined_by_index() -> None:
    """Arguments arrive in pieces, interleaved; names and ids come once, or again and again."""
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}
    stream = (
        event({"tool_calls": [first, second]})
        + event({"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]})
        + event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "", "arguments": "[]"}}, "junk"]})
        + event(finish="tool_calls")
    )
    assert merged(stream)["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "[]"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_several_choices_are_kept_apart() -> None:
    """With n > 1 chunks of the choices come in any order."""
    stream = (
        event({"content": "b"}, index=1) + event({"content": "a"}) + event({"content": "B"}, index=1, finish="stop")
    )
    choices = merged(stream + event(finish="length"))["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "a", "length"),
        (1, "bB", "stop"),
    ]


def test_logprobs_of_all_chunks_are_joined() -> None:
    """Lists within an object grow."""

    def chunk(token: str) -> bytes:
        choice = {"delta": {"content": token}, "logprobs": {"content": [{"token": token}], "refusal": None}}
        return b"data:" + orjson.dumps({"choices": [choice]}) + b"\n\n"

    answer = merged(chunk("a") + chunk("b") + event(finish="stop"))
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


@pytest.mark.parametrize(
    "usage_event",
    [
        b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {}, "usage": {"total_tokens": 3}}]}\n\n',  # Moonshot
    ],
)
def test_the_last_usage_counts(usage_event: bytes) -> None:
    """Some servers send running totals with every chunk, most send one at the end."""
    stream = event({"content": "x"}, usage={"total_tokens": 1}) + event(finish="stop", usage=None) + usage_event + DONE
    assert merged(stream)["usage"] == {"total_tokens": 3}


def test_comments_named_events_and_unknown_fields_are_ignored() -> None:
    """`: keep-alive` is no content, and a name other than `error` changes nothing."""
    stream = b": keep-alive\n\nevent: chunk\nid: 7\nnonsense\nretry: 10\n" + event({"content": "x"})
    assert merged(stream + b": OPENROUTER PROCESSING\n\n" + event(finish="stop"))["choices"][0]["message"] == {
        "content": "x"
    }


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_data_over_several_lines_is_one_event(end: bytes) -> None:
    """The standard joins the `data` lines of an event with a line feed, whatever ended the lines."""
    lines = [b'data: {"choices":', b'data:[{"text": "a\xe2\x80\xa8b", "finish_reason": "stop"}]}', b"", b""]
    assert merged(end.join(lines))["choices"] == [{"text": "a\u2028b", "finish_reason": "stop"}]


def test_deep_deltas_are_not_merged_to_the_bottom() -> None:
    """Depth is the server's choice; the stack is ours."""
    deep = b'{"a":' * 900 + b"1" + b"}" * 900
    stream = b'data: {"choices": [{"delta": ' + deep + b"}]}\n\n"
    message = merged(stream + stream + event(finish="stop"))["choices"][0]["message"]
    assert message == orjson.loads(deep)


def test_what_follows_done_is_not_read() -> None:
    """`[DONE]` ends the answer."""
    stream = event({"content": "x"}, finish="stop") + b"data: [DONE] \n\n" + event({"content": "y"}) + b"data: junk\n\n"
    assert merged(stream)["choices"][0]["message"]["content"] == "x"


@pytest.mark.parametrize(
    "end",
    [
        b'data: {"error": {"message": "overloaded", "code": 502}}\n\n',
        b'event: error\ndata: {"message": "overloaded", "code": 502}\n\n',
        b'error: {"message": "overloaded", "code": 502}\n\n',  # llama.cpp
    ],
)
def test_an_error_in_the_stream_is_the_answer(end: bytes) -> None:
    """A provider that fails after it has begun says so in an event."""
    assert merged(event({"content": "x"}) + end + DONE) == {"error": {"message": "overloaded", "code": 502}}


@pytest.mark.parametrize(
    "stream",
    [
        b": keep-alive\n\n",
        event({"content": "x"}),
        event({"content": "x"}) + b'data: {"choices": [{"delta": {"content": "y"}, "finish_re',
        event({"content": "x"}, finish="stop") + event({"content": "y"}, index=1),  # the other choice is not finished
    ],
)
def test_a_stream_without_finish_reason_and_without_done_is_cut(stream: bytes) -> None:
    """A connection that ends quietly is no proof that the answer did."""
    with pytest.raises(BrokenStreamError) as caught:
        merged(stream)
    assert caught.value.truncated


def test_done_without_finish_reason_is_an_answer_without_one() -> None:
    """Whether that is good enough is for others to judge."""
    assert "finish_reason" not in merged(event({"content": "x"}) + DONE)["choices"][0]


def test_a_stream_cut_after_the_finish_reason_is_whole() -> None:
    """Only the usage and `[DONE]` are lost, and they are no reason to pay again."""
    stream = event({"content": "x"}) + event(finish="stop") + b'data: {"usage'
    assert merged(stream)["choices"][0]["finish_reason"] == "stop"


def test_junk_in_the_middle_is_not_passed_over() -> None:
    """A delta that cannot be read would leave a hole in the text."""
    with pytest.raises(BrokenStreamError) as caught:
        merged(event({"content": "x"}) + b"data: {nope}\n\n" + event(finish="stop") + DONE)
    assert not caught.value.truncated
