"""The job that a command line asks for: a job file, or options in its place.

Options become the same document that a job file is and are checked by the same rules; what is wrong names the option
instead of a file and a line. Without a model among them, that of the first row, an OpenAI Batch line, is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.catalogue import load_catalogue
from batcher.cli.hints import command, path_word
from batcher.config.document import Document, Place, dotted
from batcher.errors import InputError
from batcher.job import Job, load_job
from batcher.job.load import job_of

#: the key of a job file that each option stands for; without the first ones there is no job
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "--input": ("input", "path"),
    "--output": ("output", "path"),
    "--base-url": ("endpoint", "base_url"),
}
OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    **REQUIRED,
    "--model": ("model",),
    "--api-key-env": ("endpoint", "api_key_env"),
    "--prompt": ("prompt",),
    "--system-prompt": ("system_prompt",),
    "--concurrency": ("limits", "concurrency"),
}
#: keys whose values are text for the model, or may be secrets
_PRIVATE: Final = ("prompt", "system_prompt", "endpoint=", "endpoint.headers", "endpoint.proxy", "parameters.extra")
#: where people keep keys; never read unless the job names them
_KEY_VARIABLES: Final = ("OPENAI_API_KEY", "DEEPSEEK_API_KEY")


class UsageError(Exception):
    """A command line that names no job, or two."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was said of the job."""

    file: Path | None
    overrides: Sequence[str] = ()
    #: values of `OPTIONS` that were given; that of `--input` is a list
    options: dict[str, Any] | None = None

    def check_usage(self) -> None:
        """Raise UsageError if this is no job or two."""
        given = list(self.options or ())
        if self.file is not None and given:
            raise UsageError(
                f"a job file ({path_word(self.file)}) and {given[0]} exclude each other;"
                f" --set {dotted(OPTIONS[given[0]])}=... changes a key of the job file"
                + ("; several inputs are written --input A --input B" if "--input" in given else "")
            )
        missing = [name for name in REQUIRED if name not in given]
        if self.file is None and missing:
            wanted = f"without a job file, {' and '.join(missing)} must be given" if given else ""
            raise UsageError(wanted or f"name a job file, or give {', '.join(REQUIRED)} and --model")

    def load(self) -> Job:
        """Return the job.

        Raises:
            JobError: with every problem that was found.
            InputError: no model was given, and the first row, which may name one, cannot be read.
        """
        if self.file is not None:
            return load_job(self.file, overrides=self.overrides)
        document = self._document()
        if "--model" not in (self.options or {}) and not any(text.startswith("model=") for text in self.overrides):
            document.values["model"] = _model_of_first_row((self.options or {})["--input"])
        return job_of(document, overrides=self.overrides)

    def _document(self) -> Document:
        document = Document("batcher run", places={(): Place("batcher run")})
        for name, path in OPTIONS.items():
            document.places[path] = Place(name, is_option=True)
        for name, value in (self.options or {}).items():
            *sections, key = OPTIONS[name]
            holder = document.values
            for section in sections:
                holder = holder.setdefault(section, {})
            holder[key] = _literal(value) if key not in ("prompt", "system_prompt") else value
        if "--model" in (self.options or {}):
            document.values["input"]["own_model"] = False
        return document

    # -- for people to copy

    def command(self, name: str, *more: str) -> str:
        """The command that was given, with `more` in it, for a shell; `...` stands for what no message repeats."""
        return command(name, *self._words(), *more, *self._overrides())

    @property
    def shown(self) -> str:
        """What the job is called in a message."""
        return "from the command line" if self.file is None else path_word(self.file)

    def key_hint(self, job: Job) -> str | None:
        """What to say where the account was refused: that no key was sent, if so, and how one is."""
        endpoint = job.endpoint
        if endpoint.api_key_env is not None or endpoint.api_key_file is not None:
            return None
        schema = load_catalogue(job.catalogue).schema_of(job.model)
        usual = schema.api_key_env if endpoint.base_url == schema.base_url else None
        name = usual or next((name for name in _KEY_VARIABLES if name in os.environ), "NAME_OF_ITS_VARIABLE")
        how = f"--api-key-env {name}" if self.file is None else f"endpoint: {{api_key_env: {name}}}"
        return f"no key was sent; to send one: {how}"

    def _words(self) -> Iterator[str]:
        if self.file is not None:
            yield path_word(self.file)
        for name, value in (self.options or {}).items():
            for one in value if isinstance(value, list) else [value]:
                private = name in ("--prompt", "--system-prompt")
                yield from (name, "..." if private else path_word(one) if name in ("--input", "--output") else str(one))

    def _overrides(self) -> Iterator[str]:
        for text in self.overrides:
            private = text.strip().startswith(_PRIVATE)
            yield from ("--set", f"{text.partition('=')[0]}=..." if private else text)


def _literal(value: Any) -> Any:
    """The value as the document needs it to be taken as it stands: the shell has filled in its variables already."""
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _model_of_first_row(patterns: Sequence[str]) -> str:
    from batcher.cli.looking import first_values
    from batcher.job.localpath import expanded
    from batcher.source import find_files

    body = first_values(find_files(expanded(pattern) for pattern in patterns)).get("body")
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str):
        raise InputError("the first row names no model to ask; say which with --model")
    return model.replace("$", "$$")
