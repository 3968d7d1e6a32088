"""What goes over the wire for one request: a question and a step of the script -> the bytes, and how it ends.

Pure; `server` does the waiting and the writing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from batcher.simulator import framing, writing
from batcher.simulator.question import Question
from batcher.simulator.refusal import Refusal, usual
from batcher.simulator.step import ENDINGS, NORMAL, Step
from batcher.simulator.writing import Draft

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
HTML = "text/html"
HTML_BODY = b"<!doctype html>\n<title>Sign in</title>\n<h1>Sign in to this network</h1>\n"
NOT_JSON_BODY = b'{"id": "chatcmpl-", "choices": [{"index": 0, "message": {"role": "assistant", "content": '
BLANK = " " * 40
#: JSON that is no object, which schemas of answers ask for
MISFIT = '["this does not match the schema"]'
#: bodies with status 200 that hold no tokens
UNPAID = ("html", "error_in_200")


@dataclass(slots=True)
class Answer:
    """The bytes of one answer and what the ledger says about it."""

    #: None when nothing at all is sent
    status: int | None
    #: what is sent when the time has come
    data: bytes
    #: sent at once, before the latency: the head, when keep-alive lines follow it
    early: bytes = b""
    #: one keep-alive line, and how many are sent while the latency lasts
    beat: bytes = b""
    beats: int = 0
    #: keep the connection, close it, reset it, or leave it open without an answer
    ending: str = "keep"
    fault: str | None = None
    #: it holds a completion that a client keeps
    usable: bool = False
    completion_tokens: int | None = None

    @property
    def complete(self) -> bool:
        """Once `data` is sent, the client has a whole HTTP answer."""
        return self.fault not in ENDINGS


def refuse(refusal: Refusal, *, date: str, close: bool = False) -> Answer:
    """Answer with an error object."""
    body = refusal.body()
    head = framing.head(refusal.status, date=date, length=len(body), close=close)
    return Answer(refusal.status, head + body, ending="close" if close else "keep")


def deliver(question: Question, draft: Draft, step: Step, *, created: int, date: str) -> Answer:
    """Put a draft into the format the question asks for, and let go wrong what the step says."""
    if step.ending in ("reset", "silent") or step.drop == "before":
        return Answer(None, b"", ending="close" if step.drop else str(step.ending), fault=step.fault)
    content_type, pieces = _body(question, draft, step, created)
    chunked = content_type == EVENT_STREAM or step.keepalive_lines > 0
    if chunked:
        body = b"".join([*map(framing.chunk, pieces), framing.LAST_CHUNK])
    else:
        body = pieces[0] if step.status not in framing.BODILESS else b""
    head = framing.head(
        step.status,
        date=date,
        content_type=content_type,
        length=None if chunked else len(body),
        headers=step.headers,
    )
    answer = Answer(
        step.status,
        head + body,
        fault=step.fault,
        usable=step.usable,
        completion_tokens=draft.completion_tokens if step.status == 200 and step.body not in UNPAID else None,
    )
    return answer if step is NORMAL else _spoil(answer, step, head, body, content_type)


def _spoil(answer: Answer, step: Step, head: bytes, body: bytes, content_type: str) -> Answer:
    """Send less than everything, or keep-alive lines first."""
    if step.ending == "cut":
        body = body[: int(len(body) * step.cut)]
        answer.ending = "close"
    elif step.ending == "drop":
        body = b""
        answer.ending = "close"
    answer.data = head + body
    if step.keepalive_lines:
        answer.early, answer.data = head, body
        answer.beat = framing.chunk(b": keep-alive\n\n" if content_type == EVENT_STREAM else b"\n")
        answer.beats = step.keepalive_lines
    return answer


def _body(question: Question, draft: Draft, step: Step, created: int) -> tuple[str, list[bytes]]:
    """Content type and body; the body of an event stream in its events."""
    if step.body == "html":
        return HTML, [HTML_BODY]
    if step.body == "not_json":
        return JSON, [NOT_JSON_BODY]
    if step.status != 200:
        return JSON, [(step.error or usual(step.status)).body()]
    if step.body == "blank":
        draft = replace(draft, content=BLANK)
    elif step.body == "misfit":
        draft = replace(draft, content=MISFIT)
    elif step.body == "finish_reason":
        draft = replace(draft, finish_reason=step.finish_reason)
    if question.stream or step.body == "stream_cut":
        return EVENT_STREAM, _events(question, draft, step, created)
    if step.body == "error_in_200" and step.error:
        return JSON, [step.error.body()]
    answer: dict[str, Any] = writing.as_object(draft, created)
    if step.body == "empty_choices":
        answer["choices"] = []
    return JSON, [orjson.dumps(answer)]


def _events(question: Question, draft: Draft, step: Step, created: int) -> list[bytes]:
    events = writing.as_events(draft, created, usage=question.wants_usage)
    ending = 3 if question.wants_usage else 2
    if step.body == "stream_cut":
        return events[:-ending]
    if step.body == "error_in_200" and step.error:
        return [events[0], b"data: %b\n\n" % step.error.body()]
    if step.body == "empty_choices":
        return events[1 - ending :]
    return events
