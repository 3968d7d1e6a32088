"""The rows of shards, read forwards from JSONL (plain or compressed) or Parquet files."""

from batcher.source.inputs import GivenUp, InputFile, find_files
from batcher.source.reader import Chunk, read

__all__ = ["Chunk", "GivenUp", "InputFile", "find_files", "read"]
