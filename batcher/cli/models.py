"""The text of `batcher models`: which models are known, and what one of them takes.

Everything shown is made from the form schema, the examples too, so that another model gives another list. Pure: it
returns text and prints none.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml

from batcher.catalogue import Catalogue, FormParameter, FormSchema, RequestFormat

_WIDTH: Final = 110
_ROWS_FILE: Final = "rows.jsonl"
_ROLES: Final = {"system_prompt": "system", "prompt": "user"}
#: stand-ins for required parameters that have neither default nor example
_BLANKS: Final = {"string": "...", "number": 0, "integer": 1, "boolean": False, "mapping": {}, "list": [], "json": None}


def render_catalogue(catalogue: Catalogue) -> str:
    """Return a table of the known models."""
    schemas = [catalogue.schema_of(name) for name in catalogue.names()]
    rows = [(schema.model, schema.title, _count(schema.context_tokens), schema.served_as or "") for schema in schemas]
    return "\n".join(
        [
            *_table(("MODEL", "TITLE", "CONTEXT", "SERVED AS"), rows),
            "",
            "batcher models NAME shows a model's parameters and an example.",
        ]
    )


def render_model(schema: FormSchema, *, request_format: RequestFormat | None = None) -> str:
    """Return what there is to know about a model: facts, parameters, and examples in one request format or in both."""
    formats: tuple[RequestFormat, ...] = ("messages", "form") if request_format is None else (request_format,)
    blocks = [
        f"{schema.model}: {schema.title}",
        "\n".join(textwrap.fill(fact, _WIDTH, initial_indent="- ", subsequent_indent="  ") for fact in _facts(schema)),
        "\n".join(_table(_COLUMNS, [_cells(parameter) for parameter in schema.parameters], wrap=True)),
    ]
    for name in formats:
        blocks += [
            f"Request (request_format: {name}):",
            _curl(schema, name),
            f"The job file that does the same for every line of {_ROWS_FILE}, such as {_example_line(schema)}:",
            _job_file(schema, name),
        ]
    return "\n\n".join(block for block in blocks if block)


def _facts(schema: FormSchema) -> Iterator[str]:
    if not schema.known:
        yield "Not in the catalogue by name: this is the list for every OpenAI-compatible API."
    if schema.served_as:
        yield f"Served as {schema.served_as}; that is the name its answers carry."
    if schema.context_tokens:
        longest = f", {_count(schema.max_output_tokens)} of them in the answer" if schema.max_output_tokens else ""
        yield f"At most {_count(schema.context_tokens)} tokens{longest}."
    if schema.concurrency:
        yield f"At most {_count(schema.concurrency)} requests in flight per account; more are refused with status 429."
    if schema.ignored_while_thinking:
        yield f"Without effect while it thinks: {', '.join(schema.ignored_while_thinking)}."
    if schema.ignored_without_thinking:
        yield f"Without effect unless it thinks: {', '.join(schema.ignored_without_thinking)}."
    for name, (low, high) in schema.clamped_while_thinking.items():
        yield f"While it thinks, {name} is moved into the range from {low:g} to {high:g}."
    if schema.json_mode_needs:
        yield f"JSON mode needs the word '{schema.json_mode_needs}' in a prompt."
    yield from schema.notes


# -- tables

_COLUMNS: Final = ("PARAMETER", "TYPE", "REQUIRED", "DEFAULT", "VALUES", "")


def _cells(parameter: FormParameter) -> tuple[str, ...]:
    default = "" if parameter.default is None else json.dumps(parameter.default).strip('"')
    kinds = "|".join((parameter.type, *parameter.also))
    required = "yes" if parameter.required else ""
    return (parameter.name, kinds, required, default, parameter.values, parameter.help)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: bool = False) -> list[str]:
    """Return lines of columns as wide as they need; with `wrap`, the last one is broken at the page's width."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    before = sum(width + 2 for width in widths[:-1])
    lines = []
    for row in (head, *rows):
        left = "".join(f"{cell:<{width + 2}}" for cell, width in zip(row[:-1], widths[:-1], strict=True))
        last = textwrap.wrap(row[-1], max(30, _WIDTH - before)) if wrap else [row[-1]]
        lines.append((left + "".join(last[:1])).rstrip())
        lines += [" " * before + more for more in last[1:]]
    return lines


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


# -- examples


def _curl(schema: FormSchema, request_format: RequestFormat) -> str:
    body = json.dumps(_body(schema, request_format), indent=2, ensure_ascii=False)
    lines = [f"curl {schema.base_url or 'https://api.example.com'}/chat/completions"]
    if schema.api_key_env:
        lines.append(f'-H "Authorization: Bearer ${schema.api_key_env}"')
    lines += ['-H "Content-Type: application/json"', f"-d {shlex.quote(body)}"]
    return " \\\n  ".join(lines)


def _body(schema: FormSchema, request_format: RequestFormat) -> dict[str, Any]:
    values = _values(schema)
    texts: dict[str, Any] = {name: values.pop(name) for name in _ROLES if name in values}
    if request_format == "messages":
        texts = {"messages": [{"role": _ROLES[name], "content": text} for name, text in texts.items()]}
    sent = {name: schema.sent(name, value, request_format) for name, value in values.items()}
    return {"model": schema.model, **texts, **sent}


def _values(schema: FormSchema) -> dict[str, Any]:
    """A value for each parameter that has an example or a default, or that must have one."""
    values: dict[str, Any] = {}
    for parameter in schema.parameters:
        value = parameter.default if parameter.example is None else parameter.example
        if value is None and parameter.required:
            value = parameter.choices[0] if parameter.choices else _BLANKS[parameter.type]
        if value is not None:
            values[parameter.name] = value
    return {"prompt": "..."} | values


def _example_line(schema: FormSchema) -> str:
    return json.dumps({"text": _values(schema)["prompt"]}, ensure_ascii=False)


def _job_file(schema: FormSchema, request_format: RequestFormat) -> str:
    values = _values(schema)
    job: dict[str, Any] = {
        "version": 1,
        "model": schema.model,
        "endpoint": {"base_url": schema.base_url or "https://api.example.com"},
        "input": {"path": _ROWS_FILE},
        "system_prompt": values.pop("system_prompt", None),
        "prompt": "{{ text }}",
        "parameters": {name: value for name, value in values.items() if name != "prompt"},
        "output": {"path": "out"},
    }
    if schema.api_key_env:
        job["endpoint"]["api_key_env"] = schema.api_key_env
    if request_format != "messages":
        job["endpoint"]["request_format"] = request_format
    used = {key: value for key, value in job.items() if value not in (None, {})}
    return str(yaml.safe_dump(used, sort_keys=False, allow_unicode=True, width=_WIDTH)).rstrip()
