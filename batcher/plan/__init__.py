"""The plan: which rows belong to which shard, one schema for all parts, and a digest that knows a changed input."""

from batcher.plan.plan import Plan, carried_columns, files_unchanged, make_plan

__all__ = ["Plan", "carried_columns", "files_unchanged", "make_plan"]
