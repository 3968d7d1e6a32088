"""What pydantic finds wrong with a document's values, in the user's words and at the place where they were written.

It knows the shape of pydantic's errors and of its models, and not what any key means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from batcher.config.document import Document, KeyPath, did_you_mean, mismatch

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED: Final = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "is_instance_of": "a path",
}
_RANGES: Final = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "greater_than": ("gt", "must be greater than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "less_than": ("lt", "must be less than {}"),
}


def checked(
    document: Document,
    model: type[Model],
    *,
    context: Mapping[str, Any] | None = None,
    unknown: Callable[[str], str | None] = lambda name: None,
) -> Model | None:
    """Return the model of the document's values, or None with every problem noted in the document.

    `unknown` may have more to say of a key's name than that it is unknown.
    """
    try:
        return model.model_validate(document.values, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path = _written(document, details["loc"])
            if details["type"] == "extra_forbidden":
                name = str(path[-1])
                message = unknown(name) or f"unknown key{did_you_mean(name, _keys(model, path[:-1]))}"
            else:
                message = _message(document, details, path)
            document.report(path, message)
    return None


def _written(document: Document, loc: KeyPath) -> KeyPath:
    """Return pydantic's location without the steps that name a member of a union."""
    path: KeyPath = ()
    for position, step in enumerate(loc, start=1):
        holder = document.value(path)
        present = step in holder if isinstance(holder, dict) else isinstance(holder, list) and isinstance(step, int)
        if present or (position == len(loc) and isinstance(holder, dict | None)):
            path = (*path, step)
    return path


def _message(document: Document, details: ErrorDetails, path: KeyPath) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "required key is missing"
    value = document.value(path)
    if kind in _EXPECTED:
        if path in document.from_variables:
            return f"expected {_EXPECTED[kind]}, and what comes from a variable is text; use --set for it"
        return mismatch(_EXPECTED[kind], value)
    if kind in _RANGES:
        name, words = _RANGES[kind]
        return words.format(f"{context[name]:g}")
    if kind == "literal_error":
        choices = [choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
        near = did_you_mean(value, choices) if isinstance(value, str) and path not in document.from_variables else ""
        return f"expected {' or '.join(choices)}{near}"
    if kind == "value_error":
        return str(context["error"])
    return "must not be empty" if kind.endswith("too_short") else details["msg"]


def _keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that the mapping at `path` may have."""
    for step in path:
        if isinstance(step, str):
            model = next(_models_in(model.model_fields[step].annotation))
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def sections(model: type[BaseModel]) -> dict[str, str]:
    """Return for each key below the top level of `model` the section it stands in, if no other is as near the top."""
    found: dict[str, list[str]] = {}
    for key, section in _keys_below(model, ""):
        found.setdefault(key, []).append(section)
    nearest = {key: [name for name in names if _depth(name) == min(map(_depth, names))] for key, names in found.items()}
    return {key: names[0] for key, names in nearest.items() if len(names) == 1}


def _depth(section: str) -> int:
    return section.count(".")


def _keys_below(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        for inner in _models_in(info.annotation):
            yield from ((key, prefix + name) for key in inner.model_fields)
            yield from _keys_below(inner, f"{prefix}{name}.")
