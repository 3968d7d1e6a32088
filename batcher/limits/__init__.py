"""How much may be sent: the limit that a run finds by itself, rates, pauses, outages. Pure state machines."""

from batcher.limits.limiter import Limiter

__all__ = ["Limiter"]
