"""What the simulator answers to a question, and which requests it refuses."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess, start
from batcher.simulator.question import Question, read_question
from batcher.simulator.writing import count_tokens, latency_s, noise, write
from tests.harness import digest
from tests.simulator_client import CHAT, FORM, PATH, PROMPT, ask, call, counts, lines


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    """A simulator that answers at once and refuses nothing."""
    with start(SimulatorOptions(latency_s=0)) as running:
        yield running


def question(**fields: object) -> Question:
    """A checked question."""
    read = read_question(json.dumps({**FORM, **fields}).encode())
    assert isinstance(read, Question)
    return read


def test_both_request_formats_of_one_prompt_get_the_same_answer(simulator: SimulatorProcess) -> None:
    """Messages and flat fields are two ways to ask the same question."""
    chat, form = ask(simulator, CHAT), ask(simulator, FORM)
    assert chat["choices"] == form["choices"]
    assert chat["usage"] == form["usage"]


def test_answer_has_every_field_and_names_its_prompt(simulator: SimulatorProcess) -> None:
    """The id carries the digest of the prompt, so a test can tell whose answer it is; the content quotes the prompt."""
    answer = ask(simulator, CHAT)
    assert answer["id"] == "chatcmpl-" + digest(PROMPT)
    assert {"object", "created", "model", "choices", "usage", "system_fingerprint"} < set(answer)
    assert answer["model"] == "m"
    assert "twice for the blue kettle?" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_answer_follows_from_prompt_and_seed() -> None:
    """The same prompt and seed always write the same text, another seed or prompt writes others."""

    def texts(seed: int, word: str) -> list[str]:
        asked = [question(prompt=f"{word} {number}") for number in range(20)]
        return [write(q, noise(q.sha256, seed), seed=seed, model="m").content for q in asked]

    assert texts(1, "a") == texts(1, "a")
    assert texts(1, "a") != texts(2, "a")
    assert len(set(texts(1, "a") + texts(1, "b"))) == 40


@pytest.mark.parametrize("response_format", ["json_object", {"type": "json_object"}])
def test_json_mode_answers_with_an_object(simulator: SimulatorProcess, response_format: object) -> None:
    """The flat form takes the response format as a word or as a mapping."""
    answer = ask(simulator, {**FORM, "response_format": response_format})
    content = json.loads(answer["choices"][0]["message"]["content"])
    assert isinstance(content["label"], str)
    assert 0 <= content["confidence"] <= 1


def test_max_tokens_cuts_the_answer(simulator: SimulatorProcess) -> None:
    """A cut answer says so and costs no more than was allowed."""
    answer = ask(simulator, {**CHAT, "max_tokens": 7})
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 7


def test_thinking_adds_reasoning_and_its_tokens(simulator: SimulatorProcess) -> None:
    """Reasoning comes beside the content and is counted within the completion."""
    plain, thought = ask(simulator, CHAT), ask(simulator, {**CHAT, "thinking": {"type": "enabled"}})
    reasoning = thought["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert reasoning == count_tokens(thought["choices"][0]["message"]["reasoning_content"])
    assert thought["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"] + reasoning


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("abcdefghij", 3), ("abcdefghijk", 4), ("漢字かな한글漢字漢字", 6), ("漢字abcd", 3)]
)
def test_tokens_are_counted_by_characters(text: str, tokens: int) -> None:
    """0.3 tokens a character, 0.6 for Chinese, Japanese and Korean, rounded up."""
    assert count_tokens(text) == tokens


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"system_prompt": 5}, "system_prompt"),
        ({"messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ({"model": 5}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0.2"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"frequency_penalty": True}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": "yaml"}, "response_format"),
    ],
)
def test_wrong_field_is_refused_by_name(change: dict[str, object], param: str) -> None:
    """A parameter of the wrong type or out of range is a 400 that names it."""
    refusal = read_question(json.dumps({**FORM, **change}).encode())
    assert not isinstance(refusal, Question)
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[]", b"{}", b'{"messages": []}', b'{"messages": [{"role": 1}]}']
)
def test_body_that_asks_nothing_is_refused(body: bytes) -> None:
    """Invalid JSON, and JSON without messages or prompt, are a 400 and never an exception."""
    refusal = read_question(body)
    assert not isinstance(refusal, Question)
    assert refusal.status == 400


def test_response_format_as_a_word_is_for_the_flat_form_only(simulator: SimulatorProcess) -> None:
    """Beside messages it must be an object, as OpenAI has it."""
    assert ask(simulator, {**CHAT, "response_format": "json_object"})["error"]["param"] == "response_format"


def test_errors_are_openai_shaped(simulator: SimulatorProcess) -> None:
    """A refusal has message, type, param and code; so has a path where nothing is."""
    assert set(ask(simulator, {"model": "m"})["error"]) == {"message", "type", "param", "code"}
    assert call(simulator, "/v1/nowhere")[0].status == 404
    assert call(simulator, PATH)[0].status == 405


@pytest.mark.parametrize(
    ("body", "usage"),
    [(CHAT, False), ({**CHAT, "stream_options": {"include_usage": True}}, True), (FORM, True)],
)
def test_stream_adds_up_to_the_whole_answer(simulator: SimulatorProcess, body: dict[str, Any], usage: bool) -> None:
    """The deltas joined are the content; the usage comes last where it is asked for, always with the flat form."""
    whole = ask(simulator, {key: value for key, value in body.items() if key != "stream_options"})
    text = call(simulator, "/chat/completions", {**body, "stream": True})[1].decode()
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert len(deltas) > 4
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [delta["finish_reason"] for delta in deltas if delta["finish_reason"]] == ["stop"]
    assert [chunk["usage"] for chunk in chunks if "usage" in chunk] == [whole["usage"]] * usage


def test_key_and_model_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is a 401, a wrong model a 404; the ledger tells who was authorized and never holds key or prompt."""
    monkeypatch.setenv("SIMULATED_KEY", "sk-canary")
    ledger = tmp_path / "ledger.jsonl"
    with start(SimulatorOptions(latency_s=0, api_key_env="SIMULATED_KEY", model="m", ledger=ledger)) as running:
        good = {"Authorization": "Bearer sk-canary"}
        assert ask(running, CHAT)["error"]["code"] == "invalid_api_key"
        assert ask(running, CHAT, Authorization="Bearer sk-canarz")["error"]["code"] == "invalid_api_key"
        assert ask(running, {**CHAT, "model": "other"}, **good)["error"]["code"] == "model_not_found"
        assert ask(running, CHAT, **good)["model"] == "m"
        assert call(running, "/v1/models")[0].status == 401
        assert json.loads(call(running, "/v1/models", headers=good)[1])["data"][0]["id"] == "m"
        assert counts(running)["by_status"] == {"200": 1, "401": 2, "404": 1}
    assert [line["authorized"] for line in lines(ledger, "request")] == [False, False, True, True]
    assert not any(word in ledger.read_text() for word in ("canary", "kettle", "kind"))


def test_latency_is_lognormal_and_belongs_to_the_prompt() -> None:
    """Median and sigma are those asked for; the same prompt waits the same time; no spread is a fixed time."""
    randoms = [noise(hashlib.sha256(b"%d" % number).digest(), 7) for number in range(4000)]
    waits = [latency_s(random, 0.5, 0.3) for random in randoms]
    assert statistics.median(waits) == pytest.approx(0.5, rel=0.03)
    quarters = statistics.quantiles(waits, n=4)
    assert quarters[2] / quarters[0] == pytest.approx(2.718281828 ** (0.3 * 1.349), rel=0.03)
    assert waits == [latency_s(random, 0.5, 0.3) for random in randoms]
    assert {latency_s(random, 0.5, 0) for random in randoms} == {0.5}
