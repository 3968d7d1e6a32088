"""Which URLs a job may send its rows and its key to.

Pure: nothing is looked up. No message repeats a URL, since one may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

#: stands for the built-in endpoint in place of a URL
SIMULATOR: Final = "simulator"

_APPENDED: Final = "/chat/completions"
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)
#: the last label of a host that some resolvers take for an IPv4 address in another notation
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")


def base_url_problem(url: str, *, allow_http: bool) -> str | None:
    """Say why a base URL is refused, or return None."""
    parts = _split(url)
    if parts is None:
        return "must be an http or https URL or the word 'simulator'"
    if "@" in parts.netloc:
        return "must hold no user name or password; a key goes by endpoint.api_key_env"
    if "?" in url or "#" in url:
        return "must have no query and no fragment"
    if url.rstrip("/").endswith(_APPENDED):
        return f"leave {_APPENDED} off; it is added"
    return _host_problem(parts.hostname or "", encrypted=parts.scheme == "https", allow_http=allow_http)


def proxy_problem(url: str) -> str | None:
    """Say why a proxy's URL is refused, or return None."""
    return None if _split(url) else "must be the http or https URL of a proxy"


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL with a host, None if it is none."""
    if not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if whole else None


def _host_problem(host: str, *, encrypted: bool, allow_http: bool) -> str | None:
    address = _address(host)
    if address is None and _NUMBER.fullmatch(host):
        return "the host must be a name or an IP address in its usual notation"
    if address is not None and address.is_link_local:
        return "a link-local address is not allowed, since machines keep their credentials there"
    private = host == "localhost" or (address is not None and any(address in network for network in _PRIVATE))
    if encrypted or private or allow_http:
        return None
    return "would send rows and key unencrypted; use https, or set endpoint.allow_http: true"


def _address(host: str) -> _IP | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
