"""The run folder: what is decided, what is done, and whose it is at the moment.

    OUT/
      part-00000.parquet ...         finished shards; the only visible files
      .batcher/                      mode 0700; no name in here ends in .parquet, so no reader takes it for data
        rows.jsonl, rows.pq          the rows that a program gave, if it did (see given)
        manifest.json                what determines the result, and the plan (see manifest)
        lock                         see lock
        timeline.jsonl               figures over time (see timeline)
        journal-0.sqlite             open shards (see journal); one for each worker process
        rescued-*.jsonl              answers that the journal could not take; the next start does
        summary.json                 how the run stands, for people and scripts; replaced every few seconds
        reopened                     there while parts are reopened, so that nobody else has to open the journal to see
        tmp/                         rebuilt at will

A shard is done when the journal says that its part is published, and none of its rows is reopened: asked again, while
the part stays in place until a newer one takes its name. What a crash may leave in between is settled in `begin`: a
part in place that the journal doesn't know is adopted, rows that were on their way are counted. The worker may ask this
module where things are; it knows no request, no reply and no event loop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson

from batcher.durable import crc32_of, create, fsync_folder, publish, replace_file, replace_with
from batcher.errors import StorageError
from batcher.job import Job
from batcher.journal import Journal, Part, Reopening, gather, journal_path
from batcher.lock import FolderLock
from batcher.manifest import Accepted, Manifest, manifest_for, own_version, read_json
from batcher.measured import Measured
from batcher.part import PartFormat, check_part, measure_part
from batcher.plan import Plan, carried_columns
from batcher.progress import Figures
from batcher.records import Shard, Standing, Totals
from batcher.renewal import revision_of
from batcher.selection import AllBut
from batcher.structured.columns import AnswerColumns

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: file in `.batcher` that is there if parts are reopened; perhaps also if none is
REOPENED = "reopened"
_MEASURED_PARTS = 16  # their tens of thousands of rows say enough


class RunDir:
    """An output folder that this process alone works on, until `close`."""

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self.state = path / ".batcher"
        self.tmp = self.state / "tmp"
        self._lock = lock
        self._manifest = Manifest.read(path)
        self._journal: Journal | None = None
        self._form: PartFormat | None = None
        self._max_full_disk_s = 0.0
        self._parts: dict[int, Part] = {}
        #: published parts some rows of which are asked again, by shard number
        self.reopenings: dict[int, Reopening] = {}
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

    @property
    def job_version(self) -> int:
        """The version of the job that outcomes come from now."""
        return len(_begun(self._manifest).versions)

    @property
    def job_began_at(self) -> float:
        """When that version of the job began, in seconds since 1970 UTC, without fractions."""
        return _begun(self._manifest).began_at

    def begin(self, job: Job, plan: Plan, accepted: Accepted = ()) -> None:
        """Settle on `plan`, and on what a crash may have left behind. Call once, before anything below.

        Changes of the job that are `accepted` make a new version of it.

        Raises:
            ResumeError: this would give another result than the run in this folder; names the keys.
            StorageError: a finished part is missing or not what it was.
            JobError, InputError: the output columns cannot be made of this input.
        """
        manifest = manifest_for(self.path, job, plan, accepted)
        first = [manifest.versions[0]["job"], plan.digests]  # a run stays the same run when its job is changed
        fingerprint = hashlib.sha256(orjson.dumps(first, option=orjson.OPT_SORT_KEYS)).hexdigest()
        carried, answers = carried_columns(plan.schema, job), AnswerColumns.of(manifest.job)
        self._form = PartFormat(carried, job.output.prefix, fingerprint[:32], own_version(), answers)
        _ = self._form.schema  # refuses names that collide, before anything is written
        try:
            shutil.rmtree(self.tmp, ignore_errors=True)
            self.tmp.mkdir(mode=0o700)
            if manifest != self._manifest:
                manifest.write(self.path)
                self._manifest = manifest
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
        path, run = journal_path(self.state, number), self.form.fingerprint
        self._journal = Journal(path, run=run, max_full_disk_s=self._max_full_disk_s)
        return self._journal

    def _settle(self, shards: Sequence[Shard]) -> None:
        self.orphaned = self.journal.recover()
        self._parts, self.reopenings = self.journal.parts(), self.journal.reopenings()
        try:
            self._check_parts(shards)
        except OSError as error:
            raise StorageError(f"the output folder {self.path} cannot be read: {error.strerror or error}") from error

    def _check_parts(self, shards: Sequence[Shard]) -> None:
        """Adopt parts that were put in place just before a crash; refuse to go on if a finished one is gone."""
        for shard in shards:
            path, known = self.part_path(shard), self._parts.get(shard.number)
            if path.exists() and (known is None or self._is_newer(path, shard)):
                totals = check_part(path, shard, self.form)
                fsync_folder(self.path)  # the last run may have died between naming the part and this
                self._note_part(shard, totals)
                _log.info("adopted %s, finished just before the last run ended", path.name)
            elif known is not None and not self._is_as_noted(path, known):
                raise StorageError(
                    f"{path} is {'changed' if path.exists() else 'missing'}, though it was finished and paid for."
                    " Put it back, or use a new output.path; it is not asked again silently"
                )
        self._forget_reopened()
        self.journal.forget_published([shard for shard in shards if self._is_done(shard)])

    def _is_done(self, shard: Shard) -> bool:
        """Whether a shard has its part, and none of its rows is asked again."""
        return shard.number in self._parts and shard.number not in self.reopenings

    def _is_newer(self, path: Path, shard: Shard) -> bool:
        """Whether this part is the one that was to take the place of a reopened one."""
        reopening = self.reopenings.get(shard.number)
        return reopening is not None and revision_of(path) == reopening.revision

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
        """Return the shards without a part, and those that are reopened, in order."""
        self._parts, self.reopenings = self.journal.parts(), self.journal.reopenings()
        return [shard for shard in plan.shards if not self._is_done(shard)]

    def settled_rows(self, shard: Shard) -> AbstractSet[int]:
        """Return the row indexes of an unfinished shard that are not to be asked (again)."""
        settled = self.journal.rows_with_outcome(shard)
        if shard.number not in self.reopenings:
            return settled
        return AllBut(shard, {row for row in self.journal.reopened_rows(shard) if row not in settled})

    def reopen(self, chosen: Callable[[], Iterable[Reopening]]) -> int:
        """Have rows of finished shards asked again; return how many. The parts stay until others take their place."""
        try:
            create(self.state / REOPENED).close()
            fsync_folder(self.state)
        except OSError as error:
            raise StorageError(f"the output folder {self.path} cannot be written: {error.strerror or error}") from error
        count = self.journal.reopen(chosen)
        self.reopenings = self.journal.reopenings()
        self._forget_reopened()
        return count

    def _forget_reopened(self) -> None:
        if not self.reopenings:
            (self.state / REOPENED).unlink(missing_ok=True)

    def part_of(self, shard: Shard) -> Part | None:
        """Return what is known of the part of a shard; None if it was never published."""
        return self._parts.get(shard.number)

    def totals(self) -> Totals:
        """Return the sums over all rows with an outcome, in a part or not yet; those that are asked again have none."""
        totals = self.journal.open_totals()
        for part in self._parts.values():
            totals.add(part.totals)
        for reopening in self.reopenings.values():
            totals.take_away(reopening.moved)
        return totals

    def report(self, plan: Plan) -> Standing:
        """Return what the parts hold."""
        self._parts = self.journal.parts()
        totals = self.totals()
        measured = self.measured() if totals.rows < plan.rows else None
        versions = _begun(self._manifest).versions_with(totals)
        return Standing(str(self.path), plan.rows, totals, len(self._parts), measured, versions)

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
        """Put a finished part in place, note it, and only then forget its rows in the journal.

        Only the part of a reopened shard is ever replaced.
        """
        try:
            if shard.number in self.reopenings:
                replace_with(temporary, self.part_path(shard))
            else:
                publish(temporary, self.part_path(shard))
            self._note_part(shard, totals)
        except OSError as error:
            raise StorageError(f"{self.part_path(shard)} cannot be put in place: {error}") from error

    def _note_part(self, shard: Shard, totals: Totals) -> None:
        path = self.part_path(shard)
        status, reopening = path.stat(), self.reopenings.get(shard.number)
        revision = 0 if reopening is None else reopening.revision
        part = Part(shard.number, status.st_size, totals, crc32_of(path), status.st_mtime_ns, revision)
        self.journal.published(part)
        self.journal.forget(shard)
        self._parts[shard.number] = part
        if self.reopenings.pop(shard.number, None):
            self._forget_reopened()

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


def done_rows(path: Path) -> int:
    """Return how many rows have an outcome by the last `summary.json` of an output folder, without touching it."""
    summary = read_json(path / ".batcher" / "summary.json") or {}
    return int(summary.get("completed", 0)) + int(summary.get("failed", 0))


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
