"""The columns that answers with a schema add to a part: `parsed`, `valid`, and the schema's own fields if asked for.

A field's type follows from the schema alone, so that all parts have the same: text, whole numbers, numbers and truth
values get columns of these types, everything else is JSON text. What is not valid is null in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import orjson
import pyarrow as pa

from batcher.structured.checker import read_json
from batcher.structured.fields import JSON, flat_fields
from batcher.structured.forms import json_schema_of

_TYPES: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}


class AnswerColumns:
    """Turns answers into values of columns."""

    def __init__(self, schema: dict[str, Any], flatten: bool | str = False) -> None:
        """`flatten`: whether the schema's fields become columns; a text is put before their names."""
        self._kinds = flat_fields(schema) if flatten else {}
        before = flatten if isinstance(flatten, str) else ""
        flat = [pa.field(before + name, _TYPES.get(kind, pa.string())) for name, kind in self._kinds.items()]
        self.fields: list[pa.Field] = [pa.field("parsed", pa.string()), pa.field("valid", pa.bool_()), *flat]

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Self | None:
        """Return the columns of a run, whose job has this `identity`; None without a schema."""
        schema = json_schema_of(identity["parameters"])
        return None if schema is None else cls(schema, identity["output"].get("flatten", False))

    def values(self, content: str | None, valid: bool | None) -> tuple[Any, ...]:
        """Return the values of one row; `valid` is None for a row that failed."""
        found = read_json(None if valid is None else content)
        fields = found.value if valid and isinstance(found.value, dict) else {}
        return (found.text, valid, *(_as(kind, fields.get(name)) for name, kind in self._kinds.items()))


def _as(kind: str, value: Any) -> Any:
    """A value for a column of this kind, None if it has no place there."""
    if value is None:
        return None
    if kind == JSON:
        return orjson.dumps(value).decode()
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == "number":
        return float(value)
    whole = int(value) if isinstance(value, int) or value.is_integer() else None
    return whole if whole is not None and -(1 << 63) <= whole < 1 << 63 else None
