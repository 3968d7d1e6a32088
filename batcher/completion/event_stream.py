"""Server-sent events of a chat completion: merged into the one JSON value that an unstreamed answer would have been.

Reads the event stream format of the HTML standard (three kinds of line end, comments, data over several lines) and
knows how deltas add up: text is appended, lists grow, tool calls are told apart by their index. It does not judge
the answer and does not know the records; `completion` reads the merged value as it reads any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from batcher.completion.lenient_json import NotJsonError, loads

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
#: how an event stream begins; llama.cpp's server sends a field named `error`
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
#: fields that come whole, perhaps repeated: the last word counts
_WHOLE = frozenset({"role", "id", "type", "name", "index", "finish_reason", "native_finish_reason", "stop_reason"})
#: levels of objects within a delta that are merged field by field (logprobs and audio have one)
_MERGED_LEVELS = 3


class BrokenStreamError(ValueError):
    """The stream holds no whole answer."""

    def __init__(self, *, truncated: bool) -> None:
        #: it ended early, rather than being something else altogether
        self.truncated = truncated
        what = "the stream ended without a finish reason" if truncated else "an event of the stream is not JSON"
        super().__init__(what)


def is_event_stream(body: bytes) -> bool:
    """Whether the first thing in `body` is a line of an event stream."""
    return _stripped(body).startswith(_BEGINNINGS)


def merged(body: bytes) -> dict[str, Any]:
    """Return the chunks of an event stream as one `chat.completion` object, or the first event that reports an error.

    Raises:
        BrokenStreamError: it ended without `[DONE]` and without a finish reason, or an event in its middle is not JSON.
    """
    answer = _Answer()
    events = list(_events(body))
    for number, (name, data) in enumerate(events, start=1):
        if data.strip() == b"[DONE]":
            return answer.value()
        try:
            chunk = loads(data)
        except NotJsonError:
            if number == len(events):  # the connection broke within this event
                break
            raise BrokenStreamError(truncated=False) from None
        if isinstance(chunk, dict):
            if name == b"error" and not chunk.get("error"):
                chunk = {"error": chunk}
            if chunk.get("error"):
                return chunk
            answer.add(chunk)
    if not answer.is_finished():
        raise BrokenStreamError(truncated=True)
    return answer.value()


def _stripped(body: bytes) -> bytes:
    return body.removeprefix(_BOM).lstrip()


def _events(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the data of each event; one that the end of the stream cuts off is the last."""
    name, data = b"", list[bytes]()
    for line in _LINE_END.split(_stripped(body)):
        if not line:
            if data:
                yield name, b"\n".join(data)
            name, data = b"", []
            continue
        key, _, value = line.partition(b":")  # a comment is a line with an empty key
        value = value.removeprefix(b" ")
        if key == b"data":
            data.append(value)
        elif key == b"error":
            name, data = b"error", [value]
        elif key == b"event":
            name = value
    if data:
        yield name, b"\n".join(data)


class _Answer:
    """What the chunks of one stream add up to."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        #: by index of the choice: the choices as they came, and their deltas
        self._choices: dict[int, list[dict[str, Any]]] = {}
        self._deltas: dict[int, list[dict[str, Any]]] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in one chunk."""
        for key in ("id", "object", "created", "model", "system_fingerprint"):
            if self._head.get(key) is None:
                self._head[key] = chunk.get(key)
        self._note_usage(chunk)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            self._note_usage(choice)  # where Moonshot puts it
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            self._choices.setdefault(index, []).append(choice)
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                self._deltas.setdefault(index, []).append(delta)

    def is_finished(self) -> bool:
        """Whether every choice that began has a finish reason."""
        return bool(self._choices) and all(
            any(piece.get("finish_reason") is not None for piece in pieces) for pieces in self._choices.values()
        )

    def value(self) -> dict[str, Any]:
        """Return the whole answer in the shape of one that was not streamed."""
        whole = dict(self._head)
        if isinstance(whole.get("object"), str):
            whole["object"] = whole["object"].removesuffix(".chunk")
        whole["choices"] = [self._choice(index) for index in sorted(self._choices)]
        if self._usage is not None:
            whole["usage"] = self._usage
        return whole

    def _note_usage(self, holder: dict[str, Any]) -> None:
        usage = holder.get("usage")
        if isinstance(usage, dict):
            self._usage = usage

    def _choice(self, index: int) -> dict[str, Any]:
        without = {"delta", "message", "usage"}
        choice = _merge([{k: v for k, v in c.items() if k not in without} for c in self._choices[index]])
        deltas = self._deltas.get(index, [])
        if not deltas and isinstance(choice.get("text"), str):  # the old completions API
            return choice
        message = _merge(deltas)
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            message["tool_calls"] = _merge_calls(calls)
        choice["message"] = message
        return choice


def _merge(pieces: list[dict[str, Any]], levels: int = _MERGED_LEVELS) -> dict[str, Any]:
    """Return one object with each field of `pieces` put together; null says nothing."""
    fields: dict[str, list[Any]] = {}
    for piece in pieces:
        for key, value in piece.items():
            if value is not None:
                fields.setdefault(key, []).append(value)
    return {key: _join(key, values, levels) for key, values in fields.items()}


def _join(key: str, values: list[Any], levels: int) -> Any:
    if len(values) == 1:
        return values[0]
    if key in _WHOLE:
        return next((value for value in reversed(values) if value != ""), "")
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, str | list) for value in values):  # Mistral sends text now as a string, now as parts
        return [part for value in values for part in (value if isinstance(value, list) else [value])]
    if levels and all(isinstance(value, dict) for value in values):
        return _merge(values, levels - 1)
    return values[-1]


def _merge_calls(pieces: list[Any]) -> list[dict[str, Any]]:
    """Return the tool calls that `pieces` add up to, without the index that an unstreamed call does not have."""
    calls: dict[int, list[dict[str, Any]]] = {}
    last = 0
    for piece in pieces:
        if isinstance(piece, dict):
            index = piece.get("index")
            last = index if isinstance(index, int) else last
            calls.setdefault(last, []).append({key: value for key, value in piece.items() if key != "index"})
    return [_merge(calls[index]) for index in sorted(calls)]
