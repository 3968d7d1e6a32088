"""The known models: one form schema each, as YAML files in this folder, and a generic one for all other models.

A file may say `like: NAME` and then holds only what differs from that model; its parameters replace those of the same
name, and further ones follow. A user's own file has the same form, may be `like` any built-in model, and wins over a
built-in model of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from batcher.catalogue.advice import warnings
from batcher.catalogue.schema import FormParameter, FormSchema, ParameterType, RequestFormat
from batcher.config.document import Document, did_you_mean
from batcher.config.explain import checked
from batcher.config.yamlfile import read
from batcher.errors import JobError

__all__ = [
    "GENERIC",
    "Catalogue",
    "FormParameter",
    "FormSchema",
    "ParameterType",
    "RequestFormat",
    "load_catalogue",
    "warnings",
]

#: the form schema of every model that has none of its own
GENERIC = "openai-compatible"


class Catalogue:
    """Form schemas by the name of their model."""

    def __init__(self, schemas: Mapping[str, FormSchema]) -> None:
        self._schemas = dict(schemas)

    def names(self) -> tuple[str, ...]:
        """Return the models known by name, the generic one last."""
        return (*sorted(self._schemas.keys() - {GENERIC}), GENERIC)

    def schema_of(self, model: str) -> FormSchema:
        """Return a model's form schema; of an unknown model the generic one under its name, with `known` False."""
        known = self._schemas.get(model)
        return known or self._schemas[GENERIC].model_copy(update={"model": model})


def load_catalogue(extra: Path | None = None) -> Catalogue:
    """Return the built-in catalogue, with the schema of a user's own file in it.

    Raises:
        JobError: the user's file is no form schema.
    """
    schemas = _built_in()
    if extra is None:
        return Catalogue(schemas)
    schema = _schema(read(extra), schemas)
    return Catalogue({**schemas, schema.model: schema})


@cache
def _built_in() -> Mapping[str, FormSchema]:
    schemas: dict[str, FormSchema] = {}
    documents = [read(path) for path in sorted(Path(__file__).parent.glob("*.yaml"))]
    while documents:
        # a model comes after the one it is like
        document = next(document for document in documents if document.values.get("like") in {None, *schemas})
        documents.remove(document)
        schema = _schema(document, schemas)
        schemas[schema.model] = schema
    return MappingProxyType(schemas)


def _schema(document: Document, bases: Mapping[str, FormSchema]) -> FormSchema:
    """Return the form schema that a document holds, filled from the model it is like.

    Raises:
        JobError: it holds none.
    """
    schema = checked(document, FormSchema) if document.values else None
    if schema is None:
        raise JobError(document.problems())
    if schema.like is not None and schema.like not in bases:
        document.report(("like",), f"unknown model{did_you_mean(schema.like, bases)}")
    _check_parameters(document, schema)
    if document.problems():
        raise JobError(document.problems())
    return schema if schema.like is None else _filled(schema, bases[schema.like])


def _check_parameters(document: Document, schema: FormSchema) -> None:
    names: set[str] = set()
    for index, parameter in enumerate(schema.parameters):
        if parameter.name in names:
            document.report(("parameters", index, "name"), "stands in the list twice")
        names.add(parameter.name)
        for key in ("default", "example"):
            value = getattr(parameter, key)
            problem = None if value is None else parameter.check(value)
            if problem:
                document.report(("parameters", index, key), problem)


def _filled(schema: FormSchema, base: FormSchema) -> FormSchema:
    """Return a schema with the values of another one where it gives none; what names a model is not taken over."""
    own = {name: getattr(schema, name) for name in schema.model_fields_set | {"served_as", "known"}}
    parameters = {parameter.name: parameter for parameter in (*base.parameters, *schema.parameters)}
    return base.model_copy(update={**own, "parameters": tuple(parameters.values())})
