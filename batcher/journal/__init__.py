"""The journal: durable memory of what the open shards have received."""

from batcher.journal.gathering import deal, gather, journal_path
from batcher.journal.journal import Journal
from batcher.journal.listener import Listener
from batcher.journal.reader import JournalReader
from batcher.journal.readers import JournalsReader
from batcher.journal.reopened import ReopenedRow, Reopening, moved_by
from batcher.journal.tables import Batch, Part

__all__ = [
    "Batch",
    "Journal",
    "JournalReader",
    "JournalsReader",
    "Listener",
    "Part",
    "ReopenedRow",
    "Reopening",
    "deal",
    "gather",
    "journal_path",
    "moved_by",
]
