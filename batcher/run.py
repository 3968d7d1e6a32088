"""The table of contents: what a run does, in order."""

from __future__ import annotations

from batcher.catalogue import load_catalogue
from batcher.engines import load_engine
from batcher.errors import BatcherError, InputError
from batcher.job import Job, read_key
from batcher.plan import Plan, files_unchanged, make_plan
from batcher.progress import Progress, Shielded, Silent
from batcher.prompt import Builder
from batcher.records import Report
from batcher.rundir import RunDir, planned
from batcher.source import find_files


def run(job: Job, *, progress: Progress | None = None) -> Report:
    """Ask every row that has no outcome yet, and return what the output folder holds then.

    Interrupted in any way, the same call carries on; when everything is done, it returns at once.

    Raises:
        BatcherError: why it stopped; each subclass has its exit code. What was received is saved.
    """
    builder = Builder(job, load_catalogue(job.catalogue).schema_of(job.model))
    plan = _plan(job)  # which rows belong to which shard
    builder.check_columns(plan.schema.names)
    with RunDir.open(job.output.path) as rundir:  # ours alone from here
        rundir.begin(job, plan)  # same job as last time?
        engine = load_engine(job.engine.kind)
        before = None
        while shards := rundir.unfinished(plan):  # what is left is read from disk, every time
            if len(shards) == before:  # ... and must shrink
                raise BatcherError("a whole round finished no shard; please report this")
            before = len(shards)
            engine.run(job, plan, shards, rundir, Shielded(progress or Silent()))
        return rundir.report(plan)  # from the parts, not from counters


def _plan(job: Job) -> Plan:
    """The plan of the run that the output folder holds, if the input is still the same; else a new one.

    Raises:
        InputError: the input cannot be read, or is not what the run in the output folder began with.
    """
    files = find_files(job.input.path)
    before = planned(job.output.path)
    if before is None:
        read_key(job.endpoint)  # a missing key should show before a long pass over the input
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
