"""What a job wants its answers to be: whether one is good enough, and the request for a better one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from batcher.records import Completion
from batcher.structured.checker import Checked, Checker
from batcher.structured.forms import json_schema_of
from batcher.structured.repair import repair_request

if TYPE_CHECKING:
    from collections.abc import Mapping

#: characters of an answer that are sent back at most: a longer one is not repaired
MOST_REPEATED: Final = 100_000


class Answers:
    """Judges the answers of a job with a schema."""

    def __init__(self, schema: dict[str, Any], repair_attempts: int) -> None:
        self.schema = schema
        self._repair_attempts = repair_attempts

    @classmethod
    def of(cls, parameters: Mapping[str, Any], repair_attempts: int) -> Self | None:
        """Return what a job's parameters ask for; None if they name no schema."""
        schema = json_schema_of(parameters)
        return None if schema is None else cls(schema, repair_attempts)

    @cached_property
    def checker(self) -> Checker:
        """The compiled schema. Takes some 60 ms and reads files when it is first asked for."""
        return Checker(self.schema)

    def check(self, completion: Completion) -> Checked:
        """Hold an answer against the schema."""
        return self.checker.check(completion.content)

    def is_worth_repairing(self, completion: Completion, repairs: int) -> bool:
        """Whether to ask once more for an answer that does not match, after so many repairs.

        Not where it was cut off or held back, where the model refused or called a tool: that would cost as much again,
        for the same.
        """
        ended = (completion.finish_reason or "").lower() == "stop" and not completion.refusal
        return (
            repairs < self._repair_attempts
            and ended
            and bool(completion.content)
            and len(completion.content or "") <= MOST_REPEATED
        )

    def repair(self, request: bytes, completion: Completion, checked: Checked) -> bytes:
        """Return the request for a better answer than this one, which was given to `request`."""
        return repair_request(request, completion.content or "", checked.problems)
