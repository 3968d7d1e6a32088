"""What goes over the wire is what the job says, and every field that comes back has its column."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from tests.harness import BARE, batcher, table, write_job, write_rows
from tests.recording_server import Answer, Recorder, Request, as_events, as_json, completion, recording

PARAMETERS: dict[str, Any] = {
    "temperature": 0.25,
    "top_p": 0.9,
    "presence_penalty": -1.5,
    "frequency_penalty": 2,
    "max_tokens": 123,
    "response_format": "json_object",
    "stream": False,
    "thinking": "disabled",
    "extra": {"logit_bias": {"50256": -100}, "user": "batch", "seed": 7},
}
MESSAGE = {"role": "assistant", "content": "Grüße 👋", "reasoning_content": "First I greet."}
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
    "prompt_cache_hit_tokens": 4,
}
HEAD = {"id": "chatcmpl-77", "created": 1_767_225_600, "model": "flash-2026", "system_fingerprint": "fp_1"}
CALLS = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}]


def ask(recorder: Recorder, tmp_path: Path, code: int = 0, texts: tuple[str, ...] = ("hello",), **job: Any) -> pa.Table:
    """Run a job over a few rows, and return its output."""
    write_rows(tmp_path / "rows.jsonl", texts)
    endpoint = {"base_url": recorder.base_url, **job.pop("endpoint", {})}
    end = batcher("run", str(write_job(tmp_path, "", endpoint=endpoint, **job)), "-q", env={**BARE, "MY_KEY": "sk-123"})
    assert end.returncode == code, end.stderr
    return table(tmp_path / "out")


def ok(request: Request) -> Answer:
    """Answer everything."""
    return completion('{"ok": true}')


def test_request_in_messages_format(tmp_path: Path) -> None:
    """Every parameter of the job arrives as it stands, in OpenAI's chat format."""
    with recording(ok) as recorder:
        ask(recorder, tmp_path, system_prompt="Be JSON about {{ n }}.", parameters=PARAMETERS)
    (request,) = recorder.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["content-type"].split(";")[0] == "application/json"
    assert "authorization" not in request.headers
    assert request.body == {
        "model": "deepseek-v4-flash",
        "messages": [{"role": "system", "content": "Be JSON about 0."}, {"role": "user", "content": "hello"}],
        "temperature": 0.25,
        "top_p": 0.9,
        "presence_penalty": -1.5,
        "frequency_penalty": 2,
        "max_tokens": 123,
        "response_format": {"type": "json_object"},
        "stream": False,
        "thinking": {"type": "disabled"},
        "logit_bias": {"50256": -100},
        "user": "batch",
        "seed": 7,
    }


def test_request_in_form_format(tmp_path: Path) -> None:
    """In form format prompts and parameters are flat fields, `response_format` a text."""
    with recording(ok) as recorder:
        form = {"request_format": "form"}
        ask(recorder, tmp_path, endpoint=form, system_prompt="Be JSON.", parameters=PARAMETERS)
    (request,) = recorder.requests
    assert request.body == {
        "model": "deepseek-v4-flash",
        "system_prompt": "Be JSON.",
        "prompt": "hello",
        "temperature": 0.25,
        "top_p": 0.9,
        "presence_penalty": -1.5,
        "frequency_penalty": 2,
        "max_tokens": 123,
        "response_format": "json_object",
        "stream": False,
        "thinking": {"type": "disabled"},
        "logit_bias": {"50256": -100},
        "user": "batch",
        "seed": 7,
    }


@pytest.mark.parametrize("request_format", ["messages", "form"])
def test_job_without_parameters_sends_none(tmp_path: Path, request_format: str) -> None:
    """What the job does not set is not sent, so that the provider's defaults hold."""
    with recording(ok) as recorder:
        ask(recorder, tmp_path, endpoint={"request_format": request_format})
    texts = {"prompt": "hello"} if request_format == "form" else {"messages": [{"role": "user", "content": "hello"}]}
    assert recorder.requests[0].body == {"model": "deepseek-v4-flash", **texts}


