"""A GET beside the attempts: what an endpoint says about itself, such as its models or the balance of an account.

It goes through the same clients as the attempts, so the same rules hold: no redirect is followed, nothing is taken from
the environment, certificates are verified, the size is capped, the key is taken out of what comes back. It does
not know what it fetches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from batcher.client import open_client
from batcher.client.attempt import Destination
from batcher.records import Fault, Reply

#: for the whole of it, in seconds: whatever it brings is only told to a person who waits
PATIENCE_S: Final = 15.0
#: a list of several thousand models
MAX_BYTES: Final = 4 << 20


async def fetch(destination: Destination, url: str, *, patience_s: float = PATIENCE_S) -> Reply | Fault:
    """GET `url` with the key, headers, proxy and certificates of `destination`, within `patience_s` and 4 MiB.

    Raises:
        JobError: the URL, a header, the key, the proxy or the CA file is not usable.
    """
    asked = replace(
        destination,
        url=url,
        method="GET",
        connect_s=min(destination.connect_s, patience_s),
        first_byte_s=patience_s,
        total_s=patience_s,
        max_response_bytes=MAX_BYTES,
    )
    client = open_client(asked, 1)
    try:
        return await client.send(b"")
    finally:
        await client.close()
