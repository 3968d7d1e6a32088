"""Rules of reading YAML strictly and of remembering where each value was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.config.document import Document
from batcher.config.yamlfile import MAX_BYTES, read


def document_of(folder: Path, text: str | bytes) -> Document:
    """The document of a file `x.yaml` with this text, called by that name in messages."""
    path = folder / "x.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(path, "x.yaml")


def test_values_keep_their_places(tmp_path: Path) -> None:
    """Every value knows line and column of its key, one of a list its own."""
    document = document_of(tmp_path, "a: 1\nb:\n  - x\n  - {c: no}\n")
    assert document.values == {"a": 1, "b": ["x", {"c": False}]}
    assert str(document.place(("a",))) == "x.yaml:1:1"
    assert str(document.place(("b", 0))) == "x.yaml:3:5"
    assert str(document.place(("b", 1, "c"))) == "x.yaml:4:6"


def test_place_of_a_missing_key_is_that_of_its_parent(tmp_path: Path) -> None:
    """What was not written is shown where it would belong."""
    document = document_of(tmp_path, "a: 1\nb:\n  c: 2\n")
    assert str(document.place(("b", "missing"))) == "x.yaml:2:1"
    assert str(document.place(("missing",))) == "x.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [1]\nb: 2\n", "x.yaml:1:4: not valid YAML: anchors and aliases are not allowed"),
        ("a: *x\n", "x.yaml:1:4: not valid YAML: anchors and aliases are not allowed"),
        ("a: &a [*a]\n", "x.yaml:1:4: not valid YAML: anchors and aliases are not allowed"),
        ("a: b: c\n", "x.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: [1\n", "line 1)"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: not valid YAML: but found another document"),
        ("ok: 1\na: b\x01\n", "x.yaml:2:5: not valid YAML: a control character stands in the text"),
        ("- 1\n", "x.yaml:1:1: must be a mapping of keys, found a list"),
        ("just text\n", "x.yaml:1:1: must be a mapping of keys, found text"),
        ("# nothing\n", "x.yaml:1:1: is empty"),
        ("", "x.yaml:1:1: is empty"),
    ],
)
def test_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """A file that cannot be read as one mapping has a single problem, with its place, and no values."""
    document = document_of(tmp_path, text)
    assert document.values == {}
    assert len(document.problems()) == 1
    assert problem in document.problems()[0]


def test_bytes_that_are_not_utf8_are_named_by_line_and_column(tmp_path: Path) -> None:
    """The place of the first wrong byte is shown."""
    assert document_of(tmp_path, b"a: 1\nb: \xff\n").problems() == ["x.yaml:2:4: is not UTF-8 text"]
    assert document_of(tmp_path, "a: 1\n".encode("utf-16")).problems() == ["x.yaml:1:1: is not UTF-8 text"]


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """A file saved with a UTF-8 byte order mark reads like one without."""
    assert document_of(tmp_path, b"\xef\xbb\xbfa: 1\n").values == {"a": 1}


def test_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """One byte over the limit is too much, the limit itself is not."""
    fill = b"a: 1\n#"
    assert document_of(tmp_path, fill + b"x" * (MAX_BYTES - len(fill))).values == {"a": 1}
    assert document_of(tmp_path, fill + b"x" * (MAX_BYTES - len(fill) + 1)).problems() == [
        "x.yaml: is larger than 1 MiB"
    ]


@pytest.mark.parametrize("text", ["[" * 20_000, "a: " + "{a: " * 40, "? " * 50_000, "- " * 50_000])
def test_deep_nesting_is_refused_before_it_is_built(tmp_path: Path, text: str) -> None:
    """Hostile nesting is one problem, not a crash of the recursion."""
    (problem,) = document_of(tmp_path, text).problems()
    assert "more than 32 levels" in problem


def test_thirty_two_levels_are_read(tmp_path: Path) -> None:
    """The depth limit itself is allowed: the root, thirty lists and a number."""
    assert document_of(tmp_path, "a: " + "[" * 30 + "1" + "]" * 30).problems() == []
    assert document_of(tmp_path, "a: " + "[" * 31 + "1" + "]" * 31).problems() != []


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more values than a job can need is stopped early; root, key and list count too."""
    monkeypatch.setattr("batcher.config.yamlfile.MAX_VALUES", 13)
    assert document_of(tmp_path, "a: [" + "1," * 10 + "]").problems() == []
    (problem,) = document_of(tmp_path, "a: [" + "1," * 11 + "]").problems()
    assert "more than 13 values" in problem


