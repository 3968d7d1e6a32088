"""What a job's parameters will not do, said before anything is sent.

Pure: it looks at a form schema, the parameters and the texts of the prompts, and returns sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batcher.catalogue.schema import FormSchema


def warnings(schema: FormSchema, parameters: Mapping[str, Any], prompts: Sequence[str]) -> list[str]:
    """Return a sentence for each surprise that these parameters and prompts hold for the user."""
    extra = parameters.get("extra")
    sent = {**parameters, **extra} if isinstance(extra, Mapping) else dict(parameters)
    sent.pop("extra", None)
    return [*_name(schema), *_without_effect(schema, sent), *_json_mode(schema, sent, prompts)]


def _name(schema: FormSchema) -> Iterator[str]:
    if not schema.known:
        yield (
            f"{schema.model} is not in the catalogue: its parameters are checked against the usual ones of an"
            " OpenAI-compatible API"
        )
    if schema.served_as:
        yield f"{schema.model} is served as {schema.served_as}, and that is the name its answers will carry"


def _without_effect(schema: FormSchema, sent: Mapping[str, Any]) -> Iterator[str]:
    thinking = _thinking(schema, sent)
    if thinking is None:
        return
    ignored = schema.ignored_while_thinking if thinking else schema.ignored_without_thinking
    names = [name for name in ignored if name in sent and not _is_default(schema, name, sent[name])]
    if names:
        state = "on" if thinking else "disabled"
        by_default = " (the default)" if thinking and "thinking" not in sent else ""
        other = "disabled" if thinking else "enabled"
        verb = "has" if len(names) == 1 else "have"
        yield (
            f"thinking is {state}{by_default}, so {', '.join(names)} {verb} no effect;"
            f" set parameters.thinking to {other} to use {'it' if len(names) == 1 else 'them'}"
        )
    for name, (low, high) in schema.clamped_while_thinking.items() if thinking else ():
        value = sent.get(name)
        if isinstance(value, int | float) and not low <= value <= high:
            yield f"while thinking is on, {name} is moved into the range from {low:g} to {high:g}"


def _thinking(schema: FormSchema, sent: Mapping[str, Any]) -> bool | None:
    """Whether the model will think; None where the schema knows no such switch."""
    parameter = schema.parameter("thinking")
    if parameter is None:
        return None
    value = sent.get("thinking", parameter.default)
    return (value.get("type") if isinstance(value, Mapping) else value) != "disabled"


def _is_default(schema: FormSchema, name: str, value: Any) -> bool:
    parameter = schema.parameter(name)
    return parameter is not None and parameter.default is not None and bool(parameter.default == value)


def _json_mode(schema: FormSchema, sent: Mapping[str, Any], prompts: Sequence[str]) -> Iterator[str]:
    wanted = sent.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    word = schema.json_mode_needs
    if kind == "json_object" and word and prompts and not any(word in text.lower() for text in prompts):
        yield f"response_format is json_object, but no prompt holds the word '{word}', which it needs"
