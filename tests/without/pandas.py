"""In place of pandas, for the processes that tests start: hidden, as it is missing where only batcher is installed.

pyarrow imports pandas wherever there is one, which takes a while, and the suite has it for the readers of parts.
"""

raise ImportError("pandas is hidden from the command, which does without it")
