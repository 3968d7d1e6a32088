"""The job file, or a mapping like it: values in, a checked `Job` out, or every problem at once with its place.

`${NAME}` stands for an environment variable in every text value except `prompt` and `system_prompt`, which are taken as
they are written. The API key is not part of a job; it is read where it is needed, by `read_key`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from batcher.catalogue import Catalogue, FormSchema, load_catalogue
from batcher.config.document import Document, Place, mismatch
from batcher.config.explain import checked, sections
from batcher.config.yamlfile import read
from batcher.errors import JobError
from batcher.job import values as jobvalues
from batcher.job.answerschema import check_flatten, load_answer_schema
from batcher.job.localpath import expanded
from batcher.job.model import Endpoint, Job
from batcher.secret import Secret
from batcher.structured import json_schema_of

log = logging.getLogger(__name__)

_MAX_KEY_BYTES: Final = 16384
#: what `parameters.extra` cannot set, because it is made from the row or read by batcher itself
_NOT_EXTRA: Final = ("messages", "model", "prompt", "system_prompt", "stream")


def load_job(
    source: Path | str | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Job:
    """Return the job of a YAML file, or of a mapping with the keys of one; `overrides` such as
    `limits.concurrency=500` replace or add values.

    In a mapping `version` may be left out, and `input.path` where the rows are given to `run`; its paths are relative
    to the current folder.

    Raises:
        JobError: with every problem that was found.
    """
    if isinstance(source, Mapping):
        document = Document("job", _copied(source), {(): Place("job")})
        return job_of(document, overrides=overrides, environ=environ, needs_input=False)
    document = read(Path(source), str(source))
    if not document.values:
        raise JobError(document.problems())
    # the folder is taken without links, so that one job has one output folder however it is named
    path = Path(os.path.realpath(Path(source).parent), Path(source).name)
    return job_of(document, path, overrides=overrides, environ=environ)


def job_of(
    document: Document,
    path: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    needs_input: bool = True,
) -> Job:
    """Return the job of a document, which stands in the file `path`, or in none.

    Raises:
        JobError: with every problem that was found.
    """
    jobvalues.apply_overrides(document, overrides)
    jobvalues.refuse_literal_keys(document)
    jobvalues.interpolate(document, os.environ if environ is None else environ)
    catalogue, problems = _catalogue(document)
    load_answer_schema(document)
    schema = _check_parameters(document, catalogue) if catalogue else None
    if path is None:
        document.values.setdefault("version", 1)
    else:
        document.values.setdefault("name", path.stem)
    without_input = not needs_input and _fill_input(document)
    context = {"folder": Path.cwd() if path is None else path.parent, "path": path}
    job = checked(document, Job, context=context, unknown=partial(_hint, schema))
    if job is not None and without_input:
        job = with_input(job)
    if job is not None:
        _check_output_apart(document, job)
        check_flatten(document, job)
    problems = [*document.problems(), *problems]
    if job is None or problems:
        raise JobError(problems)
    return job


def with_input(job: Job, *patterns: str) -> Job:
    """The same job over other files; over none, it has the rows that a program gives to `run`."""
    return job.model_copy(update={"input": job.input.model_copy(update={"path": patterns})})


def _copied(value: Any) -> Any:
    """The value, in which mappings and lists are our own."""
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list | tuple) else value


def _fill_input(document: Document) -> bool:
    """Whether the document names no input; a place that stands for it is then put in."""
    section = document.values.setdefault("input", {})
    if section is None:
        section = document.values["input"] = {}
    if not isinstance(section, dict) or "path" in section:
        return False
    section["path"] = os.devnull
    return True


def _hint(schema: FormSchema | None, name: str) -> str | None:
    """Say of a key that stands in the wrong place where it belongs."""
    if jobvalues.is_secret_name(name):
        return jobvalues.KEY_IN_FILE
    if schema is not None and schema.parameter(name):
        return "unknown key here; it belongs in parameters"
    section = sections(Job).get(name)
    return section and f"unknown key here; it belongs in {section}"


def _catalogue(document: Document) -> tuple[Catalogue | None, Sequence[str]]:
    """Return the catalogue of the job, or None and the problems of its own file."""
    own = document.value(("catalogue",))
    if not isinstance(own, str) or not own:
        return load_catalogue(), ()
    try:
        return load_catalogue(Path(document.name).parent / expanded(own)), ()
    except JobError as error:
        return None, error.problems


def _check_parameters(document: Document, catalogue: Catalogue) -> FormSchema | None:
    """Check `parameters` against the form schema of the job's model, and return that schema."""
    model, parameters = document.value(("model",)), document.value(("parameters",))
    if not isinstance(model, str):
        return None
    schema = catalogue.schema_of(model)
    if document.value(("catalogue",)) is not None and not schema.known:
        document.report(("catalogue",), "does not describe the model of this job")
    given = parameters if isinstance(parameters, dict) else {}
    for name, value in given.items():
        if name != "extra" and not (name == "response_format" and json_schema_of(given) and schema.parameter(name)):
            _check_parameter(document, schema, name, value)
            # a row may want the rest in another form; what is always a mapping becomes one here
            given[name] = schema.sent(name, value, "form")
    _check_extra(document, given)
    _check_required(document, schema, given)
    return schema


