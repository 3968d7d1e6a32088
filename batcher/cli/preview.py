"""A request as a person wants to look at it before a million of them are sent: parameters in a line, then the texts.

Pure. What is shown is cut to a sensible length, cannot steer a terminal, and hides what looks like a key. Of parameters
only those values are shown that hold nothing of the user's: others may come from a variable and be secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from batcher.catalogue import FormSchema
from batcher.config.document import mask

#: of one text
MAX_LINES: Final = 12
MAX_CHARACTERS: Final = 800
#: of a conversation
MAX_MESSAGES: Final = 6
_ROLE_CHARACTERS: Final = 20


def render_request(request: Mapping[str, Any], schema: FormSchema) -> list[str]:
    """Return the lines that show a request body."""
    return [_settings(request, schema), *_texts(request)]


def escaped(text: str) -> str:
    """Return text without characters that do more than be seen; a line break stays."""
    return "".join(letter if letter.isprintable() or letter == "\n" else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return {"\t": "    ", "\r": ""}.get(letter) or letter.encode("unicode_escape", "surrogatepass").decode()


def _settings(request: Mapping[str, Any], schema: FormSchema) -> str:
    words = [f"model {mask(escaped(str(request.get('model'))))}"]
    for name, value in request.items():
        if name not in ("model", "messages", "prompt", "system_prompt"):
            words.append(f"{escaped(name)} {_value(name, value, schema)}")
    return ", ".join(words)


def _value(name: str, value: Any, schema: FormSchema) -> str:
    if isinstance(value, bool | int | float | None):
        return orjson.dumps(value).decode()
    parameter = schema.parameter(name)
    kind = value.get("type") if isinstance(value, dict) and len(value) == 1 else value
    if parameter is not None and isinstance(kind, str) and kind in parameter.choices:
        return kind
    return "(given)"


def _texts(request: Mapping[str, Any]) -> Iterator[str]:
    """Every text with the role that says it, a line each."""
    if "messages" not in request:
        for name in ("system_prompt", "prompt"):
            if name in request:
                yield from _said(name, request[name])
        return
    messages = request["messages"]
    shown = messages if len(messages) <= MAX_MESSAGES else [*messages[:2], None, *messages[3 - MAX_MESSAGES :]]
    for message in shown:
        if message is None:
            yield f"... {len(messages) - len(shown) + 1} more messages"
        else:
            yield from _said(str(message.get("role")), message.get("content"))


def _said(role: str, content: Any) -> Iterator[str]:
    text = mask(escaped(content if isinstance(content, str) else orjson.dumps(content).decode()))
    cut = "\n".join(text[:MAX_CHARACTERS].split("\n")[:MAX_LINES])
    left = len(text) - len(cut)
    head = escaped(role[:_ROLE_CHARACTERS])
    lines = [*cut.split("\n"), *([f"... {left:,} more characters"] if left else [])]
    for position, line in enumerate(lines):
        yield f"{head if position == 0 else '':<{max(9, len(head))}} | {line}".rstrip()
