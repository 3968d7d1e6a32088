"""What a self-hosted server tells about its load: metrics pages of all sorts, and when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.client import Client, Destination, gauges, open_client
from batcher.client.gauges import read_gauges, watch_gauges
from tests.faults.client.certificates import issue
from tests.faults.client.clients import unused_port
from tests.faults.client.wire_server import Peer, Script, WireServer, reply, serving

pytestmark = pytest.mark.timeout(20)

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 37.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 35.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-8B"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="capacity"} 9.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="Qwen/Qwen3-8B",reason="deferred"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.91
vllm:request_success_total{engine="0",finished_reason="stop",model_name="Qwen/Qwen3-8B"} 1.0
"""
SGLANG = b"""\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="",tp_rank="0"} 162.0
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="5",tp_rank="0"} 62.0
sglang:num_running_reqs_offline_batch{model_name="m"} 7.0
sglang:token_usage{model_name="m"} 0.28
sglang:num_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="",tp_rank="0"} 2826.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="5",tp_rank="0"} 826.0
sglang:num_grammar_queue_reqs{model_name="m"} 4.0
"""
LLAMA_CPP = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 33065
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 3
"""


@pytest.mark.parametrize(
    ("page", "running", "waiting"),
    [
        (VLLM, 72, 12),
        (SGLANG, 162, 2826),
        (LLAMA_CPP, 4, 3),
        (VLLM + LLAMA_CPP, 76, 15),
        (VLLM.replace(b"\n", b"\r\n"), 72, 12),
        (b"llamacpp:requests_processing 4 1731000000000\nllamacpp:requests_deferred 1.2e+01 \n", 4, 12),
        (b"llamacpp:requests_processing\t4\nllamacpp:requests_deferred 3", 4, 3),
        (b'vllm:num_requests_running{m="a} 9",n="\\"}{"} 2\nvllm:num_requests_waiting{} 1\n', 2, 1),
        (b"vllm:num_requests_running 1e300\nvllm:num_requests_waiting 1e300\n", 10**9, 10**9),
    ],
    ids=["vLLM", "SGLang", "llama.cpp", "two", "CRLF", "time", "bare", "labels", "huge"],
)
def test_the_gauges_of_known_servers_are_read(page: bytes, running: int, waiting: int) -> None:
    """What runs and what waits, over all engines and models; a part of a whole that is there too counts once."""
    assert read_gauges(page) == (running, waiting)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>404</html>",
        b'{"detail":"Not Found"}',
        b"# TYPE vllm:num_requests_running gauge\n# vllm:num_requests_running 1\n# vllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running 5\n",
        b"vllm:num_requests_running 5\nvllm:num_requests_waiting NaN\n",
        b"vllm:num_requests_running +Inf\nvllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running -1\nvllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running five\nvllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running_total 5\nvllm:num_requests_waiting_total 1\n",
        b"xvllm:num_requests_running 5\n xllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running 5 and more\nvllm:num_requests_waiting 1\n",
        b"vllm:num_requests_running" + b"9" * 100 + b" " + b"9" * 100 + b"\nvllm:num_requests_waiting 1\n",
    ],
)
def test_a_page_that_does_not_say_is_no_reading(page: bytes) -> None:
    """Both numbers are needed, whole and sensible; everything else is as good as no page."""
    assert read_gauges(page) is None


def test_what_makes_no_sense_spoils_nothing_else() -> None:
    """One engine that tells nonsense does not hide the others."""
    page = VLLM + b'vllm:num_requests_waiting{engine="2"} NaN\nvllm:num_requests_running{engine="2"} -5\n'
    assert read_gauges(page) == (72, 12)


@pytest.mark.parametrize("piece", [b"}", b"} ", b"} 1", b" ", b"{", b"1", b"\\", b'"', b"\n", b"} 1 1"])
def test_a_page_made_to_be_slow_is_read_all_the_same(piece: bytes) -> None:
    """Four million bytes that nearly match take no longer than others; the timeout of the test is the bound."""
    assert read_gauges(b"vllm:num_requests_running{" + piece * ((4 << 20) // len(piece))) is None


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*VLLM.split(), *LLAMA_CPP.split(), b"\n", b" ", b"{", b"}", b"-1", b"nan"])))
def test_whatever_a_page_holds_a_reading_is_two_counts(words: list[bytes]) -> None:
    """Foreign text gives numbers from 0 to 10^9, or none."""
    reading = read_gauges(b"".join(words))
    assert reading is None or all(0 <= count <= 10**9 for count in reading)


# -- the watch


class Watched:
    """A watch over a server, and what it heard."""

    def __init__(self, url: str, *, ready: Callable[[], bool] = lambda: True, ca_file: Path | None = None) -> None:
        self.readings: list[tuple[int, int]] = []
        self.heard = asyncio.Event()
        self.task = asyncio.create_task(watch_gauges(url, self._heed, ready, ca_file=ca_file, every_s=0.01))

    def _heed(self, running: int, waiting: int) -> None:
        self.readings.append((running, waiting))
        self.heard.set()

    async def hear(self, count: int) -> None:
        """Wait for so many readings in all."""
        while len(self.readings) < count:
            self.heard.clear()
            await self.heard.wait()

    async def stop(self) -> None:
        """End the watch, as the end of a run does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def pages(*answers: bytes) -> Script:
    """A script that gives one answer after the other, the last one again and again, whoever connects."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def served(*answers: bytes) -> AbstractAsyncContextManager[WireServer]:
    """A server that gives these answers."""
    return serving(pages(*answers))


@pytest.mark.anyio
async def test_a_server_that_tells_is_asked_again_and_again() -> None:
    """GET /metrics at the root of the server, without a key."""
    async with served(reply(VLLM), reply(LLAMA_CPP)) as server:
        watched = Watched(server.url)
        await watched.hear(3)
        await watched.stop()
    assert watched.readings[:3] == [(72, 12), (4, 3), (4, 3)]
    assert {request.line for request in server.requests} == {"GET /metrics HTTP/1.1"}
    assert not {"authorization", "api-key"} & set(server.requests[0].headers)


@pytest.mark.anyio
async def test_the_end_of_a_watch_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open when the run ends."""
    clients: list[Client] = []

    def open_and_note(destination: Destination, connections: int) -> Client:
        clients.append(open_client(destination, connections))
        return clients[0]

    monkeypatch.setattr(gauges, "open_client", open_and_note)
    async with served(reply(VLLM)) as server:
        watched = Watched(server.url)
        await watched.hear(1)
        assert repr(clients[0]).endswith("1 open, 1 idle>")
        await watched.stop()
        assert repr(clients[0]).endswith("0 open, 0 idle>")


