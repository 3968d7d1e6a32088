"""Where an attempt goes, what it carries, and how a body is counted as it arrives."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from batcher.client import Destination
from batcher.client.attempt import Body, Target, Unusable, body_of, request_headers
from batcher.errors import JobError
from batcher.records import FaultKind
from batcher.secret import Secret


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", Target(False, "localhost", 80, "localhost", "/")),
        ("https://API.Example.com/v1/", Target(True, "api.example.com", 443, "api.example.com", "/v1/")),
        ("https://h:443/x", Target(True, "h", 443, "h", "/x")),
        ("http://h:443/x", Target(False, "h", 443, "h:443", "/x")),
        ("http://h:8000/a b?q=a b&c=%20#top", Target(False, "h", 8000, "h:8000", "/a%20b?q=a%20b&c=%20")),
        ("http://[::1]:8000/v1", Target(False, "::1", 8000, "[::1]:8000", "/v1")),
        ("http://[::1]/v1", Target(False, "::1", 80, "[::1]", "/v1")),
        ("http://bücher.example/ü", Target(False, "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC")),
    ],
)
def test_a_url_becomes_host_port_and_an_encoded_path(url: str, expected: Target) -> None:
    """Default ports are not in the Host header, names are ASCII, and nothing in the path can break the request line."""
    assert Target.of(url) == expected


@pytest.mark.parametrize(
    "url",
    ["ftp://h/x", "h/x", "http:///x", "http://h:99999", "http://h:x", "http://[::1", f"http://{'a' * 64}.example"],
)
def test_a_url_that_leads_nowhere_is_an_error_of_the_job(url: str) -> None:
    """It is found before anything is sent, and named after its setting."""
    with pytest.raises(JobError, match=r"^endpoint\.base_url: "):
        Target.of(url)


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Expect", "a b", "a:b", ""]
)
def test_a_header_that_would_change_the_framing_is_refused(name: str) -> None:
    """What ends a request or names its target is not for the user to set."""
    with pytest.raises(JobError, match=r"^endpoint\.headers"):
        request_headers(Destination(url="http://h", headers={name: "x"}))


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "☃"])
def test_no_value_or_key_smuggles_a_header(value: str) -> None:
    """A line break in a value or in the key is refused, without showing either."""
    for destination in (
        Destination(url="http://h", headers={"X-A": f"canary{value}"}),
        Destination(url="http://h", key=Secret(f"canary{value}")),
    ):
        with pytest.raises(JobError) as caught:
            request_headers(destination)
        assert "canary" not in str(caught.value)


def test_a_users_header_replaces_ours_whatever_its_case() -> None:
    """No header is sent twice."""
    headers = request_headers(Destination(url="http://h", headers={"ACCEPT": "x/y", "X-A": "1", "x-a": "2"}))
    assert headers["Accept"] == "x/y"
    assert headers["X-A"] == "2"
    assert len({name.lower() for name in headers}) == len(headers)


def test_the_repr_of_a_destination_shows_no_secret() -> None:
    """Key, headers and the proxy's password are not for logs."""
    destination = Destination(
        url="http://h", key=Secret("canary"), headers={"X-Key": "canary"}, proxy="http://u:canary@p:1"
    )
    assert "canary" not in repr(destination)


@pytest.mark.parametrize(
    ("pieces", "begun"),
    [
        ([b"\r\n", b"\n \t"], False),
        ([b": keep-alive\n\n"], False),
        ([b": keep", b"-alive {", b"\n", b"\n"], False),
        ([b": a\r: b\r\n", b" : c"], False),
        ([b":"], False),
        ([b": keep-alive\n\nd"], True),
        ([b"\n", b" {"], True),
        ([b": x", b"\r", b"data"], True),
        ([b"data: :"], True),
    ],
)
def test_blank_lines_and_comments_are_no_content(pieces: list[bytes], begun: bool) -> None:
    """The first byte of content is the first one outside of blank lines and of lines that begin with a colon."""
    body = Body(1000, None)
    for piece in pieces:
        body.add(piece)
    assert body.begun is begun
    assert body.finish() == b"".join(pieces)


def test_many_comments_in_one_piece_are_skipped_in_linear_time() -> None:
    """A hostile stream of a hundred thousand comments is looked through once."""
    body = Body(1 << 20, None)
    body.add(b":\n" * 100_000)
    assert not body.begun


@pytest.mark.parametrize("size", [99, 100, 101])
def test_the_cap_is_exact(size: int) -> None:
    """A body of `limit_bytes` is whole, one byte more is too much; what was decompressed counts."""
    for coding, data in ((None, b"x" * size), ("gzip", gzip.compress(b"x" * size))):
        body = Body(100, coding)
        if size > 100:
            with pytest.raises(Unusable) as caught:
                body.add(data)
            assert caught.value.fault.kind is FaultKind.TOO_LARGE
        else:
            body.add(data)
            assert body.finish() == b"x" * size


def test_no_more_is_decompressed_than_the_cap_allows() -> None:
    """A bomb of 64 MB does not unfold before it is refused."""
    bomb = gzip.compress(b"\0" * (1 << 26))
    body = Body(1000, "gzip")
    tracemalloc.start()
    try:
        with pytest.raises(Unusable):
            body.add(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_empty_body_needs_no_end_mark() -> None:
    """A compressed response without a single byte is an empty one."""
    assert Body(10, "gzip").finish() == b""


@pytest.mark.parametrize(
    ("status", "headers", "until_eof"),
    [
        (200, {"content-length": "5"}, False),
        (200, {"transfer-encoding": " Chunked"}, False),
        (200, {}, True),
        (204, {}, False),
        (304, {"content-length": "99999"}, False),
    ],
)
def test_a_head_says_where_its_body_ends(status: int, headers: dict[str, str], until_eof: bool) -> None:
    """Without length, chunks or a status that has no body, only the end of the connection ends it."""
    assert body_of(status, headers, 1000)[1] is until_eof


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"content-length": "1001"}, FaultKind.TOO_LARGE),
        ({"content-length": "5", "transfer-encoding": "chunked"}, FaultKind.PROTOCOL),
        ({"transfer-encoding": "gzip, chunked"}, FaultKind.PROTOCOL),
        ({"content-encoding": "zstd"}, FaultKind.PROTOCOL),
    ],
)
def test_a_head_that_promises_trouble_is_refused_before_its_body(headers: dict[str, str], kind: FaultKind) -> None:
    """Contradictions, unknown codings and announced sizes beyond the cap need not be read to be refused."""
    with pytest.raises(Unusable) as caught:
        body_of(200, headers, 1000)
    assert caught.value.fault.kind is kind
