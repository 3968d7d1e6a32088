"""A request body, checked as a real endpoint checks it: bytes -> `Question`, or the error it deserves.

Knows both request formats: `messages` (OpenAI) and `form` (flat `system_prompt` and `prompt` beside the parameters).
Pure; never raises for any bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from batcher.simulator.refusal import Refusal, invalid

#: fields that carry text of the user's; all others are parameters
TEXT_FIELDS = frozenset({"messages", "prompt", "system_prompt"})
SYSTEM_ROLES = frozenset({"system", "developer"})
#: how batcher begins its words about a schema: in the system prompt, before an answer of a form, after any answer
INSTRUCTION = "matches this JSON schema:\n"
REPAIR = "\n\nYour answer was:\n"
COMPLAINT = "Your answer does not match the JSON schema:"
RESPONSE_FORMATS = ("text", "json_object", "json_schema")
#: parameter -> (whole numbers only, least, greatest)
RANGES: dict[str, tuple[bool, float, float]] = {
    "temperature": (False, 0, 2),
    "top_p": (False, 0, 1),
    "presence_penalty": (False, -2, 2),
    "frequency_penalty": (False, -2, 2),
    "max_tokens": (True, 1, float("inf")),
    "max_completion_tokens": (True, 1, float("inf")),
}


@dataclass(slots=True)
class Question:
    """What a request asks."""

    #: the user's text, the same in both formats: `prompt`, or the content of all messages but the system's
    prompt: str
    #: `system_prompt`, or the content of the system's messages
    system: str
    #: sha256 of the prompt
    sha256: bytes
    #: the request's fields, without the texts
    parameters: dict[str, Any]
    #: names of all fields, as sent
    fields: list[str]
    #: flat fields instead of messages
    form: bool
    #: the JSON schema that the answer is to match, or None
    schema: dict[str, Any] | None = None
    #: what follows the prompt where an answer is asked for again: that answer, and what was wrong with it
    repair: str = ""

    @property
    def digest(self) -> str:
        """What names the prompt everywhere: the first 16 hexadecimal digits of its sha256."""
        return self.sha256[:8].hex()

    @property
    def model(self) -> str | None:
        """The model asked for, or None."""
        return self.parameters.get("model")

    @property
    def stream(self) -> bool:
        """The answer is wanted as server-sent events."""
        return bool(self.parameters.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """A stream is to end with the token counts."""
        return self.form or bool((self.parameters.get("stream_options") or {}).get("include_usage"))

    @property
    def json_mode(self) -> bool:
        """The answer is to be a JSON object."""
        chosen = self.parameters.get("response_format")
        return (chosen.get("type") if isinstance(chosen, dict) else chosen) in ("json_object", "json_schema")

    @property
    def max_tokens(self) -> int | None:
        """The most tokens the answer may have, or None."""
        return self.parameters.get("max_completion_tokens") or self.parameters.get("max_tokens")

    @property
    def thinking(self) -> bool:
        """The answer is to come with its reasoning."""
        return self.parameters.get("thinking") == {"type": "enabled"}


def read_question(body: bytes) -> Question | Refusal:
    """Read and check a request body; an error names the field that is wrong and repeats nothing of the text."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return invalid("the request body is not valid JSON")
    if not isinstance(fields, dict):
        return invalid("the request body must be a JSON object")
    texts = _texts(fields)
    if isinstance(texts, Refusal):
        return texts
    problem = _parameter_problem(fields)
    if problem is not None:
        return problem
    prompt, repair = _without_repair(fields, texts[0])
    return Question(
        prompt=prompt,
        system=texts[1],
        sha256=hashlib.sha256(prompt.encode()).digest(),
        parameters={name: value for name, value in fields.items() if name not in TEXT_FIELDS},
        fields=list(fields),
        form="prompt" in fields,
        schema=_schema(fields.get("response_format"), texts[1]),
        repair=repair,
    )


def _without_repair(fields: dict[str, Any], prompt: str) -> tuple[str, str]:
    """The prompt as it was asked first, and what was added to it since: it is one question, asked again."""
    if "prompt" in fields:
        asked, added, rest = prompt.partition(REPAIR)
        return (asked, added + rest) if COMPLAINT in rest else (prompt, "")
    messages = fields["messages"]
    first = next((place for place in range(1, len(messages)) if _complains(messages[place])), None)
    if first is None:
        return prompt, ""
    return _joined(messages[: first - 1]), _joined(messages[first - 1 :])


