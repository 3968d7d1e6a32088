"""The report of a run: one HTML page that needs nothing but itself.

`gather` reads a run folder once, in memory that does not grow with its rows; `render` makes the page of what was found.
Drawing the plots needs the extra `report`; this package is imported by its command only.
"""

from batcher.report.gather import Findings, gather
from batcher.report.page import render

__all__ = ["Findings", "gather", "render"]