def test_duplicate_keys_are_refused_at_the_second_one(tmp_path: Path) -> None:
    """A key that stands twice is a problem in every mapping, and the first line is named."""
    document = document_of(tmp_path, "a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.problems() == [
        "x.yaml:2:11: b.c: duplicate key; it stands already in line 2",
        "x.yaml:3:1: a: duplicate key; it stands already in line 1",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!python/object/apply:os.system ['true']", "a: the tag !!python/object/apply:os.system is not allowed"),
        ("a: !!python/name:os.system", "a: the tag !!python/name:os.system is not allowed"),
        ("a: !!binary aGk=", "a: the tag !!binary is not allowed"),
        ("a: !!set {x}", "a: the tag !!set is not allowed"),
        ("a: !mine 1", "a: the tag !mine is not allowed"),
        ("a: 2024-01-01", "a: is read as a date; quote it to mean text"),
        ("a: 0123", "a: is read as the number 83; write it without leading zeros, colons and prefixes, or quote it"),
        (
            "a: 12:30:45",
            "a: is read as the number 45045; write it without leading zeros, colons and prefixes, or quote it",
        ),
        ("a: 0x1F", "a: is read as the number 31; write it without leading zeros, colons and prefixes, or quote it"),
        ("a: 1:30.5", "a: is read as the number 90.5; quote it to mean text"),
        ("a: .inf", "a: must be a finite number"),
        ("a: .nan", "a: must be a finite number"),
        ("a: 18446744073709551616", "a: does not fit into 64 bits"),
        ("a: " + "9" * 5000, "a: is not a number"),
        ("a: !!int x", "a: is not a number"),
        ("a: !!float x", "a: is not a number"),
        ("a: !!bool x", "a: is not true or false"),
        (r'a: "\ud800"', "a: holds half of a surrogate pair, which is not a character"),
        ("<<: {a: 1}", "merge keys (<<) are not allowed"),
        ("no: 1", 'a key must be text, and YAML reads this one otherwise; write "no" in quotes'),
        ("1: 1", 'a key must be text, and YAML reads this one otherwise; write "1" in quotes'),
        ("{a: 1}: 1", "a key must be text; quote a value that begins with { or ["),
    ],
)
def test_value_that_yaml_would_guess_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """Tags that build objects, numbers in odd notations and keys that are no text are problems with a place."""
    assert document_of(tmp_path, "first: 1\n" + text).problems() == [f"x.yaml:2:1: {problem}"]


def test_unquoted_template_is_explained(tmp_path: Path) -> None:
    """`prompt: {{ text }}` is a mapping to YAML; the message says to quote it."""
    (problem,) = document_of(tmp_path, "prompt: {{ text }}").problems()
    assert problem == "x.yaml:1:10: a key must be text; quote a value that begins with { or ["


def test_plain_values_are_read_as_they_look(tmp_path: Path) -> None:
    """Decimal numbers, underscores between digits, quoted text and the equals sign keep their meaning."""
    text = "a: 10_000\nb: -2\nc: 0.5\nd: '0123'\ne: =\nf: ~\ng: yes\nh: !!str 12\n"
    expected = {"a": 10_000, "b": -2, "c": 0.5, "d": "0123", "e": "=", "f": None, "g": True, "h": "12"}
    document = document_of(tmp_path, text)
    assert document.values == expected
    assert document.problems() == []


def test_json_is_read_with_its_escaped_surrogate_pairs(tmp_path: Path) -> None:
    """A job may be written as JSON, whose writers escape an emoji as two halves."""
    assert document_of(tmp_path, r'{"a": "\ud83d\ude00"}').values == {"a": "\N{GRINNING FACE}"}


def test_all_problems_of_a_file_are_reported_in_its_order(tmp_path: Path) -> None:
    """One bad value does not hide the next, and the good ones are still there."""
    document = document_of(tmp_path, "a: .inf\nb: 1\nc: 0777\n1: x\n")
    assert document.values == {"a": None, "b": 1, "c": None}
    assert [problem.split(": ")[0] for problem in document.problems()] == ["x.yaml:1:1", "x.yaml:3:1", "x.yaml:4:1"]


def test_file_that_cannot_be_opened_is_one_plain_line(tmp_path: Path) -> None:
    """A missing file and a folder are told apart, by the name the user gave."""
    assert read(tmp_path / "none.yaml", "none.yaml").problems() == [
        "none.yaml: cannot be read: No such file or directory"
    ]
    assert read(tmp_path, "jobs").problems() == ["jobs: cannot be read: Is a directory"]


def test_second_problem_of_the_same_value_is_left_out() -> None:
    """What follows from a first problem of a value is no news, while its parent's own problems are."""
    document = Document("x.yaml")
    document.report(("a", "b"), "first")
    document.report(("a", "b"), "second")
    document.report(("a",), "third")
    assert document.problems() == ["x.yaml:1:1: a.b: first", "x.yaml:1:1: a: third"]


def test_what_looks_like_a_key_is_hidden_in_every_problem() -> None:
    """A message that would repeat an API key shows stars instead."""
    document = Document("x.yaml")
    document.report(("api_key:sk-abcdefghijklmnop123",), "unknown key")
    assert document.problems() == ["x.yaml:1:1: api_key:***: unknown key"]
