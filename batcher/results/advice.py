"""What to do about failed rows, by the code that they show: one table, a sentence or two each.

Keys of the job file stand in backquotes, and so do commands; a test holds that both exist.
"""

from __future__ import annotations

from typing import Final

_TOO_LONG: Final = (
    "Prompt and answer together are longer than the model allows: shorten `prompt`, cut the rows before the run, lower"
    " `parameters` max_tokens, or take a `model` with a longer context (`batcher models`)."
)
_FILTERED: Final = (
    "The provider refuses this content, and will refuse it again: look at the rows (`batcher show --failed`), reword"
    " `prompt` or `system_prompt`, or take another `model`."
)
_TOO_LARGE: Final = (
    "One request is larger than the endpoint takes at once, or than the account may use in a minute: shorten `prompt`"
    " or the rows, or have the account's limit raised."
)
_TIMEOUT: Final = (
    "The answers took longer than allowed: raise `endpoint.timeouts` (first_byte_s, total_s), lower `parameters`"
    " max_tokens, or lower `limits.concurrency` if the endpoint is slow under load."
)
_CUT: Final = (
    "The connection broke while the answer came, again and again: long answers may exceed a time limit of the endpoint"
    " or a proxy on the way. Try `parameters` stream: true, a lower max_tokens, or run these rows again later."
)
_NOT_AN_ANSWER: Final = (
    "What came back is no chat completion: check with `batcher check` whether `endpoint.base_url` is the API itself,"
    " not a page or a proxy before it."
)
_BUSY: Final = (
    "The endpoint refused these rows many times while it answered others: lower `limits.concurrency`, or set"
    " `limits.requests_per_minute` or `limits.tokens_per_minute` to what the account may use, and run them again."
)
_BROKEN: Final = (
    "The endpoint failed on these rows in all `limits.max_attempts` attempts: run them again later; if it is always the"
    " same rows, look at them with `batcher show --failed`."
)
_REFUSED: Final = (
    "The endpoint refuses these requests as they are; the message says why. Compare the rows' own values and"
    " `parameters` with what the model takes (`batcher models`)."
)
_UNFINISHED: Final = (
    "The answers ended without saying that they are complete: raise `endpoint.timeouts` if they are long, or run these"
    " rows again later."
)

#: advice by error code, in the provider's words or in ours
ADVICE: Final[dict[str, str]] = {
    "invalid_row": "These lines of the input are no rows; the message names file and line. Mend them and use a new"
    " `output.path`. `input.on_bad_row` stop finds such lines before anything is sent.",
    "row_cannot_be_asked": "No request can be made of these rows: a column that `prompt` or `system_prompt` uses is"
    " missing in them, or a parameter of their own is wrong. Mend the rows, or use in the templates only columns that"
    " all rows have.",
    "context_length_exceeded": _TOO_LONG,
    "string_above_max_length": _TOO_LONG,
    "content_filter": _FILTERED,
    "request_too_large": _TOO_LARGE,
    "rate_limit_exceeded": _BUSY,
    "blank_content": "JSON was asked for and only blanks came: ask for it in `prompt`, with an example, raise"
    " `parameters` max_tokens, or ask for response_format: text.",
    "response_too_large": "The answer is larger than `endpoint.max_response_bytes`: raise it, or lower `parameters`"
    " max_tokens or n.",
    "timeout": _TIMEOUT,
    "disconnected": _CUT,
    "connection_was_closed": _CUT,
    "truncated": _CUT,
    "connect_failed": _BUSY,
    "tls_failed": _NOT_AN_ANSWER,
    "no_file_descriptors": "This process ran out of file descriptors: raise the limit (ulimit -n) or lower"
    " `limits.concurrency`.",
    "protocol_error": _NOT_AN_ANSWER,
    "invalid_response": _NOT_AN_ANSWER,
    "unreadable": "An answer came that batcher cannot read; it is kept only here. Please report it with the model's"
    " and the endpoint's name.",
    "no_finish_reason": _UNFINISHED,
    "unknown_finish_reason": _UNFINISHED,
    "finish_reason_error": _BROKEN,
    "insufficient_system_resource": _BUSY,
    "error_with_http_200": _REFUSED,
    "server_error": _BROKEN,
    "invalid_request_error": _REFUSED,
}

#: for codes of a provider's own, by HTTP status
_BY_STATUS: Final[dict[int, str]] = {
    408: _TIMEOUT,
    409: _BROKEN,
    413: _TOO_LARGE,
    425: _BUSY,
    429: _BUSY,
    502: _BUSY,
    503: _BUSY,
    504: _BUSY,
    529: _BUSY,
}


def advice(code: str | None, http_status: int | None) -> str:
    """Return what to do about rows that failed with this code and status, in words."""
    known = ADVICE.get((code or "").lower())
    if known is not None:
        return known
    if http_status is None:
        return _BROKEN
    return _BY_STATUS.get(http_status) or (_REFUSED if 200 <= http_status < 500 else _BROKEN)
