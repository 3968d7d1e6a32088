"""Where answers go that the journal cannot take any more, and how the next start finds them.

A file of JSON lines, one per answer, beside the journal; if that cannot be written either, in the folder for temporary
files under a name that follows from where the journal is. The first line names the run, so that answers can not end up
in another one. Every line has a checksum, and counts when the file and its folder are synced.

    {"crc32": 123, "entry": {"run": "..."}}
    {"crc32": 123, "entry": {"outcome": {"row_index": 7, "body": "<base64>", ...}}}
    {"crc32": 123, "entry": {"release": [attempts, ambiguous, spent, row_index]}}
    {"crc32": 123, "entry": {"draft": {"row_index": 7, "body": "<base64>", ...}}}
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from batcher.durable import fsync_folder, write_all
from batcher.errors import StorageError
from batcher.journal.tables import Batch
from batcher.records import ApiError, Draft, Outcome

_log = logging.getLogger(__name__)

#: bytes of a file that are taken over at a time
_CHUNK_BYTES = 8 << 20


class Rescue:
    """Saves what it is given outside the journal. Makes no file before it has to."""

    def __init__(self, folder: Path, run: str) -> None:
        self._run = run
        self._places = [(folder, "rescued-")]
        with contextlib.suppress(OSError):  # looked up now: while the disk is full another folder would be found
            self._places.append((Path(tempfile.gettempdir()), _prefix(folder)))
        self._file: int | None = None
        self._path = folder
        #: files that hold saved answers, and how many answers these are
        self.files: list[Path] = []
        self.answers = 0

    def save(self, batch: Batch) -> None:
        """Save outcomes and releases; return when they are durable. Raises OSError if there is no place for them."""
        entries: list[dict[str, Any]] = [{"outcome": _as_json(outcome)} for outcome in batch.outcomes]
        entries += [{"release": release} for release in batch.releases]
        entries += [{"draft": _as_json(draft)} for draft in batch.drafts]
        if entries:
            self._save_lines(b"".join(map(_line, entries)))
            self.answers += len(batch.outcomes) + len(batch.drafts)

    def close(self) -> None:
        """Close the file; what was saved is synced."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _save_lines(self, lines: bytes) -> None:
        """Save in the first place that takes them; one that has failed is not trusted again."""
        while True:
            try:
                self._append(lines)
            except OSError:
                self._leave()
                if not self._places:
                    raise
            else:
                return

    def _append(self, lines: bytes) -> None:
        file = self._open(*self._places[0]) if self._file is None else self._file
        write_all(file, lines)
        os.fsync(file)
        if self._path not in self.files:
            fsync_folder(self._path.parent)
            self.files.append(self._path)
            _log.warning("answers that the journal cannot take are saved in %s", self._path)

    def _open(self, folder: Path, prefix: str) -> int:
        self._file, name = tempfile.mkstemp(".jsonl", prefix, folder)  # a new file, mode 0600
        self._path = Path(name)
        write_all(self._file, _line({"run": self._run}))
        return self._file

    def _leave(self) -> None:
        if self._file is not None and self._path not in self.files:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.close()
        del self._places[0]


class Rescued:
    """A file that an earlier run left, opened."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file

    def batches(self) -> Iterator[Batch]:
        """Yield what the file holds, some megabytes at a time.

        Raises:
            StorageError: a line is damaged that is not the torn last one.
        """
        batch, size = Batch(), 0
        for number, line in enumerate(self._file, 2):
            if not line.endswith(b"\n"):
                break  # the process died while it wrote this, so nobody was told that it is saved
            try:
                _add(batch, _entry(line))
            except (LookupError, TypeError, ValueError) as error:
                raise _damaged(self.path, number) from error
            size += len(line)
            if size > _CHUNK_BYTES:
                yield batch
                batch, size = Batch(), 0
        yield batch

    def remove(self) -> None:
        """Delete the file for good."""
        self.path.unlink()
        fsync_folder(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def find_rescued(folder: Path, run: str) -> Iterator[Rescued]:
    """Yield the files that earlier runs left for the journal in `folder`; the caller closes them.

    The folder for temporary files is everybody's: there, links and the files of others are left alone. Anywhere, so
    are the files of another run.

    Raises:
        StorageError: the first line of a file is damaged.
    """
    found = [(path, False) for path in sorted(folder.glob("*rescued-*.jsonl"))]
    with contextlib.suppress(OSError):  # where there is no folder for temporary files, nothing is in it
        found += [(path, True) for path in sorted(Path(tempfile.gettempdir()).glob(f"{_prefix(folder)}*.jsonl"))]
    for path, is_shared in found:
        file = _open_own(path, is_shared=is_shared)
        if file is None:
            _log.warning("%s is not a file of this user's own; it is left alone", path)
            continue
        if _is_of_run(run, path, file):
            yield Rescued(path, file)
        else:
            file.close()
            _log.warning("%s was not saved by this run; it is left alone", path)


def _is_of_run(run: str, path: Path, file: BinaryIO) -> bool:
    first = file.readline()
    try:
        return not first.endswith(b"\n") or bool(_entry(first).get("run") == run)
    except ValueError as error:
        file.close()
        raise _damaged(path, 1) from error


def _damaged(path: Path, line: int) -> StorageError:
    return StorageError(
        f"{path}, line {line}: damaged; put a good copy of the file in its place, or delete it: its rows are then"
        " asked, and paid for, again"
    )


def _prefix(folder: Path) -> str:
    """The beginning of names of files for the journal in `folder`, where they lie among others."""
    return f"batcher-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}-rescued-"


def _open_own(path: Path, *, is_shared: bool) -> BinaryIO | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    own = status.st_uid == os.geteuid() and not status.st_mode & 0o022 and status.st_nlink == 1
    if not stat.S_ISREG(status.st_mode) or (is_shared and not own):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _line(entry: dict[str, Any]) -> bytes:
    # not orjson: a text that is not valid Unicode must not keep an answer from being saved
    return _checked(json.dumps(entry, ensure_ascii=False).encode(errors="replace"))


def _checked(content: bytes) -> bytes:
    return b'{"crc32":%d,"entry":%s}\n' % (zlib.crc32(content), content)


def _entry(line: bytes) -> dict[str, Any]:
    """Return the entry of a line. Raises ValueError if it is not what was written."""
    content = line.partition(b',"entry":')[2][:-2]
    if line != _checked(content):
        raise ValueError("wrong checksum")
    entry: dict[str, Any] = orjson.loads(content)
    return entry


def _as_json(outcome: Outcome | Draft) -> dict[str, Any]:
    return {**asdict(outcome), "body": base64.b64encode(outcome.body).decode()}


def _add(batch: Batch, entry: dict[str, Any]) -> None:
    """Add an entry to a batch. Raises LookupError, TypeError or ValueError if it is none of ours."""
    if "release" in entry:
        attempts, ambiguous, spent, row_index = entry["release"]
        batch.releases.append((attempts, ambiguous, spent, row_index))
        return
    if "draft" in entry:
        batch.drafts.append(Draft(**{**entry["draft"], "body": base64.b64decode(entry["draft"]["body"])}))
        return
    values = entry["outcome"]
    error = values["error"] and ApiError(**values["error"])
    batch.outcomes.append(Outcome(**{**values, "body": base64.b64decode(values["body"]), "error": error}))
