"""Rules of the catalogue: which models are known, how parameters are checked, and what is warned about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batcher.catalogue import GENERIC, Catalogue, FormParameter, FormSchema, load_catalogue, warnings
from batcher.errors import JobError

FLASH = "deepseek-v4-flash"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The built-in catalogue."""
    return load_catalogue()


def test_names_list_every_model_and_the_generic_one_last(catalogue: Catalogue) -> None:
    """The names are what `batcher models` shows."""
    assert catalogue.names() == ("deepseek-flash", FLASH, "deepseek-v4-pro", GENERIC)


def test_form_of_the_default_model_has_exactly_the_fields_of_its_api(catalogue: Catalogue) -> None:
    """Name, type, range, choices and requirement of each field are those of the API's form."""
    fields = {
        parameter.name: (parameter.type, parameter.minimum, parameter.maximum, parameter.choices)
        for parameter in catalogue.schema_of(FLASH).parameters
    }
    assert fields == {
        "system_prompt": ("string", None, None, ()),
        "prompt": ("string", None, None, ()),
        "temperature": ("number", 0, 2, ()),
        "top_p": ("number", 0, 1, ()),
        "presence_penalty": ("number", -2, 2, ()),
        "frequency_penalty": ("number", -2, 2, ()),
        "max_tokens": ("integer", 1, 393216, ()),
        "response_format": ("string", None, None, ("text", "json_object")),
        "stream": ("boolean", None, None, ()),
        "thinking": ("string", None, None, ("enabled", "disabled")),
        "reasoning_effort": ("string", None, None, ("low", "medium", "high", "xhigh", "max", "ultra")),
    }
    assert [parameter.name for parameter in catalogue.schema_of(FLASH).parameters if parameter.required] == ["prompt"]


def test_facts_of_the_default_model_are_structured(catalogue: Catalogue) -> None:
    """What a check needs is data, not prose."""
    schema = catalogue.schema_of(FLASH)
    assert (schema.served_as, schema.concurrency, schema.context_tokens) == ("deepseek-flash", 2500, 1_000_000)
    assert schema.ignored_while_thinking == ("temperature", "presence_penalty", "frequency_penalty")
    assert schema.clamped_while_thinking == {"top_p": (0.95, 1.0)}


def test_model_like_another_one_differs_only_in_what_it_says(catalogue: Catalogue) -> None:
    """Values are filled from the model it is like, but for the name under which that one is served."""
    flash, pro = catalogue.schema_of("deepseek-flash"), catalogue.schema_of("deepseek-v4-pro")
    assert pro.parameters == flash.parameters
    assert pro.notes == flash.notes
    assert (flash.served_as, pro.served_as) == (None, None)
    assert (flash.concurrency, pro.concurrency) == (2500, 500)
    assert pro.clamped_while_thinking == {}


def test_unknown_model_gets_the_generic_form_under_its_name(catalogue: Catalogue) -> None:
    """Every model can be asked; that its form is a guess can be told."""
    schema = catalogue.schema_of("my-own")
    assert (schema.model, schema.known) == ("my-own", False)
    assert schema.parameters == catalogue.schema_of(GENERIC).parameters
    assert catalogue.schema_of(FLASH).known


def test_every_form_is_consistent(catalogue: Catalogue) -> None:
    """Facts name parameters that exist, every parameter has its line of help, and names are unique."""
    for schema in map(catalogue.schema_of, catalogue.names()):
        names = [parameter.name for parameter in schema.parameters]
        assert len(set(names)) == len(names)
        assert {"prompt", "system_prompt"} <= set(names)
        facts = {*schema.ignored_while_thinking, *schema.ignored_without_thinking, *schema.clamped_while_thinking}
        assert facts <= set(names)
        assert all(parameter.help.endswith(".") for parameter in schema.parameters)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("temperature", 0, None),
        ("temperature", 2.0, None),
        ("temperature", 2.01, "expected a number (0 to 2), found 2.01"),
        ("temperature", -1, "expected a number (0 to 2), found -1"),
        ("temperature", "1e-4", "expected a number (0 to 2), found text; write 0.0001"),
        ("temperature", "warm", "expected a number (0 to 2), found text"),
        ("temperature", True, "expected a number (0 to 2), found true"),
        ("max_tokens", 1, None),
        ("max_tokens", 1.0, "expected an integer (1 to 393216), found a number"),
        ("max_tokens", 393217, "expected an integer (1 to 393216), found 393217"),
        ("stream", False, None),
        ("stream", 0, "expected true or false, found a number"),
        ("system_prompt", "text", None),
        ("system_prompt", 5, "is read as a number; quote it to mean text"),
        ("response_format", "json_object", None),
        ("response_format", {"type": "json_schema"}, None),
        ("response_format", "json", "expected one of text, json_object, a mapping"),
        ("response_format", ["text"], "expected one of text, json_object, a mapping, found a list"),
        ("thinking", "enabled", None),
        ("thinking", {"type": "disabled"}, None),
        ("thinking", {"type": "maybe"}, "expected {type: ...} with one of enabled, disabled"),
        ("thinking", {}, "expected {type: ...} with one of enabled, disabled"),
        ("reasoning_effort", "hgh", "expected one of low, medium, high, xhigh, max, ultra; did you mean 'high'?"),
        ("temprature", 1, f"unknown parameter of {FLASH}; did you mean 'temperature'?"),
        ("stop", "x", f"unknown parameter of {FLASH}"),
    ],
)
def test_parameter_is_checked_by_its_form(catalogue: Catalogue, name: str, value: Any, problem: str | None) -> None:
    """Kind, range and choices bind; a problem is said without repeating text, which may be a row's."""
    assert catalogue.schema_of(FLASH).check(name, value) == problem


