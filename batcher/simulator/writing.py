"""What the simulator answers: a text, its token counts, and how both look as one JSON object or as a stream.

Pure. Everything but `created` follows from the question and the seed, so that a test, or a second run, can tell
whether a row got its own answer. The id carries the digest of the prompt.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from batcher.simulator.invention import value_of
from batcher.simulator.question import Question

DEFAULT_MODEL = "deepseek-v4-flash"
#: characters of Chinese, Japanese and Korean: 0.6 tokens each, all others 0.3
WIDE = "[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
#: a system prompt is cached in units of this many tokens
CACHE_UNIT_TOKENS = 64
PIECE_CHARACTERS = 24
MAX_PIECES = 64
LABELS = ("billing", "bug", "delivery", "feature_request", "login", "other", "praise", "question", "refund", "urgent")
OPENINGS = (
    'This is about "{quote}".',
    'The text closes with "{quote}".',
    'In short, it comes down to "{quote}".',
    'What matters here is "{quote}".',
)
MIDDLES = (
    "The wording is clear and the intent is easy to follow, although one or two details are left open.",
    "It reads like a first message: the facts are there, the history is not.",
    "Two points stand out: what happened, and what is expected to happen next.",
    "Nothing in it contradicts itself, and nothing needs to be guessed to give an answer.",
)
ENDINGS = (
    "A short reply that names the next step would settle it.",
    "It can be answered now; no further material is needed.",
    "I would confirm the main point first and then give a date.",
    "The safest course is to ask one question back and keep the case open.",
)
REASONING = 'The request ends with "{quote}". I weigh what is asked against what is given, and keep it short.'


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer before it is put into a format."""

    id: str
    model: str
    fingerprint: str
    content: str
    #: None when the question did not ask for it
    reasoning: str | None
    finish_reason: str | None
    usage: dict[str, Any]

    @property
    def completion_tokens(self) -> int:
        """What the answer is billed for."""
        return int(self.usage["completion_tokens"])


def noise(sha256: bytes, seed: int) -> bytes:
    """32 bytes that look random and follow from the prompt and the seed."""
    return hashlib.blake2b(sha256, key=b"%d" % seed, digest_size=32).digest()


def fraction(data: bytes) -> float:
    """A number from 0 up to, not including, 1 out of 8 random bytes."""
    return (int.from_bytes(data, "big") >> 11) * 2.0**-53


def latency_s(random: bytes, median_s: float, spread: float) -> float:
    """How long an answer takes: log-normal, drawn from `noise`."""
    if not spread:
        return median_s
    radius = math.sqrt(-2.0 * math.log(1.0 - fraction(random[:8])))
    return median_s * math.exp(spread * radius * math.cos(2.0 * math.pi * fraction(random[8:16])))


def count_tokens(text: str) -> int:
    """Roughly what a tokenizer would count, rounded up."""
    wide = 0 if text.isascii() else sum(map(len, re.findall(WIDE, text)))
    return (3 * len(text) + 3 * wide + 9) // 10


def cut_to_tokens(text: str, limit: int) -> str:
    """The beginning of the text that has at most `limit` tokens."""
    while (count := count_tokens(text)) > limit:
        text = text[: len(text) * limit // count]
    return text


def write(question: Question, random: bytes, *, seed: int, model: str) -> Draft:
    """Answer a question. `random` is the prompt's `noise`."""
    quote = " ".join(question.prompt[-160:].split()[-6:])
    if question.schema is not None:
        content = orjson.dumps(value_of(question.schema, random, quote)).decode()
    else:
        content = _json_text(random, quote) if question.json_mode else _plain_text(random, quote)
    reasoning = REASONING.format(quote=quote) if question.thinking else None
    finish_reason = "stop"
    if question.max_tokens is not None and count_tokens(content) > question.max_tokens:
        content, finish_reason = cut_to_tokens(content, question.max_tokens), "length"
    return Draft(
        id=f"chatcmpl-{question.digest}",
        model=model,
        fingerprint=f"fp_simulator_{seed}",
        content=content,
        reasoning=reasoning,
        finish_reason=finish_reason,
        usage=_usage(question, content, reasoning),
    )


def _plain_text(random: bytes, quote: str) -> str:
    opening = OPENINGS[random[16] % len(OPENINGS)].format(quote=quote)
    first = random[17] % len(MIDDLES)
    second = (first + 1 + random[18] % (len(MIDDLES) - 1)) % len(MIDDLES)
    return f"{opening} {MIDDLES[first]} {MIDDLES[second]} {ENDINGS[random[19] % len(ENDINGS)]}"


def _json_text(random: bytes, quote: str) -> str:
    confidence = 0.5 + (random[17] % 50) / 100
    label = LABELS[random[16] % len(LABELS)]
    return orjson.dumps({"label": label, "confidence": round(confidence, 2), "reason": f"It says: {quote}"}).decode()


def _usage(question: Question, content: str, reasoning: str | None) -> dict[str, Any]:
    system_tokens = count_tokens(question.system)
    prompt_tokens = system_tokens + count_tokens(question.prompt) + count_tokens(question.repair)
    reasoning_tokens = count_tokens(reasoning or "")
    completion_tokens = count_tokens(content) + reasoning_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": system_tokens // CACHE_UNIT_TOKENS * CACHE_UNIT_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def as_object(draft: Draft, created: int) -> dict[str, Any]:
    """The answer as one response object."""
    message: dict[str, Any] = {"role": "assistant", "content": draft.content}
    if draft.reasoning is not None:
        message["reasoning_content"] = draft.reasoning
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None, "finish_reason": draft.finish_reason}
    return {**_frame(draft, created, "chat.completion"), "choices": [choice], "usage": draft.usage}


def as_events(draft: Draft, created: int, *, usage: bool) -> list[bytes]:
    """The answer as server-sent events, `[DONE]` included. The event with the finish reason is third last with
    `usage`, else second last."""
    frame = _frame(draft, created, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in _pieces(draft.reasoning or "")]
    deltas += [{"content": piece} for piece in _pieces(draft.content)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": draft.finish_reason})
    events = [event({**frame, "choices": [choice]}) for choice in choices]
    if usage:
        events.append(event({**frame, "choices": [], "usage": draft.usage}))
    return [*events, b"data: [DONE]\n\n"]


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % orjson.dumps(value)


def _frame(draft: Draft, created: int, kind: str) -> dict[str, Any]:
    return {
        "id": draft.id,
        "object": kind,
        "created": created,
        "model": draft.model,
        "system_fingerprint": draft.fingerprint,
    }


def _pieces(text: str) -> list[str]:
    size = max(PIECE_CHARACTERS, -(-len(text) // MAX_PIECES))
    return [text[at : at + size] for at in range(0, len(text), size)]
