"""The command with its waiting made a hundred times shorter: what takes five minutes takes three seconds.

Only constants that are waits of the run are scaled; what the job file or the server sets, the test sets to fit.
"""

from __future__ import annotations

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
    "batcher.limits.limiter.RUN_WAIT_S",
    "batcher.retry.judge.LONGEST_ROW_WAIT_S",
    "batcher.retry.judge.LONGEST_BACKOFF_S",
)
#: how often the summary is written, for tests that watch it
_SUMMARY = {"batcher.engines.local._SUMMARY_S": 0.2}
SCALED = patched(_SUMMARY, scale=dict.fromkeys(_WAITS, 1 / FACTOR))
