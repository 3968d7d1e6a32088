"""NAIVE: what most people write with aiohttp: `session.post(json=...)`, `await response.json()`, nothing stored."""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import sys
from pathlib import Path

import aiohttp


async def ask_all(base_url: str, path: Path, in_flight: int, ca_file: str | None) -> None:
    """Post every row of a JSONL file, with so many requests in flight."""
    rows = iter([json.loads(line) for line in path.open()])
    tls = ssl.create_default_context(cafile=ca_file) if ca_file else True

    async def slot(session: aiohttp.ClientSession) -> None:
        for row in rows:
            body = {"model": "m", "messages": [{"role": "user", "content": row["text"]}], "max_tokens": 200}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                await response.json()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls)) as session:
        await asyncio.gather(*(slot(session) for _ in range(in_flight)))


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ca = sys.argv[4] if len(sys.argv) > 4 else None
    asyncio.run(ask_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), ca))
