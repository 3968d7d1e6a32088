"""Whether the text of an answer is JSON that matches a schema, and if not, what is wrong with it.

The time it takes is bounded whatever the answer holds: by its length, by `dialect`, and by the references that may be
followed. `format` is a remark and not checked, as JSON Schema has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import orjson

from batcher.structured.forms import SchemaError

#: bytes of an answer above which it is not looked into
MOST_BYTES: Final = 1 << 20
#: problems that are named, and characters of each
MOST_PROBLEMS: Final = 5
_LONGEST: Final = 300
#: references that may be followed for an answer: so many and one per byte, and so many at most (which take seconds)
_REFERENCES: Final = 2_000
_MOST_REFERENCES: Final = 200_000
#: values on which a schema that leads nowhere shows it
_PROBES: Final[tuple[Any, ...]] = (None, True, 0, "", [], {})


@dataclass(frozen=True, slots=True)
class Checked:
    """What an answer is."""

    #: its value, and that as JSON text; None where it is not JSON
    value: Any
    text: str | None
    #: what is wrong with it, a line each, without line breaks; none: it matches
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """It matches the schema."""
        return not self.problems


class Checker:
    """Holds answers against one schema. Use from one thread at a time."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile a schema.

        Raises:
            SchemaError: it is none, or asks for what is not done here.
        """
        from jsonschema.exceptions import SchemaError as NotASchemaError

        from batcher.structured.dialect import check_safe, dialect_of, safe_validator  # takes 60 ms

        self._left = 0
        try:
            dialect = dialect_of(schema)
            # its patterns are RE2's to judge, not those of the standard library
            dialect.check_schema(schema, format_checker=None)
            check_safe(schema)
            self._validator = safe_validator(schema, self._count)
            for probe in _PROBES:
                list(self._errors(probe, _REFERENCES))
        except NotASchemaError as error:
            raise SchemaError(f"not a JSON schema: {_at(error.absolute_path)}{_short(error.message)}") from None
        except (RecursionError, _TooFarError):
            raise SchemaError("refers to itself without end, or is nested too deeply") from None

    def check(self, content: str | None) -> Checked:
        """Read an answer and hold it against the schema; a code fence around it is not part of it."""
        found = read_json(content)
        return found if found.text is None else replace(found, problems=self._problems(found.value, len(found.text)))

    def _problems(self, value: Any, size: int) -> tuple[str, ...]:
        try:
            errors = list(islice(self._errors(value, min(_REFERENCES + size, _MOST_REFERENCES)), MOST_PROBLEMS + 1))
        except RecursionError:
            return ("the answer is nested too deeply",)
        except _TooFarError:
            return ("the answer is too intricate to be checked",)
        except Exception as error:  # whatever the two do to a keyword, it is one row's problem
            return (f"the answer cannot be checked ({type(error).__name__})",)
        said = [_said(error) for error in errors[:MOST_PROBLEMS]]
        return (*said, "and more") if len(errors) > MOST_PROBLEMS else tuple(said)

    def _errors(self, value: Any, references: int) -> Iterator[Any]:
        self._left = references
        yield from self._validator.iter_errors(value)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _TooFarError


class _TooFarError(Exception):
    """More references were followed than any good answer needs."""


def read_json(content: str | None) -> Checked:
    """Read an answer as JSON; what it is held against does not matter yet."""
    text = unfenced(content or "")
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        return Checked(None, None, ("the answer is longer than 1 MiB",))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Checked(None, None, (_short(f"the answer is not JSON: {error}" if text else "the answer is empty"),))
    try:
        return Checked(value, orjson.dumps(value).decode())
    except orjson.JSONEncodeError:  # it writes 254 levels, and reads 1024
        return Checked(None, None, ("the answer is nested too deeply",))


def unfenced(content: str) -> str:
    """Return a text without blanks around it, and without the Markdown fence that some models put there."""
    text = content.strip()
    if not (text.startswith("```") and text.endswith("```") and len(text) > 6):
        return text
    first, _, rest = text[3:-3].partition("\n")
    return rest.strip() if first.strip().isalnum() or not first.strip() else text[3:-3].strip()


# -- words -------------------------------------------------------------------------------------------------------------


def _said(error: Any) -> str:
    """One problem: where, and what the schema asks for there."""
    if error.validator in ("required", "additionalProperties", "dependentRequired", "unevaluatedProperties"):
        what = error.message
    elif error.validator == "type":
        kinds = error.validator_value
        what = f"must be of type {kinds if isinstance(kinds, str) else ' or '.join(map(str, kinds))}"
    elif error.validator == "enum":
        what = f"must be one of {_as_json(error.validator_value)}"
    elif error.validator is None:
        what = "is not allowed"
    else:
        what = f"must satisfy {error.validator}: {_as_json(error.validator_value)}"
    return _short(f"{_at(error.absolute_path)}{what}")


def _as_json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


def _at(path: Any) -> str:
    steps = "".join(f"/{step}" for step in path)
    return f"{steps[: _LONGEST // 2]}: " if steps else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
