"""`batcher init`: a look at the data, a job file that runs as it stands, and the commands that come next."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from batcher.cli.hints import command, path_word
from batcher.cli.jobschema import job_schema
from batcher.cli.jobtext import LABEL, SUMMARY, render_job
from batcher.cli.looking import Look, look_at
from batcher.config.document import did_you_mean, mask
from batcher.errors import BatcherError, InputError, StorageError
from batcher.source import InputFile, find_files

SCHEMA_NAME: Final = "job.schema.json"
STARTER_NAME: Final = "prompts.jsonl"
_STARTER: Final = (
    "The parcel came two days early and everything works. Thank you!",
    "My hub has shown a red light since last night. What can I do?",
    "I was charged twice for the same order, please refund one payment.",
    "Do you deliver to islands, and how long does that take?",
    "Third time I write. Nobody answers. I want my money back now.",
)
_READ_CSV: Final = "import pyarrow.csv as c, pyarrow.parquet as p; p.write_table(c.read_csv({0!r}{2}), {1!r})"
#: files that are not read, and the Python that makes one of them that is: {0} the file, {1} the new one
_CONVERSIONS: Final = {
    ".csv": (".parquet", _READ_CSV.replace("{2}", "")),
    ".tsv": (".parquet", _READ_CSV.replace("{2}", ", parse_options=c.ParseOptions(delimiter=chr(9))")),
    ".json": (
        ".jsonl",
        "import json, pathlib as p; rows = json.loads(p.Path({0!r}).read_text());"
        " p.Path({1!r}).write_text(chr(10).join(map(json.dumps, rows)))",
    ),
}
_SHOWN_COLUMNS: Final = 12


class AlreadyThereError(BatcherError):
    """A file of this name is there already."""

    exit_code = 2


def init_job(data: Sequence[Path], job: Path) -> int:
    """Write a job file for some data, or for a few rows written beside it; print what to do next; return 0.

    Raises:
        AlreadyThereError: a file would have to be overwritten.
        InputError: the data cannot be read, or no job can be made for it.
        StorageError: the folder cannot be written.
    """
    folder = _folder_of(job)
    starter = folder / STARTER_NAME
    look = look_at(_found(data)) if data else _starter_look()
    _refuse_to_overwrite(job, data)
    contents = {} if data else {starter: _starter_lines()}
    text = render_job(
        look,
        task=SUMMARY if data else LABEL,
        inputs=[_as_named(path, folder) for path in data or [starter]],
        output=_output(job.stem, folder, data),
        job_name=job.name,
        schema_name=SCHEMA_NAME,
    )
    schema = folder / SCHEMA_NAME
    contents |= {schema: _schema_text()} if not os.path.lexists(schema) else {}
    write_new({**contents, job: text.encode()})
    print(f"created {', '.join(path_word(path) for path in (job, *contents))}")
    for line in (*_findings(look, data or [starter]), *_next(job)):
        print(line)
    _tell_of_old_schema(schema)
    return 0


def _next(job: Path) -> Iterator[str]:
    yield "answers: made up by the built-in simulator, without key or cost; the job file says how to ask the real API"
    yield f"next:    {command('check', path_word(job))}"
    yield f"         {command('run', path_word(job))}"


def _findings(look: Look, data: Sequence[Path]) -> Iterator[str]:
    """What was seen of the input, a line each."""
    what = path_word(data[0]) if len(data) == 1 else f"{len(data)} inputs"
    files = f" in {len(look.files)} files" if len(look.files) > 1 else ""
    rows = (
        "rows not counted, it is large" if look.rows is None else "1 row" if look.rows == 1 else f"{look.rows:,} rows"
    )
    yield f"input:   {what}: {rows}{files}"
    columns = [f"{name} ({kind})" for name, kind in look.columns.items()]
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    yield f"columns: {', '.join(columns[:_SHOWN_COLUMNS])}{more}".replace("\n", " ")
    shapes = {
        "columns": "a prompt template, filled in from the columns",
        "prompt": "the prompt that each row brings",
        "messages": "the messages that each row brings",
        "body": "the whole request that each row brings (OpenAI Batch lines)",
    }
    yield f"asks:    {shapes[look.shape]}"
    seen = len(look.sample) + len(look.bad)
    if look.others:
        yield f"warning: of the first {seen} rows, {look.others} are of another shape"
    if parts := sum((file.path.parent / ".batcher").is_dir() for file in look.files):
        yield f"warning: {parts} of the files are the answers of an earlier run"
    if look.bad:
        yield f"warning: of the first {seen} rows, {len(look.bad)} cannot be read, such as {look.bad[0]}"


# -- the data ----------------------------------------------------------------------------------------------------------


def _found(data: Sequence[Path]) -> list[InputFile]:
    try:
        return find_files(data)
    except InputError as error:
        advice = [hint for path in data if (hint := _advice(path))]
        refused = InputError("\n".join([str(error), *advice]))
        refused.problems = (str(error), *advice)
        raise refused from None


def _advice(path: Path) -> str | None:
    """What to do about a file that is missing or not of a known kind."""
    if not path.exists():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, names)
        return f"{path_word(path)}: there is no such file{hint}" if hint else None
    if path.suffix.lower() in (".yaml", ".yml"):
        return f"a job file is named so: {command('init', '--job', path_word(path))}"
    if path.suffix.lower() not in _CONVERSIONS:
        return None
    suffix, program = _CONVERSIONS[path.suffix.lower()]
    new = path.with_suffix(suffix)
    converted = shlex.join([sys.executable, "-c", program.format(str(path), str(new))])
    return f"make a {suffix} file of it: {converted} && {command('init', path_word(new))}"


def _starter_lines() -> bytes:
    rows = ({"id": number, "text": text} for number, text in enumerate(_STARTER, 1))
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def _starter_look() -> Look:
    rows = tuple(orjson.loads(line) for line in _starter_lines().splitlines())
    return Look(files=(), rows=len(rows), sample=rows, bad=())


# -- paths as the job file names them ----------------------------------------------------------------------------------


def _as_named(path: Path, folder: Path) -> str:
    """Return a path relative to the job's folder, unless its user gave an absolute one that lies elsewhere."""
    absolute = _physical(path)
    if path.is_absolute() and not absolute.is_relative_to(folder):
        return _checked(str(absolute))
    relative = os.path.relpath(absolute, folder)
    return _checked(f"./{relative}" if relative.startswith("~") else relative)


