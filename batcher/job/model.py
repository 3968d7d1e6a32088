"""The job as typed, frozen values: what may stand in a job file, and what each key means.

Types are strict: no text becomes a number, no number a truth value. Rules that need more than one section, the
catalogue or the environment are checked where the job is loaded. The validation context may hold `path`, the job file,
and `folder`, against which relative paths are resolved.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from batcher.job.answerschema import with_answer_schema
from batcher.job.baseurl import SIMULATOR, base_url_problem, proxy_problem
from batcher.job.localpath import LocalPath, Patterns, folder_of
from batcher.structured import SchemaError

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: headers that the client or the protocol sets
_OWN_HEADERS: Final = frozenset(
    {"authorization", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)


def _columns(value: Any) -> Any:
    """Return `all`, or a tuple of column names."""
    if value == "all":
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be all or a list of column names")
    if len(set(value)) < len(value):
        raise ValueError("names a column twice")
    return tuple(value)


def _section(value: Any) -> Any:
    """A section whose keys are all left out, which YAML reads as null, has their defaults."""
    return {} if value is None else value


def _variable_name(value: str) -> str:
    if not _VARIABLE_NAME.fullmatch(value):
        raise ValueError("must be the name of an environment variable, not the key")
    return value


def _processes(value: Any) -> Any:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError("must be a whole number from 1 on, or auto")
    return value


def _version_one(value: int) -> int:
    if value != 1:
        raise ValueError("this batcher reads job files of version 1")
    return value


VariableName = Annotated[str, AfterValidator(_variable_name)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False)


class Timeouts(_Section):
    """How long an attempt may take, in seconds."""

    connect_s: float = Field(default=30.0, gt=0, description="Until the connection stands.")
    first_byte_s: float = Field(
        default=660.0, gt=0, description="Until the answer begins; blank lines are no beginning."
    )
    total_s: float = Field(default=1800.0, gt=0, description="Until the answer is complete.")


class Simulator(_Section):
    """How the built-in endpoint behaves."""

    latency_s: float = Field(default=0.05, ge=0, le=86400, description="Median time of an answer, in seconds.")
    spread: float = Field(default=0.3, ge=0, le=5, description="Sigma of the log-normal latency; 0 makes it fixed.")
    max_concurrency: int | None = Field(
        default=None, ge=1, description="Requests in flight above which it answers 429."
    )
    script: LocalPath | None = Field(default=None, description="File that says which requests meet which faults.")
    ledger: LocalPath | None = Field(default=None, description="File to which it adds a line per request.")
    seed: int = Field(default=0, description="Makes latencies and answers repeatable.")
    api_key_env: VariableName | None = Field(default=None, description="Variable with the key it asks for.")


class Endpoint(_Section):
    """Where and how the API is reached."""

    allow_http: bool = Field(default=False, description="Allow unencrypted http to a host that is not a private one.")
    base_url: str = Field(
        description='URL to which "/chat/completions" is appended, or "simulator" for the built-in endpoint.'
    )
    api_key_env: VariableName | None = Field(default=None, description="Environment variable that holds the API key.")
    api_key_file: LocalPath | None = Field(default=None, description="File that holds the API key and nothing else.")
    request_format: Literal["messages", "form"] = Field(
        default="messages",
        description="messages: OpenAI's chat format; form: flat fields system_prompt and prompt.",
    )
    timeouts: Annotated[Timeouts, BeforeValidator(_section)] = Field(
        default_factory=Timeouts, description="How long an attempt may take."
    )
    max_response_bytes: int = Field(default=16 << 20, ge=1024, description="Bytes; a larger answer fails its row.")
    ca_file: LocalPath | None = Field(default=None, description="Certificates to trust instead of the system's (PEM).")
    headers: Annotated[dict[str, str], BeforeValidator(_section)] = Field(
        default_factory=dict, repr=False, description="Further request headers; secrets as ${VARIABLE}."
    )
    proxy: str | None = Field(default=None, repr=False, description="URL of an HTTP proxy; none is taken by itself.")
    simulator: Annotated[Simulator, BeforeValidator(_section)] = Field(
        default_factory=Simulator, description="How the built-in endpoint behaves; only with base_url simulator."
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str, info: ValidationInfo) -> str:
        problem = None if value == SIMULATOR else base_url_problem(value, allow_http=info.data.get("allow_http", False))
        if problem:
            raise ValueError(problem)
        return value.rstrip("/")

    @field_validator("api_key_file")
    @classmethod
    def _check_one_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and info.data.get("api_key_env"):
            raise ValueError("give api_key_env or api_key_file, not both")
        return value

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError("holds a name that no header can have")
            if name.lower() in _OWN_HEADERS:
                hint = "; name the key's variable in endpoint.api_key_env" if name.lower() == "authorization" else ""
                raise ValueError(f"{name} is set by batcher{hint}")
            if any(character < " " or character == "\x7f" or character > "\xff" for character in text):
                raise ValueError(f"the value of {name} holds a character that no header can carry")
        return value

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: str | None) -> str | None:
        if value is not None and (problem := proxy_problem(value)):
            raise ValueError(problem)
        return value

    @field_validator("simulator")
    @classmethod
    def _check_simulator(cls, value: Simulator, info: ValidationInfo) -> Simulator:
        if info.data.get("base_url", SIMULATOR) != SIMULATOR:
            raise ValueError("only goes with base_url: simulator")
        return value


class Input(_Section):
    """The rows."""

    path: Patterns = Field(
        description="A file, folder or glob, or a list of them: .jsonl, .ndjson (+ .gz, .zst), .parquet, .pq."
    )
    id: str | None = Field(default=None, min_length=1, description="Column that identifies a row; default: its number.")
    on_bad_row: Literal["fail", "stop"] = Field(
        default="fail", description="fail: a row that cannot be read fails alone; stop: nothing is sent."
    )
    own_model: bool = Field(
        default=True, description="OpenAI Batch lines ask the model that they name; false: all rows ask `model`."
    )


class Limits(_Section):
    """How hard the endpoint is pressed and how long a run puts up with failure; may change between runs."""

    concurrency: int = Field(
        default=256, ge=1, description="Requests in flight at most; the adaptive limit stays below."
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="Attempts started per minute at most.")
    tokens_per_minute: int | None = Field(default=None, ge=1, description="Tokens of prompts and answers per minute.")
    max_attempts: int = Field(
        default=6, ge=1, description="Attempts that fail for the row's own sake, after which it fails."
    )
    max_outage_s: float = Field(default=43200.0, ge=0, description="Seconds without an answer after which a run ends.")
    max_inflight_mb: int = Field(
        default=128,
        ge=1,
        description="Megabytes of requests and answers held at a time, so that huge prompts do not multiply.",
    )
    max_total_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of prompts and answers, of all runs together, at which a run stops."
    )
    max_cost_usd: float | None = Field(
        default=None, gt=0, description="US dollars, of all runs together, at which a run stops; needs known prices."
    )
    max_runtime_s: float | None = Field(
        default=None, gt=0, description="Seconds after which one run stops, as in a nightly window."
    )
    max_unsure_share: float = Field(
        default=1.0,
        ge=0,
        description="Attempts perhaps paid for in vain, per completed row, at which a run stops (after 100).",
    )
    max_full_disk_s: float = Field(default=60.0, ge=0, description="Seconds to wait for room on a full disk.")
    grace_s: float = Field(default=60.0, ge=0, description="Seconds to finish rows in flight after Ctrl-C or SIGTERM.")


class Pricing(_Section):
    """What tokens cost, in US dollars per million; for a model whose prices are not known, or are not yours."""

    input: float = Field(ge=0, description="A million tokens of prompts.")
    cached_input: float | None = Field(
        default=None, ge=0, description="A million tokens of prompts read from the provider's cache; default: as input."
    )
    output: float = Field(ge=0, description="A million tokens of answers.")


class Output(_Section):
    """The run folder and what its parts hold."""

    path: LocalPath = Field(description="The run folder, made where it is missing.")
    columns: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_columns)] = Field(
        default="all", description="Input columns to carry over: all, or a list of names."
    )
    prefix: str = Field(default="", description="Put before the names of the added columns, when names would collide.")
    rows_per_part: int = Field(default=10000, ge=1, description="Rows of a part; 256 MB of input end one too.")
    flatten: bool | str = Field(
        default=False,
        description="true: the fields of the answers' JSON schema become columns; a text is put before their names.",
    )
    repair_attempts: int = Field(
        default=1, ge=0, le=10, description="How often to ask again where an answer does not match the JSON schema."
    )

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if not re.fullmatch("[A-Za-z0-9_]*", value):
            raise ValueError("must be made of letters, digits and underscores")
        return value

    @field_validator("flatten")
    @classmethod
    def _check_flatten(cls, value: bool | str) -> bool | str:
        if isinstance(value, str) and not re.fullmatch("[A-Za-z0-9_]+", value):
            raise ValueError("must be true, false, or letters, digits and underscores to put before the names")
        return value


class Engine(_Section):
    """Who works on the shards."""

    kind: Literal["local"] = Field(default="local", description="local: this machine.")
    processes: Annotated[int | Literal["auto"], BeforeValidator(_processes)] = Field(
        default=1, description="Worker processes; auto: as many as there are CPUs and work for them."
    )


class Job(_Section):
    """One job file: rows, prompt, model, endpoint and output folder."""

    version: Annotated[int, AfterValidator(_version_one)] = Field(description="Version of the job file's format: 1.")
    name: str = Field(default="job", min_length=1, description="Name in messages; default: the file's stem.")
    model: str = Field(min_length=1, description="The model to request.")
    catalogue: LocalPath | None = Field(default=None, description="File with the form schema of a model of your own.")
    endpoint: Annotated[Endpoint, BeforeValidator(_section)] = Field(description="Where and how the API is reached.")
    input: Annotated[Input, BeforeValidator(_section)] = Field(description="The rows.")
    system_prompt: str | None = Field(default=None, repr=False, description="Template of the system prompt.")
    prompt: str | None = Field(
        default=None, repr=False, description="Template of the prompt: {{ column }}; rows may bring prompts instead."
    )
    parameters: Annotated[dict[str, Any], BeforeValidator(_section)] = Field(
        default_factory=dict,
        repr=False,
        description="Parameters of the API, as `batcher models NAME` lists them, and `extra` for others.",
    )
    limits: Annotated[Limits, BeforeValidator(_section)] = Field(
        default_factory=Limits, description="How hard the endpoint is pressed."
    )
    pricing: Pricing | None = Field(default=None, description="What tokens cost, in US dollars per million.")
    output: Annotated[Output, BeforeValidator(_section)] = Field(description="The run folder and what its parts hold.")
    engine: Annotated[Engine, BeforeValidator(_section)] = Field(
        default_factory=Engine, description="Who works on the shards."
    )

    @field_validator("parameters")
    @classmethod
    def _check_answer_schema(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            return with_answer_schema(value, folder_of(info))
        except SchemaError as error:
            raise ValueError(f"response_format: {error}") from None

    _path: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        self._path = (context or {}).get("path")

    @property
    def path(self) -> Path | None:
        """The job file, absolute; None for a job that stands in none."""
        return self._path

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, as JSON values; a run is resumed only by a job with the same identity."""
        return {
            "model": self.model,
            "endpoint": {"base_url": self.endpoint.base_url, "request_format": self.endpoint.request_format},
            "system_prompt": self.system_prompt,
            "prompt": self.prompt,
            "parameters": copy.deepcopy(self.parameters),
            "input": {
                "id": self.input.id,
                "on_bad_row": self.input.on_bad_row,
                **({} if self.input.own_model else {"own_model": False}),
            },
            "output": {
                "columns": self.output.columns if self.output.columns == "all" else list(self.output.columns),
                "prefix": self.output.prefix,
                "rows_per_part": self.output.rows_per_part,
                **({"flatten": self.output.flatten} if self.output.flatten else {}),
            },
        }
