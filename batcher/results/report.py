"""What a run gives back to the program that called it: the figures, and the rows as tables of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from batcher.records import Standing
from batcher.results.folder import Results


class Report(Standing):
    """What the run folder holds now, read from its parts.

    The methods that give rows read the folder when they are called. They give the rows that have an outcome, failed
    ones included, in input order, with the columns of the parts: after a run to its end all rows; after one with a
    `limit` those that were asked so far.
    """

    __slots__ = ()

    @classmethod
    def of(cls, standing: Standing) -> Self:
        """The report of a run folder that stands so."""
        return cls(**{field.name: getattr(standing, field.name) for field in fields(standing)})

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in `pyarrow.RecordBatch`es of some MB, so that there may be more than memory holds.

        Raises:
            StorageError: a part is damaged or gone.
        """
        with Results.open(Path(self.path)) as results:
            yield from results.batches()

    def to_arrow(self) -> pa.Table:
        """Return the rows as a `pyarrow.Table`, all in memory: about the size of the parts without compression.

        Raises:
            StorageError: a part is damaged or gone.
        """
        with Results.open(Path(self.path)) as results:
            return pa.Table.from_batches(results.batches(), results.schema)

    def to_pandas(self, **options: Any) -> Any:
        """Return the rows as a `pandas.DataFrame`, all in memory, for a moment twice.

        `options` are those of `pyarrow.Table.to_pandas`; without any, a column of integers in which a value is missing,
        such as the tokens of failed rows, becomes one of floats (`types_mapper=pandas.ArrowDtype` keeps it).

        Raises:
            StorageError: a part is damaged or gone.
            ImportError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise ImportError("to_pandas() needs pandas: pip install pandas")
        return self.to_arrow().to_pandas(**options)
