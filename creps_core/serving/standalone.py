"""The explorer without ComfyUI: a server whose address contains a secret, by default on the loopback interface."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from .connections import ConnectionLimit
from .conversation import converse, reject_if_full
from .guard import host_of, log_refusal, refuse_origin
from .host import Generators
from .saving import ImageSaver

ADDRESS = "127.0.0.1"
_LIMIT: web.AppKey[ConnectionLimit] = web.AppKey("limit", ConnectionLimit)
PAGE = Path(__file__).resolve().parents[2] / "web" / "explorer"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def build_app(generators: Generators, folder: Path, token: str, allowed: Collection[str] = ()) -> web.Application:
    """The server as an aiohttp application; all paths start with `/TOKEN/`.

    Args:
        generators: offered to the page.
        folder: for saved images.
        token: the secret.
        allowed: names of this server, and origins of its pages, behind a proxy; see `refuse_origin`.
    """
    files = {path.name: path for path in sorted(PAGE.iterdir()) if path.suffix in _KINDS}

    async def page(request: web.Request) -> web.StreamResponse:
        path = files.get(request.match_info["name"] or "index.html")
        if path is None:
            raise web.HTTPNotFound
        return web.Response(body=path.read_bytes(), content_type=_KINDS[path.suffix], charset="utf-8")

    async def socket(request: web.Request) -> web.StreamResponse:
        return await converse(request, generators, lambda notify: ImageSaver(folder, generators.load, notify))

    async def explain(request: web.Request) -> web.StreamResponse:
        reject_if_full()
        return web.Response(status=204)

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.match_info.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise web.HTTPForbidden(text="open the address that creps explore has written")
        limit = request.app.get(_LIMIT)
        if limit is not None:
            limit.admit(request.protocol)
        here = host_of(request)
        if reason := refuse_origin(request, allowed, page=request.match_info.handler is page):
            log_refusal(reason)
            raise web.HTTPForbidden(text=reason)
        assert here is not None  # or it would have been refused
        address = (f"[{here.name}]" if ":" in here.name else here.name) + (f":{here.port}" if here.port else "")
        response = await handler(request)
        if not response.prepared:
            response.headers.update({header: value.format(host=address) for header, value in _HEADERS.items()})
        return response

    app = web.Application(middlewares=[guard], client_max_size=1 << 16)
    app.router.add_get("/{token}/socket", socket)
    app.router.add_post("/{token}/socket", explain)
    app.router.add_get("/{token}/{name:[^/]*}", page)
    return app


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve an application; yields the port.

    Args:
        host: the address to listen on.
        port: 0 for a free one.

    Raises:
        OSError: the address is not of this machine, or the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, keepalive_timeout=60)
    limit = app[_LIMIT] = ConnectionLimit(lambda: runner.server())  # type: ignore[misc]
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(limit, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await runner.cleanup()


def new_token() -> str:
    """A random secret for the address."""
    return secrets.token_urlsafe(18)
