"""How failures to connect are named."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import pytest

from batcher.client.dial import explain
from batcher.records import FaultKind


def tls_error(kind: type[ssl.SSLError], reason: str) -> ssl.SSLError:
    """An error as OpenSSL raises it."""
    error = kind(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.EMFILE, "x"), FaultKind.NO_DESCRIPTORS, "no file descriptor left"),
        (OSError(errno.ENFILE, "x"), FaultKind.NO_DESCRIPTORS, "no file descriptor left"),
        (OSError(errno.EHOSTUNREACH, "x"), FaultKind.CONNECT, "cannot connect to it: No route to host"),
        (TimeoutError(errno.ETIMEDOUT, "x"), FaultKind.CONNECT, "cannot connect to it: Connection timed out"),
        (TimeoutError(), FaultKind.CONNECT, "no connection to it within 7 s"),
        (ConnectionResetError(), FaultKind.CONNECT, "it closed the connection"),
        (OSError("several"), FaultKind.CONNECT, "no address of it answers"),
        (socket.gaierror(socket.EAI_AGAIN, "try later"), FaultKind.CONNECT, "cannot be resolved: try later"),
        (tls_error(ssl.SSLError, "WRONG_VERSION_NUMBER"), FaultKind.TLS, "failed: wrong version number"),
        (tls_error(ssl.SSLEOFError, "UNEXPECTED_EOF"), FaultKind.CONNECT, "it: "),
    ],
)
def test_a_failure_to_connect_is_named(error: OSError, kind: FaultKind, message: str) -> None:
    """Refusals of TLS are told apart from outages, and outages from a process at its limit."""
    fault = explain(error, "it", patience_s=7)
    assert fault.kind is kind
    assert message in fault.message


def test_a_lookup_that_failed_for_want_of_descriptors_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver reports "try again" when it cannot open a socket, which would be taken for an outage."""

    def exhausted(*arguments: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", exhausted)
    error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert explain(error, "it").kind is FaultKind.NO_DESCRIPTORS
