"""The nouns of batcher: what a shard, a row, a reply, a completion and an outcome are.

Plain values without behaviour beyond their own fields. Seconds end in `_s`, bytes in `_bytes`; a `row_index` counts
from 0 within the whole input. What is made once per row or more often is not frozen, though nobody changes it: a frozen
record takes four times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeVar

from batcher.measured import Measured

Number = TypeVar("Number", int, float)
Status = Literal["completed", "failed"]


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that lie together in one input file."""

    #: position of the file in the plan's list of files
    file: int
    #: where the first row begins: a byte offset (JSONL; in the uncompressed text), a row number in the file (Parquet)
    start: int
    #: number of rows
    rows: int
    #: line of the first row in the file, from 1 (JSONL; blank lines count as lines, not as rows); 0 for Parquet
    line: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """A contiguous range of rows; its finished form is one part."""

    number: int
    first_row: int
    rows: int
    spans: tuple[Span, ...]
    #: row indexes of those that are to be asked; None for all. If some are not, the shard stays unfinished
    only: frozenset[int] | None = None

    @property
    def end_row(self) -> int:
        """Index of the row after the last one."""
        return self.first_row + self.rows


@dataclass(slots=True)
class Row:
    """One input record as read."""

    row_index: int
    #: the record's fields; empty if the record could not be read
    values: dict[str, Any]
    #: why the record cannot be asked, naming file and line; None for a good one
    problem: str | None = None


@dataclass(slots=True)
class Prompt:
    """The request of one row, ready to send."""

    #: the JSON request body
    body: bytes
    #: the answer is to be JSON, so a blank one is no answer
    json_mode: bool = False


@dataclass(slots=True)
class Reply:
    """What one attempt received in full: any status, any body."""

    status: int
    #: header names in lower case; of a repeated header the last value
    headers: dict[str, str]
    body: bytes


class FaultKind(Enum):
    """How an attempt ended without a whole reply. The value is the error code a row shows."""

    #: name resolution, connection refused or timed out: nothing was sent
    CONNECT = "connect_failed"
    #: certificate or handshake: nothing was sent
    TLS = "tls_failed"
    #: a reused connection was closed before a single byte of the answer: the keep-alive race
    STALE = "connection_was_closed"
    #: the connection broke after the request was sent
    DISCONNECTED = "disconnected"
    #: a deadline passed after the request was sent
    TIMEOUT = "timeout"
    #: the body ended early by its own framing (Content-Length, chunks)
    TRUNCATED = "truncated"
    #: what came is not HTTP, or its headers are too large
    PROTOCOL = "protocol_error"
    #: the body is larger than `max_response_bytes`
    TOO_LARGE = "response_too_large"
    #: the process has no file descriptor left
    NO_DESCRIPTORS = "no_file_descriptors"
    #: the answer was whole by HTTP's framing, but is not a completion or an error object
    INVALID = "invalid_response"


@dataclass(frozen=True, slots=True)
class Fault:
    """What one attempt met instead of a usable reply."""

    kind: FaultKind
    #: a sentence without prompt, completion, header or key
    message: str
    #: bytes of the body that did arrive
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ApiError:
    """The API's error object; `code` and `type` in the provider's words."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    http_status: int | None = None


@dataclass(slots=True)
class Usage:
    """Token counts of one completion; None where the provider does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    #: counts by name, such as `cached_tokens`
    prompt_tokens_details: dict[str, int] = field(default_factory=dict)
    #: counts by name, such as `reasoning_tokens`
    completion_tokens_details: dict[str, int] = field(default_factory=dict)
    #: the provider's whole usage object as JSON text
    raw: str | None = None


@dataclass(slots=True)
class Completion:
    """The response of the API, field by field; None where the provider sent none."""

    content: str | None
    finish_reason: str | None
    usage: Usage
    reasoning: str | None = None
    refusal: str | None = None
    id: str | None = None
    object: str | None = None
    #: seconds since 1970 UTC
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    #: JSON text of what the fields above do not hold (further choices, tool calls, logprobs), or None
    choices_raw: str | None = None


@dataclass(slots=True)
class Spent:
    """What answers used, in tokens and US dollars; None where the provider or the price list does not say."""

    prompt_tokens: int | None = None
    #: of the prompt's tokens those that were read from the provider's cache
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None

    def add(self, other: Spent) -> None:
        """Add what `other` says; unknown and known is known."""
        self.prompt_tokens = _sum(self.prompt_tokens, other.prompt_tokens)
        self.cached_tokens = _sum(self.cached_tokens, other.cached_tokens)
        self.completion_tokens = _sum(self.completion_tokens, other.completion_tokens)
        self.cost_usd = _sum(self.cost_usd, other.cost_usd)


def _sum(first: Number | None, second: Number | None) -> Number | None:
    return second if first is None else first if second is None else first + second


