"""Response bytes become a `Completion` or an `ApiError`, whether they came as JSON or as server-sent events. Pure."""

from batcher.completion.answer import MAX_MESSAGE, parse, parse_error

__all__ = ["MAX_MESSAGE", "parse", "parse_error"]
