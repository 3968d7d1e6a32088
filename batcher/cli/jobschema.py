"""The JSON Schema of the job file, for editors: what may stand where, what it means, what is a mistake.

Made from the job's own types and the catalogue, so that keys, defaults, ranges and descriptions are written once. What
the loader checks by a function of its own is said here again, as far as JSON Schema can say it; a test holds the two
together. It is never stricter than the loader. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from batcher.catalogue import FormParameter, FormSchema, load_catalogue
from batcher.job import Job

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: text that holds an environment variable is known only when the job is loaded
_VARIABLE: Final = {"type": "string", "pattern": r"\$\{"}
_NULL: Final = {"type": "null"}
_VARIABLE_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
#: a key where its variable's name belongs
_KEY: Final = [
    {"pattern": r"\b(sk|pk|rk|gsk|xai|hf|ghp)[-_][A-Za-z0-9_-]{12,}"},
    {"pattern": "^(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{24,}$"},
]
_URL: Final = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@\\]+(/[^\s?#\\]*)?$"
_PUBLIC_HTTP: Final = (
    r"^[Hh][Tt][Tt][Pp]://(?!([Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127\.[0-9.]+|10\.[0-9.]+|192\.168\.[0-9.]+"
    r"|172\.[0-9.]+|\[[^\]]*\])(:[0-9]+)?(/|$))"
)
_OWN_HEADERS: Final = "authorization|accept-encoding|connection|content-length|content-type|host|transfer-encoding"
_TYPES: Final = {
    "string": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "mapping": "object",
    "list": "array",
}
#: what `parameters.extra` cannot hold, since it is made from the row or read by batcher itself
_NOT_EXTRA: Final = ["messages", "model", "prompt", "system_prompt", "stream"]


def job_schema() -> Schema:
    """Return the schema, ready to be written as JSON."""
    schema = Job.model_json_schema()
    sections: dict[str, Schema] = schema["$defs"]
    optional = {f"#/$defs/{name}" for name, section in sections.items() if "required" not in section}
    for section in (schema, *sections.values()):
        section.pop("title", None)
        required = section.get("required", ())
        section["properties"] = {
            name: _property(value, optional, required=name in required) for name, value in section["properties"].items()
        }
    _add_rules(schema["properties"], sections)
    _add_parameters(schema)
    return {"$schema": DIALECT, "title": "A job of batcher", **schema}


def _property(value: Schema, optional: set[str], *, required: bool) -> Schema:
    """A key's schema without the noise of its making, and open to what the loader takes in place of a value."""
    value = {key: inner for key, inner in value.items() if key != "title"}
    about: Schema = {key: value.pop(key) for key in ("description", "default") if key in value}
    if about.get("default", 0) is None:
        del about["default"]  # it is the absence of a value, which editors would write down
    empty = value.get("$ref") in optional or (value.get("type") == "object" and not required)
    alternatives = [_open(inner) for inner in value.get("anyOf", [value])] + [_NULL] * empty
    return {**about, **(alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})}


def _open(value: Schema) -> Schema:
    """Text may come from a variable wherever certain words are asked for; a path is any text but a URL."""
    if value.pop("format", None) == "path":
        value.update(_path())
    if value.get("type") == "string" and value.keys() & {"enum", "const"}:
        return {"anyOf": [value, _VARIABLE]}
    return value


def _path() -> Schema:
    return {"type": "string", "minLength": 1, "not": {"pattern": "://", **_no_variable()}}


def _no_variable() -> Schema:
    return {"not": {"pattern": _VARIABLE["pattern"]}}


# -- what the loader checks by functions -------------------------------------------------------------------------------


def _add_rules(job: dict[str, Schema], sections: dict[str, Schema]) -> None:
    """Say in the schema's words what the validators of the job's types check."""
    endpoint, simulator = sections["Endpoint"]["properties"], sections["Simulator"]["properties"]
    output, rows = sections["Output"]["properties"], sections["Input"]["properties"]
    del job["name"]["default"]  # it is the file's stem
    job["version"] = {"description": job["version"]["description"], "const": 1}
    for key in (endpoint["api_key_env"], simulator["api_key_env"]):
        _text_of(key).update({"pattern": rf"^{_VARIABLE_NAME}$|\$\{{", "not": {"anyOf": _KEY}})
    rows["path"] = {
        "description": rows["path"]["description"],
        "anyOf": [_path(), {"type": "array", "items": _path(), "minItems": 1}],
    }
    next(inner for inner in output["columns"]["anyOf"] if inner.get("type") == "array")["uniqueItems"] = True
    _text_of(output["flatten"])["pattern"] = r"^[A-Za-z0-9_]+$|\$\{"
    output["prefix"]["pattern"] = r"^[A-Za-z0-9_]*$|\$\{"
    next(inner for inner in sections["Engine"]["properties"]["processes"]["anyOf"] if "const" not in inner)[
        "minimum"
    ] = 1
    _add_endpoint_rules(sections["Endpoint"], endpoint)


