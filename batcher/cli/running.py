"""`batcher run`: the job, the watcher, and what is said at the end."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from batcher import run
from batcher.cli.again import accepted, options_of, version_words
from batcher.cli.bar import cost_words, watcher
from batcher.cli.hints import command, path_word
from batcher.cli.sampling import forecast_of, render_sample
from batcher.cli.talk import log_to_stderr, problems, say, visible, visible_json
from batcher.cli.wanted import Wanted
from batcher.errors import AccountError, BatcherError, BudgetError
from batcher.progress import Figures, Progress
from batcher.records import Standing
from batcher.results.chosen import cut_off
from batcher.tuning import spare_pandas

if TYPE_CHECKING:
    from batcher.job import Job
    from batcher.reopening import Retry

_log = logging.getLogger(__name__)

#: exit codes after which the same command is all that is needed (after 75 a limit is to be raised, or another run is
#: to end: the message says which)
_CARRY_ON = (69, 129, 130, 143)


def run_job(
    wanted: Wanted,
    *,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    limit: int | None = None,
    spread: bool = False,
    retry: Retry | None = None,
    accept_changes: bool = False,
) -> int:
    """Run a job, or `limit` rows of it, print its report, and return the exit code."""
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    log_to_stderr(level)
    spare_pandas()
    job = wanted.load()
    os.umask(0o077)  # what a run writes holds prompts and answers
    _warn_of_other_writers(job.output.path)
    last = Last(watcher(quiet=quiet))
    try:
        keys = accepted(retry, wanted.overrides, accept_changes=accept_changes)
        report = run(job, progress=last, limit=limit, spread=spread, retry=retry, accept_changes=keys)
    except BatcherError as error:
        complain(error)
        if isinstance(error, AccountError) and (hint := wanted.key_hint(job)):
            say(hint, sys.stderr)
        if error.exit_code in _CARRY_ON:
            some = [] if limit is None else ["--limit", str(limit), *(["--spread"] if spread else ())]
            some += options_of(retry, accept_changes=accept_changes)
            say(f"carry on with: {wanted.command('run', *some)}", sys.stderr)
        return error.exit_code
    rest = forecast_of(report, job)
    if rest is not None:
        if as_json:
            say(visible_json(orjson.dumps({**as_values(report), "forecast": asdict(rest)}).decode()), sys.stdout)
        elif not quiet:
            again, limit_found = wanted.command("run"), last.figures.limit
            say(render_sample(report, rest, job, found_limit=limit_found, again=again), sys.stdout)
        return BudgetError.exit_code
    failed, again = report.totals.failed, wanted.command("run", "--retry-failed")
    if as_json:
        say(visible_json(orjson.dumps(as_values(report)).decode()), sys.stdout)
    elif not quiet:
        say(render_report(report), sys.stdout)
        if last.figures.total and (cut := cut_off(Path(report.path))):  # where nothing was asked it has been said
            say(_of_cut_off(cut, job, wanted), sys.stdout)
        if failed:
            say(f"again:  {again}", sys.stdout)
    if failed and as_json:
        say(f"ask the failed rows again with: {again}", sys.stderr)
    elif failed and quiet:
        place = shown(report.path)
        say(f"batcher: {failed} of {report.rows} rows failed; see {place}, or ask them again: {again}", sys.stderr)
    return 3 if failed else 0


def _of_cut_off(rows: int, job: Job, wanted: Wanted) -> str:
    """How many answers `max_tokens` cut off, and what gives longer ones."""
    most = job.parameters.get("max_tokens")
    raised = f"parameters.max_tokens={2 * most}" if isinstance(most, int) else "parameters.max_tokens=4000"
    answers = "1 answer was" if rows == 1 else f"{rows:,} answers were"
    return f"{answers} cut off; longer ones: {wanted.command('run', '--truncated', '--set', raised)}"


def _warn_of_other_writers(folder: Path) -> None:
    """Whoever may write in the output folder may put other parts in place of finished ones."""
    try:
        mode = folder.stat().st_mode & 0o777
    except OSError:
        return  # it is made, or its trouble is told, later
    if mode & 0o022:
        _log.warning("other users of this machine can write in %s (mode %03o); chmod go-w ends that", folder, mode)


class Last:
    """Passes everything on to a watcher, and keeps the last figures."""

    def __init__(self, watcher: Progress) -> None:
        self._watcher = watcher
        self.figures = Figures()
        self.started, self.updated, self.note = watcher.started, watcher.updated, watcher.note

    def finished(self, figures: Figures) -> None:
        """See `Progress`."""
        self.figures = figures
        self._watcher.finished(figures)


def as_values(report: Standing) -> dict[str, Any]:
    """The report as JSON values; a cost that is not known is null, one that is too low comes with `unpriced`."""
    totals = {**asdict(report.totals), "cost_usd": report.totals.known_cost_usd}
    values = {"path": report.path, "rows": report.rows, "totals": totals, "parts": report.parts}
    if report.measured is not None:
        sums = ((field.name, getattr(report.measured, field.name)) for field in fields(report.measured))
        values["measured"] = {name: {"rows": s.rows, "mean": s.mean, "deviation": s.deviation} for name, s in sums}
    if len(report.versions) > 1:
        values["versions"] = list(map(asdict, report.versions))
    return {**values, "complete": report.complete}


def render_report(report: Standing) -> str:
    """The closing lines: counts, where the output is, and a query that runs as it stands."""
    totals, place = report.totals, shown(report.path)
    lines = [
        f"{report.rows} rows: {totals.completed} completed, {totals.failed} failed;"
        f" {totals.prompt_tokens:,} prompt and {totals.completion_tokens:,} completion tokens,"
        f" cost {cost_words(totals.known_cost_usd, totals.unpriced, report.rows, report.rows)}",
    ]
    if totals.ambiguous:
        lines.append(f"{totals.ambiguous} requests were sent without a usable answer; they may have been paid for")
    if totals.invalid:
        answers = "1 answer does" if totals.invalid == 1 else f"{totals.invalid} answers do"
        lines.append(f"{answers} not match the schema: {command('show', path_word(report.path), '--invalid')}")
    if totals.failed:
        lines.append(f"why:    {command('failures', path_word(report.path))}")
    lines += [f"rows {words}" for words in version_words(map(asdict, report.versions))]
    lines.append(f"output: {place} ({report.parts} {'part' if report.parts == 1 else 'parts'})")
    lines.append(f"look:   {command('show', path_word(report.path))}")
    lines.append(f"query:  duckdb -c {_sql(place, 'SELECT row_index, completion, total_tokens LIMIT 5')}")
    return "\n".join(map(visible, lines))


def _sql(place: str, rest: str) -> str:
    """A query over the parts as one word of a shell's command line."""
    quoted = place.replace("'", "''")
    query = f"FROM '{quoted}/*.parquet' {rest}"
    return shlex.quote(query) if set(query) & set('"$`\\!') else f'"{query}"'


def complain(error: BatcherError) -> None:
    """Say what is wrong, one problem a line."""
    for line in problems(error):
        say(f"batcher: {line}", sys.stderr)


def shown(path: str) -> str:
    """A path as short as it can be said from here."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the folder that we were started in is gone
        relative = path
    longer = relative.startswith("../../") or len(relative) + 1 >= len(path)  # the second is so from /, as under cron
    return visible(path if longer else relative)
