"""The error objects that endpoints send, one usual one for each status.

Not `records.ApiError`, which is what the client understood of one: the simulator starts faster without the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in OpenAI's form, with the HTTP status it is sent with."""

    status: int
    message: str
    type: str | None = "invalid_request_error"
    param: str | None = None
    code: str | int | None = None

    def body(self) -> bytes:
        """The JSON body."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": fields})


#: status -> (type, code, message) as endpoints send them
USUAL: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("authentication_error", "invalid_api_key", "The API key is wrong."),
    402: ("unknown_error", "invalid_request_error", "Insufficient Balance"),
    403: ("permission_error", "permission_denied", "This key may not do that."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Too many requests at the same time; slow down."),
    500: ("server_error", None, "The server had an error."),
    503: ("server_error", "server_is_overloaded", "The server is overloaded; try again later."),
    529: ("overloaded_error", None, "Overloaded"),
}


def usual(status: int, **given: Any) -> Refusal:
    """The error usually sent with a status; `given` replaces its message, type, param or code."""
    family = ("server_error" if status >= 500 else "invalid_request_error", None, f"The request failed with {status}.")
    kind, code, message = USUAL.get(status, family)
    return Refusal(status, **{"message": message, "type": kind, "code": code, **given})


def invalid(message: str, param: str | None = None) -> Refusal:
    """The error of a request that cannot be understood."""
    return Refusal(400, message, param=param)
