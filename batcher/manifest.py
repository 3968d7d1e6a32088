"""The manifest of a run folder: the plan, and the job in all versions that rows came from.

    {"format": 5, "batcher": "0.1", "versions": [{"began_at": ..., "changes": [], "job": {...}}, ...], "plan": {...}}

A job that would give another result than the latest version is refused, with every key that differs. Where the change
is accepted it becomes the next version: the rows that are done stay as they are, and each says where it came from. What
makes the rows and columns that they are can never change. The file is replaced as a whole, never edited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

import orjson

from batcher.durable import fsync_folder, replace_file
from batcher.errors import ResumeError, StorageError
from batcher.job import Job
from batcher.plan import Plan
from batcher.records import Totals, Version
from batcher.structured.columns import AnswerColumns

FORMAT_VERSION = 5
#: what may change on purpose; the rest is what the rows and columns of all parts are
_MAY_CHANGE = ("endpoint", "model", "parameters", "prompt", "system_prompt")
#: keys whose values are not shown: text for the model, or perhaps secrets
_NOT_SHOWN = ("prompt", "system_prompt", "parameters.extra")

#: changes that are accepted: all that can be, or those of some keys and what is below them
Accepted = Literal["all"] | Collection[str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was decided about a run."""

    #: the version of batcher that began the run
    batcher: str
    #: the plan as JSON values; reading it takes a moment
    planned: dict[str, Any]
    #: every version of the job: `job` (its identity), `began_at`, `changes`; oldest first
    versions: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the manifest of an output folder; None if there is none.

        Raises:
            ResumeError: it is of another version of batcher.
            StorageError: it is damaged.
        """
        path = folder / ".batcher" / "manifest.json"
        content = read_json(path)
        if content is None:
            return None
        if content.get("format", FORMAT_VERSION) != FORMAT_VERSION:
            raise ResumeError(f"{folder} was written by another version of batcher; use a new output folder")
        try:
            found = cls(content["batcher"], content["plan"], tuple(content["versions"]))
            found.versions_with(Totals())
            _ = found.job
        except (LookupError, TypeError) as error:
            raise _not_ours(folder) from error
        return found

    @property
    def job(self) -> dict[str, Any]:
        """What determines the result in the latest version."""
        identity: dict[str, Any] = self.versions[-1]["job"]
        return identity

    @property
    def began_at(self) -> float:
        """When the latest version began, in seconds since 1970 UTC, without fractions."""
        return datetime.fromisoformat(self.versions[-1]["began_at"]).timestamp()

    def versions_with(self, totals: Totals) -> tuple[Version, ...]:
        """Return the versions with their rows among those that `totals` adds up."""
        later = totals.later_versions
        rows = [totals.rows - sum(later.values()), *(later.get(str(n), 0) for n in range(2, len(self.versions) + 1))]
        return tuple(
            Version(number, one["began_at"], tuple(one["changes"]), count)
            for number, (one, count) in enumerate(zip(self.versions, rows, strict=True), 1)
        )

    def write(self, folder: Path) -> None:
        """Replace the manifest of an output folder, durably."""
        content = {"format": FORMAT_VERSION, "batcher": self.batcher, "versions": self.versions, "plan": self.planned}
        replace_file(folder / ".batcher" / "manifest.json", orjson.dumps(content, option=orjson.OPT_INDENT_2))
        for above in (folder, folder.parent):
            fsync_folder(above)


def manifest_for(folder: Path, job: Job, plan: Plan, accepted: Accepted = ()) -> Manifest:
    """Return the manifest with which a job goes on in an output folder, or begins there; nothing is written.

    Raises:
        ResumeError: the job or the input differs from that of the run, in more than what is accepted; names the keys.
        StorageError: the manifest is damaged.
    """
    before, identity = Manifest.read(folder), identity_of(job)
    if before is None:
        return Manifest(own_version(), plan.to_json(), (_version(identity, ()),))
    changes = dict(_differences(before.job, identity))
    if _digests(folder, before) != plan.digests:
        changes["input"] = "the input changed"
    if not changes:
        return before
    fixed = [key for key in changes if not _may_change(key, before.job, identity)]
    if fixed or not all(_is_accepted(key, accepted) for key in changes):
        raise _refusal(folder, changes, fixed, len(before.versions))
    return Manifest(before.batcher, before.planned, (*before.versions, _version(identity, tuple(changes.values()))))


def planned(folder: Path) -> Plan | None:
    """Return the plan of the run in an output folder; None if there is no run. Looks without locking or creating."""
    try:
        manifest = Manifest.read(folder)
        return None if manifest is None else Plan.from_json(manifest.planned)
    except ResumeError:
        return None
    except (KeyError, ValueError) as error:
        raise _not_ours(folder) from error


def identity_of(job: Job) -> dict[str, Any]:
    """What determines the result, as it comes back from a JSON file, so that two of them can be compared."""
    identity: dict[str, Any] = orjson.loads(orjson.dumps(job.identity()))
    return identity


def own_version() -> str:
    """The version of batcher."""
    try:
        return version("batcher-llm")
    except PackageNotFoundError:
        return "unknown"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a file; None if there is no file. Raises StorageError if it is none."""
    try:
        content = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(f"{path} cannot be read, or is not what batcher wrote: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} is not what batcher wrote")
    return content


def _version(identity: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    return {"began_at": datetime.now(UTC).isoformat(timespec="seconds"), "changes": list(changes), "job": identity}


def _digests(folder: Path, manifest: Manifest) -> Any:
    try:
        return Plan.from_json(manifest.planned).digests
    except (KeyError, ValueError) as error:
        raise _not_ours(folder) from error


def _may_change(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a key may change on purpose; a schema for answers must not if it makes other columns."""
    if key.startswith("parameters.response_format"):
        columns = [AnswerColumns.of(identity) for identity in (before, now)]
        return len({tuple(one.fields) if one else () for one in columns}) == 1
    return key.partition(".")[0] in _MAY_CHANGE


def _is_accepted(key: str, accepted: Accepted) -> bool:
    return accepted == "all" or any(f"{key}.".startswith(f"{one}.") for one in accepted)


def _refusal(folder: Path, changes: dict[str, str], fixed: list[str], versions: int) -> ResumeError:
    """The refusal of a changed job, with what can be done about it."""
    which = "the run" if versions == 1 else f"version {versions} of the run"
    said = f"the job differs from {which} in {folder}: {'; '.join(changes.values())}."
    if not fixed:
        keep = "accept it with --accept-changes (rows that are done stay as they are), or use a new output.path"
        return ResumeError(f"{said} Undo the change to carry on, {keep}")
    also = "" if len(fixed) == len(changes) else f" ({', '.join(fixed)} cannot be changed on purpose)"
    return ResumeError(f"{said} Undo the change to carry on, or use a new output.path{also}")


def _differences(before: Any, now: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Yield a key and `key was X, is Y` for all in which two nested mappings differ; long values are not shown."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        shown = [orjson.dumps(value).decode() for value in (before, now)]
        short = max(map(len, shown)) <= 60 and not path.startswith(_NOT_SHOWN)
        yield path, f"{path} was {shown[0]}, is {shown[1]}" if short else f"{path} changed"


def _not_ours(folder: Path) -> StorageError:
    return StorageError(f"{folder / '.batcher' / 'manifest.json'} is not what batcher wrote; restore it")
