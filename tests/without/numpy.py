"""In place of numpy, for the processes that tests start: it is not there, as it is not where only batcher is installed.

pyarrow imports numpy wherever it finds it, and the suite has it for the readers of parts: a third of a start's time.
"""

raise ImportError("numpy is hidden from the command, which does without it")