@pytest.mark.parametrize(
    ("keys", "good", "bad", "expected"),
    [
        ({"type": "integer", "minimum": 1}, 1, 0, "an integer (at least 1)"),
        ({"type": "number", "maximum": 1}, 1, 2, "a number (at most 1)"),
        ({"type": "string", "also": ("list",)}, ["a"], {}, "text or a list"),
        ({"type": "mapping"}, {}, [], "a mapping"),
        ({"type": "boolean"}, True, 1, "true or false"),
    ],
)
def test_expectation_is_said_in_words(keys: dict[str, Any], good: Any, bad: Any, expected: str) -> None:
    """What a parameter takes is said the same way wherever a value is refused."""
    parameter = FormParameter(name="p", **keys)
    assert parameter.expected == expected
    assert parameter.check(good) is None
    assert f"expected {expected}" in (parameter.check(bad) or "")


def test_parameter_of_any_kind_takes_everything() -> None:
    """A `json` parameter is passed through."""
    assert all(FormParameter(name="p", type="json").check(value) is None for value in (None, True, 1, "a", [], {}))


def test_text_that_stands_for_a_mapping_is_sent_as_one(catalogue: Catalogue) -> None:
    """`thinking` is always a mapping; `response_format` is one in the messages format and text in the form format."""
    schema = catalogue.schema_of(FLASH)
    assert schema.sent("thinking", "disabled", "form") == {"type": "disabled"}
    assert schema.sent("thinking", "disabled", "messages") == {"type": "disabled"}
    assert schema.sent("response_format", "json_object", "messages") == {"type": "json_object"}
    assert schema.sent("response_format", "json_object", "form") == "json_object"
    assert schema.sent("response_format", {"type": "x"}, "messages") == {"type": "x"}
    assert schema.sent("temperature", 1, "messages") == 1
    assert schema.sent("unheard_of", "x", "messages") == "x"


OWN = """\
model: my-own
like: deepseek-v4-flash
title: Mine
parameters:
  - {name: temperature, type: number, minimum: 0, maximum: 1}
  - {name: style, type: string, choices: [plain, rich], default: plain}
"""


def test_own_model_may_be_like_a_built_in_one(tmp_path: Path) -> None:
    """Its parameters replace those of the same name and follow the others; its facts are filled in."""
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    catalogue = load_catalogue(path)
    schema = catalogue.schema_of("my-own")
    assert catalogue.names() == ("deepseek-flash", FLASH, "deepseek-v4-pro", "my-own", GENERIC)
    assert (schema.known, schema.served_as, schema.concurrency) == (True, None, 2500)
    assert schema.check("temperature", 1.5) == "expected a number (0 to 1), found 1.5"
    assert schema.check("top_p", 0.5) is None
    assert schema.check("style", "rich") is None
    assert load_catalogue().names() == ("deepseek-flash", FLASH, "deepseek-v4-pro", GENERIC)


