"""What the simulator was asked and what it answered: counts in memory, and on request a file.

`counts` is what `GET /simulator/ledger` returns (it also brings the file up to date):

    requests            chat-completion requests that arrived
    by_status           {status: answers sent in full}
    broken              requests that got no whole answer: cut, dropped, reset, silent, or the client left first
    in_flight           requests being answered now; so requests = sum(by_status) + broken + in_flight
    max_in_flight       the most requests being answered at the same time
    distinct_prompts    different prompts seen
    answered            whole answers with a completion a client keeps (status 200, no fault in it)
    answered_twice      {digest of the prompt: number of such answers} where that is more than one

The file has one JSON object per line, appended; `n` counts requests in the file from 1, so both lines of a request
carry the same `n`. It holds no prompt, system prompt, answer or key, only digests (first 16 hexadecimal digits of a
sha256):

    {"event": "request", "n", "t": monotonic seconds, "digest": of the prompt or null, "system_digest", "body_digest",
     "authorized": the right key came, or if none is asked for, any, "in_flight", "fields": names of the body's fields,
     "parameters": all fields but the texts}
    {"event": "answered", "n", "t", "digest", "status": null if nothing was sent, "whole": all of it went to the kernel
     while the connection was open, "fault": the script's, or null, "completion_tokens"}
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from batcher.simulator.answer import Answer
from batcher.simulator.question import Question


def short_digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(slots=True)
class Entry:
    """One request, from its arrival until its answer is out."""

    n: int
    digest: str | None
    #: it is being worked on; False for a request that is refused at once
    admitted: bool


class Ledger:
    """Counts requests and answers; with a path, also writes them down. The caller flushes."""

    def __init__(self, path: Path | None = None) -> None:
        self._file: BinaryIO | None = None
        self._lines: list[bytes] = []
        #: prompt -> answers with a completion that a client keeps
        self._answers: dict[str, int] = {}
        self._by_status: Counter[int] = Counter()
        self._twice: dict[str, int] = {}
        self._requests = self._broken = self._answered = self._earlier = 0
        self.in_flight = 0
        self.max_in_flight = 0
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        if path.is_file():
            self._count_earlier(path)
        self._file = path.open("ab", buffering=0)

    def _count_earlier(self, path: Path) -> None:
        line = b"\n"
        with path.open("rb") as file:
            for line in file:
                self._earlier += line.startswith(b'{"event":"request"')
        if not line.endswith(b"\n"):  # an earlier simulator was killed while it wrote
            self._lines.append(b"\n")

    @property
    def pending(self) -> bool:
        """There are lines that were not written yet."""
        return bool(self._lines)

    def arrival(self, question: Question) -> int | None:
        """The number of a prompt that arrives for the first time, counted from 0; None for a known one."""
        digest = question.digest
        if digest in self._answers:
            return None
        self._answers[digest] = 0
        return len(self._answers) - 1

    def started(
        self, question: Question | None, body: bytes, *, admitted: bool, authorized: bool, now_s: float
    ) -> Entry:
        """A request arrived."""
        self._requests += 1
        self.in_flight += admitted
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        entry = Entry(self._earlier + self._requests, question.digest if question else None, admitted)
        if self._file is not None:
            self._lines.append(self._request_line(entry, question, body, authorized, now_s))
        return entry

    def _request_line(
        self, entry: Entry, question: Question | None, body: bytes, authorized: bool, now_s: float
    ) -> bytes:
        line: dict[str, Any] = {
            "event": "request",
            "n": entry.n,
            "t": now_s,
            "digest": entry.digest,
            "system_digest": short_digest(question.system.encode()) if question else None,
            "body_digest": short_digest(body),
            "authorized": authorized,
            "in_flight": self.in_flight,
            "fields": question.fields if question else None,
            "parameters": question.parameters if question else None,
        }
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)

    def finished(self, entry: Entry, answer: Answer, *, whole: bool, now_s: float) -> None:
        """The answer is out, or will never be."""
        self.in_flight -= entry.admitted
        if whole and answer.status is not None:
            self._by_status[answer.status] += 1
            if answer.usable and entry.digest is not None:
                self._count_answer(entry.digest)
        else:
            self._broken += 1
        if self._file is not None:
            line = {
                "event": "answered",
                "n": entry.n,
                "t": now_s,
                "digest": entry.digest,
                "status": answer.status,
                "whole": whole,
                "fault": answer.fault,
                "completion_tokens": answer.completion_tokens,
            }
            self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _count_answer(self, digest: str) -> None:
        self._answered += 1
        self._answers[digest] += 1
        if self._answers[digest] > 1:
            self._twice[digest] = self._answers[digest]

    def counts(self) -> dict[str, Any]:
        """The figures, see the module's description."""
        return {
            "requests": self._requests,
            "by_status": {str(status): count for status, count in sorted(self._by_status.items())},
            "broken": self._broken,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "distinct_prompts": len(self._answers),
            "answered": self._answered,
            "answered_twice": self._twice,
        }

    def flush(self) -> None:
        """Write what waits; raises `OSError`."""
        lines, self._lines = self._lines, []
        if self._file is not None and lines:
            data = memoryview(b"".join(lines))
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Write what waits and close the file; raises `OSError`."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None
