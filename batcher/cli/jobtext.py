"""The text of a first job file, with a comment wherever its owner will want to change something.

Pure: from what was seen of the data to YAML that loads, checks and runs as it stands. It knows the words of a job file
and writes none.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import yaml

from batcher.catalogue import FormSchema, load_catalogue
from batcher.cli.looking import Look
from batcher.config.document import mask
from batcher.errors import InputError, JobError
from batcher.job import Job
from batcher.part import RESULT
from batcher.prompt import Builder, PromptError
from batcher.wholerow import ROW

MODEL: Final = "deepseek-v4-flash"
#: columns that are listed in a comment, and the widest name among them
_LISTED: Final = 30
_WIDEST: Final = 40
_MARK: Final = "b4tch3r"

_HEAD: Final = """\
# yaml-language-server: $schema=./{schema}
# A job for batcher: an API is asked once per row, and the answers land in a folder of Parquet files. From this folder:
#
#     batcher check {job}             tries everything, with one tiny request
#     batcher run {job} --dry-run     says what a run will cost, and sends nothing
#     batcher run {job}               asks; stopped in any way, the same command carries on
#
# Paths are relative to this file. `batcher models {model}` shows the parameters that the model takes.
version: 1
model: {model}
"""

_ENDPOINT: Final = """
endpoint:
  # The simulator is built in: it needs no key, costs nothing, and makes its answers up. For the real API, replace the
  # next line by these two, and output.path below by a new folder. The key itself stays in the environment.
  #   base_url: {base_url}
  #   api_key_env: {api_key_env}
  base_url: simulator