@pytest.mark.anyio
async def test_nothing_is_asked_before_the_first_success() -> None:
    """A server that has answered no row yet is left alone."""
    asked: list[bool] = []

    def ready() -> bool:
        asked.append(True)
        return len(asked) > 5

    async with served(reply(VLLM)) as server:
        watched = Watched(server.url, ready=ready)
        while len(asked) < 5:
            assert not server.peers
            await asyncio.sleep(0.001)
        await watched.hear(1)
        await watched.stop()
    assert len(asked) == 6, "once it tells, it need not be asked for"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        reply(b"not found", status="404 Not Found"),
        reply(VLLM, status="500 Internal Server Error"),
        reply(VLLM, status="302 Found", headers=("Location: /elsewhere",)),
        reply(b"<html></html>"),
        reply(b'{"requests": 3}'),
        reply(VLLM + b"#" * (4 << 20)),
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["404", "500", "302", "HTML", "JSON", "too large", "no HTTP", "silence"],
)
async def test_a_server_that_does_not_tell_is_asked_once(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer without a known gauge ends the watch; it raises nothing and asks nobody else."""
    monkeypatch.setattr(gauges, "PATIENCE_S", 0.2)
    async with served(answer) as server:
        watched = Watched(server.url)
        await watched.task
    assert len(server.requests) == 1
    assert watched.readings == []


@pytest.mark.anyio
async def test_a_server_that_cannot_be_reached_ends_the_watch() -> None:
    """Nobody listens there: nothing to watch."""
    with unused_port() as port:
        watched = Watched(f"http://127.0.0.1:{port}/v1")
        await watched.task
    assert watched.readings == []


@pytest.mark.anyio
async def test_a_server_that_has_told_may_fall_silent_for_a_while() -> None:
    """A restart in the middle of a run ends no watch, it only makes the questions rarer."""
    away = reply(b"", status="503 Service Unavailable")
    async with served(reply(VLLM), away, away, b"garbage\r\n\r\n", reply(LLAMA_CPP)) as server:
        watched = Watched(server.url)
        await watched.hear(2)
        await watched.stop()
    assert watched.readings[:2] == [(72, 12), (4, 3)]


@pytest.mark.anyio
async def test_misses_make_the_readings_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    """5, 10, 20, 40, 60, 60 seconds; 5 again after an answer."""
    waits_s: list[float] = []

    async def note(seconds: float) -> None:
        waits_s.append(seconds)
        if len(waits_s) == 9:
            raise asyncio.CancelledError

    monkeypatch.setattr(gauges.asyncio, "sleep", note)
    away = reply(b"", status="503 Service Unavailable")
    async with served(reply(VLLM), *[away] * 6, reply(VLLM)) as server:
        with pytest.raises(asyncio.CancelledError):
            await watch_gauges(server.url, lambda running, waiting: None, lambda: True)
    assert waits_s == [5, 10, 20, 40, 60, 60, 60, 5, 5]


@pytest.mark.anyio
async def test_a_server_of_ones_own_may_use_tls(tmp_path: Path) -> None:
    """https at a private address is asked too, by name or number, with its certificate checked."""
    shown = issue(tmp_path, "own", host="localhost")
    async with serving(pages(reply(VLLM)), shown.server_context()) as server:
        trusted = Watched(server.url.replace("127.0.0.1", "localhost"), ca_file=shown.path)
        await trusted.hear(1)
        await trusted.stop()
        requests = len(server.requests)
        stranger = Watched(server.url.replace("127.0.0.1", "localhost"))
        await stranger.task
    assert (stranger.readings, len(server.requests)) == ([], requests)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://api.example.com/v1", True),  # without TLS, so nobody's service
        ("https://127.0.0.1:8000/v1", True),
        ("https://10.0.0.7/v1", True),
        ("https://192.168.1.20:8443/v1", True),
        ("https://100.64.0.9/v1", True),
        ("https://[fd00::1]/v1", True),
        ("https://93.184.215.14/v1", False),
        ("https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/v1", False),
        ("ftp://127.0.0.1/", False),
        ("https:///v1", False),
        ("https://127.0.0.1:99999/", False),
        ("nonsense", False),
    ],
)
async def test_only_servers_of_ones_own_are_asked(url: str, own: bool) -> None:
    """Nothing but the rows goes to a public service."""
    assert await gauges._is_own(url) is own


@pytest.mark.anyio
async def test_a_public_server_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a public address no client is even made."""
    monkeypatch.setattr(gauges, "open_client", None)
    await watch_gauges("https://93.184.215.14/v1", lambda running, waiting: None, lambda: True)