def _physical(path: Path) -> Path:
    """The absolute path with no link above the last step, as the loader sees the job's folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - as `find_files` reads it
    return Path(os.path.realpath(absolute.parent), absolute.name)


def _output(stem: str, folder: Path, data: Sequence[Path]) -> str:
    """Return a new folder for the answers that is not inside the input, where they would be read as rows."""
    place = folder / "out" / stem
    inputs = [_physical(path) for path in data if path.is_dir()]
    while (around := next((path for path in inputs if place.is_relative_to(path)), None)) is not None:
        place = around.parent / f"{around.name}-out" / stem
    candidates = (place.with_name(f"{place.name}-{n}" if n > 1 else place.name) for n in range(1, 1000))
    free = next((path for path in candidates if not os.path.lexists(path)), place)
    return _checked(os.path.relpath(free, folder))


def _checked(text: str) -> str:
    if mask(text) != text:
        raise InputError(f"{text!r} looks like an API key, which a job file must not hold; give it another name")
    return text


# -- files -------------------------------------------------------------------------------------------------------------


def _folder_of(job: Path) -> Path:
    """The folder of the job file, without links.

    Raises:
        StorageError: there is none.
    """
    if job.is_dir():
        raise StorageError(f"{path_word(job)} is a folder; name the file in it: --job {path_word(job / 'job.yaml')}")
    folder = Path(os.path.realpath(job.parent))
    if not folder.is_dir():
        raise StorageError(f"there is no folder {job.parent}; make it first: mkdir -p {shlex.quote(str(job.parent))}")
    if not job.name.isprintable() or not str(folder).isprintable():
        raise StorageError(f"{str(job)!r} has characters in its name that cannot be written down")
    return folder


def _refuse_to_overwrite(job: Path, data: Sequence[Path]) -> None:
    starter = job.parent / STARTER_NAME
    starter_taken = not data and os.path.lexists(starter)
    names = (job.with_name(f"{job.stem}{f'-{number}' * (number > 1)}{job.suffix}") for number in range(1, 1000))
    free = next((path for path in names if not os.path.lexists(path)), job)
    if free != job or starter_taken:
        taken = starter if free == job else job
        again = command("init", *map(path_word, [starter] if starter_taken else data), "--job", path_word(free))
        raise AlreadyThereError(f"{path_word(taken)} is there already and stays as it is; go on with: {again}")


def write_new(contents: Mapping[Path, bytes]) -> None:
    """Write new files, all of them or none.

    Raises:
        AlreadyThereError: one was made in the meantime.
        StorageError: one cannot be written.
    """
    made: list[Path] = []
    try:
        for path, content in contents.items():
            with path.open("xb") as file:
                made.append(path)
                file.write(content)
    except OSError as error:
        for other in made:
            with contextlib.suppress(OSError):
                other.unlink()
        if isinstance(error, FileExistsError):
            raise AlreadyThereError(f"{path_word(path)} is there already; nothing was written") from None
        raise StorageError(f"{path_word(path)} cannot be written: {error.strerror}; nothing was written") from None


def _schema_text() -> bytes:
    return orjson.dumps(job_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _tell_of_old_schema(path: Path) -> None:
    """A schema file that was there may be another version's; it is not ours to replace."""
    with contextlib.suppress(OSError):
        if path.read_bytes() != _schema_text():
            renew = f"{command('schema')} > {shlex.quote(path_word(path))}"
            print(f"note:    {path_word(path)} was there already and is another version's; to renew it: {renew}")
