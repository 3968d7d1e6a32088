"""The endpoint of the benchmarks: `server.c`, compiled when it is needed; without a C compiler, batcher's simulator.

It answers every request with the same completion of about 1 KB after a fixed latency, in a process of its own, and says
what that took. Whoever measures asks it afterwards whether it kept up: see `Load`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("server.c")
#: what an answer says: with what stands around it, about 1 KB
_WORDS = " ".join(["The customer asks for a refund of the second charge and is angry about the wait."] * 8)


@dataclass(frozen=True, slots=True)
class Load:
    """What the server did since it was last asked."""

    requests: int
    #: of its one thread; `elapsed_s` is how long it could have worked
    cpu_s: float
    elapsed_s: float
    #: when the first request arrived, in seconds since 1970; 0 if none did
    first_s: float
    #: how late answers left, on average
    late_us: float
    #: answers that the client did not take
    cut: int

    @property
    def busy(self) -> float:
        """The share of a core that it used; far below 1, it was not what the clients waited for."""
        return self.cpu_s / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Server:
    """A running endpoint."""

    base_url: str
    latency_s: float
    #: the simulator says nothing of its own CPU
    native: bool
    #: the certificate to trust, if it speaks TLS
    ca_file: Path | None = None

    def reset(self) -> None:
        """Count from here."""
        self._ask("reset")

    def load(self) -> Load:
        """What it did since `reset`."""
        told = self._ask("stats")
        return Load(**{name: told[name] for name in Load.__dataclass_fields__})

    def _ask(self, what: str) -> dict[str, float]:
        if not self.native:
            return dict.fromkeys(Load.__dataclass_fields__, 0) | {"elapsed_s": 1}
        import ssl

        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        origin = self.base_url.removesuffix("/v1")
        with urllib.request.urlopen(f"{origin}/{what}", context=context, timeout=10) as answer:
            return json.load(answer)


def compiled(folder: Path, *, tls: bool = False) -> Path | None:
    """Compile the server into `folder`; None if that cannot be done here."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / ("server-tls" if tls else "server")
    extra = ["-DTLS", "-lssl", "-lcrypto"] if tls else []
    ended = subprocess.run([compiler, "-O2", "-o", program, SOURCE, *extra], capture_output=True, check=False)
    return None if ended.returncode else program


@contextmanager
def serving(folder: Path, latency_s: float, *, certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """Serve as long as this lives; `certificate` is a certificate and its key, for TLS.

    Raises:
        SystemExit: TLS was asked for, and the server that speaks it cannot be compiled.
    """
    program = compiled(folder, tls=certificate is not None)
    if program is None:
        if certificate is not None:
            raise SystemExit("TLS needs a C compiler and OpenSSL's headers (libssl-dev)")
        with _simulator(latency_s) as server:
            yield server
        return
    answer = folder / "answer.http"
    answer.write_bytes(_answer())
    words = [program, str(round(latency_s * 1e6)), answer, *(certificate or ())]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        scheme = "http" if certificate is None else "https"
        ca_file = certificate[0] if certificate else None
        try:
            yield Server(f"{scheme}://127.0.0.1:{port}/v1", latency_s, native=True, ca_file=ca_file)
        finally:
            process.stdin.close()


@contextmanager
def _simulator(latency_s: float) -> Iterator[Server]:
    from batcher.simulator import SimulatorOptions, start

    with start(SimulatorOptions(latency_s=latency_s, spread=0)) as simulator:
        yield Server(simulator.base_url, latency_s, native=False)


def _answer() -> bytes:
    """A whole HTTP response, as an endpoint gives it."""
    body = json.dumps(
        {
            "id": "chatcmpl-0123456789abcdef",
            "object": "chat.completion",
            "created": 1_763_900_000,
            "model": "deepseek-v4-flash",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": _WORDS},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 212,
                "completion_tokens": 140,
                "total_tokens": 352,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            "system_fingerprint": "fp_0123456789",
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
