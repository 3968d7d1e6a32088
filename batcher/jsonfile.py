"""Mappings that a run folder keeps as JSON files: read back, and compared. Does not know what they mean."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from batcher.errors import StorageError


def differences(before: Any, now: Any, path: str = "") -> Iterable[str]:
    """Yield `key was X, is Y` for every key in which two nested mappings differ; long values are not shown."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        shown = [orjson.dumps(value).decode() for value in (before, now)]
        short = max(map(len, shown)) <= 60 and path not in ("prompt", "system_prompt")
        yield f"{path} was {shown[0]}, is {shown[1]}" if short else f"{path} changed"


def as_json(value: Any) -> Any:
    """The value as it comes back from a JSON file, so that two of them can be compared."""
    return orjson.loads(orjson.dumps(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping that a file holds, None if there is no file. Raises StorageError if it is no mapping."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} is not what batcher wrote")
    return content
