"""A form schema: the parameters that a model takes, and how a value is checked against them.

The schema of a model is a YAML file of the form

    model: deepseek-flash              # the name to request
    title: DeepSeek Flash
    context_tokens: 1000000
    parameters:
      - {name: temperature, type: number, minimum: 0, maximum: 2, default: 1, help: "..."}

with the keys of `FormSchema` and `FormParameter`. It does not know jobs or files.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from batcher.config.document import did_you_mean, mismatch

ParameterType = Literal["string", "number", "integer", "boolean", "mapping", "list", "json"]
RequestFormat = Literal["messages", "form"]

_WORDS: Final[dict[str, str]] = {
    "string": "text",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "mapping": "a mapping",
    "list": "a list",
    "json": "any value",
}
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "mapping": (dict,),
    "list": (list,),
    "json": (object,),
}


def listed(value: Any) -> Any:
    """Return a YAML list as the tuple that a frozen model holds."""
    return tuple(value) if isinstance(value, list) else value


_Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
_Range = Annotated[tuple[float, float], BeforeValidator(listed)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class FormParameter(_Frozen):
    """One field of a model's request form."""

    name: str = Field(min_length=1, description="The field's name in the request.")
    type: ParameterType = Field(description="The kind of its value.")
    also: Annotated[tuple[ParameterType, ...], BeforeValidator(listed)] = Field(
        default=(), description="Further kinds that are accepted; range and choices do not bind them."
    )
    required: bool = Field(default=False, description="Whether a request needs it.")
    default: Any = Field(default=None, description="What the API assumes when it is not sent.")
    minimum: float | None = Field(default=None, description="Smallest number accepted.")
    maximum: float | None = Field(default=None, description="Largest number accepted.")
    choices: _Names = Field(default=(), description="The texts accepted; none means any.")
    typed: Literal["always", "messages"] | None = Field(
        default=None,
        description='When a text such as `enabled` is sent as {"type": "enabled"}: always, or in format messages.',
    )
    example: Any = Field(default=None, description="A value for examples, where the default is none.")
    help: str = Field(default="", description="One line for the user.")

    @property
    def values(self) -> str:
        """The choices or the range, in words: `0 to 2`; empty if there is neither."""
        if self.choices:
            return ", ".join(self.choices)
        low, high = (None if bound is None else f"{bound:.12g}" for bound in (self.minimum, self.maximum))
        if low and high:
            return f"{low} to {high}"
        return f"at least {low}" if low else f"at most {high}" if high else ""

    @property
    def expected(self) -> str:
        """What it takes, in words: `a number (0 to 2)`."""
        kinds = [_WORDS[kind] for kind in self.also]
        if self.choices:
            return f"one of {', '.join((*self.choices, *kinds))}"
        return " or ".join([_WORDS[self.type] + (f" ({self.values})" if self.values else ""), *kinds])

    def check(self, value: Any) -> str | None:
        """Say what is wrong with a value, without repeating it, or return None."""
        if any(_is_of(kind, value) for kind in self.also):
            return self._check_typed(value)
        if not _is_of(self.type, value):
            return mismatch(self.expected, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            inside = (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)
            return None if inside else f"expected {self.expected}, found {value:.12g}"
        if self.choices and value not in self.choices:
            return f"expected {self.expected}{did_you_mean(str(value), self.choices)}"
        return None

    def _check_typed(self, value: Any) -> str | None:
        """A mapping that a text could stand for must name one of the choices too."""
        if self.typed != "always" or not isinstance(value, dict) or value.get("type") in self.choices:
            return None
        return f"expected {{type: ...}} with one of {', '.join(self.choices)}"


def _is_of(kind: ParameterType, value: Any) -> bool:
    # to Python a truth value is an integer too
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, bool) and kind in ("number", "integer"))


class FormSchema(_Frozen):
    """What a model is and which parameters its request form has."""

    model: str = Field(min_length=1, description="The name to request.")
    title: str = Field(min_length=1, description="The name to read.")
    like: str | None = Field(default=None, description="A model of the catalogue whose values fill what is not given.")
    served_as: str | None = Field(default=None, description="The name under which the provider answers for this one.")
    context_tokens: int | None = Field(default=None, ge=1, description="Tokens of prompt and answer together.")
    max_output_tokens: int | None = Field(default=None, ge=1, description="Tokens of an answer.")
    concurrency: int | None = Field(default=None, ge=1, description="Requests an account may have in flight.")
    base_url: str | None = Field(default=None, description="Where the provider serves it.")
    api_key_env: str | None = Field(default=None, description="The variable that usually holds the key.")
    ignored_while_thinking: _Names = Field(default=(), description="Parameters without effect while it thinks.")
    ignored_without_thinking: _Names = Field(default=(), description="Parameters without effect unless it thinks.")
    clamped_while_thinking: dict[str, _Range] = Field(
        default_factory=dict, description="Parameters that are moved into a range while it thinks."
    )
    takes_json_schema: bool = Field(
        default=True, description="Whether response_format takes a JSON schema; else it goes into the system prompt."
    )
    json_mode_needs: str | None = Field(default=None, description="The word a prompt needs in JSON mode.")
    notes: _Names = Field(default=(), description="Facts for the user, a sentence each.")
    parameters: Annotated[tuple[FormParameter, ...], BeforeValidator(listed)] = Field(
        default=(), description="The fields of the request form."
    )
    known: bool = Field(default=True, description="False for the list that stands in for unknown models.")

    def parameter(self, name: str) -> FormParameter | None:
        """Return a parameter by its name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)

    def check(self, name: str, value: Any) -> str | None:
        """Say what is wrong with a parameter, without repeating its value, or return None."""
        parameter = self.parameter(name)
        if parameter is not None:
            return parameter.check(value)
        return (
            f"unknown parameter of {self.model}{did_you_mean(name, [parameter.name for parameter in self.parameters])}"
        )

    def sent(self, name: str, value: Any, request_format: RequestFormat) -> Any:
        """Return a parameter's value as a request carries it: of some, a text becomes a mapping with `type`."""
        parameter = self.parameter(name)
        if parameter is None or not isinstance(value, str):
            return value
        return {"type": value} if parameter.typed in ("always", request_format) else value
