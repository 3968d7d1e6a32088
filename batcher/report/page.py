"""The findings as a page: what is said where is decided in `opening`, `figures` and `tables`; this puts them together.

Everything from rows and servers goes through `visible` and then through the template engine, which escapes it. The
page forbids scripts and every request, so that it stays inert even if something slipped through.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import minijinja

from batcher.report import figures, opening, tables
from batcher.report.gather import Findings
from batcher.report.visible import lines, one_line
from batcher.report.words import moment

_HERE = Path(__file__).parent


def render(findings: Findings) -> str:
    """Return the page."""
    environment = minijinja.Environment(
        templates={"page": (_HERE / "page.html").read_text(encoding="utf-8")},
        undefined_behavior="strict",
        auto_escape_callback=lambda name: "html",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _style(findings)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page: str = environment.render_template(
        "page",
        style=minijinja.safe(style),
        style_digest=digest,
        made=f"{moment(findings.made_at)}; the run was begun by batcher {one_line(findings.version, 40)}",
        **opening.head(findings),
        tiles=opening.tiles(findings),
        notices=opening.notices(findings),
        pace=figures.pace(findings),
        latency=figures.latency(findings),
        attempts=tables.attempts(findings),
        tokens=tables.tokens(findings),
        reasons=tables.reasons(findings),
        causes=tables.causes(findings),
        slowest=tables.slowest(findings),
        settings=[(key, one_line(value, 2000)) for key, value in findings.settings],
        models=tables.models(findings),
        versions=tables.versions(findings),
        prompts=[(key, lines(text)) for key, text in findings.prompts],
    )
    return page


def _style(findings: Findings) -> str:
    """The style sheet, and the lengths of the bar as numbers in it: an attribute `style` would be forbidden."""
    facts = findings.facts
    left = max(0, findings.rows - facts.rows)
    numbers = f":root{{--completed:{facts.completed};--failed:{facts.failed};--left:{left}}}\n"
    return "\n" + numbers + (_HERE / "page.css").read_text(encoding="utf-8")
