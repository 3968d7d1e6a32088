"""JSON Schema's keywords, made safe for schemas and answers of unknown origin.

`pattern` and `patternProperties` are matched by RE2, whose time grows with the text and not beyond; the standard
library's backtracking can take ages over thirty characters. `uniqueItems` does not compare all with all. References are
counted, since without them nothing can branch without end, and none is ever fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from jsonschema import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from batcher.structured.forms import SchemaError

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]

_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
#: keywords whose value is data and not a schema
_DATA: Final = frozenset({"const", "default", "enum", "example", "examples"})
_LONGEST: Final = 300


def dialect_of(schema: dict[str, Any]) -> type[Validator]:
    """Return the validators of the dialect that `$schema` names, by default 2020-12.

    Raises:
        SchemaError: it is not known.
    """
    named = schema.get("$schema", Draft202012Validator.META_SCHEMA["$schema"])
    found: type[Validator] | None = validator_for({"$schema": named}, default=None) if isinstance(named, str) else None
    if found is None:
        raise SchemaError("$schema: names no dialect that is known")
    return found


def safe_validator(schema: dict[str, Any], count: Callable[[], None]) -> Any:
    """Return a validator; `count` is called for every reference that is followed, and may raise to end it."""
    dialect = dialect_of(schema)
    keywords: dict[str, Keyword] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    if "additionalProperties" in dialect.VALIDATORS:
        keywords["additionalProperties"] = _additional_properties(dialect.VALIDATORS["additionalProperties"])
    for name in _REFERENCES:
        if name in dialect.VALIDATORS:
            keywords[name] = _counted(dialect.VALIDATORS[name], count)
    return extend(dialect, keywords)(schema, registry=Registry())


def check_safe(schema: dict[str, Any]) -> None:
    """Raise SchemaError if a pattern is no expression of RE2's, or a reference leads out of the schema."""
    specification = specification_with(str(schema.get("$schema", "")), default=DRAFT202012)
    root = specification.create_resource(schema)
    _check_inside(schema, Registry().resolver_with_root(root), specification, "")


def _check_inside(value: Any, resolver: Any, specification: Any, at: str) -> None:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _check_inside(inner, resolver, specification, f"{at}/{index}")
    if not isinstance(value, dict):
        return
    if isinstance(value.get("$id"), str) and at:
        resolver = resolver.in_subresource(specification.create_resource(value))
    for name in _REFERENCES:
        if isinstance(reference := value.get(name), str):
            _check_reference(resolver, reference, f"{at}/{name}")
    if isinstance(pattern := value.get("pattern"), str):
        _check_pattern(pattern, f"{at}/pattern")
    patterns = value.get("patternProperties")
    if isinstance(patterns, dict):
        if "unevaluatedProperties" in value:
            raise SchemaError(f"{at or '/'}: patternProperties beside unevaluatedProperties is not supported")
        for pattern in patterns:
            _check_pattern(pattern, f"{at}/patternProperties")
    for name, inner in value.items():
        if name not in _DATA:
            _check_inside(inner, resolver, specification, f"{at}/{name}"[:_LONGEST])


def _check_reference(resolver: Any, reference: str, at: str) -> None:
    try:
        resolver.lookup(reference)
    except (Unresolvable, ValueError):
        if reference.startswith("#"):
            raise SchemaError(f"{at}: the schema holds nothing at {reference[:_LONGEST]!r}") from None
        raise SchemaError(
            f"{at}: {reference[:_LONGEST]!r} lies outside of the schema, and nothing is fetched; copy it into $defs"
        ) from None


def _check_pattern(pattern: str, at: str) -> None:
    try:
        matches(pattern, "")
    except pa.ArrowException as error:
        why = str(error).partition(": ")[2] or "it is too large"
        raise SchemaError(
            f"{at}: not a regular expression that takes a bounded time ({why[:_LONGEST]});"
            " RE2 reads it, which has no lookaround and no backreference"
        ) from None


def matches(pattern: str, text: str) -> bool:
    """Whether a regular expression matches somewhere in a text."""
    return bool(pc.match_substring_regex(pa.scalar(text, pa.string()), pattern).as_py())


# -- keywords ----------------------------------------------------------------------------------------------------------


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not matches(pattern, instance):
        yield ValidationError(f"does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name in [name for name in instance if matches(pattern, name)]:
                yield from validator.descend(instance[name], inner, path=name, schema_path=pattern)


def _additional_properties(usual: Keyword) -> Keyword:
    """The usual keyword, which beside `patternProperties` would match these in its own way."""

    def additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        patterns = schema.get("patternProperties")
        if not patterns or not isinstance(instance, dict):
            yield from usual(validator, allowed, instance, schema)
            return
        known = schema.get("properties", {})
        rest = {
            name: value
            for name, value in instance.items()
            if name not in known and not any(matches(pattern, name) for pattern in patterns)
        }
        yield from usual(validator, allowed, rest, {})

    return additional


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len(set(map(_canonical, instance))) < len(instance):
        yield ValidationError("has equal items")


def _canonical(value: Any) -> bytes:
    """JSON text that is the same for equal values."""
    return orjson.dumps(_with_whole_numbers(value), option=orjson.OPT_SORT_KEYS)


def _with_whole_numbers(value: Any) -> Any:
    """To JSON Schema 1.0 and 1 are one number."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2.0**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _with_whole_numbers(inner) for name, inner in value.items()}
    return [_with_whole_numbers(inner) for inner in value] if isinstance(value, list) else value


def _counted(usual: Keyword, count: Callable[[], None]) -> Keyword:
    def follow(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        count()
        yield from usual(validator, reference, instance, schema)

    return follow
