"""The result of an attempt becomes a decision: complete, retry, fail the row, or stop the run. Pure."""

from batcher.retry.judge import Action, Doubt, Verdict, backoff_s, is_row_specific, judge, safely_judged

__all__ = ["Action", "Doubt", "Verdict", "backoff_s", "is_row_specific", "judge", "safely_judged"]
