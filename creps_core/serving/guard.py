"""Who may talk to the explorer: a page of this very server, under a name that cannot be another site's."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web


def refuse_origin(request: web.Request, named: Callable[[str], bool] = lambda name: False) -> str | None:
    """Why a request is refused, or None.

    Browsers let any page open a WebSocket to any address, and do not ask for CORS: so the page must say where it comes
    from (Origin), and that must be where it connects to (Host). A foreign name may be made to point at this machine
    (DNS rebinding): so Host must be an address or localhost, unless `named` knows the name.
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
    if not here.hostname or (not _is_address(here.hostname) and not named(here.hostname)):
        return f"{host[:80]!r} is not an address of this server"
    if there.scheme not in ("http", "https") or (not same and not _forwarded(there, here)):
        return "the page comes from another site"
    return None


def _forwarded(there, here) -> bool:
    """Behind a proxy that ends TLS the server sees http and no port; names still are equal."""
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