@dataclass(slots=True)
class Outcome:
    """The final result of a row: the answer as it was received, or why there is none."""

    row_index: int
    status: Status
    #: the last attempt's body as received; b"" if none came
    body: bytes
    #: attempts made, those of earlier runs included
    attempts: int
    #: attempts among them that may have been paid for though no answer was seen
    ambiguous: int
    #: seconds from sending to the last byte, of the attempt that decided
    latency_s: float | None
    #: when that attempt was sent, seconds since 1970 UTC
    requested_at: float | None
    #: None for a completed row
    error: ApiError | None = None
    #: what all answers to this row used, also those that could not be kept; None where nobody says
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    #: of a completed row whose job has a JSON schema, whether the answer matches it
    valid: bool | None = None
    #: the version of the job that it came from, from 1 (see `Version`)
    job_version: int = 1


@dataclass(slots=True)
class Draft:
    """An answer that does not match the job's JSON schema, of a row that is asked once more for a better one."""

    row_index: int
    #: as it was received
    body: bytes
    latency_s: float
    requested_at: float
    #: how often the row was asked for a better one, this time included
    repairs: int


@dataclass(slots=True)
class Totals:
    """Sums over the outcomes of some rows."""

    completed: int = 0
    failed: int = 0
    ambiguous: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: of the prompt tokens those that were read from the provider's cache
    cached_tokens: int = 0
    cost_usd: float = 0.0
    #: rows that used tokens at an unknown price, so that `cost_usd` is too low
    unpriced: int = 0
    #: of the completed rows those whose answers do not match the job's JSON schema
    invalid: int = 0
    #: rows from later versions of the job than its first one, by version (as text, for JSON)
    later_versions: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that have an outcome."""
        return self.completed + self.failed

    @property
    def known_cost_usd(self) -> float | None:
        """What these rows cost, at least if some are `unpriced`; None if that is not known of any."""
        says_nothing = self.completed and not (self.prompt_tokens or self.completion_tokens)
        return None if not self.cost_usd and (self.unpriced or says_nothing) else self.cost_usd

    def add(self, other: Totals) -> None:
        """Add `other` to these sums."""
        self._add(other, 1)

    def take_away(self, other: Totals) -> None:
        """Take `other`, which was a part of these sums, out of them."""
        self._add(other, -1)

    def _add(self, other: Totals, times: int) -> None:
        self.completed += times * other.completed
        self.failed += times * other.failed
        self.ambiguous += times * other.ambiguous
        self.prompt_tokens += times * other.prompt_tokens
        self.completion_tokens += times * other.completion_tokens
        self.cached_tokens += times * other.cached_tokens
        self.cost_usd += times * other.cost_usd
        self.unpriced += times * other.unpriced
        self.invalid += times * other.invalid
        for version, rows in other.later_versions.items():
            self._count_version(version, times * rows)

    def count_row(self, *, completed: bool, job_version: int, rows: int = 1) -> None:
        """Add a row or more that came from a version of the job; not what they used."""
        self.completed += rows * completed
        self.failed += rows * (not completed)
        if job_version > 1:
            self._count_version(str(job_version), rows)

    def _count_version(self, version: str, rows: int) -> None:
        if left := self.later_versions.pop(version, 0) + rows:
            self.later_versions[version] = left

    def count(self, spent: Spent | Outcome) -> None:
        """Add what one row used."""
        self.prompt_tokens += spent.prompt_tokens or 0
        self.completion_tokens += spent.completion_tokens or 0
        self.cached_tokens += spent.cached_tokens or 0
        if spent.cost_usd is not None:
            self.cost_usd += spent.cost_usd
        elif spent.prompt_tokens or spent.completion_tokens:
            self.unpriced += 1


@dataclass(frozen=True, slots=True)
class Version:
    """A job as it was run with: the first one, or a change of it that was accepted."""

    #: from 1; the rows say it in their column `job_version`
    number: int
    #: when it began, in ISO 8601
    began_at: str
    #: what differs from the version before, in words without prompts; none for the first one
    changes: tuple[str, ...]
    #: rows that came from it
    rows: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a run folder holds, by its parts."""

    #: the output folder
    path: str
    #: rows the input holds
    rows: int
    totals: Totals
    #: number of finished parts
    parts: int
    #: what a row used so far, if rows are left
    measured: Measured | None = None
    #: the versions of the job that rows came from, oldest first; one if no change was ever accepted
    versions: tuple[Version, ...] = ()

    @property
    def complete(self) -> bool:
        """Every row has an outcome in a part."""
        return self.totals.rows == self.rows


class Signal(Enum):
    """What one attempt's result says about the endpoint's capacity; the limiter acts on nothing else."""

    #: nothing: the row's own fault, or an error that has no bearing on how much may be sent
    NONE = "none"
    #: a completion came, whatever its finish reason
    SUCCESS = "success"
    #: the endpoint refused the request as one too many (429 of a rate, concurrency or ramp-up limit)
    THROTTLED = "throttled"
    #: the endpoint or its gateway had no capacity (502, 503, 504, 529), or did not answer before the deadline
    OVERLOADED = "overloaded"
    #: the endpoint is there but broken: a server error, a connection it cut, an answer that is none
    FAILING = "failing"
    #: no connection could be made; nothing was sent
    UNREACHABLE = "unreachable"
