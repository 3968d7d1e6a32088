"""The simulator's script: what each fault looks like on the wire, which prompts and attempts it hits, wrong scripts."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batcher.simulator import SimulatorOptions, SimulatorProcess, main, start
from batcher.simulator.script import Playback, Rule, ScriptError, load_script
from batcher.simulator.step import NORMAL, Step, read_step, step_problems
from tests.simulator_client import FORM, PATH, call, connect, counts, http_request, lines, wait_until

Faulty = Callable[..., SimulatorProcess]


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    """Start a simulator whose every prompt gets one scripted answer for ever."""
    with ExitStack() as running:

        def run(step: str, *, latency_s: float = 0) -> SimulatorProcess:
            script = tmp_path / "faults.yaml"
            script.write_text(f"- {{every: 1, answers: [{step}], forever: true}}\n")
            options = SimulatorOptions(latency_s=latency_s, script=script, ledger=tmp_path / "ledger")
            return running.enter_context(start(options))

        yield run


def receive(simulator: SimulatorProcess, **fields: object) -> tuple[bytes, bytes]:
    """Head and body of what the server sends until it closes the connection, as bare bytes."""
    with connect(simulator, http_request({"prompt": "x", **fields}, close=True)) as peer:
        received = b"".join(iter(lambda: peer.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def post(simulator: SimulatorProcess, **fields: object) -> tuple[http.client.HTTPResponse, bytes]:
    """An answer as an HTTP client sees it."""
    return call(simulator, PATH, {"prompt": "x", **fields})


def content_length(head: bytes) -> int:
    """What the head promises."""
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def test_cut_promises_more_than_it_sends(faulty: Faulty, tmp_path: Path) -> None:
    """The whole Content-Length is announced, half of it comes, and the answer does not count as sent."""
    simulator = faulty("{cut: 0.5}")
    head, body = receive(simulator)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == content_length(head) // 2
    assert (counts(simulator)["answered"], counts(simulator)["broken"]) == (0, 1)
    (line,) = lines(tmp_path / "ledger", "answered")
    assert (line["status"], line["whole"], line["fault"]) == (200, False, "cut")


def test_cut_stream_ends_within_a_chunk_or_before_the_last(faulty: Faulty) -> None:
    """A stream is cut in its chunks: the closing one is missing."""
    _, body = receive(faulty("{cut: 0.5}"), stream=True)
    assert body
    assert not body.endswith(b"0\r\n\r\n")


def test_drop_closes_before_anything_or_after_the_head(faulty: Faulty) -> None:
    """Both are an end of file without an error; only the second shows a status."""
    assert receive(faulty("{drop: before}")) == (b"", b"")
    head, body = receive(faulty("{drop: headers}"))
    assert content_length(head) > 0
    assert body == b""


def test_reset_is_an_error_of_the_connection(faulty: Faulty) -> None:
    """The client sees a reset, not an end of file."""
    simulator = faulty("{reset: true}")
    with pytest.raises(ConnectionResetError):
        receive(simulator)
    assert counts(simulator)["broken"] == 1


def test_silent_never_answers(faulty: Faulty, tmp_path: Path) -> None:
    """The request stays in flight until the client leaves, and nothing was sent."""
    simulator = faulty("{silent: true}")
    with connect(simulator, http_request(FORM)) as peer:
        wait_until(lambda: counts(simulator)["in_flight"] == 1)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
    wait_until(lambda: counts(simulator)["in_flight"] == 0)
    (line,) = lines(tmp_path / "ledger", "answered")
    assert (line["status"], line["whole"], line["fault"]) == (None, False, "silent")


def test_keepalive_lines_come_before_the_answer(faulty: Faulty) -> None:
    """Blank lines before a JSON body and comments before a stream are no fault: the answer counts."""
    simulator = faulty("{keepalive_lines: 5, delay_s: 0.05}")
    body = post(simulator)[1]
    assert body.startswith(b"\n\n\n\n\n{")
    assert json.loads(body)["object"] == "chat.completion"
    assert post(simulator, stream=True)[1].startswith(b": keep-alive\n\n" * 5 + b"data: {")
    assert counts(simulator)["answered"] == 2


def test_error_status_carries_what_the_script_says(faulty: Faulty) -> None:
    """Status, error fields, Retry-After and further headers are sent as written."""
    response, body = post(faulty("{status: 429, retry_after: 2, code: slow_down, message: wait, headers: {X-A: b}}"))
    assert (response.status, response.headers["retry-after"], response.headers["x-a"]) == (429, "2", "b")
    expected = {"message": "wait", "type": "rate_limit_error", "param": None, "code": "slow_down"}
    assert json.loads(body) == {"error": expected}


@pytest.mark.parametrize(
    ("status", "code"), [(402, "invalid_request_error"), (503, "server_is_overloaded"), (502, None)]
)
def test_error_status_has_the_usual_words(faulty: Faulty, status: int, code: str | None) -> None:
    """A bare status comes with the error object endpoints send with it."""
    response, body = post(faulty(f"{{status: {status}}}"))
    assert response.status == status
    assert json.loads(body)["error"]["code"] == code


def test_status_without_body_is_framed_without_body(faulty: Faulty) -> None:
    """A 204 has neither a body nor a header that announces one."""
    head, body = receive(faulty("{status: 204}"))
    assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"content-" not in head
    assert body == b""


def test_error_status_comes_at_once(faulty: Faulty) -> None:
    """The latency is that of thinking; who refuses does not think."""
    assert post(faulty("{status: 503}", latency_s=86400))[0].status == 503


def test_blank_answer_is_spaces(faulty: Faulty) -> None:
    """What an endpoint sends when its model did not write JSON: a whole answer, but none to keep."""
    simulator = faulty("{blank: true}")
    content = json.loads(post(simulator)[1])["choices"][0]["message"]["content"]
    assert content
    assert not content.strip()
    assert (counts(simulator)["answered"], counts(simulator)["by_status"]) == (0, {"200": 1})


def test_error_within_a_200(faulty: Faulty, tmp_path: Path) -> None:
    """The error object comes with status 200, in a stream as an event after the first; nothing is billed."""
    simulator = faulty("{error_in_200: {code: 429, message: full}}")
    response, body = post(simulator)
    assert response.status == 200
    assert json.loads(body)["error"] == {"message": "full", "type": "server_error", "param": None, "code": 429}
    events = post(simulator, stream=True)[1].split(b"\n\n")
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == 429
    counts(simulator)  # brings the ledger up to date
    assert [line["completion_tokens"] for line in lines(tmp_path / "ledger", "answered")] == [None, None]


def test_html_and_broken_json(faulty: Faulty) -> None:
    """A login page and JSON that stops early are whole answers by HTTP's framing."""
    response, body = post(faulty("{html: true, status: 502}"))
    assert (response.status, response.headers["content-type"]) == (502, "text/html")
    assert body.startswith(b"<!doctype html>")
    with pytest.raises(json.JSONDecodeError):
        json.loads(post(faulty("{not_json: true}"))[1])


