"""The command with its waiting made a hundred times shorter: what takes five minutes takes three seconds.

Only constants that are waits of the run are scaled; what the job file or the server sets, the test sets to fit.
"""

from __future__ import annotations

from typing import Any

from tests.command import patched

#: how much shorter
FACTOR = 100.0
_WAITS = (
    *(
        f"batcher.limits.breaker.{name}"
        for name in (
            "FAILING_FOR_S",
            "THROTTLED_PAUSE_S",
            "FAILED_PAUSE_S",
            "LONGEST_PAUSE_S",
            "PROBE_AFTER_S",
            "LONGEST_PROBE_WAIT_S",
        )
    ),
    "batcher.engines.crew._KEY_S",
    "batcher.limits.first.ALONE_S",
    "batcher.limits.limiter.RUN_WAIT_S",
    "batcher.limits.quota.APART_S",
    "batcher.limits.quota.LONGEST_DELAY_S",
    "batcher.retry.judge.LONGEST_ROW_WAIT_S",
    "batcher.retry.judge.LONGEST_BACKOFF_S",
    "batcher.settling.END_PATIENCE_S",
    "batcher.settling.OVERLOADED_AT_THE_END_S",
)
_INQUIRIES = f"""
from batcher import settling
settling.INQUIRIES_S = {{doubt: tuple(s / {FACTOR} for s in waits) for doubt, waits in settling.INQUIRIES_S.items()}}
"""
#: how often the summary is written, for tests that watch it
_SUMMARY = {"batcher.engines.conducting._SUMMARY_S": 0.2}


def scaled(constants: dict[str, Any] | None = None, *, also: str = "") -> list[str]:
    """The scaled command with further constants replaced; `also` is Python for what that cannot say."""
    return patched(_SUMMARY | (constants or {}), scale=dict.fromkeys(_WAITS, 1 / FACTOR), also=_INQUIRIES + also)


SCALED = scaled()
