"""What a run folder holds, for everybody who shows, counts or exports it: finished or not, running or not.

    with Results.open(Path("out/tickets")) as results:
        results.rows, results.totals()                     # of the input; of the rows that have an outcome
        status = results.column("status")                  # its name in this run: output.prefix may stand before it
        for batch in results.batches([status, results.column("total_tokens")]):
            ...                                            # Arrow record batches in row order, a few MB at a time

Nothing here locks the folder or writes a part, a journal entry or a summary. It knows nothing of terminals.
"""

from batcher.results.folder import Results, StoredPart
from batcher.results.report import Report

__all__ = ["Report", "Results", "StoredPart"]
