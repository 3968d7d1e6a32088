"""The table of contents: what a run does, in order."""

from __future__ import annotations

import time
from dataclasses import asdict

from batcher.catalogue import load_catalogue
from batcher.engines import load_engine
from batcher.errors import BatcherError, InputError
from batcher.estimate import LARGE_BYTES, Estimate, estimate
from batcher.job import Job, read_key
from batcher.plan import Plan, files_unchanged, make_plan
from batcher.pricing import prices_of
from batcher.progress import Progress, Shielded, Silent
from batcher.prompt import Builder
from batcher.records import Report, Shard
from batcher.rundir import RunDir, done_rows, figures_of, planned, refuse_other_job
from batcher.selection import first_rows, spread_rows
from batcher.source import find_files


def run(job: Job, *, progress: Progress | None = None, limit: int | None = None, spread: bool = False) -> Report:
    """Ask every row that has no outcome yet, and return what the output folder holds then.

    With a `limit` so many of these rows are asked, the first ones or, with `spread`, rows from all over the input; the
    report is then not complete if rows are left, and says what a row used. Interrupted in any way, the same call
    carries on; when everything is done, it returns at once.

    Raises:
        BatcherError: why it stopped; each subclass has its exit code. What was received is saved.
    """
    builder = Builder(job, load_catalogue(job.catalogue).schema_of(job.model))
    if planned(job.output.path) is None:
        read_key(job.endpoint)  # a missing key should show before a long pass over the input
    with RunDir.open(job.output.path) as rundir:  # ours alone from here
        plan = _plan(job)  # which rows belong to which shard
        builder.check_columns(plan.schema.names)
        rundir.begin(job, plan)  # same job as last time?
        engine = load_engine(job.engine.kind)
        before = None
        while shards := rundir.unfinished(plan):  # what is left is read from disk, every time
            if len(shards) == before:  # ... and must shrink
                raise BatcherError("a whole round finished no shard; please report this")
            before = len(shards)
            wanted = shards if limit is None else _some(shards, rundir, plan, limit, spread=spread)
            engine.run(job, plan, wanted, rundir, Shielded(progress or Silent()))
            if limit is not None:
                break
        if before is None:  # nothing was to do; the last run may have died before it could say that it had finished
            rundir.write_summary({"state": "finished", **asdict(figures_of(plan, rundir.totals()))})
        return rundir.report(plan)  # from the parts, not from counters


def dry_run(job: Job, *, limit: int | None = None) -> Estimate:
    """Return what asking the rows without an outcome, `limit` of them at most, may take.

    Sends nothing, writes nothing and needs no key.

    Raises:
        BatcherError: the run would not begin: the job, the input or the run folder is not right.
    """
    builder = Builder(job, load_catalogue(job.catalogue).schema_of(job.model))
    plan = _plan(job)
    builder.check_columns(plan.schema.names)
    refuse_other_job(job.output.path, job, plan)
    left = plan.rows - done_rows(job.output.path)
    rows_left = left if limit is None else min(limit, left)
    return estimate(job, plan, builder, prices_of(job), rows_left=rows_left, now=time.time())


def _some(shards: list[Shard], rundir: RunDir, plan: Plan, limit: int, *, spread: bool) -> list[Shard]:
    """The shards with `limit` rows to ask in them."""
    if not spread:
        return first_rows(shards, rundir.journal.rows_with_outcome, limit)
    at_heads = plan.input_bytes > LARGE_BYTES
    return spread_rows(shards, rundir.journal.rows_with_outcome, limit, at_heads=at_heads)


def _plan(job: Job) -> Plan:
    """The plan of the run that the output folder holds, if the input is still the same; else a new one.

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
        raise InputError(
            f"the input changed since the run in {job.output.path} began: {change}."
            " Put it back to carry on, or use a new output.path"
        )
    return plan  # the same rows, in files with other names or times
