"""The rows of shards, read forwards from JSONL (plain or compressed) or Parquet files."""

from batcher.source.inputs import InputFile, find_files
from batcher.source.reader import Chunk, read

__all__ = ["Chunk", "InputFile", "find_files", "read"]
