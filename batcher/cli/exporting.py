"""`batcher export`: results as files that other programs take."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from batcher.cli.folder import results_of
from batcher.cli.running import shown
from batcher.cli.talk import say
from batcher.cli.text import put
from batcher.export import Format, export_dataset, export_failed_inputs, export_file
from batcher.export.openai_batch import id_column
from batcher.results import Results

_SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def export(
    target: Path, to: Path | None, dataset: Path | None, kind: str | None, *, failed: bool, partial: bool, force: bool
) -> int:
    """Write an export and say what was written; return 0."""
    if (to is None) == (dataset is None):
        raise typer.BadParameter("say either --to FILE or --hf DIR")
    with results_of(target) as results:
        if dataset is not None:
            if failed or kind is not None:
                raise typer.BadParameter("--failed and --format go with --to")
            rows, files = export_dataset(results, dataset, partial=partial, force=force)
            put(f"{rows:,} rows in {files} data files and a card: {shown(str(dataset))}")
        elif to is not None and failed:
            _export_failed(results, to, kind, force=force)
        elif to is not None:
            _export_file(results, to, _format(to, kind), partial=partial, force=force)
    return 0


def _format(path: Path, kind: str | None) -> Format:
    """The format that is named, or that the file's suffix stands for."""
    chosen: Format | None = _SUFFIXES.get(path.suffix.lower()) if kind is None else kind  # type: ignore[assignment]
    if chosen is None:
        raise typer.BadParameter(f"{path.name}: say --format, or use one of the suffixes {', '.join(_SUFFIXES)}")
    return chosen


def _export_file(results: Results, path: Path, kind: Format, *, partial: bool, force: bool) -> None:
    rows, files = export_file(results, path, kind, partial=partial, force=force)
    put(f"{rows:,} rows: {', '.join(shown(str(file)) for file in files)}")
    if kind == "openai-batch" and id_column(results) is None and "custom_id" in results.plan.schema.names:
        say("note: output.columns leaves custom_id out, so that the ids are made of the row numbers", sys.stderr)


def _export_failed(results: Results, path: Path, kind: str | None, *, force: bool) -> None:
    if _format(path, kind) != "jsonl":
        raise typer.BadParameter("--failed writes an input file of JSON Lines: name it something.jsonl")
    rows, unreadable = export_failed_inputs(results, path, force=force)
    put(f"{rows:,} input rows of failed rows: {shown(str(path))}")
    if unreadable:
        say(f"note: {unreadable:,} further ones cannot be read at all (code invalid_row)", sys.stderr)
