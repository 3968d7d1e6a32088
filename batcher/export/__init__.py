"""Results in other shapes: one Parquet, JSON Lines or CSV file, OpenAI Batch files, a Hugging Face dataset.

An export is there whole or not at all, replaces nothing unless told to, and needs the memory of one row group however
many rows there are. It reads through `Results` only and knows nothing of terminals.
"""

from batcher.export.again import export_failed_inputs
from batcher.export.files import FORMATS, Format, export_file
from batcher.export.huggingface import export_dataset
from batcher.export.newfile import UnfinishedError

__all__ = ["FORMATS", "Format", "UnfinishedError", "export_dataset", "export_failed_inputs", "export_file"]