def test_empty_choices(faulty: Faulty) -> None:
    """No choice, but the usage is there: it was paid."""
    answer = json.loads(post(faulty("{empty_choices: true}"))[1])
    assert answer["choices"] == []
    assert answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("reason", "kept"), [("length", 1), ("content_filter", 1), ("insufficient_system_resource", 0), (None, 0)]
)
def test_finish_reason_is_set(faulty: Faulty, reason: str | None, kept: int) -> None:
    """Any finish reason can be had; only those a client keeps the answer for count as answered."""
    simulator = faulty(f"{{finish_reason: {json.dumps(reason)}}}")
    assert json.loads(post(simulator)[1])["choices"][0]["finish_reason"] == reason
    assert counts(simulator)["answered"] == kept


def test_cut_off_stream_has_no_finish_reason_but_ends_well(faulty: Faulty) -> None:
    """The chunks end properly, the events stop early."""
    body = post(faulty("{stream_cut: true}"), stream=True)[1]
    events = [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n")[:-1]]
    assert len(events) > 3
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])
    assert b"[DONE]" not in body


def test_each_attempt_uses_up_one_answer(tmp_path: Path) -> None:
    """After the scripted answers come normal ones; other prompts are not touched."""
    script = tmp_path / "faults.yaml"
    script.write_text("- {row: 1, answers: [{status: 429}, {status: 503}]}\n")
    with start(SimulatorOptions(latency_s=0, script=script)) as simulator:
        got = [post(simulator, prompt=prompt)[0].status for prompt in ("a", "b", "b", "a", "b", "c")]
    assert got == [200, 429, 503, 200, 200, 200]


def play(*rules: Rule, prompts: int = 1000, seed: int = 0) -> list[int]:
    """Which prompts get another than the normal answer at their first attempt."""
    playback = Playback(rules, seed)
    steps = [playback.next_step(f"{number:016x}", f"prompt {number}.", order=number) for number in range(prompts)]
    return [number for number, step in enumerate(steps) if step is not NORMAL]


def rule(matcher: str, value: object, *, forever: bool = False, status: int = 500) -> Rule:
    """A rule with one answer."""
    return Rule(matcher, value, (Step(status=status),), forever)


def test_matchers_choose_prompts() -> None:
    """`row` counts distinct prompts from 0, `every` takes the last of each n, `match` looks for the text."""
    assert play(rule("row", 3)) == [3]
    assert play(rule("every", 300)) == [299, 599, 899]
    assert play(rule("match", "t 77.")) == [77]


def test_share_is_a_share_that_depends_on_the_seed() -> None:
    """About the asked share of prompts, the same ones for the same seed; two rules choose independently."""
    chosen = play(rule("share", 0.1))
    assert 70 < len(chosen) < 130
    assert play(rule("share", 0.1)) == chosen
    assert play(rule("share", 0.1), seed=1) != chosen
    assert len(play(rule("share", 0.1), rule("share", 0.1))) > len(chosen)
    assert (play(rule("share", 0)), len(play(rule("share", 1)))) == ([], 1000)


