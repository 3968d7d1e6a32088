"""The commands and what they print."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from batcher.cli.options import ApiKeyEnv, BaseUrl, Concurrency, Inputs, Model, Output, Prompt, SystemPrompt
from batcher.errors import EXIT_CODES, BatcherError

if TYPE_CHECKING:
    from batcher.cli.wanted import Wanted

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask an API once per row of a file; get Parquet with completions and token usage. Run again to resume.",
    epilog=f"Exit codes: {', '.join(f'{code} {exit.short}' for code, exit in EXIT_CODES.items())}. More: batcher help.",
)

JobPath = Annotated[Path | None, typer.Argument(metavar="[JOB]", help="the job file (YAML)", show_default=False)]
Target = Annotated[
    Path, typer.Argument(metavar="JOB|OUT", help="the job file or the output folder", show_default=False)
]
ExportFormat = Literal["parquet", "jsonl", "csv", "openai-batch"]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="override a key, such as limits.concurrency=500")
]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_standard_streams()
    try:
        result = app(args=argv, prog_name="batcher", standalone_mode=False)
    except BatcherError as error:
        from batcher.cli.running import complain

        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("batcher: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        return _other_exit_code(error)
    finally:
        _flush_standard_streams()
    return result if isinstance(result, int) else 0


@app.command()
def run(
    job: JobPath = None,
    overrides: Overrides = [],  # noqa: B006 - typer reads defaults, it does not share them
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="print only when something is wrong")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="log more; never prompts, answers or keys")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as one line of JSON")] = False,
    dry_run: Annotated[bool, typer.Option("-n", "--dry-run", help="send nothing: estimate tokens and cost")] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="ask N rows only, and forecast the rest")
    ] = None,
    spread: Annotated[bool, typer.Option("--spread", help="with --limit: rows from all over the input")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="ask the failed rows again")] = False,
    only: Annotated[
        list[str],
        typer.Option(metavar="CODE", help="with --retry-failed: only rows with this error code or HTTP status"),
    ] = [],  # noqa: B006
    truncated: Annotated[bool, typer.Option("--truncated", help="ask the rows again whose answer was cut off")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="go on with a changed job; rows that are done stay as they are")
    ] = False,
    inputs: Inputs = [],  # noqa: B006
    output: Output = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    prompt: Prompt = None,
    system_prompt: SystemPrompt = None,
    concurrency: Concurrency = None,
) -> int:
    """Ask every row that has no outcome yet. The same command resumes an interrupted run."""
    if spread and limit is None:
        raise typer.BadParameter("goes with --limit", param_hint="--spread")
    if only and not retry_failed:
        raise typer.BadParameter("goes with --retry-failed", param_hint="--only")
    if truncated and not accept_changes and not any(text.startswith("parameters.") for text in overrides):
        why = "needs --set parameters.max_tokens=N with a higher limit, or the answers would be cut off again"
        raise typer.BadParameter(why, param_hint="--truncated")
    wanted = _wanted(job, overrides, inputs, output, base_url, model, api_key_env, prompt, system_prompt, concurrency)
    from batcher.cli.again import retry_of

    retry = retry_of(failed=retry_failed, only=only, truncated=truncated)
    if dry_run:
        from batcher.cli.estimating import show_estimate

        return show_estimate(wanted, limit=limit, as_json=as_json, retry=retry, accept_changes=accept_changes)
    from batcher.cli.running import run_job

    options = {"quiet": quiet, "verbose": verbose, "as_json": as_json}
    return run_job(wanted, limit=limit, spread=spread, retry=retry, accept_changes=accept_changes, **options)


@app.command()
def check(
    job: JobPath = None,
    overrides: Overrides = [],  # noqa: B006
    offline: Annotated[bool, typer.Option("--offline", help="send no request")] = False,
    inputs: Inputs = [],  # noqa: B006
    output: Output = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    prompt: Prompt = None,
    system_prompt: SystemPrompt = None,
    concurrency: Concurrency = None,
) -> int:
    """Check the job file, the input, the template, the key and, with one tiny request, the endpoint."""
    from batcher.cli.checking import check_job

    wanted = _wanted(job, overrides, inputs, output, base_url, model, api_key_env, prompt, system_prompt, concurrency)
    return check_job(wanted, offline=offline)


@app.command()
def status(
    target: Target,
    watch: Annotated[bool, typer.Option("--watch", help="until the run ends, or Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print summary.json, its state corrected")] = False,
) -> int:
    """Show how a run stands, also while it works."""
    from batcher.cli.status import show_status, watch_status

    return watch_status(target, as_json=as_json) if watch else show_status(target, as_json=as_json)


@app.command()
def show(
    target: Target,
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="how many rows")] = 5,
    failed: Annotated[bool, typer.Option("--failed", help="only failed rows")] = False,
    invalid: Annotated[bool, typer.Option("--invalid", help="only answers that do not match the schema")] = False,
    grep: Annotated[str | None, typer.Option(metavar="TEXT", help="only rows with this text in a column")] = None,
    row: Annotated[int | None, typer.Option(metavar="K", min=0, help="the row with this row_index")] = None,
    full: Annotated[bool, typer.Option("--full", help="do not cut long texts")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON per row, uncut")] = False,
) -> int:
    """Show rows with prompt, completion and usage, also of a run that works."""
    from batcher.cli.showing import Choice, show_rows

    return show_rows(target, Choice(count, row, failed, grep, invalid), full=full, as_json=as_json)


@app.command()
def failures(
    target: Target,
    samples: Annotated[int, typer.Option("-n", metavar="N", min=0, help="sample rows per cause")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print one line of JSON")] = False,
) -> int:
    """Group the failed rows by cause, and say what to do about each."""
    from batcher.cli.failing import show_failures

    return show_failures(target, samples=samples, as_json=as_json)


@app.command()
def export(
    target: Target,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="a file: .parquet, .jsonl or .csv")] = None,
    dataset: Annotated[Path | None, typer.Option("--hf", metavar="DIR", help="a Hugging Face dataset folder")] = None,
    kind: Annotated[
        ExportFormat | None,
        typer.Option("--format", metavar="|".join(get_args(ExportFormat)), help="instead of what the suffix says"),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="the input rows of failed rows, to ask them again")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="what is done so far of an unfinished run")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace what is there")] = False,
) -> int:
    """Write the results as one file, as OpenAI Batch files, or as a dataset."""
    from batcher.cli import exporting

    return exporting.export(target, to, dataset, kind, failed=failed, partial=partial, force=force)


@app.command()
def report(
    target: Annotated[Path, typer.Argument(metavar="JOB|OUT", help="the job file or the output folder")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="where to write it; default: beside OUT, as OUT-report.html"),
    ] = None,
) -> int:
    """Write one HTML page about a run: totals, pace, latency, tokens, cost, errors, configuration."""
    from batcher.cli.reporting import write_report

    return write_report(target, to)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="show this model's parameters")] = None,
    catalogue: Annotated[Path | None, typer.Option(metavar="FILE", help="a YAML file with models of your own")] = None,
) -> int:
    """List the known models, or show one model's parameters and a request example."""
    from batcher.catalogue import load_catalogue
    from batcher.cli.models import render_catalogue, render_model
    from batcher.cli.talk import visible_lines

    known = load_catalogue(catalogue)
    print(visible_lines(render_catalogue(known) if name is None else render_model(known.schema_of(name))))
    return 0


