"""How much may be sent: the limit that a run finds by itself, rates, pauses, outages. Pure state machines."""

from batcher.limits.bound import DISK, INPUT
from batcher.limits.limiter import Limiter
from batcher.limits.quota import RetryQuota, UnsureBudget

__all__ = ["DISK", "INPUT", "Limiter", "RetryQuota", "UnsureBudget"]
