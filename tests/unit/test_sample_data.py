"""The sample data keep what they promise: rows that are pleasant to read and that careless code breaks on."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[2] / "sample_data"
JSONL = ["content_briefs.jsonl", "dialogues.jsonl", "openai_batch.jsonl", "passages_qa.jsonl", "tickets.jsonl"]

#: the ranges in which DeepSeek takes sampling parameters
RANGES = {"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / name).read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if line]


@pytest.fixture(scope="module")
def tickets() -> list[dict[str, Any]]:
    return rows_of("tickets.jsonl")


@pytest.fixture(scope="module")
def texts(tickets: list[dict[str, Any]]) -> list[str]:
    return [ticket["text"] for ticket in tickets]


def test_the_folder_holds_these_files_and_is_small() -> None:
    """A checkout stays small, and every sample file is one that is looked at here."""
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir() if not path.name.startswith(".")}
    assert sorted(sizes) == sorted([*JSONL, "tickets.parquet"])
    assert sum(sizes.values()) < 600_000


def refuse_constant(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


@pytest.mark.parametrize("name", JSONL)
def test_each_jsonl_file_is_one_object_a_line(name: str) -> None:
    """Every line is a JSON object in UTF-8, none is blank, and the last one ends like the others."""
    *lines, rest = (FOLDER / name).read_bytes().split(b"\n")
    assert rest == b""
    assert lines
    for line in lines:
        assert isinstance(json.loads(line.decode("utf-8"), parse_constant=refuse_constant), dict)


@pytest.mark.parametrize("name", JSONL)
def test_addresses_in_the_samples_belong_to_nobody(name: str) -> None:
    """Every mail address and link uses a domain that is reserved for examples."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    domains = re.findall(r"(?:https?://|\w@)([\w-]+(?:\.[\w-]+)+)", text)
    assert [domain for domain in domains if not domain.endswith((".example", "example.org"))] == []


def test_there_are_tickets_enough_for_a_first_run(tickets: list[dict[str, Any]]) -> None:
    """A first run on the tickets has at least 150 rows."""
    assert len(tickets) >= 150


def test_every_ticket_has_the_same_columns(tickets: list[dict[str, Any]]) -> None:
    """Every ticket has the six columns in one order, each with its type."""
    for ticket in tickets:
        assert list(ticket) == ["ticket_id", "text", "channel", "created_at", "priority", "tags"]
        assert re.fullmatch(r"T-\d{4}", ticket["ticket_id"])
        assert ticket["text"]
        assert ticket["channel"] in {"app", "chat", "email", "phone", "social", "web"}
        assert ticket["priority"] is None or type(ticket["priority"]) is int
        assert all(type(tag) is str for tag in ticket["tags"])


def test_some_tickets_have_no_priority_and_some_no_tags(tickets: list[dict[str, Any]]) -> None:
    """Null and the empty list both occur, and neither is the rule."""
    assert 5 <= sum(ticket["priority"] is None for ticket in tickets) < len(tickets) / 4
    assert 1 <= sum(not ticket["tags"] for ticket in tickets) < len(tickets) / 4


def test_dates_are_text_that_inference_would_turn_into_timestamps(tickets: list[dict[str, Any]]) -> None:
    """The dates are ISO texts in ascending order, and of the kind that Arrow's JSON reader does not leave as text."""
    dates = [ticket["created_at"] for ticket in tickets]
    assert dates == sorted(dates)
    assert all(datetime.fromisoformat(date).tzinfo for date in dates)
    assert pa.types.is_timestamp(pyarrow.json.read_json(FOLDER / "tickets.jsonl").schema.field("created_at").type)


def test_customers_who_wrote_twice(texts: list[str]) -> None:
    """At least five texts occur more than once, in more than one language."""
    twice = [text for text, count in Counter(texts).items() if count > 1]
    assert len(twice) >= 5
    assert any(not text.isascii() for text in twice)


def test_one_row_that_the_export_wrote_twice(tickets: list[dict[str, Any]]) -> None:
    """Exactly one ticket id occurs twice, and its two rows are equal in every column."""
    ids = Counter(ticket["ticket_id"] for ticket in tickets)
    (twice,) = [ticket_id for ticket_id, count in ids.items() if count > 1]
    first, second = (ticket for ticket in tickets if ticket["ticket_id"] == twice)
    assert first == second


@pytest.mark.parametrize(
    "script",
    [
        "ARABIC",
        "BENGALI",
        "CJK",
        "CYRILLIC",
        "DEVANAGARI",
        "GREEK",
        "HANGUL",
        "HEBREW",
        "HIRAGANA",
        "KATAKANA",
        "TAMIL",
        "THAI",
    ],
)
def test_tickets_in_many_scripts(script: str, texts: list[str]) -> None:
    """Each of these scripts fills at least one ticket with ten letters or more."""
    letters = [sum(unicodedata.name(letter, "").startswith(script) for letter in text) for text in texts]
    assert max(letters) >= 10


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("German", {"ich", "nicht", "und"}),
        ("French", {"je", "pas", "le"}),
        ("Spanish", {"el", "que", "en"}),
        ("Italian", {"è", "il", "di"}),
        ("Portuguese", {"o", "eu", "um"}),
    ],
)
def test_tickets_in_languages_of_the_latin_script(language: str, words: set[str], texts: list[str]) -> None:
    """Each of these languages shows by three of its commonest words in one ticket."""
    assert any(words <= set(re.findall(r"\w+", text.lower())) for text in texts), language


