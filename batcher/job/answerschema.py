"""The schema of a job's answers: read from its file, brought into the one form that the API takes, and checked.

A file of a schema is JSON, and its path is relative to the job file. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from batcher.config.document import Document
from batcher.job.localpath import expanded
from batcher.structured import Answers, SchemaError, full_form, json_schema_of
from batcher.structured.fields import flat_fields

if TYPE_CHECKING:
    from batcher.job.model import Job

_PATH: Final = ("parameters", "response_format")
_MOST_BYTES: Final = 1 << 20


def with_answer_schema(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return parameters whose `response_format`, if it names a schema, holds that in the full form.

    Raises:
        SchemaError: the schema cannot be read, or is none.
    """
    found = full_form(parameters.get("response_format"), lambda text: _read(folder, text))
    if found is None:
        return parameters
    _ = Answers(found["json_schema"]["schema"], 0).checker  # refuses what is no schema
    return {**parameters, "response_format": found}


def load_answer_schema(document: Document) -> None:
    """Bring a schema in the document's `parameters` into the full form; note what is wrong with it, at its place."""
    parameters = document.value(("parameters",))
    if not isinstance(parameters, dict):
        return
    try:
        document.values["parameters"] = with_answer_schema(parameters, Path(document.name).parent)
    except SchemaError as error:
        inner = (*_PATH, "json_schema")
        document.report(inner if inner in document.places else _PATH, str(error))
        del parameters["response_format"]  # it is told once


def _read(folder: Path, text: str) -> Any:
    """Return the JSON value of a file."""
    if not text or "\0" in text or "://" in text:
        raise SchemaError("must be a schema, or the path of a file on this machine that holds one")
    try:
        with (folder / expanded(text)).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SchemaError(f"{text} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise SchemaError(f"{text} is larger than 1 MiB")
    try:
        return orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise SchemaError(f"{text}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from None


def check_flatten(document: Document, job: Job) -> None:
    """Note it if there are no fields that could become columns."""
    schema = json_schema_of(job.parameters)
    if job.output.flatten and schema is None:
        document.report(("output", "flatten"), "needs a parameters.response_format with a json_schema")
    elif job.output.flatten and schema is not None and not flat_fields(schema):
        document.report(("output", "flatten"), "the schema of the answers has no properties at its top")
