"""The keys of a run's job as they may be shown: without secrets, and without the folders of this machine.

The API key is in no job. Header values, the user name and password of a proxy, what a key named like a secret holds
and what looks like a key are replaced; of a path only the last name is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from batcher.config.document import mask
from batcher.job import Job
from batcher.job.baseurl import SIMULATOR
from batcher.job.values import PROMPT_KEYS, is_secret_name
from batcher.plan import Plan

HIDDEN = "(hidden)"
_SECRET_WORDS = ("apikey", "authorization", "credential", "password", "secret")
_ORDER = ("name", "model", "endpoint", "parameters", "limits", "input", "output")


def settings(identity: Mapping[str, Any], plan: Plan, job: Job | None) -> list[tuple[str, str]]:
    """Return (key, value) pairs in the order of a job file; `job` adds what the manifest does not hold."""
    values = {} if job is None else dict(_flat(job.model_dump(exclude={"parameters"})))
    values |= dict(_flat({key: value for key, value in identity.items() if key not in PROMPT_KEYS}))
    values["input.path"] = ", ".join(dict.fromkeys(file.name for file in plan.files[:5]))
    if len(plan.files) > 5:
        values["input.path"] += f" and {len(plan.files) - 5:,} more"
    left_out = [*PROMPT_KEYS, "version", "output.path"]
    if values["endpoint.base_url"] != SIMULATOR:
        left_out += [key for key in values if key.startswith("endpoint.simulator.")]
    shown = {key: _shown(key, value) for key, value in values.items() if value is not None and key not in left_out}
    told = [(key, text) for key, text in shown.items() if text]
    return sorted(told, key=lambda entry: _place(entry[0].partition(".")[0]))


def prompts(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the templates of the job, the system prompt first."""
    return [(key, identity[key]) for key in ("system_prompt", "prompt") if identity.get(key)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key in full, such as `endpoint.timeouts.total_s`, with its value."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and name != "json_schema":  # a schema is shown in one piece
            yield from _flat(value, f"{key}.")
        elif value != {}:
            yield key, value


def _place(section: str) -> int:
    return _ORDER.index(section) if section in _ORDER else len(_ORDER)


def _shown(key: str, value: Any) -> str:
    """The value as text, without what should not be seen."""
    steps = key.split(".")
    if steps[:2] == ["endpoint", "headers"] or any(map(_is_secret, steps)):
        return HIDDEN
    if key == "endpoint.proxy":
        return _without_user(value)
    if isinstance(value, tuple | list) and all(isinstance(inner, str | Path) for inner in value):
        return ", ".join(_shown(key, inner) for inner in value)
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        return f"{value:.12g}"
    return mask(value if isinstance(value, str) else orjson.dumps(_censored(value), default=str).decode())


def _censored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: HIDDEN if _is_secret(name) else _censored(inner) for name, inner in value.items()}
    return [_censored(inner) for inner in value] if isinstance(value, tuple | list) else value


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "").replace("_", "")
    if plain.endswith(("env", "file")):
        return False  # where the secret is, not the secret
    return is_secret_name(name) or any(word in plain for word in _SECRET_WORDS)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
