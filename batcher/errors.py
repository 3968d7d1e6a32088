"""Every way a run can end badly, each with the exit code the command line returns.

A class's docstring is its default message, so the two cannot drift apart; an instance adds the facts.
These are errors *of the run*. A problem of one row is never an exception: it is an `Outcome` with `status = failed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class Exit(NamedTuple):
    """What an exit code says; Markdown, as `batcher help exit-codes` and the README show it."""

    #: a few words, for the end of `batcher --help`
    short: str
    meaning: str
    #: what to do about it; empty: nothing
    then: str = ""


#: every exit code of the command line; a test finds one that is missing here
EXIT_CODES: Final[dict[int, Exit]] = {
    0: Exit("all rows completed", "every row completed; for other commands: done"),
    1: Exit("internal error", "internal error", "please report it"),
    2: Exit("wrong usage", "wrong usage, or a file to be written is there already"),
    3: Exit(
        "some failed",
        "finished, some rows failed",
        "`batcher failures JOB` says why, `batcher run JOB --retry-failed` asks them again",
    ),
    65: Exit("input", "the input cannot be read, or changed since the run began", "mend it, run again"),
    69: Exit(
        "endpoint down", "the endpoint is down, or was for longer than `limits.max_outage_s`", "run it again later"
    ),
    74: Exit("storage", "the output cannot be written; what was received is safe", "repair, run again"),
    75: Exit(
        "rows left or locked",
        "rows are left: `--limit`, or a budget is used up; or another run works on this folder",
        "run it again",
    ),
    77: Exit("key or account", "key refused, balance or quota used up", "mend the account, run again"),
    78: Exit(
        "job file",
        "the job file is wrong, the endpoint refuses every request of it, or it differs from the run it would resume",
        "mend the job file, run again",
    ),
    129: Exit("hangup", "stopped by a hangup (SIGHUP), everything saved", "run it again"),
    130: Exit("Ctrl-C", "stopped by Ctrl-C (SIGINT), everything saved", "run it again"),
    141: Exit("nobody reads", "the program that read the output has left, as `head` does"),
    143: Exit("SIGTERM", "stopped by SIGTERM, everything saved", "run it again"),
}


class BatcherError(Exception):
    """batcher met an internal error; please report it with the command you ran."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((self.__doc__ or "").split()))
        #: finished lines; what a line quotes cannot begin another one
        self.problems: tuple[str, ...] = (str(self),)


class JobError(BatcherError):
    """The job file is invalid."""

    exit_code = 78

    def __init__(self, problems: Sequence[str] | str) -> None:
        lines = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(lines))
        #: one finished line per problem, `file:line:column: key: what is wrong`
        self.problems = lines


class InputError(BatcherError):
    """The input cannot be read."""

    exit_code = 65


class ResumeError(BatcherError):
    """The job differs from the run it would resume; use a new output folder."""

    exit_code = 78


class EndpointError(BatcherError):
    """The endpoint does not answer; what was received is saved, run the same command again later."""

    exit_code = 69


class EndpointRefusedError(BatcherError):
    """The endpoint refuses every request of this job; correct the job file and run the same command again."""

    exit_code = 78


class AccountError(BatcherError):
    """The endpoint refused the key or the account; put it right and run the same command again."""

    exit_code = 77


class StorageError(BatcherError):
    """The output folder cannot be written; what was received before is safe."""

    exit_code = 74


class DiskFullError(StorageError):
    """There is no room in the output folder; what was received before is safe."""


class BudgetError(BatcherError):
    """A limit of the job file on tokens, money or time is reached; everything received is saved."""

    exit_code = 75

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message and f"{message}; the other rows stay pending: raise the limit or run again later")


class LockedError(BatcherError):
    """Another run is working on this output folder."""

    exit_code = 75


class Interrupted(BatcherError):  # noqa: N818 - named like KeyboardInterrupt: it is nobody's error
    """Stopped by a signal; everything received is saved, the same command carries on."""

    def __init__(self, signum: int, message: str | None = None) -> None:
        self.exit_code = 128 + signum
        super().__init__(message)
