"""The words that go to the model about a schema: what the answer is to be, and what was wrong with the one it gave.

They are made into requests here, from request bytes to request bytes. The simulator knows the beginnings of both texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

#: in the system prompt, where the API does not take the schema itself
INSTRUCTION: Final = "Answer with JSON, and nothing else, that matches this JSON schema:"
#: what follows an answer that does not match
COMPLAINT: Final = "Your answer does not match the JSON schema:"
_PLEASE: Final = "Answer again, with the corrected JSON and nothing else."
_YOUR_ANSWER: Final = "Your answer was:"


def instruction(schema: dict[str, Any]) -> str:
    """Return what the system prompt says about a schema."""
    return f"{INSTRUCTION}\n{orjson.dumps(schema).decode()}"


def with_instruction(fields: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a request's texts (`messages`, or `prompt` and perhaps `system_prompt`) with a further instruction."""
    if "messages" not in fields:
        system = fields.get("system_prompt")
        return {**fields, "system_prompt": f"{system}\n\n{text}" if system else text}
    first, *others = fields["messages"]
    if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
        return {**fields, "messages": [{**first, "content": f"{first['content']}\n\n{text}"}, *others]}
    return {**fields, "messages": [{"role": "system", "content": text}, first, *others]}


def repair_request(request: bytes, answer: str, problems: Sequence[str]) -> bytes:
    """Return a request that shows the model its answer, says what is wrong with it and asks for a better one."""
    fields = orjson.loads(request)
    complaint = "\n".join([COMPLAINT, *(f"- {problem}" for problem in problems), _PLEASE])
    if "messages" in fields:
        fields["messages"] += [{"role": "assistant", "content": answer}, {"role": "user", "content": complaint}]
    else:
        fields["prompt"] = f"{fields['prompt']}\n\n{_YOUR_ANSWER}\n{answer}\n\n{complaint}"
    return orjson.dumps(fields)
