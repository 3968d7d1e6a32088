"""The command line: argv -> calls -> exit code. The only code that prints or exits.

Results go to stdout, everything else to stderr. Imports that cost time stay inside the commands, so that `--help`
answers at once.
"""

from batcher.cli.app import main

__all__ = ["main"]
