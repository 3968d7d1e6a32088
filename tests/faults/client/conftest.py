"""Every test in this folder runs with each client; the lean one also on uvloop."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["wire", "wire-uvloop", "aiohttp"])
def combination(request: pytest.FixtureRequest) -> str:
    """The clients, and the event loops of the one that deals with them directly."""
    return str(request.param)


@pytest.fixture
def anyio_backend(combination: str) -> tuple[str, dict[str, bool]]:
    """The event loop of the combination."""
    return "asyncio", {"use_uvloop": "uvloop" in combination}


@pytest.fixture
def kind(combination: str) -> str:
    """The client of the combination."""
    return combination.partition("-")[0]
