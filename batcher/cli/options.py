"""The options that stand in place of a job file, as `batcher run` and `batcher check` take them."""

from __future__ import annotations

from typing import Annotated

import typer

_INSTEAD = "Instead of a job file"
Inputs = Annotated[
    list[str], typer.Option("--input", metavar="FILE", help="rows: file, folder or glob", rich_help_panel=_INSTEAD)
]
Output = Annotated[str | None, typer.Option(metavar="DIR", help="the output folder", rich_help_panel=_INSTEAD)]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="M", help="ask this model; default: the one OpenAI Batch lines name", rich_help_panel=_INSTEAD
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(metavar="U", help="/chat/completions is appended, or: simulator", rich_help_panel=_INSTEAD)
]
ApiKeyEnv = Annotated[
    str | None, typer.Option(metavar="NAME", help="the variable with the API key", rich_help_panel=_INSTEAD)
]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="template: {{ column }}", rich_help_panel=_INSTEAD)]
SystemPrompt = Annotated[str | None, typer.Option(metavar="TEXT", help="likewise", rich_help_panel=_INSTEAD)]
Concurrency = Annotated[
    int | None, typer.Option(metavar="N", help="requests in flight, at most", rich_help_panel=_INSTEAD)
]
