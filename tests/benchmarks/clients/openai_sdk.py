"""OAI and OAI-A: the `openai` package as it comes, or on its aiohttp transport; a semaphore and `gather` around it.

The fourth argument is `httpx` for as it comes, `aiohttp` for the other. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from openai import AsyncOpenAI, DefaultAioHttpClient


async def ask_all(base_url: str, path: Path, in_flight: int, transport: str) -> None:
    """Complete every row of a JSONL file, with so many requests in flight."""
    rows = [json.loads(line) for line in path.open()]
    gate = asyncio.Semaphore(in_flight)
    http_client = DefaultAioHttpClient() if transport == "aiohttp" else None
    # by itself it gives a connection 5 s, and fails where the machine is busy
    async with AsyncOpenAI(base_url=base_url, api_key="none", http_client=http_client, timeout=600.0) as client:

        async def ask(row: dict[str, str]) -> None:
            async with gate:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": row["text"]}], max_tokens=200
                )

        await asyncio.gather(*(ask(row) for row in rows))


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(ask_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
