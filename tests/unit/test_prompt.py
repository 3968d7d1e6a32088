"""Rows become requests: four shapes of rows, two request formats, and no row's text in any error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.errors import JobError
from batcher.prompt import PromptError
from batcher.records import Prompt
from tests.fakes import builder_of, make_job

FORM = {"endpoint": {"base_url": "http://localhost:9", "request_format": "form"}}
NO_PROMPT: dict[str, Any] = {"prompt": None}


def ask(values: dict[str, Any], **changes: Any) -> Prompt:
    """The request of one row."""
    return builder_of(make_job(Path("/nowhere"), **changes)).build(values)


def body(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The request of one row, as the endpoint reads it."""
    request: dict[str, Any] = orjson.loads(ask(values, **changes).body)
    return request


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_columns() -> None:
    """A template is filled from the row; the row's other keys, `messages` among them, have no effect."""
    row = {"text": "hi", "messages": [user("no")], "temperature": 2}
    changes = {"prompt": "Say {{ text }}.", "system_prompt": "Be {{ text }}", "parameters": {"temperature": 1}}
    expected = {"model": "some-model", "messages": [system("Be hi"), user("Say hi.")], "temperature": 1}
    assert body(row, **changes) == expected
    assert body(row, **changes, **FORM) == {
        "model": "some-model",
        "system_prompt": "Be hi",
        "prompt": "Say hi.",
        "temperature": 1,
    }


def test_rows_with_a_prompt() -> None:
    """The row's own system prompt comes before the job's, and its own parameters before the job's."""
    row = {"prompt": "{{ text }} as it is", "temperature": 0.5, "unknown": 1}
    changes: dict[str, Any] = {**NO_PROMPT, "system_prompt": "general", "parameters": {"temperature": 1, "top_p": 0.9}}
    assert body(row, **changes) == {
        "model": "some-model",
        "messages": [system("general"), user("{{ text }} as it is")],
        "temperature": 0.5,
        "top_p": 0.9,
    }
    assert body({**row, "system_prompt": "own"}, **changes)["messages"][0] == system("own")
    assert body({**row, "temperature": None}, **changes)["temperature"] == 1
    assert body({**row, "system_prompt": "own"}, **changes, **FORM)["system_prompt"] == "own"


def test_rows_with_messages() -> None:
    """A conversation is sent as it is; a system prompt is put before it unless it has one."""
    messages = [user("a"), {"role": "assistant", "content": "b"}, user("c")]
    assert body({"messages": messages}, **NO_PROMPT)["messages"] == messages
    assert body({"messages": messages}, prompt=None, system_prompt="s")["messages"] == [system("s"), *messages]
    row = {"messages": messages, "system_prompt": "own", "seed": 3}
    assert body(row, prompt=None, system_prompt="s")["messages"] == [system("own"), *messages]
    assert body(row, **NO_PROMPT)["seed"] == 3
    for first in (system("x"), {"role": "developer", "content": "x"}):
        given = [first, *messages]
        assert body({"messages": given}, prompt=None, system_prompt="s")["messages"] == given


def test_messages_in_the_form_format() -> None:
    """A conversation of one prompt fits the form; a longer one is refused."""
    assert body({"messages": [user("u")]}, **NO_PROMPT, **FORM) == {"model": "some-model", "prompt": "u"}
    expected = {"model": "some-model", "system_prompt": "s", "prompt": "u"}
    assert body({"messages": [system("s"), user("u")]}, **NO_PROMPT, **FORM) == expected
    assert body({"messages": [user("u")]}, prompt=None, system_prompt="s", **FORM) == expected
    with pytest.raises(PromptError, match="conversation cannot be sent with request_format 'form'"):
        body({"messages": [user("a"), user("b")]}, **NO_PROMPT, **FORM)


def test_openai_batch_lines() -> None:
    """A line's body is the request; parameters outside the schema are passed on."""
    inner = {"model": "gpt-x", "messages": [user("u")], "temperature": 0.1, "odd": [1]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": inner}
    request = body(line, **NO_PROMPT, parameters={"temperature": 1, "seed": 5})
    assert request["messages"] == [user("u")]
    assert (request["temperature"], request["seed"], request["odd"]) == (0.1, 5, [1])
    del line["url"]
    assert body(line, **NO_PROMPT)["odd"] == [1]
    line["body"] = {"prompt": "p", "system_prompt": "s", "seed": 1}
    assert body(line, **NO_PROMPT, **FORM) == {"model": "some-model", "system_prompt": "s", "prompt": "p", "seed": 1}


def test_the_model_of_a_batch_line() -> None:
    """The line's model is asked, and the job's where the line names none."""
    assert body({"body": {"model": "of-the-line", "messages": [user("u")]}}, **NO_PROMPT)["model"] == "of-the-line"
    assert body({"body": {"messages": [user("u")]}}, **NO_PROMPT)["model"] == "some-model"


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/responses", "", 5])
def test_a_batch_line_for_something_else(url: object) -> None:
    """Only chat completions can be asked."""
    with pytest.raises(PromptError, match="only batch lines for a url ending in /chat/completions"):
        ask({"url": url, "body": {"messages": [user("u")]}}, **NO_PROMPT)


def test_json_text_from_parquet() -> None:
    """Where a column cannot hold a structure, JSON text stands for it."""
    messages = orjson.dumps([user("u")]).decode()
    assert body({"messages": messages}, **NO_PROMPT)["messages"] == [user("u")]
    line = orjson.dumps({"messages": [user("u")], "seed": 2}).decode()
    assert body({"body": line}, **NO_PROMPT)["seed"] == 2


@pytest.mark.parametrize(
    "value, expected",
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        ([1, "ä", None], '[1,"ä",null]'),
        ({"a": [True]}, '{"a":[true]}'),
        (7, "7"),
        ("{{ text }} {% raw %} <b>&", "{{ text }} {% raw %} <b>&"),
    ],
)
def test_how_a_value_is_written(value: object, expected: str) -> None:
    """Null is nothing, structures are JSON; text is never escaped and never a template."""
    assert body({"text": value}, prompt="<{{ text }}>")["messages"] == [user(f"<{expected}>")]


