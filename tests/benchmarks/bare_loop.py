"""What batcher is measured against: a bare aiohttp loop that asks every row and stores nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp


async def ask_all(base_url: str, path: Path, in_flight: int) -> None:
    """Post every row of a JSONL file, with so many requests in flight."""
    rows = iter([json.loads(line) for line in path.open()])

    async def slot(session: aiohttp.ClientSession) -> None:
        for row in rows:
            body = {"model": "m", "messages": [{"role": "user", "content": row["text"]}], "max_tokens": 200}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                await response.json()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(slot(session) for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(ask_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
