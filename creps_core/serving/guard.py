"""Origin check for the explorer's WebSocket: only pages of this server may connect."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web


def refuse_origin(request: web.Request, is_own_name: Callable[[str], bool] = lambda name: False) -> str | None:
    """The reason to refuse a request, or None.

    Browsers let any page open a WebSocket to any address, without CORS: so Origin must be present and match Host. A
    foreign name can be made to point at this machine (DNS rebinding): so Host must be an IP address or localhost,
    unless `is_own_name` accepts it.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin", "")
    try:
        here, there = urlsplit(f"//{host}"), urlsplit(origin)
        same = (here.hostname, here.port or _port(request.scheme)) == (
            there.hostname,
            there.port or _port(there.scheme),
        )
    except ValueError:
        return "Host or Origin is malformed"
    if not here.hostname or (not _is_address(here.hostname) and not is_own_name(here.hostname)):
        return f"{host[:80]!r} is not an address of this server"
    if there.scheme not in ("http", "https") or (not same and not _forwarded(there, here)):
        return "the page comes from another site"
    return None


def _forwarded(there, here) -> bool:
    """Whether the request passed a proxy that terminates TLS: the schemes differ, names match, and no port is given."""
    return there.hostname == here.hostname and here.port is None and there.port is None


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _is_address(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