SECRET = "what the row says"


@pytest.mark.parametrize(
    "values, changes, message",
    [
        ({"other": SECRET}, {}, "the row has no column 'text', which the prompt template needs"),
        ({"text": SECRET}, {"prompt": "{{ text + 1 }}"}, "the prompt template fails for this row: .* in line 1"),
        ({"text": SECRET}, {"prompt": "\n{{ text.a.b }}"}, "the prompt template fails for this row: .* in line 2"),
        ({"text": [SECRET] * 3000}, {"prompt": "{% for a in text %}{% for b in text %}{% endfor %}{% endfor %}"},
         "the prompt template fails for this row"),
        ({"x": SECRET}, NO_PROMPT, "no prompt, no messages and no body"),
        ({"prompt": [SECRET]}, NO_PROMPT, "prompt is not a text"),
        ({"prompt": "p", "system_prompt": [SECRET]}, NO_PROMPT, "system_prompt is not a text"),
        ({"prompt": "p", "temperature": SECRET}, NO_PROMPT, "the row's parameter temperature: expected a number"),
        ({"prompt": "p", "temperature": 3}, NO_PROMPT, "the row's parameter temperature: .*found 3"),
        ({"messages": SECRET}, NO_PROMPT, "messages is a text that is not JSON"),
        ({"messages": {"a": SECRET}}, NO_PROMPT, "messages is not a list of messages"),
        ({"messages": []}, NO_PROMPT, "messages is not a list of messages"),
        ({"messages": [SECRET]}, NO_PROMPT, "messages is not a list of messages"),
        ({"body": SECRET}, NO_PROMPT, "body is a text that is not JSON"),
        ({"body": "[]"}, NO_PROMPT, "body is not a mapping"),
        ({"body": {"x": SECRET}}, NO_PROMPT, "body holds neither messages nor a prompt"),
        ({"prompt": "p", "seed": 2**70}, NO_PROMPT, "the request cannot be written as JSON"),
        ({"messages": [{"role": "user"}]}, {**NO_PROMPT, **FORM}, "content"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_asked(values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    """The error says why and does not repeat the row."""
    with pytest.raises(PromptError, match=message) as refused:
        ask(values, **changes)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "parameters, own, expected",
    [
        ({}, None, False),
        ({"response_format": "json_object"}, None, True),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, None, True),
        ({"response_format": "text"}, None, False),
        ({"response_format": "json_object"}, "text", False),
        ({}, {"type": "json_object"}, True),
    ],
)
def test_json_mode(parameters: dict[str, Any], own: object, expected: bool) -> None:
    """It follows what is asked for, the row's word before the job's."""
    row = {"prompt": "p", "response_format": own}
    assert ask(row, **NO_PROMPT, parameters=parameters).json_mode is expected


def test_response_format_in_either_format() -> None:
    """A mapping in the messages format, a text in the form."""
    changes = {"parameters": {"response_format": "json_object"}}
    assert body({"text": "t"}, **changes)["response_format"] == {"type": "json_object"}
    assert body({"text": "t"}, **changes, **FORM)["response_format"] == "json_object"


def test_streams() -> None:
    """A stream is asked for its usage, which it would not send by itself; the form has no such field."""
    assert body({"text": "t"}, parameters={"stream": True})["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body({"text": "t"}, parameters={"stream": True}, **FORM)
    assert "stream_options" not in body({"text": "t"}, parameters={"stream": False})


def test_stream_options_of_the_job() -> None:
    """What the job asks of a stream is kept beside the usage."""
    parameters = {"stream": True, "stream_options": {"chunk_size": 5}}
    assert body({"text": "t"}, parameters=parameters)["stream_options"] == {"chunk_size": 5, "include_usage": True}


def test_extra_parameters() -> None:
    """They are sent flat and unchecked, also where a row has parameters of its own."""
    parameters = {"extra": {"guided_choice": ["a"]}, "seed": 1}
    assert body({"text": "t"}, parameters=parameters)["guided_choice"] == ["a"]
    request = body({"prompt": "t", "seed": 2}, **NO_PROMPT, parameters=parameters)
    assert (request["guided_choice"], request["seed"]) == (["a"], 2)
    assert "extra" not in request


@pytest.mark.parametrize(
    "columns, changes, message",
    [
        (["txet", "n"], {}, "prompt: the input has no column 'text'; did you mean 'txet'? (it has txet, n)"),
        (
            ["n"],
            {"system_prompt": "{{ zzz }}", "prompt": "{{ n }}"},
            "system_prompt: the input has no column 'zzz' (it",
        ),
        (["n"], NO_PROMPT, "prompt: missing, and the input has none of the columns messages, prompt, body"),
    ],
)
def test_columns_that_do_not_fit_the_job(columns: list[str], changes: dict[str, Any], message: str) -> None:
    """The job is refused with what is missing and what is there."""
    with pytest.raises(JobError) as refused:
        builder_of(make_job(Path("/nowhere"), **changes)).check_columns(columns)
    assert message in str(refused.value)


@pytest.mark.parametrize("columns", [["messages"], ["prompt", "x"], ["body"]])
def test_columns_that_fit(columns: list[str]) -> None:
    """One of the three shapes is enough without a template, and every template column with one."""
    builder_of(make_job(Path("/nowhere"), prompt=None)).check_columns(columns)
    builder_of(make_job(Path("/nowhere"))).check_columns(["text", *columns])


def test_a_template_with_a_mistake() -> None:
    """The error names the template and the line."""
    with pytest.raises(JobError, match="prompt: line 2 of the template"):
        builder_of(make_job(Path("/nowhere"), prompt="a\n{{ text"))


@pytest.mark.parametrize("name", ["name", "template_name", "source", "cls"])
def test_columns_with_any_name(name: str) -> None:
    """A column may have the name of anything of ours."""
    assert body({name: "v"}, prompt=f"<{{{{ {name} }}}}>")["messages"] == [user("<v>")]


def test_a_template_that_calls_a_function() -> None:
    """The functions of the template language are no columns."""
    builder = builder_of(make_job(Path("/nowhere"), prompt="{% for n in range(3) %}{{ n }}{{ text }}{% endfor %}"))
    builder.check_columns(["text"])
    assert orjson.loads(builder.build({"text": "a"}).body)["messages"] == [user("0a1a2a")]


def test_row_stands_for_all_columns() -> None:
    """Columns whose names are no words are reached through `row`, which can also be walked through as a whole."""
    row = {"customer name": "Ann", "a-b": None, "text": "hi", "n": {"x": [1]}}
    texts = {
        '{{ row["customer name"] }}: {{ text }}': "Ann: hi",
        "{{ row['customer name'] }}{{ row['a-b'] }}{{ row.text }}": "Annhi",
        "{% for name in row %}{{ name }};{% endfor %}": "customer name;a-b;text;n;",
        "{% for name, value in row|items %}{{ value }};{% endfor %}": 'Ann;;hi;{"x":[1]};',
        "{{ row }}": '{"customer name":"Ann","a-b":null,"text":"hi","n":{"x":[1]}}',
        '{{ row.none|default("no") }}{% if row["b c"] is defined %}{{ row["b c"] }}{% endif %}': "no",
        '{{ row.get("none", "no") }}{{ row.clear() }}': "no",
    }
    for template, text in texts.items():
        builder = builder_of(make_job(Path("/nowhere"), prompt=template))
        builder.check_columns(row)
        assert builder.needs_whole_rows
        assert orjson.loads(builder.build(row).body)["messages"] == [user(text)]
    assert len(row) == 4, "a template changes no row"
    assert not builder_of(make_job(Path("/nowhere"))).needs_whole_rows


def test_columns_through_row_are_checked() -> None:
    """A column that the input lacks is found before the run, one that a row lacks fails that row and is named."""
    template = '{{ row["customer name"] }}{{ row.text }} but row["this"] as text'
    builder = builder_of(make_job(Path("/nowhere"), prompt=template))
    assert builder.columns == {"customer name", "text"}
    with pytest.raises(JobError, match="no column 'customer name'; did you mean 'customer-name'"):
        builder.check_columns(["customer-name", "text"])
    with pytest.raises(PromptError, match="no column 'customer name', which the prompt template needs"):
        builder.build({"text": "a"})
    for optional in ("{{ row.x is defined }}", "{{ row.x | d(1) }}", '{{ row["x"]|default(1) }}{{ row.x }}'):
        assert not builder_of(make_job(Path("/nowhere"), prompt=optional)).columns


def test_a_column_called_row_is_that_column() -> None:
    """Where the input has one, `row` means it, also in a row that lacks it; a variable of the template comes first."""
    builder = builder_of(make_job(Path("/nowhere"), prompt="{{ row }}"))
    builder.check_columns(["row", "text"])
    assert builder.columns == {"row"}
    assert orjson.loads(builder.build({"row": "r", "text": "a"}).body)["messages"] == [user("r")]
    with pytest.raises(PromptError, match="no column 'row'"):
        builder.build({"text": "a"})
    assert body({"rows": ["a"]}, prompt="{% for row in rows %}{{ row }}{% endfor %}")["messages"] == [user("a")]
