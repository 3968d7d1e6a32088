"""`python -m batcher.simulator`."""

from __future__ import annotations

import sys

from batcher.simulator.serve import main

if __name__ == "__main__":
    sys.exit(main())