def test_first_matching_rule_wins_and_forever_repeats_its_last_answer() -> None:
    """A prompt stays with the rule of its first attempt."""
    playback = Playback((rule("row", 0, forever=True), rule("every", 1, status=503)))
    first = [
        playback.next_step("a", "x", order=0).status,
        *(playback.next_step("a", "x", order=None).status for _ in "12"),
    ]
    second = [playback.next_step("b", "x", order=1).status, playback.next_step("b", "x", order=None).status]
    assert (first, second) == ([500, 500, 500], [503, 200])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{row: 0}", "must be a list of rules"),
        ("- 5", "rule 1: must be a mapping"),
        ("- {answers: [{status: 500}]}", "rule 1: needs exactly one of row, match, every, share"),
        ("- {row: 0, every: 2, answers: [{status: 500}]}", "rule 1: needs exactly one of"),
        ("- {row: -1, answers: [{status: 500}]}", "rule 1: row: must be at least 0"),
        ("- {share: 2, answers: [{status: 500}]}", "rule 1: share: must be from 0 to 1"),
        ("- {match: '', answers: [{status: 500}]}", "rule 1: match: must be a text"),
        ("- {row: 0}", "rule 1: answers: must be a list"),
        ("- {row: 0, answer: [{status: 500}]}", "rule 1: unknown key 'answer'; did you mean 'answers'?"),
        ("- {row: 0, forever: 1, answers: [{status: 500}]}", "rule 1: forever: must be true or false"),
        ("- {row: 0, answers: [{statsu: 500}]}", "answer 1: unknown key 'statsu'; did you mean 'status'?"),
        ("- {row: 0, answers: [{status: 99}]}", "answer 1: status: must be from 200 to 599"),
        ("- {row: 0, answers: [{status: true}]}", "answer 1: status: must be a whole number"),
        ("- {row: 0, answers: [{reset: false}]}", "answer 1: reset: must be true, or be left out"),
        ("- {row: 0, answers: [{drop: soon}]}", "answer 1: drop: must be one of before, headers"),
        ("- {row: 0, answers: [{delay_s: -1}]}", "answer 1: delay_s: must be from 0"),
        ("- {row: 0, answers: [{finish_reason: 1}]}", "answer 1: finish_reason: must be a text or null"),
        ("- {row: 0, answers: [{error_in_200: {cod: 1}}]}", "unknown key 'cod'; did you mean 'code'?"),
        ("- {row: 0, answers: [{status: 429, retry_after: [1]}]}", "retry_after: must be a text or a number"),
        ('- {row: 0, answers: [{headers: {x: "a\\r\\nb"}}]}', "headers: x: must be printable ASCII"),
        ("- {row: 0, answers: [{headers: {'x:': a}}]}", "headers: 'x:' is not the name of a header"),
        ("- {row: 0, answers: [{cut: 0.5, reset: true}]}", "cut and reset exclude each other"),
        ("- {row: 0, answers: [{blank: true, status: 503}]}", "blank: needs status 200"),
        ("- {row: 0, answers: [{retry_after: 3}]}", "retry_after: needs a status other than 200"),
        ("- {row: 0, answers: [{keepalive_lines: 3, silent: true}]}", "keepalive_lines: needs an answer that follows"),
        ("- {row: 0, answers: [{}]}", "answer 1: must be a mapping such as"),
        ("- {row: 0", "not valid YAML"),
    ],
)
def test_wrong_script_is_refused_with_the_place_and_the_key(tmp_path: Path, text: str, problem: str) -> None:
    """Every mistake is found before the first request and named."""
    script = tmp_path / "faults.yaml"
    script.write_text(text)
    with pytest.raises(ScriptError) as caught:
        load_script(script)
    assert str(caught.value).startswith(f"{script}: ")
    assert problem in str(caught.value)


def test_all_problems_of_a_script_are_told_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line per problem and exit code 2; the parent of a simulator gets the same as an exception."""
    script = tmp_path / "faults.yaml"
    script.write_text("- {row: 0, answers: [{status: 1}, {dealy_s: 3}]}\n- {rwo: 1, answers: [{status: 500}]}\n")
    assert main(["--script", str(script)]) == 2
    with pytest.raises(ScriptError) as caught:
        start(SimulatorOptions(script=script))
    assert len(caught.value.problems) == 4
    assert all(problem in caplog.text for problem in caught.value.problems)


def test_every_example_of_an_answer_is_valid() -> None:
    """The answers the documentation lists are read without a problem."""
    examples: list[dict[str, Any]] = [
        {"status": 429, "retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "code": 5, "type": "t", "message": "m"},
        {"error_in_200": {}},
        {"finish_reason": None, "delay_s": 3},
        {"status": 200},
        {"cut": 0},
        {"keepalive_lines": 2, "cut": 0.5, "delay_s": 1},
    ]
    assert [problem for example in examples for problem in step_problems(example)] == []
    assert read_step({"status": 200}) == NORMAL
