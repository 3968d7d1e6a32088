"""How a request is shown before it is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.catalogue import FormSchema, load_catalogue
from batcher.cli.preview import MAX_CHARACTERS, MAX_LINES, MAX_MESSAGES, escaped, render_request


@pytest.fixture
def schema() -> FormSchema:
    """A model with thinking and JSON mode."""
    return load_catalogue().schema_of("deepseek-v4-flash")


def said(*contents: Any) -> dict[str, Any]:
    """A conversation of users."""
    return {"model": "m", "messages": [{"role": "user", "content": content} for content in contents]}


def test_messages_are_shown_with_their_roles(schema: FormSchema) -> None:
    """Parameters come in one line, then every text with the role that says it, line by line."""
    body = {
        "model": "deepseek-v4-flash",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One\ntwo"}],
        "thinking": {"type": "disabled"},
        "temperature": 0.2,
        "stream": False,
    }
    assert render_request(body, schema) == [
        "model deepseek-v4-flash, thinking disabled, temperature 0.2, stream false",
        "system    | Be brief.",
        "user      | One",
        "          | two",
    ]


def test_flat_fields_are_shown_too(schema: FormSchema) -> None:
    """The form format has a system prompt and a prompt."""
    body = {"model": "m", "system_prompt": "Be brief.", "prompt": "One", "response_format": "json_object"}
    assert render_request(body, schema) == [
        "model m, response_format json_object",
        "system_prompt | Be brief.",
        "prompt    | One",
    ]


def test_values_that_may_be_secret_are_not_shown(schema: FormSchema) -> None:
    """Text that is no choice of the form may come from a variable: the name is enough."""
    lines = render_request({**said("x"), "user": "hush", "stop": ["hush"], "deep": {"type": "hush"}}, schema)
    assert lines[0] == "model m, user (given), stop (given), deep (given)"


def test_what_looks_like_a_key_is_hidden(schema: FormSchema) -> None:
    """A key in a prompt is not shown, also not the part of it before a cut."""
    key = "sk-0123456789abcdef0123456789"
    assert key[:8] not in "\n".join(render_request(said(f"use {key} please"), schema))
    assert key[:8] not in "\n".join(render_request(said("x" * (MAX_CHARACTERS - 12) + " " + key), schema))


def test_control_characters_cannot_steer_a_terminal(schema: FormSchema) -> None:
    """Escape sequences, bells and characters that turn the writing round are spelled out."""
    (_, line) = render_request(said("a\x1b[2Jb\x07c\u202ed\x9be\tf"), schema)
    assert line == "user      | a\\x1b[2Jb\\x07c\\u202ed\\x9be    f"


@given(st.text(st.characters()))
def test_whatever_is_escaped_can_be_printed(text: str) -> None:
    """After escaping there is nothing left but printable characters and line breaks; surrogates too can be encoded."""
    shown = escaped(text)
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    shown.encode()


@pytest.mark.parametrize(
    ("text", "left"), [("x" * (MAX_CHARACTERS + 1234), "1,234"), ("x\n" * (MAX_LINES + 5), "11")], ids=["long", "many"]
)
def test_a_long_text_is_cut(schema: FormSchema, text: str, left: str) -> None:
    """The beginning is shown, and how much is left."""
    lines = render_request(said(text), schema)[1:]
    assert len(lines) <= MAX_LINES + 1
    assert lines[-1] == f"          | ... {left} more characters"


def test_a_long_conversation_is_cut_in_the_middle(schema: FormSchema) -> None:
    """How it begins and how it ends is shown, and how many messages are not."""
    lines = render_request(said(*(f"message {n}" for n in range(20))), schema)[1:]
    assert lines[0].endswith("message 0")
    assert lines[-1].endswith("message 19")
    shown = [line for line in lines if " | message" in line]
    assert f"... {20 - len(shown)} more messages" in lines
    assert len(lines) == MAX_MESSAGES


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "hi"}], 7])
def test_content_that_is_no_text_is_shown_as_json(schema: FormSchema, content: Any) -> None:
    """Parts of a message, tool calls without a text: whatever a row brings is shown."""
    assert render_request(said(content), schema)[1].startswith("user      | ")