def _joined(messages: list[Any]) -> str:
    texts = _message_texts(messages)
    return "" if isinstance(texts, Refusal) else texts[0]


def _complains(message: dict[str, Any]) -> bool:
    return message["role"] == "user" and str(message.get("content")).startswith(COMPLAINT)


def _schema(response_format: Any, system: str) -> dict[str, Any] | None:
    """The JSON schema of a request, as a parameter or at the end of the system prompt."""
    if isinstance(response_format, dict) and response_format.get("type") == "json_schema":
        given = response_format.get("json_schema")
        schema = given.get("schema") if isinstance(given, dict) else None
    elif (at := system.rfind(INSTRUCTION)) >= 0:
        try:
            schema = orjson.loads(system[at + len(INSTRUCTION) :])
        except orjson.JSONDecodeError:
            return None
    else:
        return None
    return schema if isinstance(schema, dict) else None


def _texts(fields: dict[str, Any]) -> tuple[str, str] | Refusal:
    """The prompt and the system prompt."""
    if "messages" in fields and "prompt" in fields:
        return invalid("give either 'messages' or 'prompt', not both", "prompt")
    if "messages" in fields:
        return _message_texts(fields["messages"])
    if "prompt" not in fields:
        return invalid("'messages' or 'prompt' is required", "messages")
    prompt, system = fields["prompt"], fields.get("system_prompt")
    if not isinstance(prompt, str):
        return invalid("'prompt' must be a string", "prompt")
    if not isinstance(system, str | None):
        return invalid("'system_prompt' must be a string", "system_prompt")
    return prompt, system or ""


def _message_texts(messages: Any) -> tuple[str, str] | Refusal:
    if not isinstance(messages, list) or not messages:
        return invalid("'messages' must be a list of at least one message", "messages")
    prompts: list[str] = []
    systems: list[str] = []
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return invalid("a message must be an object with a 'role'", f"messages[{position}]")
        text = _content_text(message.get("content"))
        if text is None:
            return invalid("'content' must be a string or a list of parts", f"messages[{position}].content")
        (systems if message["role"] in SYSTEM_ROLES else prompts).append(text)
    return "\n".join(prompts), "\n".join(systems)


def _content_text(content: Any) -> str | None:
    """The text of a message's content; None if it is of no known form."""
    if isinstance(content, str):
        return content
    if content is None:  # an assistant's message that only calls tools
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))


def _parameter_problem(fields: dict[str, Any]) -> Refusal | None:
    for name in RANGES.keys() & fields.keys():
        problem = _range_problem(name, fields[name])
        if problem:
            return invalid(f"'{name}' {problem}", name)
    if not isinstance(fields.get("model"), str | None):
        return invalid("'model' must be a string", "model")
    if not isinstance(fields.get("stream"), bool | None):
        return invalid("'stream' must be true or false", "stream")
    options = fields.get("stream_options")
    if not isinstance(options, dict | None):
        return invalid("'stream_options' must be an object", "stream_options")
    if options is not None and not fields.get("stream"):
        return invalid("'stream_options' is allowed only when 'stream' is true", "stream_options")
    return _response_format_problem(fields.get("response_format"), form="prompt" in fields)


def _range_problem(name: str, value: Any) -> str | None:
    """What is wrong with a number, in words; null counts as not given."""
    whole, least, greatest = RANGES[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return "must be a whole number" if whole else "must be a number"
    if not least <= value <= greatest:
        return f"must be at least {least:g}" if greatest == float("inf") else f"must be from {least:g} to {greatest:g}"
    return None


def _response_format_problem(value: Any, *, form: bool) -> Refusal | None:
    if value is None:
        return None
    if isinstance(value, str) and not form:
        return invalid("'response_format' must be an object beside 'messages'", "response_format")
    if (value.get("type") if isinstance(value, dict) else value) not in RESPONSE_FORMATS:
        return invalid(f"'response_format' must be one of {', '.join(RESPONSE_FORMATS)}", "response_format")
    return None