def test_response_format_as_a_mapping(tmp_path: Path) -> None:
    """A `response_format` that is a mapping is passed through; one with a schema to a model that takes schemas."""
    wanted = {"type": "json_schema", "json_schema": {"name": "label", "schema": {"type": "object"}}}
    with recording(ok) as recorder:
        ask(recorder, tmp_path, parameters={"response_format": wanted}, model="some-model")
    assert recorder.requests[0].body["response_format"] == wanted


def test_streaming_asks_for_usage(tmp_path: Path) -> None:
    """With `stream: true` the request asks for the token usage too."""
    with recording(lambda request: streamed(MESSAGE, "stop")) as recorder:
        ask(recorder, tmp_path, parameters={"stream": True})
    assert recorder.requests[0].body["stream"] is True
    assert recorder.requests[0].body["stream_options"] == {"include_usage": True}


def test_texts_arrive_unchanged(tmp_path: Path) -> None:
    """Prompts of every script, with quotes, line breaks and template marks of their own, arrive as they are."""
    texts = (
        'say "hi"\n\ttwice',
        "日本語 עברית 🤖 e\u0301",
        "{{ not_a_column }} {% raw %} ${HOME} $$",
        "\u2028 \\u0041",
    )
    with recording(ok) as recorder:
        ask(recorder, tmp_path, texts=texts)
    assert sorted(request.prompt for request in recorder.requests) == sorted(texts)


@pytest.mark.parametrize("source", ["api_key_env", "api_key_file"])
def test_key_goes_as_a_bearer_token(tmp_path: Path, source: str) -> None:
    """The key of a variable or of a file goes as a Bearer token, without the line break around it."""
    (tmp_path / "key").write_text("sk-123\n")
    (tmp_path / "key").chmod(0o600)
    with recording(ok) as recorder:
        ask(recorder, tmp_path, endpoint={source: "MY_KEY" if source == "api_key_env" else "key"})
    assert recorder.requests[0].headers["authorization"] == "Bearer sk-123"


def test_own_headers(tmp_path: Path) -> None:
    """Headers of the job are sent as they stand."""
    with recording(ok) as recorder:
        ask(recorder, tmp_path, endpoint={"headers": {"X-Title": "nightly"}})
    assert recorder.requests[0].headers["x-title"] == "nightly"


