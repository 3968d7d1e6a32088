"""The fields at the top of a JSON schema and the kind of each, as far as the schema alone says it. Pure."""

from __future__ import annotations

from typing import Any, Final

#: what is of several kinds, of one that is none of a column, or of one that is not told
JSON: Final = "json"
_PLAIN: Final = frozenset({"string", "integer", "number", "boolean"})
_PYTHON: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
#: references that are followed from one property
_STEPS: Final = 20


def flat_fields(schema: dict[str, Any]) -> dict[str, str]:
    """Return the fields at the top of a schema and their kinds: string, integer, number, boolean or json."""
    top = _resolved(schema, schema)
    properties = top.get("properties") if isinstance(top, dict) else None
    return {name: _kind(inner, schema) for name, inner in properties.items()} if isinstance(properties, dict) else {}


def _kind(inner: Any, root: dict[str, Any]) -> str:
    kinds = _kinds(inner, root) - {"null"}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 and kinds <= _PLAIN else JSON


def _kinds(inner: Any, root: dict[str, Any]) -> set[str]:
    """The types that a value may have, `json` for what is not told."""
    found = _resolved(inner, root)
    if not isinstance(found, dict):
        return {JSON}
    if "type" in found:
        kinds = found["type"]
        return {kinds} if isinstance(kinds, str) else set(kinds)
    if "const" in found or "enum" in found:
        values = [found["const"]] if "const" in found else found["enum"]
        return {"null" if value is None else _PYTHON.get(type(value), JSON) for value in values}
    several = found.get("anyOf") or found.get("oneOf")
    if isinstance(several, list):
        return set().union(*(_flat_kinds(one, root) for one in several))
    return {JSON}


def _flat_kinds(inner: Any, root: dict[str, Any]) -> set[str]:
    """The types of an alternative; one with alternatives of its own is any value."""
    found = _resolved(inner, root)
    return {JSON} if isinstance(found, dict) and found.keys() & {"anyOf", "oneOf"} else _kinds(found, root)


def _resolved(inner: Any, root: dict[str, Any]) -> Any:
    """Follow local references, as `#/$defs/Color`."""
    for _ in range(_STEPS):
        reference = inner.get("$ref") if isinstance(inner, dict) else None
        if not isinstance(reference, str):
            return inner
        inner = _at(reference, root)
    return None


def _at(reference: str, root: dict[str, Any]) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[2:].split("/") if reference != "#" else ():
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found
