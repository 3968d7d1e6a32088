"""How a job names the schema of its answers. All these mean the same, and become the last one, as OpenAI takes it:

    response_format: {json_schema: answer.json}                                 a file beside the job
    response_format: {json_schema: {type: object, properties: ...}}             the schema itself
    response_format: {json_schema: {name: answer, schema: ..., strict: true}}
    response_format: {type: json_schema, json_schema: {name: answer, schema: ..., strict: true}}

`name`, `strict` and `description` may also stand beside `json_schema`. Pure: files are read by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Final

from batcher.config.document import mismatch

_ABOUT: Final = ("name", "description", "strict")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SchemaError(Exception):
    """What names a schema, or the schema itself, is not right; the message says why."""


def full_form(response_format: Any, read_file: Callable[[str], Any]) -> dict[str, Any] | None:
    """Return a `response_format` in OpenAI's full form; None if it names no schema.

    Raises:
        SchemaError: it is none of the forms; `read_file`, which returns the JSON value of a file, raises it too.
    """
    if not isinstance(response_format, dict):
        return None
    if "json_schema" not in response_format:
        if response_format.get("type") == "json_schema":
            raise SchemaError("a json_schema is missing")
        return None
    if response_format.get("type", "json_schema") != "json_schema":
        raise SchemaError("type must be json_schema, or be left out, beside json_schema")
    _refuse_others(response_format, {"type", "json_schema", *_ABOUT})
    found, name = response_format["json_schema"], "answer"
    if isinstance(found, str):
        name = re.sub("[^A-Za-z0-9_-]", "_", PurePath(found).name.partition(".")[0])[:64] or name
        found = read_file(found)
    if not isinstance(found, dict):
        raise SchemaError(f"the schema: {mismatch('a mapping', found)}")
    about = {key: response_format[key] for key in _ABOUT if key in response_format}
    if _is_wrapped(found):
        about = {**{key: found[key] for key in _ABOUT if key in found}, **about}
        found = found["schema"]
    about.setdefault("name", name)
    _check_about(about)
    return {"type": "json_schema", "json_schema": {**about, "schema": found}}


def json_schema_of(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON schema that a job's `parameters` ask for, in the full form; None if they ask for none."""
    wanted = parameters.get("response_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return None
    found = wanted.get("json_schema")
    schema = found.get("schema") if isinstance(found, Mapping) else None
    return schema if isinstance(schema, dict) else None


def _is_wrapped(found: dict[str, Any]) -> bool:
    """Whether a mapping is OpenAI's around a schema: `schema` is no keyword of JSON Schema, nor is `strict`."""
    return isinstance(found.get("schema"), dict) and found.keys() <= {"schema", *_ABOUT}


def _refuse_others(given: Mapping[str, Any], known: set[str]) -> None:
    for key in given.keys() - known:
        raise SchemaError(f"unknown key {key!r} beside json_schema; it takes {', '.join(_ABOUT)}")


def _check_about(about: dict[str, Any]) -> None:
    if not isinstance(about["name"], str) or not _NAME.fullmatch(about["name"]):
        raise SchemaError("name must be made of 1 to 64 letters, digits, '_' and '-'")
    if not isinstance(about.get("description", ""), str):
        raise SchemaError(f"description: {mismatch('text', about['description'])}")
    if not isinstance(about.get("strict", False), bool):
        raise SchemaError(f"strict: {mismatch('true or false', about['strict'])}")