@app.command()
def init(
    data: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DATA]...", help="files or folders of rows; without any, a few rows to start with"),
    ] = None,
    job: Annotated[Path, typer.Option("--job", metavar="FILE", help="the job file to write")] = Path("job.yaml"),
) -> int:
    """Write a job file for your data that runs as it stands. Nothing is ever overwritten."""
    from batcher.cli.initializing import init_job

    return init_job(data or (), job)


@app.command()
def schema() -> int:
    """Print the JSON Schema of the job file, with which editors complete and check it."""
    import json

    from batcher.cli.jobschema import job_schema

    print(json.dumps(job_schema(), indent=2))
    return 0


@app.command(name="help")
def explain(
    name: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="or a command, key, column, parameter or exit code")
    ] = None,
) -> int:
    """Explain a topic, such as job, columns or exit-codes; without one, list the topics."""
    from batcher.cli.help import show_help

    return show_help(name)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def simulator(context: typer.Context) -> int:
    """Serve the built-in endpoint until stopped (batcher simulator --help shows its options)."""
    from batcher.simulator import main as serve

    return serve(context.args)


def _wanted(job: Path | None, overrides: list[str], *values: object) -> Wanted:
    """The job that the arguments of a command ask for; `values` are those of `OPTIONS`, in order."""
    from batcher.cli.wanted import OPTIONS, UsageError, Wanted

    given = {name: value for name, value in zip(OPTIONS, values, strict=True) if value not in (None, [])}
    wanted = Wanted(job, overrides, given)
    try:
        wanted.check_usage()
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None
    return wanted


def _open_standard_streams() -> None:
    """Put the null device where a standard stream is closed, or the next file or socket would take its number.

    And let no name fail to be printed because the locale has no letters for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_standard_streams() -> None:
    """Whoever read our output may have left; let the interpreter not complain about that on its way out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _other_exit_code(error: Exception) -> int:
    """Usage errors and exits of the command-line library, or our own mistakes."""
    if hasattr(error, "exit_code"):
        if hasattr(error, "show"):
            error.show()
        return int(error.exit_code)
    from batcher.cli.talk import internal_error, say

    say(internal_error(error), sys.stderr)
    return 1
