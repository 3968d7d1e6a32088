"""`python -m batcher` is the `batcher` command."""

import sys

from batcher.cli import main

sys.exit(main())
