"""What may change the values of a job file after it was read: `--set` overrides and environment variables.

`${NAME}` and `${NAME:-default}` are replaced inside text values, and `$$` stands for one dollar sign. That happens
after the YAML was read, so the content of a variable is always text and cannot add keys. `prompt` and `system_prompt`
are the user's own text, in which `$` means dollars: nothing is replaced there. No message holds the content of a
variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from batcher.config.document import Document, KeyPath, Place, dotted, key_like, kind_of, mask
from batcher.config.yamlfile import parse

#: top-level keys whose text is sent to the model as it stands
PROMPT_KEYS: Final = frozenset({"prompt", "system_prompt"})
#: names (without `-` and `_`) of keys and headers whose value is a secret
_SECRET_NAMES: Final = frozenset(
    {"accesstoken", "apikey", "authorization", "bearer", "cookie", "key", "password"}
    | {"proxyauthorization", "secret", "token", "xapikey", "xauthtoken"}
)
KEY_IN_FILE: Final = "a key does not belong in the job file; name the variable in endpoint.api_key_env"
_VARIABLE: Final = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}|(\{))")
#: a brace that begins a mapping and not a variable
_MAPPING: Final = re.compile(r"(?<!\$)\{")
_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Replace or add the values that `limits.concurrency=500` and the like name; the value is YAML."""
    for override in overrides:
        key, equals, text = override.partition("=")
        steps = key.strip().split(".")
        place = Place(f"--set {_shown(tuple(steps), text)}")
        if not equals or not all(steps):
            document.report_at(Place(f"--set {mask(key)}"), "write KEY=VALUE, such as limits.concurrency=500")
        elif (holder := _holder(document, steps, place)) is not None:
            path = tuple(steps)
            for known in [known for known in document.places if known[: len(path)] == path]:
                del document.places[known]
            document.places[path] = place
            holder[steps[-1]] = parse(document, text, at=path, source=place.source)


def _holder(document: Document, steps: Sequence[str], place: Place) -> dict[str, Any] | None:
    """Return the mapping that holds the last step's key, made where there is none."""
    holder = document.values
    for depth, step in enumerate(steps[:-1], start=1):
        inner = holder.get(step)
        if inner is None:
            inner = holder[step] = {}
            document.places[tuple(steps[:depth])] = place
        if not isinstance(inner, dict):
            document.report_at(place, f"{dotted(tuple(steps[:depth]))} is {kind_of(inner)}, so it has no keys")
            return None
        holder = inner
    return holder


def _shown(path: KeyPath, text: str) -> str:
    """Return an override as messages may show it: without text for the model and without what may hold a secret."""
    private = path[0] in {*PROMPT_KEYS, "endpoint"} or any(is_secret_name(str(step)) for step in path)
    plain = len(text) <= 60 and text.isprintable() and not _MAPPING.search(text)
    return f"{dotted(path)}={text if plain and not private else '***'}"


def refuse_literal_keys(document: Document) -> None:
    """Note every place where an API key or a password itself was written; call it before variables are replaced."""
    for path, text in document.texts():
        if path[0] in PROMPT_KEYS or "${" in text:
            continue
        if path == ("endpoint", "api_key_env"):
            if key_like(text):
                document.report(path, "must be the name of an environment variable, not the key")
        elif path == ("endpoint", "proxy"):
            if "@" in text:
                document.report(path, "a password does not belong in the job file; write it as ${VARIABLE}")
        elif path[:2] == ("endpoint", "headers"):
            if is_secret_name(str(path[-1])) or mask(text) != text:
                document.report(path, "a key does not belong in the job file; write it as ${VARIABLE}")
        elif mask(text) != text:
            document.report(path, KEY_IN_FILE)


def is_secret_name(name: str) -> bool:
    """Whether a key or a header of this name holds a secret."""
    return name.lower().replace("-", "").replace("_", "") in _SECRET_NAMES


def interpolate(document: Document, environ: Mapping[str, str]) -> None:
    """Replace the variables in every text value but the prompts; note those that cannot be replaced."""
    for path, text in document.texts():
        if "$" not in text or path[0] in PROMPT_KEYS:
            continue
        problem = next(filter(None, (_problem(found, environ) for found in _VARIABLE.finditer(text))), None)
        if problem:
            document.report(path, problem)
            continue
        if "${" in text:
            document.from_variables.add(path)
        holder = document.value(path[:-1])
        holder[path[-1]] = _VARIABLE.sub(lambda found: _replacement(found, environ), text)


def _problem(found: re.Match[str], environ: Mapping[str, str]) -> str | None:
    """Say why a variable cannot be replaced, without its content."""
    dollar, name, default, _ = found.groups()
    if dollar:
        return None
    if name is None:
        return "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign before a brace"
    if environ.get(name, default) is None:
        return f"the environment variable {name} is not set"
    if _NOT_TEXT.search(environ.get(name, "")):
        return f"the environment variable {name} holds a line break or another character that is not text"
    return None


def _replacement(found: re.Match[str], environ: Mapping[str, str]) -> str:
    dollar, name, default, _ = found.groups()
    return "$" if dollar else environ.get(name) or default or ""