@pytest.mark.parametrize(
    "emoji",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
        "\U0001f469\U0001f3fd\u200d\U0001f4bb",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "\U0001f1eb\U0001f1ee",
    ],
    ids=["family joined by ZWJ", "skin tone and ZWJ", "flag joined by ZWJ", "flag of two letters"],
)
def test_emoji_of_several_code_points(emoji: str, texts: list[str]) -> None:
    """Emoji made of several code points occur as a whole."""
    assert any(emoji in text for text in texts)


def test_letters_that_look_alike_stay_different(texts: list[str]) -> None:
    """One ticket holds a word in composed and in decomposed form, so that normalizing it would be noticed."""
    assert any("caf\u00e9" in text and "cafe\u0301" in text for text in texts)


def test_long_tickets_stand_beside_short_ones(texts: list[str]) -> None:
    """Several tickets have three to eight kilobytes, none has more, and one is a lone question mark."""
    sizes = [len(text.encode()) for text in texts]
    assert sum(3_000 <= size <= 8_192 for size in sizes) >= 5
    assert max(sizes) <= 8_192
    assert "?" in texts


@pytest.mark.parametrize(
    "fragment",
    [
        "{{ user.first_name }}",
        "{% if ",
        '{"event": ',
        '\\"',
        "```python",
        "</td>",
        "&amp;",
        '""never again""',
        "DELETE ",
    ],
)
def test_tickets_that_quote_code(fragment: str, texts: list[str]) -> None:
    """Templates, JSON, code, HTML, CSV and SQL occur inside texts, where they are nothing but text."""
    assert any(fragment in text for text in texts)


@pytest.mark.parametrize("text", ["4711", "000123456789012345678901234567890", "1e-3", "null", "true", "2026-02-29"])
def test_tickets_that_look_like_another_type(text: str, texts: list[str]) -> None:
    """Whole texts read like a number, a date, null or a truth value, and are none."""
    assert text in texts


@pytest.mark.parametrize("inside", ["\n\n", "\t", "\r\n", "\u2028", "\u00a0", "\u200b"], ids=ascii)
def test_white_space_of_many_kinds(inside: str, texts: list[str]) -> None:
    """Line breaks, tabs, U+2028 and invisible characters occur inside texts, each ticket still being one line."""
    assert any(inside in text.strip() for text in texts)


def test_white_space_around_a_text(texts: list[str]) -> None:
    """Some texts begin and end with white space that belongs to them."""
    assert any(text[0].isspace() and text[-1].isspace() for text in texts)


def test_the_parquet_file_holds_the_same_tickets(tickets: list[dict[str, Any]]) -> None:
    """Row by row and in the same order, both formats hold the same values."""
    assert pq.read_table(FOLDER / "tickets.parquet").to_pylist() == tickets


