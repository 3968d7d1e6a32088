"""What all tests share: the event loop, that nothing blocks it, and that whole folders of tests run on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


@pytest.fixture
def anyio_backend() -> str:
    """batcher's HTTP client runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    """A blocking call of ours on the event loop fails the test."""
    with blockbuster_ctx("batcher") as guard:
        yield guard


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share folders of tests out among processes, unless `-n` says how many; single files are run as they are.

    Half the tests wait for processes that they started, so there are more of ours than cores. What `-s` is to show
    would not be seen from them, and a debugger needs the terminal.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # this is one of them
    option = config.option
    folders = not any(".py" in argument for argument in config.args)
    shown = option.capture == "no" or option.usepdb or option.collectonly
    if getattr(option, "numprocesses", 0) is None and option.dist == "no" and folders and not shown:
        option.numprocesses, option.dist = len(os.sched_getaffinity(0)) * 3 // 2, "worksteal"