"""

_LIMITS: Final = """
limits:
  concurrency: 64                  # requests in flight, at most; the run finds by itself how many the endpoint takes
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What a first job asks for."""

    system_prompt: str
    #: the column follows
    prompt: str
    json_mode: bool = False


SUMMARY: Final = Task("You are a careful assistant. Answer with the result only.", "Summarise this in one sentence:")
LABEL: Final = Task(
    "You sort messages of customers. Answer in JSON only.",
    'Label this message as JSON, for example {"label": "complaint", "urgent": false}.\n'
    "Labels: question, complaint, praise, other.",
    json_mode=True,
)


def render_job(look: Look, *, task: Task, inputs: Sequence[str], output: str, job_name: str, schema_name: str) -> str:
    """Return the job file for data that was looked at; `inputs` and `output` are paths as the file is to name them.

    Raises:
        InputError: a template is needed, and none can name a column of this data.
    """
    form = load_catalogue().schema_of(_model_of(look))
    words = {"schema": schema_name, "job": shlex.quote(job_name), "model": form.model}
    return "".join(
        [
            _HEAD.format(**{**words, "model": _scalar(form.model)}),
            _ENDPOINT.format(
                base_url=form.base_url or "https://api.example.com/v1", api_key_env=form.api_key_env or "API_KEY"
            ),
            _input(look, inputs),
            *(_templates(look, task) if look.shape == "columns" else _own_requests(look, form)),
            *([] if look.shape == "body" else _parameters(form, json_mode=task.json_mode and look.shape == "columns")),
            _LIMITS,
            _output(look, output),
        ]
    )


def _model_of(look: Look) -> str:
    """The model that all rows ask for, if they agree on one."""
    bodies = [_body(row) for row in look.sample] if look.shape == "body" else []
    asked = {body.get("model") for body in bodies}
    model = asked.pop() if len(asked) == 1 else None
    return model if isinstance(model, str) and model and model.isprintable() and mask(model) == model else MODEL


def _body(row: Mapping[str, Any]) -> Mapping[str, Any]:
    body = row.get("body")
    body = orjson.loads(body) if isinstance(body, str) and body.lstrip().startswith("{") else body
    return body if isinstance(body, dict) else {}


# -- input and output --------------------------------------------------------------------------------------------------


def _input(look: Look, inputs: Sequence[str]) -> str:
    lines = ["", "input:"]
    if len(inputs) == 1:
        lines.append(f"  path: {_setting(inputs[0])}")
    else:
        lines += ["  path:", *(f"    - {_setting(path)}" for path in inputs)]
    name = id_column(look)
    if name is not None:
        lines.append(f"  id: {_setting(name)}")
    return "\n".join([*lines, ""])


def id_column(look: Look) -> str | None:
    """Return the first column that is called an id and tells the rows apart, but for a few duplicates."""
    for name in look.columns:
        values = [row.get(name) for row in look.sample]
        plain = all(type(value) in (str, int) for value in values)
        if name.lower().endswith(("id", "key")) and plain and len(set(values)) > 0.9 * len(values):
            return name if mask(name) == name else None
    return None


def _output(look: Look, output: str) -> str:
    taken = sorted(set(RESULT.names) & set(look.columns))
    lines = ["", "output:", f"  path: {_setting(output)}"]
    if taken:
        some = ", ".join(taken[:3]) + (" and more" if len(taken) > 3 else "")
        lines.append(f"  # the input has columns named as batcher's are: {some}")
        lines.append(f"  prefix: {_free_prefix(look.columns)}")
    return "\n".join([*lines, ""])


def _free_prefix(columns: Iterable[str]) -> str:
    columns = set(columns)
    candidates = ("batcher_" + "_" * more for more in range(len(columns) + 1))
    return next(prefix for prefix in candidates if not {prefix + name for name in RESULT.names} & columns)


# -- prompts -----------------------------------------------------------------------------------------------------------


def _templates(look: Look, task: Task) -> Iterator[str]:
    usable = template_columns(look.columns)
    if not usable:
        raise InputError(
            f"no template can name a column of this input ({', '.join(map(json.dumps, look.columns))}):"
            " rename the one to ask about to a word of letters, digits and underscores"
        )
    yield "\n# Columns of the input, for the templates:\n"
    width = min(_WIDEST, max(len(usable.get(name, name)) for name in look.columns) + 6)
    for name, kind in list(look.columns.items())[:_LISTED]:
        shown = f"{{{{ {usable[name]} }}}}" if name in usable else json.dumps(name)
        yield f"#   {shown:<{width}}  {kind}{'' if name in usable else '; rename it to use it'}\n"
    if len(look.columns) > _LISTED:
        yield f"#   and {len(look.columns) - _LISTED} more\n"
    yield _block("system_prompt", task.system_prompt)
    yield _block("prompt", f"{task.prompt}\n\n{{{{ {usable[_main_column(look, list(usable))]} }}}}")


def template_columns(names: Iterable[str]) -> dict[str, str]:
    """Return how a template writes each column that it can use: by its name, else through `row`, as a trial shows."""
    names = list(names)
    found = {name: next((way for way in _ways(name, names) if _is_filled_in(name, way)), None) for name in names}
    return {name: way for name, way in found.items() if way is not None}


def _ways(name: str, names: Collection[str]) -> Iterator[str]:
    yield name
    if ROW not in names and mask(name) == name:
        yield f"{ROW}[{json.dumps(name)}]"


def _is_filled_in(name: str, way: str) -> bool:
    values = {"version": 1, "model": MODEL, "endpoint": {"base_url": "simulator"}, "input": {"path": "in"}}
    try:
        job = Job.model_validate({**values, "prompt": f"{{{{ {way} }}}}", "output": {"path": "out"}})
        body = Builder(job, load_catalogue().schema_of(MODEL)).build({name: _MARK}).body
    except (JobError, PromptError):
        return False
    return _MARK.encode() in body


def _main_column(look: Look, usable: Sequence[str]) -> str:
    """The column with the longest texts; without any text the first one."""

    def length(name: str) -> int:
        return sum(len(value) for row in look.sample if isinstance(value := row.get(name), str))

    return max(usable, key=length)


def _own_requests(look: Look, form: FormSchema) -> Iterator[str]:
    """What stands in place of templates where the rows bring their own requests."""
    if look.shape == "body":
        yield "\n# Every row is a whole request, a line of an OpenAI Batch file. Its `body` is sent as it is, with\n"
        yield "# the model above if it names none.\n"
        return
    own = [parameter.name for parameter in form.parameters if parameter.name in look.columns]
    own = [name for name in own if name not in ("prompt", "system_prompt")]
    yield f"\n# Every row brings its own `{look.shape}`, so that no template is needed.\n"
    if own:
        yield f"# What a row says for itself wins over the parameters below: {', '.join(own)}.\n"
    yield "# For rows without a system prompt of their own:\n"
    yield "# system_prompt: You are a careful assistant.\n"


def _parameters(form: FormSchema, *, json_mode: bool) -> Iterator[str]:
    yield "\nparameters:\n"
    if form.parameter("thinking"):
        yield "  thinking: disabled               # it thinks by default, and then ignores the temperature\n"
    yield "  temperature: 0.2\n"
    yield "  max_tokens: 300                  # a longer answer is cut off there\n"
    if json_mode:
        yield "  response_format: json_object     # the prompt must hold the word JSON, and does best with an example\n"
    else:
        yield "  # response_format: json_object   # for answers in JSON; the prompt must then hold the word JSON\n"


# -- words of YAML -----------------------------------------------------------------------------------------------------


def _block(key: str, text: str) -> str:
    return f"{key}: |\n" + "".join(f"  {line}".rstrip() + "\n" for line in text.splitlines())


def _setting(text: str) -> str:
    """A value in which `${...}` would stand for a variable."""
    return _scalar(text.replace("$", "$$"))


def _scalar(text: str) -> str:
    """Text as YAML writes it: plain where that means the same."""
    try:
        plain = text.isprintable() and yaml.safe_load(f"key: {text}") == {"key": text}
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
