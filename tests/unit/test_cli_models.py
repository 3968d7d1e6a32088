"""Rules of what `batcher models` shows: it is made from the form schema, and its examples work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from batcher.catalogue import Catalogue, FormSchema, RequestFormat, load_catalogue, warnings
from batcher.cli.models import render_catalogue, render_model
from batcher.job import load_job
from batcher.prompt import Builder

OWN = """\
model: my-own
title: Mine
base_url: https://models.example/v1
notes: [It's new.]
parameters:
  - {name: prompt, type: string, required: true}
  - {name: style, type: string, required: true, choices: [plain, rich], help: How it writes.}
  - {name: depth, type: integer, minimum: 1}
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The built-in catalogue and a model of the user's own."""
    path = tmp_path_factory.mktemp("own") / "own.yaml"
    path.write_text(OWN)
    return load_catalogue(path)


def curl_of(page: str) -> list[str]:
    """The words of the curl command on a page, as a shell reads them."""
    match = re.search(r"^curl .*?\}'$", page, re.DOTALL | re.MULTILINE)
    assert match is not None
    return shlex.split(match[0])


def job_text_of(page: str) -> str:
    """The job file on a page, which stands at its end."""
    return page[page.index("\nversion: 1\n") :]


def test_table_lists_every_model(catalogue: Catalogue) -> None:
    """Name, title, context and the name of service, one line each, in columns."""
    lines = render_catalogue(catalogue).splitlines()
    assert lines[:6] == [
        "MODEL              TITLE                                        CONTEXT    SERVED AS",
        "deepseek-flash     DeepSeek Flash                               1,000,000",
        "deepseek-v4-flash  DeepSeek V4 Flash                            1,000,000  deepseek-flash",
        "deepseek-v4-pro    DeepSeek V4 Pro                              1,000,000",
        "my-own             Mine",
        "openai-compatible  Any other model of an OpenAI-compatible API",
    ]


def test_page_shows_facts_and_every_parameter(catalogue: Catalogue) -> None:
    """Each parameter has a line with type, requirement, default, values and help; the facts are sentences."""
    page = render_model(catalogue.schema_of("deepseek-v4-flash"))
    assert page.startswith("deepseek-v4-flash: DeepSeek V4 Flash\n")
    assert "- Served as deepseek-flash" in page
    assert "- At most 2,500 requests in flight per account" in page
    assert "- Without effect while it thinks: temperature, presence_penalty, frequency_penalty." in page
    assert re.search(r"^prompt +string +yes +The user's text\.$", page, re.MULTILINE)
    assert re.search(r"^max_tokens +integer +1 to 393216 +Longest", page, re.MULTILINE)
    assert re.search(r"^stream +boolean +false +Receive", page, re.MULTILINE)
    assert re.search(r"^response_format +string\|mapping +text +text, json_object +json_object", page, re.MULTILINE)
    for parameter in catalogue.schema_of("deepseek-v4-flash").parameters:
        assert re.search(rf"^{parameter.name} ", page, re.MULTILINE), parameter.name
    assert max(map(len, page.splitlines())) <= 125


def test_another_model_has_another_page(catalogue: Catalogue) -> None:
    """List and examples come from the form alone: a required parameter without example gets its first choice."""
    page = render_model(catalogue.schema_of("my-own"), request_format="messages")
    assert "- It's new." in page
    assert "temperature" not in page
    assert "system" not in page
    words = curl_of(page)
    assert words[1] == "https://models.example/v1/chat/completions"
    assert not any("Authorization" in word for word in words)
    assert json.loads(words[-1]) == {
        "model": "my-own",
        "messages": [{"role": "user", "content": "..."}],
        "style": "plain",
    }


def test_unknown_model_is_shown_with_the_generic_form(catalogue: Catalogue) -> None:
    """The page says that it is a guess, under the name that was asked for."""
    page = render_model(catalogue.schema_of("mine"))
    assert page.startswith("mine: ")
    assert "Not in the catalogue by name" in page
    assert '"model": "mine"' in page


def test_both_request_formats_are_shown_unless_one_is_asked_for(catalogue: Catalogue) -> None:
    """The form format has flat fields, the messages format a conversation."""
    schema = catalogue.schema_of("deepseek-v4-flash")
    both = render_model(schema)
    assert "request_format: messages" in both
    assert "request_format: form" in both
    assert "request_format: messages" not in render_model(schema, request_format="form")
    form = json.loads(curl_of(render_model(schema, request_format="form"))[-1])
    assert form["response_format"] == "text"
    assert form["thinking"] == {"type": "disabled"}
    assert {"system_prompt", "prompt"} <= form.keys()


@pytest.mark.parametrize("request_format", ["messages", "form"])
@pytest.mark.parametrize("model", ["deepseek-v4-flash", "deepseek-flash", "deepseek-v4-pro", "mine"])
def test_shown_job_file_sends_the_shown_request(
    catalogue: Catalogue, tmp_path: Path, model: str, request_format: RequestFormat
) -> None:
    """The job of a page loads, warns of nothing it can help, and asks exactly what its curl command asks."""
    schema = catalogue.schema_of(model)
    page = render_model(schema, request_format=request_format)
    (tmp_path / "job.yaml").write_text(job_text_of(page))
    job = load_job(tmp_path / "job.yaml", environ={})
    line = re.search(r"such as (\{.*\}):$", page, re.MULTILINE)
    assert line is not None
    words = curl_of(page)
    asked: dict[str, Any] = json.loads(Builder(job, schema).build(json.loads(line[1])).body)
    assert asked == json.loads(words[-1])
    assert words[1] == f"{job.endpoint.base_url}/chat/completions"
    assert f"Authorization: Bearer ${job.endpoint.api_key_env}" in words
    assert warnings(schema, job.parameters, []) == warnings(schema, {}, [])


def test_quotes_in_an_example_survive_the_shell() -> None:
    """A curl command can be pasted whatever its texts hold."""
    parameters = [{"name": "prompt", "type": "string", "required": True, "example": 'it\'s "so" $HOME'}]
    schema = FormSchema.model_validate({"model": "m", "title": "t", "parameters": parameters})
    words = curl_of(render_model(schema, request_format="form"))
    assert json.loads(words[-1])["prompt"] == 'it\'s "so" $HOME'