def _add_endpoint_rules(section: Schema, endpoint: dict[str, Schema]) -> None:
    endpoint["base_url"] = {
        "description": endpoint["base_url"]["description"],
        "examples": ["simulator", *sorted(_known_urls())],
        "anyOf": [
            {"const": "simulator"},
            {"type": "string", "pattern": _URL, "not": {"pattern": "/chat/completions/*$"}},
            _VARIABLE,
        ],
    }
    _text_of(endpoint["proxy"])["anyOf"] = [{"pattern": _URL}, _VARIABLE]
    headers = next(inner for inner in endpoint["headers"]["anyOf"] if inner.get("type") == "object")
    headers["propertyNames"] = {
        "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        "not": {"pattern": f"^({_ignoring_case(_OWN_HEADERS)})$"},
    }
    headers["additionalProperties"] = {"type": "string", "pattern": r"^[ -~\u0080-\u00ff]*$|\$\{"}
    text = {"type": "string"}
    section["allOf"] = [
        # one key, not two
        {
            "not": {
                "required": ["api_key_env", "api_key_file"],
                "properties": {"api_key_env": text, "api_key_file": text},
            }
        },
        {
            "if": {"required": ["simulator"]},
            "then": {"properties": {"base_url": {"anyOf": [{"const": "simulator"}, _VARIABLE]}}},
        },
        # rows and key would leave this network unencrypted
        {
            "if": {"properties": {"base_url": {"type": "string", "pattern": _PUBLIC_HTTP, **_no_variable()}}},
            "then": {"required": ["allow_http"], "properties": {"allow_http": {"const": True}}},
        },
    ]


def _known_urls() -> set[str]:
    catalogue = load_catalogue()
    return {url for name in catalogue.names() if (url := catalogue.schema_of(name).base_url)}


def _ignoring_case(pattern: str) -> str:
    """JSON Schema's patterns have no flag for it."""
    return re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", pattern)


def _text_of(value: Schema) -> Schema:
    """The alternative of a key's schema that is text."""
    return next(inner for inner in value.get("anyOf", [value]) if inner.get("type") == "string")


# -- the parameters of the known models ------------------------------------------------------------------------------


def _add_parameters(schema: Schema) -> None:
    """Check `parameters` by the form of the job's model, unless the job brings a catalogue of its own."""
    catalogue = load_catalogue()
    forms: dict[str, list[str]] = {}
    for name in catalogue.names():
        form = catalogue.schema_of(name)
        forms.setdefault(json.dumps(_form(form)), []).append(name)
        if not form.known:
            generic = name
    known = [name for name in catalogue.names() if name != generic]
    conditions = []
    for form_text, names in forms.items():
        schema["$defs"][f"Parameters of {names[0]}"] = json.loads(form_text)
        asked = {"not": {"anyOf": [{"enum": known}, _VARIABLE]}} if generic in names else {"enum": names}
        conditions.append(
            {
                "if": {
                    "properties": {"model": {"type": "string", **asked}},
                    "required": ["model"],
                    "not": {"required": ["catalogue"]},
                },
                "then": {"properties": {"parameters": {"$ref": f"#/$defs/Parameters%20of%20{names[0]}"}}},
            }
        )
    schema["properties"]["model"]["examples"] = known
    schema["allOf"] = conditions


def _form(form: FormSchema) -> Schema:
    """The parameters of one model; the prompts stand at the top level of a job."""
    given = {
        parameter.name: _parameter(parameter) for parameter in form.parameters if parameter.name not in Job.model_fields
    }
    extra = {
        "description": "Anything else for the request, sent unchecked.",
        "type": ["object", "null"],
        "propertyNames": {"not": {"enum": _NOT_EXTRA}},
    }
    return {"type": ["object", "null"], "properties": {**given, "extra": extra}, "additionalProperties": False}


def _parameter(parameter: FormParameter) -> Schema:
    about = {"description": parameter.help, "default": parameter.default}
    if parameter.example is not None:
        about["examples"] = [parameter.example]
    values = [inner for kind in (parameter.type, *parameter.also) for inner in _values(parameter, kind)]
    said = {key: value for key, value in about.items() if value not in ("", None)}
    return {**said, **(values[0] if len(values) == 1 else {"anyOf": values})}


def _values(parameter: FormParameter, kind: str) -> Iterator[Schema]:
    """What a parameter takes of one kind."""
    value: Schema = {"type": _TYPES[kind]} if kind in _TYPES else {}
    if kind in ("number", "integer"):
        bounds = {"minimum": parameter.minimum, "maximum": parameter.maximum}
        value.update({key: bound for key, bound in bounds.items() if bound is not None})
    if kind == "string" and parameter.choices:
        value["enum"] = list(parameter.choices)
        yield _VARIABLE
    if kind == "mapping" and parameter.typed == "always":
        value.update(
            {"required": ["type"], "properties": {"type": {"anyOf": [{"enum": list(parameter.choices)}, _VARIABLE]}}}
        )
    yield value
