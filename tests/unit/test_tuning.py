"""What is set once for a process, seen from a process of its own."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from batcher.tuning import spare_pandas
import pyarrow as pa
spare_pandas()
table = pa.table({"n": [1, 2]})
print("pandas" in sys.modules)
print(len(table.to_pandas()), "pandas" in sys.modules)
"""


def test_pyarrow_does_without_pandas_until_it_is_asked_for() -> None:
    """A process of ours does not pay for pandas because it is installed, and pyarrow can use it all the same."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    (without,), (rows, with_it) = (line.split() for line in ended.stdout.splitlines())
    assert (without, rows, with_it) == ("False", "2", "True")
