"""Rules of which URLs a job may send its rows and its key to."""

from __future__ import annotations

import pytest

from batcher.job.baseurl import base_url_problem, proxy_problem


@pytest.mark.parametrize(
    "url",
    [
        "https://api.deepseek.com",
        "https://api.deepseek.com/v1/",
        "HTTPS://API.EXAMPLE.COM:8443/a/b",
        "http://localhost:8000/v1",
        "http://127.0.0.1",
        "http://127.9.9.9:1",
        "http://[::1]:8000",
        "http://10.1.2.3",
        "http://172.31.0.1",
        "http://192.168.0.1:11434/v1",
        "http://[fd12::1]/v1",
        "https://8.8.8.8/v1",
    ],
)
def test_usual_endpoint_is_accepted(url: str) -> None:
    """https to anywhere, and http to this machine or a private network."""
    assert base_url_problem(url, allow_http=False) is None


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "http://8.8.8.8", "http://172.32.0.1", "http://0.0.0.0", "http://localhost.evil.com"],
)
def test_plain_http_to_a_public_host_needs_to_be_asked_for(url: str) -> None:
    """The message names the key that allows it."""
    assert "endpoint.allow_http" in (base_url_problem(url, allow_http=False) or "")
    assert base_url_problem(url, allow_http=True) is None


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "https://169.254.0.1/v1", "http://[fe80::1]", "http://[::ffff:169.254.169.254]/"]
)
def test_link_local_address_is_refused_in_any_case(url: str) -> None:
    """Addresses under which clouds hand out credentials are no endpoint, not even when http is allowed."""
    assert "link-local" in (base_url_problem(url, allow_http=True) or "")


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "169.254.43518", "1.2.3.4."])
def test_address_in_another_notation_is_refused(host: str) -> None:
    """What some resolvers take for an address must be written as one, so that the rules above see it."""
    assert "usual notation" in (base_url_problem(f"https://{host}/v1", allow_http=True) or "")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://me:hunter2@api.example.com", "no user name or password"),
        ("https://hunter2@api.example.com", "no user name or password"),
        ("https://api.example.com?key=hunter2", "no query"),
        ("https://api.example.com/#hunter2", "no fragment"),
        ("https://api.example.com/v1/chat/completions", "leave /chat/completions off"),
        ("https://api.example.com/v1/chat/completions/", "leave /chat/completions off"),
        ("ftp://hunter2.example.com", "must be an http or https URL"),
        ("api.hunter2.com/v1", "must be an http or https URL"),
        ("https://", "must be an http or https URL"),
        ("https://hunter2.com:99999", "must be an http or https URL"),
        ("https://hunter2.com:0", "must be an http or https URL"),
        ("https://[hunter2", "must be an http or https URL"),
        ("https://hunter2.com\n/v1", "must be an http or https URL"),
        ("https://a b/hunter2", "must be an http or https URL"),
        ("https://a\\@hunter2.com", "must be an http or https URL"),
        ("", "must be an http or https URL"),
    ],
)
def test_url_that_cannot_be_a_base_is_refused_without_showing_it(url: str, problem: str) -> None:
    """Every refusal says what to change and repeats nothing of the URL, which may hold a password."""
    said = base_url_problem(url, allow_http=True) or ""
    assert problem in said
    assert "hunter2" not in said


def test_proxy_is_an_http_url_and_may_hold_a_password() -> None:
    """A proxy's user name and password have no other place than its URL."""
    assert proxy_problem("http://me:secret@proxy:3128") is None
    assert proxy_problem("socks5://proxy:1080") == "must be the http or https URL of a proxy"
    assert proxy_problem("proxy:3128") == "must be the http or https URL of a proxy"
