"""YAML text to values that remember their place.

The file is read more strictly than YAML asks for: one mapping of text keys, at most 1 MiB, 32 levels and 50,000 values,
no anchors or aliases, no duplicate keys, no tags but those of plain values, and none of YAML 1.1's guesses that
surprise (`0123` is not 83). Whatever is wrong is noted in the `Document`; nothing here raises. It does not know what
the keys mean.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.error import Mark, MarkedYAMLError

from batcher.config.document import Document, KeyPath, Place, dotted, kind_of

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 50_000

_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "value"))
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


def read(path: Path, shown: str | None = None) -> Document:
    """Read a YAML file whose root is a mapping; `shown` is the file's name in messages."""
    document = Document(shown or str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        document.report_at(Place(document.name), f"cannot be read: {error.strerror}")
        return document
    if len(data) > MAX_BYTES:
        document.report_at(Place(document.name), "is larger than 1 MiB")
        return document
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - before.rfind(b"\n")
        document.report_at(Place(document.name, before.count(b"\n") + 1, column), "is not UTF-8 text")
        return document
    root = parse(document, text)
    if isinstance(root, dict):
        document.values = root
    if not document.values and not document.problems():
        what = "is empty" if root in (None, {}) else f"must be a mapping of keys, found {kind_of(root)}"
        document.report((), what)
    return document


def parse(document: Document, text: str, *, at: KeyPath = (), source: str | None = None) -> Any:
    """Return the value that YAML text stands for and note the places of its parts below `at`.

    With `source`, every part was written there (an override has no lines).
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Builder(document, loader, source).value(node, at)
    except MarkedYAMLError as error:
        opened = error.context_mark
        since = f" ({error.context}, line {opened.line + 1})" if error.context and opened and not source else ""
        place, problem = _place(document, source, error.problem_mark or opened), f"{error.problem}{since}"
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark("", 0, before.count("\n"), error.position - before.rfind("\n") - 1, None, 0)
        place, problem = _place(document, source, mark), "a control character stands in the text"
    if at:
        document.places[at] = place
        document.report(at, f"not valid YAML: {problem}")
    else:
        document.report_at(place, f"not valid YAML: {problem}")
    return None


def _place(document: Document, source: str | None, mark: Mark | None) -> Place:
    """Return the place of a mark, or all of `source`."""
    if source is not None:
        return Place(source)
    return Place(document.name, mark.line + 1, mark.column + 1) if mark else Place(document.name)


class _Loader(yaml.SafeLoader):
    """The safe loader without anchors and with limits, which hold before anything is built."""

    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it open
        if event.anchor is not None:
            raise MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        if self.count >= MAX_VALUES:
            raise MarkedYAMLError(problem=f"more than {MAX_VALUES:,} values", problem_mark=event.start_mark)
        self.depth += 1
        self.count += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Builder:
    """Turns nodes into values and writes down their places and problems."""

    def __init__(self, document: Document, loader: _Loader, source: str | None) -> None:
        self._document = document
        self._loader = loader
        self._source = source

    def value(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None = None) -> Any:
        """Return what a node stands for; its place is that of its key, where it has one."""
        raw = node.value if isinstance(node, yaml.ScalarNode) else None
        if path:
            self._document.places[path] = _place(self._document, self._source, (key or node).start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(inner, (*path, index)) for index, inner in enumerate(node.value)]
        if raw is not None and node.tag == _TAG + "timestamp":
            self._document.report(path, "is read as a date; quote it to mean text")
        elif raw is None or node.tag not in _SCALAR_TAGS:
            self._document.report(path, f"the tag {node.tag.replace(_TAG, '!!')[:60]} is not allowed")
        else:
            return self._scalar(node, path, raw)
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                self._document.report_at(_place(self._document, self._source, key.start_mark), _not_a_key(key))
            elif key.value in values:
                first = self._document.places[*path, key.value].line
                problem = "duplicate key" + (f"; it stands already in line {first}" if first else "")
                self._document.report_at(
                    _place(self._document, self._source, key.start_mark), f"{dotted((*path, key.value))}: {problem}"
                )
            else:
                values[key.value] = self.value(inner, (*path, key.value), key)
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath, raw: str) -> Any:
        if node.tag == _TAG + "value":
            return raw
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError, OverflowError):
            self._document.report(path, f"is not {'a number' if node.tag[-1] == 't' else 'true or false'}")
            return None
        if isinstance(value, str):
            return self._text(value, path)
        problem = _number_problem(value, raw) if isinstance(value, int | float) else None
        if problem:
            self._document.report(path, problem)
            return None
        return value

    def _text(self, value: str, path: KeyPath) -> str:
        """Return text whose escaped surrogate pairs (as JSON writes them) are joined."""
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._document.report(path, "holds half of a surrogate pair, which is not a character")
            return ""


def _not_a_key(key: yaml.Node) -> str:
    if key.tag == _TAG + "merge":
        return "merge keys (<<) are not allowed"
    if isinstance(key, yaml.ScalarNode):
        return f'a key must be text, and YAML reads this one otherwise; write "{key.value[:40]}" in quotes'
    return "a key must be text; quote a value that begins with { or ["


def _number_problem(value: float, raw: str) -> str | None:
    """Say what is wrong with a number that YAML read in a way its writer may not have meant."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return "must be a finite number"
        return f"is read as the number {value:g}; quote it to mean text" if ":" in raw else None
    if not -(2**63) <= value < 2**64:
        return "does not fit into 64 bits"
    if not _DECIMAL.fullmatch(raw):
        return f"is read as the number {value}; write it without leading zeros, colons and prefixes, or quote it"
    return None
