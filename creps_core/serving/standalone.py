"""The explorer without ComfyUI: a server on the loopback interface whose address contains a secret."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from .conversation import converse
from .guard import refuse_origin
from .host import Generators
from .saving import ImageSaver

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).resolve().parents[2] / "web" / "explorer"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def build_app(generators: Generators, folder: Path, token: str) -> web.Application:
    """The server as an aiohttp application; all paths start with `/TOKEN/`.

    Args:
        generators: offered to the page.
        folder: for saved images.
        token: the secret.
    """
    files = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix in _KINDS}

    async def page(request: web.Request) -> web.StreamResponse:
        path = files.get(request.match_info["name"] or "index.html")
        if path is None:
            raise web.HTTPNotFound
        return web.Response(body=path.read_bytes(), content_type=_KINDS[path.suffix], charset="utf-8")

    async def socket(request: web.Request) -> web.StreamResponse:
        if reason := refuse_origin(request):
            raise web.HTTPForbidden(text=reason)
        return await converse(request, generators, lambda notify: ImageSaver(folder, generators.load, notify))

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        here = request.headers.get("Host", "")
        name, _, port = here.rpartition(":")
        if name not in (ADDRESS, "localhost") or not port.isdecimal():
            raise web.HTTPForbidden(text="this server is for this machine alone")
        given = request.match_info.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise web.HTTPForbidden(text="open the address that creps explore has written")
        response = await handler(request)
        if not response.prepared:
            response.headers.update({header: value.format(host=here) for header, value in _HEADERS.items()})
        return response

    app = web.Application(middlewares=[guard], client_max_size=1 << 16)
    app.router.add_get("/{token}/socket", socket)
    app.router.add_get("/{token}/{name:[^/]*}", page)
    return app


def new_token() -> str:
    """A random secret for the address."""
    return secrets.token_urlsafe(18)
