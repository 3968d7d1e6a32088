"""`batcher check`: everything that can be known before a run, each in a line of its own.

A line begins with ok, warn or FAIL. This is the one command that shows prompts, on standard output, because its user
asked for them: a template is to be seen at work before it costs anything.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from batcher.catalogue import FormSchema, load_catalogue, warnings
from batcher.cli.asking import ask_endpoint, findings
from batcher.cli.estimating import UNKNOWN, price_words
from batcher.cli.preview import escaped, render_request
from batcher.cli.running import shown
from batcher.cli.wanted import Wanted
from batcher.errors import BatcherError, StorageError
from batcher.job import Endpoint, Job, read_key
from batcher.job.baseurl import SIMULATOR
from batcher.manifest import manifest_for, planned
from batcher.part import PartFormat
from batcher.plan import Plan, carried_columns, files_unchanged, make_plan
from batcher.pricing import prices_of
from batcher.prompt import SHAPES, Builder, PromptError
from batcher.secret import Secret
from batcher.source import find_files, read
from batcher.structured.columns import AnswerColumns

T = TypeVar("T")

#: rows whose requests are built to try the template and the warnings
_SAMPLE: Final = 100
_SHOWN_COLUMNS: Final = 20
_SHOWN_FILES: Final = 3
_NO_PRICE: Final = "unknown; the simulator costs nothing"
#: fields of a request that are no parameters
_TEXTS: Final = ("model", "messages", "prompt", "system_prompt")


@dataclass(slots=True)
class Page:
    """What is printed, a line at a time, and what was found wrong."""

    problems: list[BatcherError] = field(default_factory=list)

    def say(self, verdict: str, name: str, words: str) -> None:
        """Print a verdict; every line of it begins with the verdict, whatever it shows."""
        for line in escaped(words).splitlines():
            print(f"{verdict:>4}  {name:<10} {line}")

    def attempt(self, name: str, ask: Callable[[], T], advice: str = "") -> T | None:
        """Return what `ask` returns; None if it fails, which is said, with what to do."""
        try:
            return ask()
        except BatcherError as error:
            self.problems.append(error)
            self.say("FAIL", name, f"{error}{advice and '; '}{advice}")
            return None


@dataclass(slots=True)
class Requests:
    """The requests of the first rows."""

    #: by the row's index
    bodies: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: reasons why the others have none
    refused: list[str] = field(default_factory=list)


def check_job(wanted: Wanted, *, offline: bool) -> int:
    """Print a line or more per check; return 0, or the exit code of the first thing that is wrong."""
    page = Page()
    job = page.attempt("job", wanted.load)
    if job is not None:
        page.say("ok", "job", f"{wanted.shown} (version {job.version})")
        _check_job(page, job, offline=offline)
    if page.problems:
        print(f"next: mend what FAILs, then {wanted.command('check')}", file=sys.stderr)
        return page.problems[0].exit_code
    print(f"next: {wanted.command('run')}", file=sys.stderr)
    return 0


def _check_job(page: Page, job: Job, *, offline: bool) -> None:
    schema = load_catalogue(job.catalogue).schema_of(job.model)
    key, has_key = _check_key(page, job.endpoint, schema)
    plan = _check_input(page, job)
    requests = _check_prompt(page, job, schema, plan, key)
    _check_parameters(page, job, schema, requests)
    _check_prices(page, job)
    _check_output(page, job, plan)
    if has_key and not offline:
        _check_endpoint(page, job, schema)


def _check_key(page: Page, endpoint: Endpoint, schema: FormSchema) -> tuple[Secret | None, bool]:
    """Return the key, and whether there is one or none is needed."""
    before = len(page.problems)
    if endpoint.api_key_env:
        advice = f"set it in this shell: export {endpoint.api_key_env}='...'"
    else:
        advice = "the key, and nothing else, belongs into that file"
    key = page.attempt("key", lambda: read_key(endpoint), advice)
    if len(page.problems) > before:
        return None, False
    if key is not None:
        page.say("ok", "key", f"{endpoint.api_key_env or endpoint.api_key_file} ({len(key)} characters, not shown)")
    elif endpoint.base_url == schema.base_url and schema.api_key_env:
        page.say("warn", "key", f"none is sent, though one is needed there: endpoint.api_key_env: {schema.api_key_env}")
    else:
        page.say("ok", "key", "none is sent")
    return key, True


# -- rows and requests -------------------------------------------------------------------------------------------------


def _check_input(page: Page, job: Job) -> Plan | None:
    plan = page.attempt("input", lambda: _plan(job), "input.path in the job file says what is read")
    if plan is None:
        return None
    names = [file.name for file in plan.files[:_SHOWN_FILES]]
    files = ", ".join([*names, f"{len(plan.files) - _SHOWN_FILES} more"] if len(plan.files) > _SHOWN_FILES else names)
    columns = [*plan.schema.names[:_SHOWN_COLUMNS], *(["..."] if len(plan.schema.names) > _SHOWN_COLUMNS else [])]
    rows = "1 row" if plan.rows == 1 else f"{plan.rows} rows"
    page.say("ok", "input", f"{rows} in {files}; columns {', '.join(columns)}".replace("\n", " "))
    if plan.bad_rows:
        page.say("warn", "input", f"{plan.bad_rows} rows cannot be read and will be failed rows")
    return plan


def _plan(job: Job) -> Plan:
    """The plan that a run would follow."""
    files = find_files(job.input.path)
    try:
        before = planned(job.output.path)
    except StorageError:  # which is a matter of the output
        before = None
    return before if before is not None and files_unchanged(before, files) else make_plan(job, files)


def _check_prompt(page: Page, job: Job, schema: FormSchema, plan: Plan | None, key: Secret | None) -> Requests:
    """Build the requests of the first rows, and show the first one."""
    builder = page.attempt("prompt", lambda: Builder(job, schema))
    if builder is None or plan is None:
        return Requests()
    names = plan.schema.names
    if not page.attempt("prompt", lambda: _has_columns(builder, names)):
        return Requests()
    own = [f"`{name}`" for name in SHAPES if name in names]
    source = "each row brings its own " + " or ".join(own) if job.prompt is None else "the template is filled in"
    needed = f"; needed columns: {', '.join(sorted(builder.columns))}" if builder.columns else ""
    page.say("ok", "prompt", f"{source}{needed}")
    if builder.answers is not None:
        how = "in the system prompt, with json_object" if builder.schema_in_prompt else "as response_format json_schema"
        page.say("ok", "schema", f"valid JSON Schema, sent {how}; answers are held against it")
    requests = page.attempt("input", lambda: _sample(plan, builder, key)) or Requests()
    _say_requests(page, requests, schema)
    return requests


def _has_columns(builder: Builder, names: Sequence[str]) -> bool:
    """Raise JobError if a row of these columns cannot be asked."""
    builder.check_columns(names)
    return True


def _sample(plan: Plan, builder: Builder, key: Secret | None) -> Requests:
    requests = Requests()
    rows = (row for chunk in read(plan.files, plan.shards[:1], plan.schema) for row in chunk.rows)
    for row in islice(rows, _SAMPLE):
        if row.problem is not None:
            continue
        try:
            body = builder.build(row.values).body
        except PromptError as error:
            requests.refused.append(str(error))
        else:
            requests.bodies[row.row_index] = orjson.loads(body if key is None else key.hide_in(body))
    return requests


def _say_requests(page: Page, requests: Requests, schema: FormSchema) -> None:
    for reason, count in sorted(Counter(requests.refused).items()):
        page.say("warn", "input", f"of the first rows, {count} cannot be asked: {reason}")
    for row_index, body in islice(requests.bodies.items(), 1):
        size_bytes = len(orjson.dumps(body))
        page.say("ok", "request", f"row {row_index} becomes a request of {size_bytes:,} bytes:")
        for line in render_request(body, schema):
            page.say("ok", "request", line)


def _check_parameters(page: Page, job: Job, schema: FormSchema, requests: Requests) -> None:
    """Warn of what the parameters, the job's and the rows' own, will not do."""
    ours = [body for body in requests.bodies.values() if body["model"] == job.model]
    if others := Counter(str(body["model"]) for body in requests.bodies.values() if body["model"] != job.model):
        asked = ", ".join(islice(others, 3))
        page.say("warn", "model", f"of the first rows, {others.total()} ask for a model of their own: {asked}")
    sent = [{name: value for name, value in body.items() if name not in _TEXTS} for body in ours]
    said = [warning for parameters in (sent or [job.parameters]) for warning in warnings(schema, parameters, [])]
    for warning in dict.fromkeys(said):
        page.say("warn", "parameters", warning)
    word = schema.json_mode_needs
    lacking = [body for body in ours if word and _is_json_mode(body) and word not in _texts(body).lower()]
    if lacking:
        page.say(
            "warn",
            "parameters",
            f"response_format is json_object, but of the first {len(ours)} prompts {len(lacking)} do not hold the word"
            f" '{word}', which it needs; write it into system_prompt, best with an example",
        )


def _check_prices(page: Page, job: Job) -> None:
    """Say what the tokens cost, by whom, or how to say it."""
    before = len(page.problems)
    prices = page.attempt("prices", lambda: prices_of(job))
    if prices is not None:
        for line in price_words(prices.words(), prices.periods(time.time())):
            page.say("ok", "prices", line)
    elif len(page.problems) == before:
        page.say("ok", "prices", _NO_PRICE if job.endpoint.base_url == SIMULATOR else UNKNOWN)


def _is_json_mode(body: dict[str, Any]) -> bool:
    wanted = body.get("response_format")
    return (wanted.get("type") if isinstance(wanted, dict) else wanted) == "json_object"


def _texts(body: dict[str, Any]) -> str:
    """All that the model will read of a request, as one text."""
    messages = body.get("messages", [])
    texts = (body.get("system_prompt", ""), body.get("prompt", ""), *(message.get("content") for message in messages))
    return " ".join(map(str, texts))


# -- where it goes and where it comes from -----------------------------------------------------------------------------


def _check_output(page: Page, job: Job, plan: Plan | None) -> None:
    path = job.output.path
    if page.attempt("output", lambda: _check_writable(path), "output.path in the job file says where") is None:
        return
    resumed = page.attempt("output", lambda: _foresee(job, plan)) if plan is not None else False
    if resumed is None:
        return
    parts = "" if plan is None else f"; {len(plan.shards)} {'part' if len(plan.shards) == 1 else 'parts'}"
    page.say("ok", "output", f"{shown(str(path))}{parts}{'; a run has begun there and is carried on' * resumed}")


def _foresee(job: Job, plan: Plan) -> bool:
    """Return whether a run has begun there; raise what a run would refuse to begin with, without beginning."""
    manifest_for(job.output.path, job, plan)
    carried, answers = carried_columns(plan.schema, job), AnswerColumns.of(job.identity())
    _ = PartFormat(carried, job.output.prefix, fingerprint="", version="", answers=answers).schema
    return planned(job.output.path) is not None


def _check_writable(path: Path) -> Path:
    """The nearest existing folder above the output must be writable; nothing is created."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{folder} is not a folder that can be written")
    return folder


def _check_endpoint(page: Page, job: Job, schema: FormSchema) -> None:
    answers = page.attempt("endpoint", lambda: ask_endpoint(job, schema))
    if answers is not None:
        for verdict, name, words in page.attempt("endpoint", lambda: list(findings(job, answers))) or []:
            page.say(verdict, name, words)