def whole(message: dict[str, Any], finish_reason: str) -> Answer:
    """An answer in one piece."""
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    return as_json({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def streamed(message: dict[str, Any], finish_reason: str) -> Answer:
    """The same answer as an event stream, its texts character by character."""
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for key in ("reasoning_content", "content"):
        deltas += [{key: character} for character in message.get(key) or ""]
    for call in message.get("tool_calls", ()):
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "function": {**function, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": call["index"], "function": {"arguments": character}}]}
            for character in function["arguments"]
        ]
    head = {**HEAD, "object": "chat.completion.chunk"}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    return as_events([*chunks, {**head, "choices": [], "usage": USAGE}])


@pytest.mark.parametrize("send", [whole, streamed])
def test_every_response_field_has_its_column(tmp_path: Path, send: Any) -> None:
    """All fields of an answer land in their columns, streamed or not."""
    with recording(lambda request: send(MESSAGE, "stop")) as recorder:
        rows = ask(recorder, tmp_path, parameters={"stream": send is streamed})
    row = {**rows.drop_columns(["response_created", "requested_at"]).to_pylist()[0]}
    assert row["completion"] == "Grüße 👋"
    assert row["reasoning"] == "First I greet."
    assert row["finish_reason"] == "stop"
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (11, 7, 18)
    assert row["prompt_tokens_details"]["cached_tokens"] == 4
    assert row["completion_tokens_details"]["reasoning_tokens"] == 3
    assert orjson.loads(row["usage_raw"]) == USAGE
    assert row["response_id"] == "chatcmpl-77"
    assert row["response_object"] in ("chat.completion", "chat.completion.chunk")
    assert row["response_model"] == "flash-2026"
    assert row["system_fingerprint"] == "fp_1"
    assert row["choices_raw"] is None
    assert row["error"] is None
    assert (row["status"], row["attempts"], row["n"], row["text"]) == ("completed", 1, 0, "hello")
    assert row["latency_s"] > 0
    seconds = rows["response_created"].cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_pylist()
    assert seconds == [1_767_225_600]
    assert abs(rows["requested_at"].cast(pa.int64())[0].as_py() / 1e6 - datetime.now(UTC).timestamp()) < 3600


@pytest.mark.parametrize("send", [whole, streamed])
def test_tool_calls_are_kept(tmp_path: Path, send: Any) -> None:
    """Tool calls have no column of their own; `choices_raw` holds them, streamed or not."""
    message = {"role": "assistant", "content": None, "tool_calls": CALLS}
    with recording(lambda request: send(message, "tool_calls")) as recorder:
        (row,) = ask(recorder, tmp_path, parameters={"stream": send is streamed}).select(
            ["choices_raw", "finish_reason", "status", "completion"]
        ).to_pylist()  # fmt: skip
    call = orjson.loads(row["choices_raw"])[0]["message"]["tool_calls"][0]
    assert (call["id"], call["function"]) == ("call_1", CALLS[0]["function"])
    assert (row["status"], row["finish_reason"]) == ("completed", "tool_calls")
    assert not row["completion"]
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "given",
    [
        {"message": "temperature is too hot", "type": "invalid_request_error", "param": "temperature", "code": "hot"},
        {"message": "only words"},
        {"message": "m", "code": 1234},
        {"type": "invalid_request_error", "param": "messages", "code": None, "message": "bad"},
    ],
)
def test_error_object_lands_in_the_error_column(tmp_path: Path, status: int, given: dict[str, Any]) -> None:
    """What an error object says is in the row's error, field by field, with the HTTP status."""

    def respond(request: Request) -> Answer:
        return as_json({"error": given}, status) if request.prompt == "bad" else completion()

    with recording(respond) as recorder:
        rows = ask(recorder, tmp_path, 3, texts=("good", "bad"))
    error = rows["error"].to_pylist()[1]
    code = given.get("code")
    assert error == {
        "message": given["message"],
        "type": given.get("type"),
        "param": given.get("param"),
        "code": f"http_{status}" if code is None else str(code),
        "http_status": status,
    }
    assert rows["status"].to_pylist() == ["completed", "failed"]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_answers_that_ended_early(tmp_path: Path, reason: str) -> None:
    """An answer cut by its limit or by a filter is paid for: it is kept as completed, and asked once."""
    with recording(lambda request: completion("half an ans", finish_reason=reason)) as recorder:
        rows = ask(recorder, tmp_path, parameters={"max_tokens": 3})
    assert rows["status"].to_pylist() == ["completed"]
    assert rows["finish_reason"].to_pylist() == [reason]
    assert rows["completion"].to_pylist() == ["half an ans"]
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("blank", ["", "   \n", None])
def test_blank_answer_in_json_mode(tmp_path: Path, blank: str | None) -> None:
    """A blank answer where JSON was asked for is asked again; elsewhere it is an answer."""
    recorder: Recorder

    def respond(request: Request) -> Answer:
        return completion(blank if len(recorder.requests) == 1 else "{}")

    with recording(respond) as recorder:
        rows = ask(recorder, tmp_path, parameters={"response_format": "json_object"}, system_prompt="JSON")
    assert rows["completion"].to_pylist() == ["{}"]
    assert rows["attempts"].to_pylist() == [2]
    with recording(lambda request: completion(blank)) as recorder:
        rows = ask_plain(recorder, tmp_path)
    assert rows["status"].to_pylist() == ["completed"]
    assert len(recorder.requests) == 1


def ask_plain(recorder: Recorder, tmp_path: Path) -> pa.Table:
    """Run a job in text mode in a folder of its own."""
    folder = tmp_path / "text"
    folder.mkdir()
    return ask(recorder, folder)
