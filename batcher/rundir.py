"""The run folder: what is decided, what is done, and whose it is at the moment.

    OUT/
      part-00000.parquet ...         finished shards; the only visible files
      .batcher/                      mode 0700; no name in here ends in .parquet, so no reader takes it for data
        rows.jsonl, rows.pq          the rows that a program gave, if it did (see given)
        manifest.json                what determines the result, and the plan; written once
        lock                         see lock
        timeline.jsonl               figures over time (see timeline)
        journal-0.sqlite             open shards (see journal); one for each worker process
        rescued-*.jsonl              answers that the journal could not take; the next start does
        summary.json                 how the run stands, for people and scripts; replaced every few seconds
        tmp/                         rebuilt at will

A shard is done when the journal says that its part is published. What a crash may leave in between is settled in
`begin`: a part in place that the journal doesn't know is adopted, rows that were on their way are counted. The worker
may ask this module where things are; it knows no request, no reply and no event loop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
import pyarrow as pa

from batcher.durable import crc32_of, fsync_folder, publish, replace_file
from batcher.errors import InputError, ResumeError, StorageError
from batcher.job import Job
from batcher.journal import Journal, Part, gather, journal_path
from batcher.jsonfile import as_json, differences, read_json
from batcher.lock import FolderLock
from batcher.measured import Measured
from batcher.part import PartFormat, check_part, measure_part
from batcher.plan import Plan
from batcher.progress import Figures
from batcher.records import Shard, Standing, Totals
from batcher.structured.columns import AnswerColumns

T = TypeVar("T")

_log = logging.getLogger(__name__)

FORMAT_VERSION = 4
_MEASURED_PARTS = 16  # their tens of thousands of rows say enough


class RunDir:
    """An output folder that this process alone works on, until `close`."""

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self.state = path / ".batcher"
        self.tmp = self.state / "tmp"
        self._lock = lock
        self._manifest: dict[str, Any] | None = read_json(self.state / "manifest.json")
        self._journal: Journal | None = None
        self._form: PartFormat | None = None
        self._max_full_disk_s = 0.0
        self._parts: dict[int, Part] = {}
        #: rows that were on their way when an earlier run died, found at this start
        self.orphaned = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create or open the folder and lock it.

        Raises:
            LockedError: another run works on it; its message names that run.
            StorageError: the folder cannot be written.
        """
        try:
            lock = FolderLock(path)
        except OSError as error:
            raise StorageError(f"the output folder {path} cannot be written: {error.strerror or error}") from error
        try:
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    # -- what was decided

    @property
    def form(self) -> PartFormat:
        """What all parts of this run have in common."""
        return _begun(self._form)

    def begin(self, job: Job, plan: Plan) -> None:
        """Settle on `plan`, and on what a crash may have left behind. Call once, before anything below.

        Raises:
            ResumeError: this would give another result than the run in this folder; names the keys.
            StorageError: a finished part is missing or not what it was.
            JobError, InputError: the output columns cannot be made of this input.
        """
        refuse_other_job(self.path, job, plan)
        identity = as_json(job.identity())
        fingerprint = hashlib.sha256(orjson.dumps([identity, plan.digests], option=orjson.OPT_SORT_KEYS)).hexdigest()
        carried, answers = carried_columns(plan.schema, job), AnswerColumns.of(identity)
        self._form = PartFormat(carried, job.output.prefix, fingerprint[:32], _own_version(), answers)
        _ = self._form.schema  # refuses names that collide, before anything is written
        try:
            shutil.rmtree(self.tmp, ignore_errors=True)
            self.tmp.mkdir(mode=0o700)
            if self._manifest is None:
                self._write_manifest(identity, plan)
        except OSError as error:
            raise StorageError(f"the output folder {self.path} cannot be written: {error.strerror or error}") from error
        self._max_full_disk_s = job.limits.max_full_disk_s
        self.take_back(plan)

    def take_back(self, plan: Plan) -> None:
        """Open the journal, with all that others hold, and settle what an end in between has left."""
        gather(self.state)
        self._open_journal(0).take_over_rescued()  # first: a row whose answer was saved is not unsure
        self._settle(plan.shards)

    def lend(self) -> int:
        """Leave the journals to worker processes, until `take_back`; return the lock, which is to outlive this one."""
        self.journal.close()
        self._journal = None
        return self._lock.descriptor

    def _open_journal(self, number: int) -> Journal:
        path = journal_path(self.state, number)
        self._journal = Journal(path, run=self.form.fingerprint, max_full_disk_s=self._max_full_disk_s)
        return self._journal

    def _settle(self, shards: Sequence[Shard]) -> None:
        self.orphaned = self.journal.recover()
        self._parts = self.journal.parts()
        try:
            self._check_parts(shards)
        except OSError as error:
            raise StorageError(f"the output folder {self.path} cannot be read: {error.strerror or error}") from error

    def _write_manifest(self, identity: dict[str, Any], plan: Plan) -> None:
        self._manifest = {"format": FORMAT_VERSION, "batcher": _own_version(), "job": identity, "plan": plan.to_json()}
        replace_file(self.state / "manifest.json", orjson.dumps(self._manifest, option=orjson.OPT_INDENT_2))
        for folder in (self.path, self.path.parent):
            fsync_folder(folder)

    def _check_parts(self, shards: Sequence[Shard]) -> None:
        """Adopt parts that were put in place just before a crash; refuse to go on if a finished one is gone."""
        for shard in shards:
            path, known = self.part_path(shard), self._parts.get(shard.number)
            if known is None and path.exists():
                totals = check_part(path, shard, self.form)
                fsync_folder(self.path)  # the last run may have died between naming the part and this
                self._note_part(shard, totals)
                _log.info("adopted %s, finished just before the last run ended", path.name)
            elif known is not None and not self._is_as_noted(path, known):
                raise StorageError(
                    f"{path} is {'changed' if path.exists() else 'missing'}, though it was finished and paid for."
                    " Put it back, or use a new output.path; it is not asked again silently"
                )
        self.journal.forget_published([shard for shard in shards if shard.number in self._parts])

    def _is_as_noted(self, path: Path, known: Part) -> bool:
        """Whether a finished part is there and nobody changed it; read in full only if its time of change is new."""
        if not path.exists():
            return False
        status = path.stat()
        if status.st_size == known.size_bytes and status.st_mtime_ns != known.modified_ns:
            if crc32_of(path) != known.crc32:
                return False
            self.journal.published(replace(known, modified_ns=status.st_mtime_ns))  # restored: not read again
        return status.st_size == known.size_bytes

    # -- what is done

    @property
    def journal(self) -> Journal:
        """The journal of the open shards."""
        return _begun(self._journal)

    def unfinished(self, plan: Plan) -> list[Shard]:
        """Return the shards without a part, in order."""
        self._parts = self.journal.parts()
        return [shard for shard in plan.shards if shard.number not in self._parts]

    def totals(self) -> Totals:
        """Return the sums over all rows with an outcome, in a part or not yet."""
        totals = self.journal.open_totals()
        for part in self._parts.values():
            totals.add(part.totals)
        return totals

    def report(self, plan: Plan) -> Standing:
        """Return what the parts hold."""
        self._parts = self.journal.parts()
        totals = self.totals()
        measured = self.measured() if totals.rows < plan.rows else None
        return Standing(str(self.path), plan.rows, totals, len(self._parts), measured)

    def measured(self) -> Measured:
        """Return what the completed rows used, of the published ones those of some parts."""
        measured = self.journal.measured()
        for number in sorted(self._parts)[-_MEASURED_PARTS:]:
            measured.add(measure_part(self.path / _part_name(number), self.form.prefix))
        return measured

    def part_path(self, shard: Shard) -> Path:
        """Where the part of `shard` is, or will be."""
        return self.path / _part_name(shard.number)

    def publish(self, shard: Shard, temporary: Path, totals: Totals) -> None:
        """Put a finished part in place, note it, and only then forget its rows in the journal."""
        try:
            publish(temporary, self.part_path(shard))
            self._note_part(shard, totals)
        except OSError as error:
            raise StorageError(f"{self.part_path(shard)} cannot be put in place: {error}") from error

    def _note_part(self, shard: Shard, totals: Totals) -> None:
        path = self.part_path(shard)
        status = path.stat()
        part = Part(shard.number, status.st_size, totals, crc32_of(path), status.st_mtime_ns)
        self.journal.published(part)
        self.journal.forget(shard)
        self._parts[shard.number] = part

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace `summary.json`; a failure is logged, since nothing depends on this file."""
        summary = {**summary, "updated_at": datetime.now(UTC), "pid": os.getpid()}
        try:
            replace_file(self.state / "summary.json", orjson.dumps(summary, option=orjson.OPT_INDENT_2), durable=False)
        except OSError as error:
            _log.warning("summary.json could not be written: %s", error)

    def close(self) -> None:
        """Commit what waits and give the folder free. Raises StorageError if the last commit failed."""
        try:
            if self._journal is not None:
                self._journal.close()
            elif self._manifest is None:
                self._lock.withdraw()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def planned(path: Path) -> Plan | None:
    """Return the plan of the run in an output folder; None if there is no run. Looks without locking or creating."""
    manifest = read_json(path / ".batcher" / "manifest.json")
    if manifest is None or manifest.get("format") != FORMAT_VERSION:
        return None
    try:
        return Plan.from_json(manifest["plan"])
    except (KeyError, ValueError) as error:
        raise _not_ours(path) from error


def refuse_other_job(path: Path, job: Job, plan: Plan) -> None:
    """Raise ResumeError if an output folder holds a run with which this would not go on; names the keys."""
    if (manifest := read_json(path / ".batcher" / "manifest.json")) is None:
        return
    if manifest.get("format") != FORMAT_VERSION:
        raise ResumeError(f"{path} was written by another version of batcher; use a new output folder")
    try:
        before, digests = manifest["job"], Plan.from_json(manifest["plan"]).digests
    except (KeyError, ValueError) as error:
        raise _not_ours(path) from error
    changes = list(differences(before, as_json(job.identity())))
    if digests != plan.digests:
        changes.append("the input changed")
    if changes:
        raise ResumeError(
            f"the job differs from the run in {path}: {'; '.join(changes)}."
            " Undo the change to carry on, or use a new output.path"
        )


def done_rows(path: Path) -> int:
    """Return how many rows have an outcome by the last `summary.json` of an output folder, without touching it."""
    summary = read_json(path / ".batcher" / "summary.json") or {}
    return int(summary.get("completed", 0)) + int(summary.get("failed", 0))


def _not_ours(path: Path) -> StorageError:
    return StorageError(f"{path / '.batcher' / 'manifest.json'} is not what batcher wrote; restore it")


def _begun(value: T | None) -> T:
    """What `begin` sets up; asking for it earlier is a mistake of ours."""
    if value is None:
        raise RuntimeError("the run folder has not begun")
    return value


def figures_of(plan: Plan, totals: Totals) -> Figures:
    """Return the figures of a run that stands at `totals`."""
    return Figures(
        total=plan.rows,
        completed=totals.completed,
        failed=totals.failed,
        ambiguous=totals.ambiguous,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        cost_usd=totals.known_cost_usd if totals.rows else None,
        unpriced=totals.unpriced,
        invalid=totals.invalid,
    )


def carried_columns(schema: pa.Schema, job: Job) -> pa.Schema:
    """The input columns that `output.columns` asks for, in its order."""
    if job.output.columns == "all":
        return schema.remove_metadata()
    missing = [name for name in job.output.columns if name not in schema.names]
    if missing:
        raise InputError(
            f"output.columns: the input has no column {', '.join(map(repr, missing))}; it has {', '.join(schema.names)}"
        )
    return pa.schema([schema.field(name) for name in job.output.columns])


def _own_version() -> str:
    try:
        return version("batcher-llm")
    except PackageNotFoundError:
        return "unknown"
