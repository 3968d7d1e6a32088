"""Asking rows again and accepting changes, as the command line says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from batcher.reopening import Retry


def retry_of(*, failed: bool, only: Sequence[str], truncated: bool) -> Retry | None:
    """Return which rows are to be asked again; None for none."""
    from batcher.reopening import Retry

    return Retry(failed=failed, only=tuple(only), truncated=truncated) if failed or truncated else None


def options_of(retry: Retry | None, *, accept_changes: bool) -> list[str]:
    """The options with which a run was started, to be started so once more."""
    words = ["--accept-changes"] if accept_changes else []
    if retry is not None:
        words += ["--retry-failed"] if retry.failed else []
        words += [word for code in retry.only for word in ("--only", code)]
        words += ["--truncated"] if retry.truncated else []
    return words


def accepted(retry: Retry | None, overrides: Sequence[str], *, accept_changes: bool) -> Literal["all"] | list[str]:
    """Return which keys of the job may differ: all, or the parameters that are set for the rows asked again."""
    if accept_changes:
        return "all"
    keys = [text.partition("=")[0].strip() for text in overrides]
    return [] if retry is None else [key for key in keys if key.partition(".")[0] == "parameters"]


def version_words(versions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say of each version of a job how many rows came from it, and what differed; nothing if there is only one."""
    told = list(versions)
    if len(told) < 2:
        return []
    return [
        f"from version {one['number']} of the job, since {one['began_at']}: {one['rows']:,}"
        + (f" ({'; '.join(one['changes'])})" if one["changes"] else "")
        for one in told
    ]
