"""A value that matches a JSON schema, made up: enough of JSON Schema for the schemas that answers usually have.

Knows types, `enum`, `const`, `properties`, `required`, `items`, the bounds of numbers, texts and lists, alternatives
and local references. Of a `pattern` it knows nothing. Pure: the same noise gives the same value.
"""

from __future__ import annotations

import math
from typing import Any

#: levels below which only what is required is made up, and below which nothing is
DEEP, TOO_DEEP = 4, 12
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def value_of(schema: Any, noise: bytes, quote: str) -> Any:
    """Return a value for a schema; `quote` is what its texts are about, if they may be so long."""
    return _Inventor(schema, noise, quote).value(schema, 0)


class _Inventor:
    def __init__(self, root: Any, noise: bytes, quote: str) -> None:
        self._root, self._noise, self._quote = root, noise, quote
        self._drawn = 0

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema)
        if not isinstance(schema, dict) or depth > TOO_DEEP:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._one_of(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                several = schema[key]
                return self.value(several[-1] if depth >= DEEP else self._one_of(several), depth + 1)
        if schema.get("allOf"):
            schema = {**schema, **{key: value for part in schema["allOf"] for key, value in self._parts(part)}}
        return self._typed(schema, depth)

    def _parts(self, part: Any) -> list[tuple[str, Any]]:
        found = self._resolved(part)
        return list(found.items()) if isinstance(found, dict) else []

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind == "object":
            wanted = schema.get("required", ()) if depth >= DEEP else schema.get("properties", ())
            properties = schema.get("properties", {})
            return {name: self.value(properties.get(name, {}), depth + 1) for name in wanted}
        if kind == "array":
            most = schema.get("maxItems", 2)
            count = max(schema.get("minItems", 0), min(2 if depth < DEEP else 0, most))
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
        if kind == "boolean":
            return bool(self._draw() % 2)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        return None if kind == "null" else self._text(schema)

    def _number(self, schema: dict[str, Any], *, whole: bool) -> Any:
        low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
        high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
        if low == -math.inf:
            low = high - 100 if high < math.inf else 0
        if high == math.inf:
            high = low + 100
        share = (self._draw() + 1) / 257
        if not whole:
            return round(low + share * (high - low), 3) if high - low > 0.1 else low + share * (high - low)
        first = math.floor(low) + 1 if low == schema.get("exclusiveMinimum") else math.ceil(low)
        return first + int(share * (math.floor(high) - first))

    def _text(self, schema: dict[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength", 200)
        text = f"It says: {self._quote}"[:most]
        return text + "".join(LETTERS[self._draw() % 26] for _ in range(least - len(text)))

    def _one_of(self, several: list[Any]) -> Any:
        return several[self._draw() % len(several)]

    def _draw(self) -> int:
        self._drawn += 1
        return self._noise[self._drawn % len(self._noise)]

    def _resolved(self, schema: Any) -> Any:
        for _ in range(TOO_DEEP):
            reference = schema.get("$ref") if isinstance(schema, dict) else None
            if not isinstance(reference, str) or not reference.startswith("#"):
                return schema
            schema = self._root
            for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
                schema = schema.get(step) if isinstance(schema, dict) else None
        return None
