"""What a self-hosted server tells about its load: the gauges of vLLM, SGLang and llama.cpp on its metrics page.

The page is fetched beside the attempts, without the key, and only from servers of one's own: never over https from a
public address. Whatever comes back is foreign text; it is read within bounds, or not at all. What follows from a
reading is no concern of this module.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from batcher.client import Client, open_client
from batcher.client.attempt import Destination, Target
from batcher.errors import JobError
from batcher.records import Reply

#: between two readings; after misses it doubles, up to the second
EVERY_S: Final = 5.0
LONGEST_S: Final = 60.0
#: for one page: how long it may take, how large it may be
PATIENCE_S: Final = 2.0
MAX_BYTES: Final = 4 << 20
#: no server runs more; a larger number is nonsense
_MOST: Final = 10**9

#: by name: whether it counts requests that wait, or that run
_GAUGES: Final = {
    b"vllm:num_requests_running": False,
    b"vllm:num_requests_waiting": True,
    b"sglang:num_running_reqs": False,
    b"sglang:num_queue_reqs": True,
    b"llamacpp:requests_processing": False,
    b"llamacpp:requests_deferred": True,
}
#: name, labels, value, and perhaps a time
_SAMPLE: Final = re.compile(
    rb"^(%b)(\{[^\n]*\})?[ \t]+([^\s]{1,32})(?:[ \t]+-?\d{1,20})?[ \t]*\r?$" % b"|".join(_GAUGES), re.MULTILINE
)
#: SGLang gives each priority's part beside the whole
_PART: Final = re.compile(rb'[{,]priority="[^"]')


def read_gauges(page: bytes) -> tuple[int, int] | None:
    """Return how many requests run and how many wait, over all models and engines; None if the page does not say."""
    sums: dict[bool, float] = {}
    for name, labels, value in _SAMPLE.findall(page):
        count = _number(value)
        if count is not None and not _PART.search(labels):
            waits = _GAUGES[name]
            sums[waits] = sums.get(waits, 0.0) + count
    if len(sums) < 2:
        return None
    return min(_MOST, round(sums[False])), min(_MOST, round(sums[True]))


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


async def watch_gauges(
    url: str,
    heed: Callable[[int, int], None],
    ready: Callable[[], bool],
    *,
    ca_file: Path | None = None,
    every_s: float = EVERY_S,
) -> None:
    """Read the gauges of the server behind `url` again and again, once `ready`; call `heed` with what runs and waits.

    Returns when there is nothing to watch: the server is a public one, or its first answer holds no known gauge. Later
    misses only make the readings rarer. Raises nothing of its own.
    """
    if not await _is_own(url):
        return
    try:
        client = open_client(_page_of(url, ca_file), 1)
    except JobError:
        return
    try:
        await _watch(client, heed, ready, every_s)
    finally:
        await client.close()


async def _watch(client: Client, heed: Callable[[int, int], None], ready: Callable[[], bool], every_s: float) -> None:
    known, misses = False, 0
    while True:
        if known or ready():
            reading = await _reading(client)
            if reading is not None:
                known, misses = True, 0
                heed(*reading)
            elif not known:
                return
            else:
                misses += 1
        await asyncio.sleep(min(max(LONGEST_S, every_s), every_s * 2 ** min(misses, 10)))


async def _reading(client: Client) -> tuple[int, int] | None:
    result = await client.send(b"")
    return read_gauges(result.body) if isinstance(result, Reply) and result.status == 200 else None


def _page_of(url: str, ca_file: Path | None) -> Destination:
    parts = urlsplit(url)
    return Destination(
        url=urlunsplit((parts.scheme, parts.netloc, "/metrics", "", "")),
        method="GET",
        connect_s=PATIENCE_S,
        first_byte_s=PATIENCE_S,
        total_s=PATIENCE_S,
        idle_s=min(1.0, EVERY_S / 5),  # a connection of the time before may be about to be closed
        max_response_bytes=MAX_BYTES,
        ca_file=ca_file,
    )


async def _is_own(url: str) -> bool:
    """Whether the server is one's own: spoken to without TLS, or at an address that is not public."""
    try:
        target = Target.of(url)
        if not target.tls:
            return True
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (JobError, OSError, UnicodeError):
        return False
    return bool(found) and not any(ipaddress.ip_address(entry[4][0]).is_global for entry in found)
