"""Origin checks for the explorer's WebSocket: only pages of this server, or of a proxy in front of it, may connect.

Browsers let any page open a WebSocket to any address, without CORS: so the page's Origin must match Host, or be
allowed. A foreign name can be made to point at this machine (DNS rebinding): so on a server for this machine alone,
Host must not be a foreign name, unless a proxy has forwarded the request.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from ...common.errors import quoted

log: logging.Logger = logging.getLogger("CREPS")

_PORTS = {"http": 80, "https": 443}
_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_MAX_LOGGED = 64
_logged: set[str] = set()


class _Site(NamedTuple):
    """Scheme, name and port of an Origin, or of Host, whose scheme is empty. Port None: not given."""

    scheme: str
    name: str
    port: int | None


def refuse_origin(request: web.Request, allowed: Collection[str] = (), *, page: bool = False) -> str | None:
    """The reason for `creps explore` to refuse a page, or None: Origin must match Host, or be allowed.

    Args:
        allowed: further origins (`https://studio.example`), or names for any scheme and port (`studio.example`).
        page: the request is for the page itself, which has no Origin: only Host is checked.
    """
    here, there = _host(request.headers), _origin(request.headers)
    if here is None:
        return f"Host {quoted(request.headers.get('Host', ''))} is malformed"
    if not (is_address(here.name) or is_allowed(here, allowed)):
        return f"start creps explore with --allow-origin {here.name[:80]}: this name is not known to be its own"
    if page:
        return None
    if there is None:
        return f"open the explorer's own page: Origin {quoted(request.headers.get('Origin', ''))} is no web page"
    if is_allowed(there, allowed) or _same(here, there, request.scheme):
        return None
    return f"start creps explore with --allow-origin {quoted(request.headers['Origin'])} if this page is yours"


def refuse_comfyui_origin(request: web.Request, *, loopback: bool, port: int, cors: str | None) -> str | None:
    """The reason to refuse a page under ComfyUI, or None: what ComfyUI's own WebSocket accepts, but for attacks.

    ComfyUI compares Origin and Host only where Host is a loopback address, so that proxies may rewrite Host; its
    `--enable-cors-header` turns that off. Pages of other sites are refused on loopback all the same, and a name that
    was pointed at a server for this machine alone (DNS rebinding).

    Args:
        loopback: the server listens on loopback addresses only.
        port: that the server listens on.
        cors: the value of `--enable-cors-header`: an origin, `*` or None.
    """
    headers = request.headers
    if cors == "*":
        return None
    here, there = _host(headers), _origin(headers)
    if here is None:
        return f"Host {quoted(headers.get('Host', ''))} is malformed"
    advice = "start ComfyUI with --enable-cors-header ORIGIN if this page is yours, or let the proxy pass Host"
    if headers.get("Sec-Fetch-Site") == "cross-site" and not (cors and headers.get("Origin") == cors.rstrip("/")):
        return f"{advice}: the page comes from another site"
    if "Origin" not in headers:  # no page (browsers always send it), or a proxy that removes it
        return None
    if cors and headers["Origin"] == cors.rstrip("/"):
        return None
    if there is None:
        return f"{advice}: Origin {quoted(headers['Origin'])} is no web page"
    if _is_loopback(here.name):
        same = (here.name, here.port) == there[1:] if here.port and there.port else here.name == there.name
        return None if same else f"{advice}: Host is {quoted(headers['Host'])}, Origin is {quoted(headers['Origin'])}"
    if loopback and not is_address(here.name) and not _proxied(request, here, there, port):
        return f"open ComfyUI by its address, or start it with --listen: {quoted(here.name)} may be a foreign name"
    return None


def log_refusal(reason: str) -> None:
    """Log why a page was refused, each reason once."""
    if reason not in _logged and len(_logged) < _MAX_LOGGED:
        _logged.add(reason)
        log.warning("the explorer refuses a page: %s", reason)


def is_allowed(site: _Site, allowed: Collection[str]) -> bool:
    """Whether a site is one of the origins or names."""
    for entry in allowed:
        scheme, separator, _ = entry.partition("://")
        known = _split(entry if separator else f"//{entry}")
        if known is None or known.name != site.name:
            continue
        if not separator and known.port in (None, site.port):
            return True
        if separator and (
            not site.scheme  # of a Host, which says nothing of the scheme
            or (scheme, known.port or _PORTS.get(scheme)) == (site.scheme, site.port or _PORTS.get(site.scheme))
        ):
            return True
    return False


def is_site(text: str) -> bool:
    """Whether a text is a name, with or without a port, or an http(s) origin."""
    scheme, separator, rest = text.partition("://")
    if set(rest if separator else text) & set("/?#@\\* ") or (separator and scheme not in _PORTS):
        return False
    return _split(text if separator else f"//{text}") is not None


def is_address(name: str) -> bool:
    """Whether a name cannot be pointed elsewhere by a stranger: localhost or an IP address."""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_of(request: web.Request) -> _Site | None:
    """Name and port in Host; None if malformed."""
    return _host(request.headers)


def _proxied(request: web.Request, here: _Site, there: _Site, port: int) -> bool:
    """Whether a proxy has certainly forwarded a request, or the name is not of the public DNS.

    A page cannot add header fields to its WebSocket, an https page cannot open one without TLS, and the port of a
    rebound name is our own.
    """
    if "." not in here.name or any(name in request.headers for name in _FORWARDED):
        return True
    return (there.scheme == "https" and request.scheme == "http") or (here.port or _PORTS[request.scheme]) != port


def _same(here: _Site, there: _Site, scheme: str) -> bool:
    if here.name != there.name:
        return False
    if here.port is None and there.port is None:  # a proxy may have terminated TLS
        return True
    return (here.port or _PORTS.get(scheme)) == (there.port or _PORTS[there.scheme])


def _is_loopback(name: str) -> bool:
    """Whether a name means this machine. 0.0.0.0 is not a loopback address, but connects to one."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _host(headers: Mapping[str, str]) -> _Site | None:
    host = headers.get("Host", "")
    return None if not host or set(host) & set("/?#@\\ ") else _split(f"//{host}")


def _origin(headers: Mapping[str, str]) -> _Site | None:
    site = _split(headers.get("Origin", ""))
    return site if site and site.scheme in _PORTS else None


def _split(url: str) -> _Site | None:
    try:
        parts = urlsplit(url)
        if parts.username is not None or not parts.hostname:
            return None
        return _Site(parts.scheme, parts.hostname, parts.port)
    except ValueError:
        return None
