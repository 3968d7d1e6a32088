"""The table of contents: what a run does, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from batcher.catalogue import load_catalogue
from batcher.engines import load_engine
from batcher.errors import BatcherError, InputError
from batcher.estimate import LARGE_BYTES, Estimate, estimate
from batcher.given import Rows, kept, kept_before
from batcher.job import Job, read_key, with_input
from batcher.manifest import Accepted, manifest_for, planned
from batcher.plan import Plan, files_unchanged, make_plan
from batcher.pricing import prices_of
from batcher.progress import Figures, Progress, Shielded, watcher_of
from batcher.prompt import Builder
from batcher.records import Shard
from batcher.reopening import Choice, Retry
from batcher.results import Report
from batcher.results.chosen import cut_off, failed_rows
from batcher.rundir import RunDir, done_rows, figures_of
from batcher.selection import first_rows, spread_rows
from batcher.source import find_files


def run(
    job: Job,
    rows: Rows | None = None,
    *,
    progress: Progress | Callable[[Figures], object] | None = None,
    limit: int | None = None,
    spread: bool = False,
    retry: Retry | None = None,
    accept_changes: Accepted = (),
) -> Report:
    """Ask every row that has no outcome yet, and return what the output folder holds then.

    The rows are those of the job's input files, or `rows`, which are kept in the output folder. With a `limit` so many
    of those without an outcome are asked, the first ones or, with `spread`, rows from all over the input; the report is
    then not complete if rows are left, and says what a row used. Interrupted in any way, the same call carries on; when
    everything is done, it returns at once.

    With `retry` the rows that it chooses are asked again after that; a retry that was interrupted is carried on instead
    of choosing anew. `accept_changes` says in which keys the job may differ from the one that the run began with, or
    "all"; rows that are done stay as they are.

    Raises:
        BatcherError: why it stopped; each subclass has its exit code. What was received is saved.
    """
    builder = Builder(job, load_catalogue(job.catalogue).schema_of(job.model))
    if planned(job.output.path) is None:
        read_key(job.endpoint)  # a missing key should show before a long pass over the input
    watcher = Shielded(watcher_of(progress))
    with RunDir.open(job.output.path) as rundir, _with_input(job, rows, rundir.state) as job:  # ours alone from here
        plan = _plan(job, given=rows is not None)  # which rows belong to which shard
        builder.check_columns(plan.schema.names)
        rundir.begin(job, plan, accept_changes)  # same job as last time?
        begun = _say_what_is_left(rundir, plan, retry, watcher)
        asked = _ask(job, plan, rundir, watcher, limit, spread=spread)
        if retry is not None and retry.text not in begun and not rundir.unfinished(plan):
            asked = _reopen(rundir, plan, retry, watcher) and _ask(job, plan, rundir, watcher, limit, spread=spread)
        if not asked:  # nothing was to do; the last run may have died before it could say that it had finished
            rundir.write_summary({"state": "finished", **asdict(figures_of(plan, rundir.totals()))})
        return Report.of(rundir.report(plan))  # from the parts, not from counters


def _ask(job: Job, plan: Plan, rundir: RunDir, watcher: Progress, limit: int | None, *, spread: bool) -> bool:
    """Ask all rows of unfinished shards, or `limit` of them; whether there were any."""
    engine = load_engine(job.engine.kind)
    before = None
    while shards := rundir.unfinished(plan):  # what is left is read from disk, every time
        if len(shards) == before:  # ... and must shrink
            raise BatcherError("a whole round finished no shard; please report this")
        before = len(shards)
        wanted = shards if limit is None else _some(shards, rundir, plan, limit, spread=spread)
        engine.run(job, plan, wanted, rundir, watcher)
        if limit is not None:
            break
    return before is not None


def _say_what_is_left(rundir: RunDir, plan: Plan, retry: Retry | None, watcher: Progress) -> set[str]:
    """Say what is carried on; return which choices of rows to be asked again are begun and not finished."""
    begun = {reopening.selection for reopening in rundir.reopenings.values()}
    left = plan.rows - rundir.totals().rows
    if begun:
        watcher.note(f"rows are being asked again since an earlier run; {left:,} of all rows are left")
    elif retry is not None and 0 < left < plan.rows:
        watcher.note(f"{left:,} rows have no outcome yet; they are asked first, and then others again")
    return begun


def _reopen(rundir: RunDir, plan: Plan, retry: Retry, watcher: Progress) -> bool:
    """Have the rows asked again that `retry` chooses; whether there are any."""
    choice = Choice(retry, rundir, plan)
    count = rundir.reopen(choice.reopenings)
    watcher.note(choice.words())
    return count > 0


def dry_run(
    job: Job, *, limit: int | None = None, retry: Retry | None = None, accept_changes: Accepted = ()
) -> Estimate:
    """Return what asking the rows without an outcome, and those of a `retry`, may take; `limit` of them at most.

    Sends nothing, writes nothing and needs no key.

    Raises:
        BatcherError: the run would not begin: the job, the input or the run folder is not right.
    """
    builder = Builder(job, load_catalogue(job.catalogue).schema_of(job.model))
    plan = _plan(job)
    builder.check_columns(plan.schema.names)
    manifest_for(job.output.path, job, plan, accept_changes)
    left = plan.rows - done_rows(job.output.path)
    if retry is not None and left < plan.rows:
        left += failed_rows(job.output.path, retry.only) if retry.failed else 0
        left += cut_off(job.output.path) if retry.truncated else 0
    rows_left = left if limit is None else min(limit, left)
    return estimate(job, plan, builder, prices_of(job), rows_left=rows_left, now=time.time())


def _some(shards: list[Shard], rundir: RunDir, plan: Plan, limit: int, *, spread: bool) -> list[Shard]:
    """The shards with `limit` rows to ask in them."""
    if not spread:
        return first_rows(shards, rundir.settled_rows, limit)
    at_heads = plan.input_bytes > LARGE_BYTES
    return spread_rows(shards, rundir.settled_rows, limit, at_heads=at_heads)


@contextmanager
def _with_input(job: Job, rows: Rows | None, state: Path) -> Iterator[Job]:
    """The job with files to read: its own, or the one in which the rows that a program gives, or gave, are kept."""
    if rows is not None:
        with kept(rows, state) as path:
            yield with_input(job, str(path))
    elif job.input.path:
        yield job
    elif before := kept_before(state):
        yield with_input(job, str(before))
    else:
        raise InputError("the job names no input.path, and no rows were given")


def _plan(job: Job, *, given: bool = False) -> Plan:
    """The plan of the run that the output folder holds, if the input is still the same; else a new one.

    Rows that were `given` are only compared with those that the run in the folder began with.

    Raises:
        InputError: the input cannot be read, or is not what the run in the output folder began with.
    """
    files = find_files(job.input.path)
    before = planned(job.output.path)
    if before is None:
        return make_plan(job, files)
    if files_unchanged(before, files):
        return before
    plan = make_plan(job, files)
    change = before.same_input(plan)
    if change is not None:
        mend = "Give the same rows, or none," if given else "Put it back"
        raise InputError(
            f"the input changed since the run in {job.output.path} began: {change}."
            f" {mend} to carry on, or use a new output.path"
        )
    return before if given else plan  # the same rows, in files with other names or times