def test_the_parquet_file_keeps_its_types_and_nothing_else() -> None:
    """Dates are strings and tags are lists in the Parquet file, which has several row groups and no odd metadata."""
    file = pq.ParquetFile(FOLDER / "tickets.parquet")
    schema = file.schema_arrow
    assert [str(schema.field(name).type) for name in ("ticket_id", "text", "channel", "created_at")] == ["string"] * 4
    assert schema.field("priority").type == pa.int64()
    assert schema.field("tags").type == pa.list_(pa.string())
    assert file.num_row_groups > 1
    assert set(file.metadata.metadata or {}) <= {b"ARROW:schema"}


def check_parameters(parameters: dict[str, Any]) -> None:
    for name, (least, most) in RANGES.items():
        assert least <= parameters.get(name, least) <= most, name
    assert parameters.get("max_tokens", 1) >= 1


def test_dialogues_of_several_turns_end_with_the_user() -> None:
    """After an optional system message, user and assistant take turns, and the model is the next to speak."""
    dialogues = rows_of("dialogues.jsonl")
    assert len(dialogues) >= 25
    assert len({dialogue["dialogue_id"] for dialogue in dialogues}) == len(dialogues)
    for dialogue in dialogues:
        roles = [message["role"] for message in dialogue["messages"] if message["content"].strip()]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]
        assert len(turns) >= 3


def test_some_dialogues_have_parameters_of_their_own() -> None:
    """Rows with and without their own temperature or max_tokens occur, all within the model's ranges."""
    dialogues = rows_of("dialogues.jsonl")
    own = [dialogue for dialogue in dialogues if {"temperature", "max_tokens"} & dialogue.keys()]
    assert 5 <= len(own) < len(dialogues)
    assert any("temperature" in row for row in own)
    assert any("max_tokens" in row for row in own)
    for dialogue in dialogues:
        check_parameters(dialogue)


def test_every_content_brief_is_complete() -> None:
    """Every brief has an id of its own and five texts, and its facts are a list in one text."""
    briefs = rows_of("content_briefs.jsonl")
    assert len(briefs) >= 30
    assert len({brief["brief_id"] for brief in briefs}) == len(briefs)
    for brief in briefs:
        assert list(brief) == ["brief_id", "product", "audience", "tone", "format", "facts"]
        assert all(isinstance(text, str) and text for text in brief.values())
        assert all(line.startswith("- ") for line in brief["facts"].splitlines())


def test_questions_come_with_passages_that_may_not_answer_them() -> None:
    """Every question has three to five different passages with title and text, and some have no answer in them."""
    questions = rows_of("passages_qa.jsonl")
    assert len(questions) >= 30
    for question in questions:
        titles = {passage["title"] for passage in question["passages"] if passage["text"]}
        assert 3 <= len(titles) == len(question["passages"]) <= 5
        assert question["question"]
    answerable = Counter(question["answerable"] for question in questions)
    assert set(answerable) == {"yes", "no", "partly"}
    assert answerable["no"] >= 3


def test_the_openai_batch_file_is_one() -> None:
    """Every line has exactly the four keys of the OpenAI Batch format, and a request of its own that DeepSeek takes."""
    lines = rows_of("openai_batch.jsonl")
    assert len(lines) >= 10
    assert len({line["custom_id"] for line in lines}) == len(lines)
    for line in lines:
        assert list(line) == ["custom_id", "method", "url", "body"]
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert line["body"]["model"] == "deepseek-v4-flash"
        assert line["body"]["messages"][-1]["role"] == "user"
        check_parameters(line["body"])


def test_batch_lines_that_sample_have_thinking_disabled() -> None:
    """A request with a temperature says that the model is not to think, since a thinking model would ignore it."""
    bodies = [line["body"] for line in rows_of("openai_batch.jsonl")]
    sampled = [body for body in bodies if set(RANGES) & body.keys()]
    assert sampled
    assert all(body["thinking"] == {"type": "disabled"} for body in sampled)


def test_requests_for_json_name_it() -> None:
    """A batch line in JSON mode has the word JSON in its messages, as the API demands."""
    bodies = [line["body"] for line in rows_of("openai_batch.jsonl") if "response_format" in line["body"]]
    assert bodies
    assert all("json" in json.dumps(body["messages"]).lower() for body in bodies)