def _check_parameter(document: Document, schema: FormSchema, name: str, value: Any) -> None:
    path = ("parameters", name)
    parameter = schema.parameter(name)
    if name in Job.model_fields:
        document.report(path, "belongs at the top level of the job")
    elif parameter is None:
        unknown = schema.check(name, value) or ""
        document.report(path, unknown if unknown.endswith("?") else f"{unknown}; parameters.extra is sent unchecked")
    elif problem := parameter.check(value):
        hidden = path in document.from_variables
        document.report(path, f"the variable holds no {parameter.expected}" if hidden else problem)


def _check_extra(document: Document, parameters: dict[str, Any]) -> None:
    extra = parameters.get("extra")
    if extra in (None, {}):
        parameters.pop("extra", None)
    elif not isinstance(extra, dict):
        document.report(("parameters", "extra"), mismatch("a mapping", extra))
    else:
        for name in extra.keys() & {*parameters, *_NOT_EXTRA}:
            said = "it stands in parameters too" if name in parameters else "batcher sets it"
            document.report(("parameters", "extra", name), f"not allowed here: {said}")


def _check_required(document: Document, schema: FormSchema, parameters: dict[str, Any]) -> None:
    """With a prompt template nothing of the request comes from the rows, so that all of it must stand in the job."""
    if document.value(("prompt",)) is None:
        return
    extra = parameters.get("extra")
    given = {*parameters, *(extra if isinstance(extra, dict) else ()), "system_prompt", "prompt"}
    for parameter in schema.parameters:
        if parameter.required and parameter.name not in given:
            document.report(("parameters", parameter.name), f"{schema.model} requires it")


def _check_output_apart(document: Document, job: Job) -> None:
    """Refuse parts that a next run would read as rows."""
    if any(job.output.path.is_relative_to(place) for place in job.input.path):
        document.report(("output", "path"), "lies inside input.path, so that its parts would be read as input")


def read_key(endpoint: Endpoint, environ: Mapping[str, str] | None = None) -> Secret | None:
    """Return the API key that an endpoint names, None if it names none.

    Raises:
        JobError: the variable is not set, the file cannot be read, or what is there is no key.
    """
    if endpoint.api_key_env is not None:
        name = f"endpoint.api_key_env: the environment variable {endpoint.api_key_env}"
        text = (os.environ if environ is None else environ).get(endpoint.api_key_env)
        if text is None:
            raise JobError(f"{name} is not set")
    elif endpoint.api_key_file is not None:
        name = f"endpoint.api_key_file: {endpoint.api_key_file}"
        text = _file_text(endpoint.api_key_file, name)
    else:
        return None
    key = text.strip()
    if not key:
        raise JobError(f"{name} is empty")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise JobError(f"{name} holds more than a key, or characters that no key has")
    return Secret(key)


def _file_text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise JobError(f"{name} cannot be read: {error.strerror}") from None
    if mode & 0o004:
        log.warning("%s can be read by every user of this machine; chmod 600 keeps it private", path)
    return data.decode("utf-8", "replace") if len(data) <= _MAX_KEY_BYTES else "too long"
