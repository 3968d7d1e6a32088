"""Answers that have to match a JSON schema: how it is written, sent, checked, repaired and turned into columns."""

from batcher.structured.answers import Answers
from batcher.structured.forms import SchemaError, full_form, json_schema_of

__all__ = ["Answers", "SchemaError", "full_form", "json_schema_of"]
