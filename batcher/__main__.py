"""`python -m batcher` is the `batcher` command.

With `-m` Python looks for modules in the current folder first, so that a `json.py` among somebody's rows would run,
with the key in its environment. That folder is left out from here on; `python -P -m batcher` never looks there.
"""

import os
import sys


def _look_no_more_in_current_folder() -> None:
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is to come
    try:
        here = os.getcwd()  # noqa: PTH109 - as above
    except FileNotFoundError:
        return
    if sys.path[0] == here != own and not sys.flags.safe_path:
        del sys.path[0]


_look_no_more_in_current_folder()

from batcher.cli import main  # noqa: E402 - not from there

sys.exit(main())
