"""A row becomes the body of one request.

Four shapes of rows, told apart by the job and by the row's keys:

    columns          the job has a `prompt` template; its `{{ column }}` are filled from the row
    prompt           the row holds `prompt`, perhaps `system_prompt` and parameters of its own
    messages         the row holds a conversation, perhaps parameters of its own
    OpenAI Batch     the row holds `body`, a whole request (with `custom_id`, `method`, `url` beside it)

A template has Jinja's syntax (rendered by minijinja, which has no way out to Python). Null renders as nothing, a
boolean, list or mapping as JSON; a column that a row lacks fails that row. `row` stands for all columns, unless one is
called so. Row data is never read as a template.

A schema of the answers (`response_format: {json_schema: ...}`) is sent as such where both the request format and the
model take one: with `request_format: messages`, unless the catalogue says that the model knows no json_schema. Else
the request asks for a JSON object and the schema stands at the end of the system prompt. Either way the answers are
held against it, so that a row cannot bring a response_format of its own.

Pure: nothing here knows files, time or the network. No error of this module repeats a row's text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import minijinja
import orjson

from batcher.catalogue import FormSchema
from batcher.errors import JobError
from batcher.job import Job
from batcher.records import Prompt
from batcher.structured import Answers
from batcher.structured.repair import instruction, with_instruction
from batcher.wholerow import ROW, columns_through_row

#: steps a template may take for one row, so that a loop over hostile data ends
_FUEL = 5_000_000

#: row keys that make a row askable without a template
SHAPES = ("messages", "prompt", "body")

_BATCH_URL_END = "/chat/completions"


class PromptError(Exception):
    """A row cannot be turned into a request; the message says why without repeating the row."""


class Builder:
    """Renders the requests of one job."""

    def __init__(self, job: Job, schema: FormSchema) -> None:
        self._schema = schema
        self._format = job.endpoint.request_format
        self._form = self._format == "form"
        self._model = job.model
        #: what a batch line's body holds beside parameters
        self._beside = {"messages", "prompt", "system_prompt", *(() if job.input.own_model else ("model",))}
        self._parameters = {key: value for key, value in job.parameters.items() if key != "extra"}
        self._extra: dict[str, Any] = dict(job.parameters.get("extra", {}))
        self._own = frozenset(parameter.name for parameter in schema.parameters) - {"system_prompt", "prompt"}
        #: what the answers have to be like, beyond being answers; None: nothing
        self.answers = Answers.of(job.parameters, job.output.repair_attempts)
        in_prompt = self.answers is not None and (self._form or not schema.takes_json_schema)
        self._instruction = instruction(self.answers.schema) if self.answers and in_prompt else None
        self._settings = self._render_parameters(self._parameters)
        self._json_mode = _is_json_mode(self._parameters)
        self._env = minijinja.Environment(undefined_behavior="strict", finalizer=_as_text)
        self._env.fuel = _FUEL
        #: templates in which `row` stands for all columns
        self._whole: set[str] = set()
        self._used = {
            name: self._compile(name, source)
            for name, source in (("prompt", job.prompt), ("system_prompt", job.system_prompt))
            if source is not None
        }

    def build(self, values: Mapping[str, Any]) -> Prompt:
        """Return the request of a row.

        Raises:
            PromptError: the row cannot be asked.
        """
        if "prompt" in self._used:
            return self._ask(self._render("system_prompt", values), self._render("prompt", values))
        if isinstance(values.get("body"), dict | str):
            return self._ask_batch_line(values)
        if values.get("messages") is not None:
            return self._ask_messages(_as_json_value(values["messages"], "messages"), values, self._overrides(values))
        if values.get("prompt") is not None:
            system = values.get("system_prompt")
            return self._ask(
                self._render("system_prompt", values) if system is None else _text(system, "system_prompt"),
                _text(values["prompt"], "prompt"),
                self._overrides(values),
            )
        raise PromptError("the row has no prompt, no messages and no body, and the job has no prompt template")

    @property
    def schema_in_prompt(self) -> bool:
        """The schema of the answers stands in the system prompt, since it cannot be sent otherwise."""
        return self._instruction is not None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that the templates need."""
        return frozenset().union(*self._used.values())

    @property
    def needs_whole_rows(self) -> bool:
        """A template sees all columns at once."""
        return bool(self._whole)

    def check_columns(self, columns: Iterable[str]) -> None:
        """Raise JobError if the input, having these columns, cannot be asked by this job.

        From then on, if one of them is called `row`, that column is what a template means by it.
        """
        columns = list(columns)
        if ROW in columns:
            self._used.update({name: self._variables(name) for name in self._whole})
            self._whole.clear()
        problems = []
        for name, used in self._used.items():
            for column in sorted(used - set(columns)):
                close = difflib.get_close_matches(column, columns, 1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                problems.append(f"{name}: the input has no column '{column}'{hint} (it has {', '.join(columns)})")
        if "prompt" not in self._used and not set(SHAPES) & set(columns):
            problems.append(
                f"prompt: missing, and the input has none of the columns {', '.join(SHAPES)} that could stand for it"
                f" (it has {', '.join(columns)})"
            )
        if problems:
            raise JobError(problems)

    # -- templates

    def _compile(self, name: str, source: str) -> frozenset[str]:
        try:
            self._env.add_template(name, source)
        except minijinja.TemplateError as error:
            raise JobError(f"{name}: line {error.line} of the template: {error.detail}") from None
        used = self._variables(name)
        if ROW not in used:
            return used
        self._whole.add(name)
        return (used - {ROW}) | columns_through_row(source)

    def _variables(self, name: str) -> frozenset[str]:
        return frozenset(self._env.undeclared_variables_in_template(name)) - frozenset(self._env.globals)

    def _render(self, name: str, values: Mapping[str, Any]) -> str | None:
        used = self._used.get(name)
        if used is None:
            return None
        try:
            given = {key: values[key] for key in used}
            if name in self._whole:
                given[ROW] = values[ROW] if ROW in values else dict(values)  # a copy: a template could empty it
            return self._env.render_template(name, **given)
        except KeyError as error:
            raise PromptError(f"the row has no column {error}, which the {name} template needs") from None
        except minijinja.TemplateError as error:
            raise PromptError(f"the {name} template fails for this row: {error.kind} in line {error.line}") from None

    # -- requests

    def _ask(self, system: str | None, prompt: str | None, own: Mapping[str, Any] | None = None) -> Prompt:
        if self._form:
            fields = {"prompt": prompt} if system is None else {"system_prompt": system, "prompt": prompt}
        else:
            user = {"role": "user", "content": prompt}
            fields = {"messages": [user] if system is None else [{"role": "system", "content": system}, user]}  # type: ignore[dict-item]
        return self._finish(fields, own)

    def _ask_messages(self, messages: Any, values: Mapping[str, Any], own: Mapping[str, Any]) -> Prompt:
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise PromptError("messages is not a list of messages")
        if messages[0].get("role") not in ("system", "developer"):
            system = values.get("system_prompt")
            system = self._render("system_prompt", values) if system is None else _text(system, "system_prompt")
            messages = messages if system is None else [{"role": "system", "content": system}, *messages]
        if not self._form:
            return self._finish({"messages": messages}, own)
        roles = [message.get("role") for message in messages]
        if roles not in (["user"], ["system", "user"]):
            raise PromptError("a conversation cannot be sent with request_format 'form', which holds one prompt")
        texts = [_text(message.get("content"), "content") for message in messages]
        return self._ask(texts[0] if len(roles) == 2 else None, texts[-1], own)

    def _ask_batch_line(self, values: Mapping[str, Any]) -> Prompt:
        body = _as_json_value(values["body"], "body")
        url = values.get("url")
        if not isinstance(body, dict):
            raise PromptError("body is not a mapping")
        if url is not None and not str(url).endswith(_BATCH_URL_END):
            raise PromptError(f"only batch lines for a url ending in {_BATCH_URL_END} can be asked")
        own = {key: value for key, value in body.items() if key not in self._beside}
        if "messages" in body:
            return self._ask_messages(body["messages"], body, own)
        if "prompt" not in body:
            raise PromptError("body holds neither messages nor a prompt")
        system = body.get("system_prompt")
        return self._ask(
            None if system is None else _text(system, "system_prompt"), _text(body["prompt"], "prompt"), own
        )

    def _finish(self, fields: dict[str, Any], own: Mapping[str, Any] | None) -> Prompt:
        if self.answers is not None and own and "response_format" in own:
            raise PromptError("the row brings a response_format of its own, but the job's json_schema is for all rows")
        if self._instruction is not None:
            fields = with_instruction(fields, self._instruction)
        request = {"model": self._model, **fields, **self._settings}
        json_mode = self._json_mode
        if own:
            merged = {**self._parameters, **own}
            request.update(self._render_parameters(merged))
            json_mode = _is_json_mode(merged)
        try:
            return Prompt(orjson.dumps(request), json_mode)
        except orjson.JSONEncodeError as error:
            raise PromptError(f"the request cannot be written as JSON: {error}") from None

    # -- parameters

    def _overrides(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that a row carries for itself, checked against the model's form schema."""
        own = {name: values[name] for name in self._own & values.keys() if values[name] is not None}
        for name, value in own.items():
            problem = self._schema.check(name, value)
            if problem:
                raise PromptError(f"the row's parameter {name}: {problem}")
        return own

    def _render_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as this request format writes them."""
        if self._instruction is not None:
            parameters = {**parameters, "response_format": "json_object"}
        sent = {name: self._schema.sent(name, value, self._format) for name, value in parameters.items()}
        if sent.get("stream") and not self._form:
            sent["stream_options"] = {"include_usage": True, **(sent.get("stream_options") or {})}
        return {**sent, **self._extra}


def _is_json_mode(parameters: Mapping[str, Any]) -> bool:
    wanted = parameters.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    return kind in ("json_object", "json_schema")


def _as_text(value: Any) -> Any:
    """What a template prints for a value."""
    if value is None:
        return ""
    if isinstance(value, bool | list | dict | tuple):
        return json.dumps(
            value, ensure_ascii=False, separators=(",", ":")
        )  # unlike orjson, it takes integers of any size
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{name} is not a text")
    return value


def _as_json_value(value: Any, name: str) -> Any:
    """A nested value; from a Parquet file it may arrive as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise PromptError(f"{name} is a text that is not JSON") from None