def test_own_file_wins_over_a_built_in_model(tmp_path: Path) -> None:
    """A user can correct what the built-in form says, being like the model it replaces."""
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace("my-own", FLASH))
    assert load_catalogue(path).schema_of(FLASH).title == "Mine"
    assert load_catalogue().schema_of(FLASH).title == "DeepSeek V4 Flash"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("model: m\n", ["1:1: title: required key is missing"]),
        (
            "model: m\ntitle: t\nlike: deepseek-v4-flsh\n",
            ["3:1: like: unknown model; did you mean 'deepseek-v4-flash'?"],
        ),
        ("model: m\ntitle: t\ncontext: 5\n", ["3:1: context: unknown key"]),
        (
            "model: m\ntitle: t\nparameters:\n  - {name: a, type: text}\n",
            ["4:15: parameters[0].type: expected string or number or integer or boolean or mapping or list or json"],
        ),
        (
            "model: m\ntitle: t\nparameters:\n  - {name: a, type: json}\n  - {name: a, type: json}\n",
            ["5:6: parameters[1].name: stands in the list twice"],
        ),
        (
            "model: m\ntitle: t\nparameters:\n  - {name: a, type: number, maximum: 1, default: 2, example: x}\n",
            [
                "4:41: parameters[0].default: expected a number (at most 1), found 2",
                "4:53: parameters[0].example: expected a number (at most 1), found text",
            ],
        ),
        ("model: m\ntitle: t\nclamped_while_thinking: {a: [1]}\n", None),
        ("- a\n", ["1:1: must be a mapping of keys, found a list"]),
    ],
)
def test_own_file_that_is_no_form_schema_is_refused(tmp_path: Path, text: str, problems: list[str] | None) -> None:
    """Every problem names the file and the place in it."""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(JobError) as caught:
        load_catalogue(path)
    assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
    if problems is not None:
        assert [problem.removeprefix(f"{path}:") for problem in caught.value.problems] == problems


def test_missing_own_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(JobError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_catalogue(tmp_path / "none.yaml")


THINKS = "thinking is on (the default), so temperature has no effect; set parameters.thinking to disabled to use it"
NO_WORD = "response_format is json_object, but no prompt holds the word 'json', which it needs"


@pytest.mark.parametrize(
    ("parameters", "prompts", "said"),
    [
        ({}, [], []),
        ({"temperature": 0.2}, [], [THINKS]),
        ({"temperature": 1, "presence_penalty": 0}, [], []),
        (
            {"temperature": 0, "presence_penalty": 1},
            [],
            [
                "thinking is on (the default), so temperature, presence_penalty have no effect;"
                " set parameters.thinking to disabled to use them"
            ],
        ),
        (
            {"temperature": 0, "thinking": "enabled"},
            [],
            ["thinking is on, so temperature has no effect; set parameters.thinking to disabled to use it"],
        ),
        ({"temperature": 0.2, "thinking": {"type": "disabled"}}, [], []),
        ({"temperature": 0.2, "extra": {"thinking": {"type": "disabled"}}}, [], []),
        ({"top_p": 0.9}, [], ["while thinking is on, top_p is moved into the range from 0.95 to 1"]),
        ({"top_p": 0.95}, [], []),
        (
            {"top_p": 0.9, "thinking": "disabled"},
            [],
            ["thinking is disabled, so top_p has no effect; set parameters.thinking to enabled to use it"],
        ),
        ({"response_format": "json_object"}, ["Classify", "this"], [NO_WORD]),
        ({"response_format": {"type": "json_object"}}, ["Classify"], [NO_WORD]),
        ({"response_format": "json_object"}, ["Answer in JSON.", "this"], []),
        ({"response_format": "json_object"}, [], []),
        ({"response_format": "text"}, ["Classify"], []),
    ],
)
def test_surprises_of_the_default_model_are_said(
    catalogue: Catalogue, parameters: dict[str, Any], prompts: list[str], said: list[str]
) -> None:
    """What the model silently ignores, moves or refuses is said before anything is sent, and nothing else is."""
    assert warnings(catalogue.schema_of("deepseek-flash"), parameters, prompts) == said


def test_model_that_answers_under_another_name_is_announced(catalogue: Catalogue) -> None:
    """A user who compares the names of model and answer is not left to wonder."""
    assert warnings(catalogue.schema_of(FLASH), {}, []) == [
        f"{FLASH} is served as deepseek-flash, and that is the name its answers will carry"
    ]


def test_unknown_model_is_announced(catalogue: Catalogue) -> None:
    """That a form is only the usual one is said; it knows nothing of thinking."""
    assert warnings(catalogue.schema_of("mine"), {"temperature": 0}, ["x"]) == [
        "mine is not in the catalogue: its parameters are checked against the usual ones of an OpenAI-compatible API"
    ]


def test_schema_made_in_code_is_frozen() -> None:
    """A schema handed around cannot be changed on the way."""
    schema = FormSchema(model="m", title="t")
    with pytest.raises(ValueError, match="frozen"):
        schema.model = "n"  # type: ignore[misc]
