"""`batcher check`: everything that can be known before a run, each in a line of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import orjson

from batcher.catalogue import FormSchema, load_catalogue, warnings
from batcher.cli import talk
from batcher.client import open_client
from batcher.engines.local import destination, endpoint_of
from batcher.errors import BatcherError, EndpointError
from batcher.job import Job, load_job, read_key
from batcher.plan import Plan, make_plan
from batcher.prompt import Builder, PromptError
from batcher.records import Completion, Fault, Reply
from batcher.retry import Action, judge
from batcher.source import find_files, read

#: rows whose requests are built to try the template and the warnings
_SAMPLE = 100


def check_job(path: Path, overrides: Sequence[str], *, offline: bool) -> int:
    """Print a line per check; return 0, or the exit code of the first thing that is wrong."""
    talk.log_to_stderr(logging.WARNING)
    job = load_job(path, overrides=overrides)
    _say("ok", "job", f"{path} (version {job.version})")
    schema = load_catalogue(job.catalogue).schema_of(job.model)
    problems: list[BatcherError] = []
    checks: list[tuple[str, Callable[[], str]]] = [
        ("input", lambda: _check_input(job, schema)),
        ("key", lambda: _check_key(job)),
        ("output", lambda: _check_output(job.output.path)),
    ]
    if not offline:
        checks.append(("endpoint", lambda: _check_endpoint(job, schema)))
    for name, ask in checks:
        try:
            _say("ok", name, ask())
        except BatcherError as error:
            problems.append(error)
            for problem in talk.problems(error):
                _say("fail", name, problem)
    return problems[0].exit_code if problems else 0


def _say(verdict: str, name: str, words: str) -> None:
    print(f"{verdict:>4}  {name:<10} {talk.visible(words)}")


def _check_input(job: Job, schema: FormSchema) -> str:
    plan = make_plan(job, find_files(job.input.path))
    builder = Builder(job, schema)
    builder.check_columns(plan.schema.names)
    requests, refused = _sample(plan, builder)
    for warning in warnings(schema, job.parameters, [_texts(request) for request in requests]):
        _say("warn", "parameters", warning)
    if plan.bad_rows:
        _say("warn", "input", f"{plan.bad_rows} rows cannot be read and will be failed rows")
    for reason in sorted(set(refused)):
        _say("warn", "input", f"of the first rows, {refused.count(reason)} cannot be asked: {reason}")
    files = "1 file" if len(plan.files) == 1 else f"{len(plan.files)} files"
    return f"{plan.rows} rows in {files}, columns {', '.join(plan.schema.names)}; {len(plan.shards)} parts"


def _sample(plan: Plan, builder: Builder) -> tuple[list[dict[str, Any]], list[str]]:
    """The request bodies of the first rows, and why some of them have none."""
    requests, refused = [], []
    rows = (row for chunk in read(plan.files, plan.shards[:1], plan.schema) for row in chunk.rows)
    for row in islice(rows, _SAMPLE):
        if row.problem is not None:
            continue
        try:
            requests.append(orjson.loads(builder.build(row.values).body))
        except PromptError as error:
            refused.append(str(error))
    return requests, refused


def _texts(request: dict[str, Any]) -> str:
    """All that the model will read of a request, as one text."""
    messages = request.get("messages", [])
    return " ".join(str(text) for text in (
        request.get("system_prompt", ""), request.get("prompt", ""), *(message.get("content") for message in messages)
    ))  # fmt: skip


def _check_key(job: Job) -> str:
    key = read_key(job.endpoint)
    if key is None:
        return "none is sent"
    return f"{job.endpoint.api_key_env or job.endpoint.api_key_file} ({len(key)} characters, not shown)"


def _check_output(path: Path) -> str:
    """The nearest existing folder above the output must be writable; nothing is created."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise BatcherError(f"{folder} is not a folder that can be written")
    return f"{path}{' (exists; a run would resume it)' if (path / '.batcher' / 'manifest.json').exists() else ''}"


def _check_endpoint(job: Job, schema: FormSchema) -> str:
    """Send one tiny request, and say which model answered."""
    with endpoint_of(job) as base_url:
        result = anyio.run(_ask, job, base_url)
    verdict = judge(result, json_mode=False, now_s=0.0)
    if verdict.action is Action.STOP:
        raise verdict.as_error()
    if isinstance(result, Fault):
        raise EndpointError(f"{job.endpoint.base_url}: {result.message}")
    if not isinstance(verdict.completion, Completion):
        code = verdict.error.code if verdict.error else "unknown"
        raise EndpointError(f"{job.endpoint.base_url} answered HTTP {result.status} ({code}) to a tiny request")
    served = verdict.completion.model
    named = f", served as {served}" if served and served != job.model else ""
    return f"{job.endpoint.base_url}, model {job.model}{named}; one request of {_tokens(verdict.completion)} tokens"


async def _ask(job: Job, base_url: str) -> Reply | Fault:
    question = "Answer with the word ok."
    asked: dict[str, Any] = (
        {"prompt": question}
        if job.endpoint.request_format == "form"
        else {"messages": [{"role": "user", "content": question}]}
    )
    client = open_client(destination(job, base_url), 1)
    try:
        return await client.send(orjson.dumps({"model": job.model, **asked, "max_tokens": 16}))
    finally:
        await client.close()


def _tokens(completion: Completion) -> str:
    total = completion.usage.total_tokens
    return "an unknown number of" if total is None else str(total)
