"""The smallest backend on which ComfyUI's own web UI starts: its static files plus canned answers.

The UI is the PyPI package `comfyui-frontend-package`; no ComfyUI and no torch are involved. Nothing can run
here: the stub shows whether our workflows open, and lets the UI convert them to the API format. Pictures are plain, of
the size that their names say ("512x256.png").

By hand, to look at the nodes in a browser:  python tests/host/stub_backend.py [port]
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import comfyui_frontend_package
from aiohttp import web
from PIL import Image

STATIC = Path(comfyui_frontend_package.__file__).parent / "static"
OBJECT_INFO = Path(__file__).with_name("object_info.json")
PACK = Path(__file__).resolve().parents[2]
EXTENSION = "/extensions/ComfyUI-CREPS"  # where ComfyUI serves the files below web/
EXPLORER = "/api/creps/explorer/socket"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Of a user who has seen it all: no dialog covers the page, and no release notes are fetched.
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.OnboardingCoachmarks.Seen": ["appMode", "firstRun"],
    "Comfy.Notification.ShowVersionUpdates": False,
}


def canned_answers(nodes: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What a fresh ComfyUI says at start-up, by path under /api/."""
    system = {"os": "", "comfyui_version": "", "python_version": "", "pytorch_version": "", "argv": []}
    return {
        "experiment/models": [],
        "extensions": [f"{EXTENSION}/{path.name}" for path in (PACK / "web").glob("*.js")],
        "features": {},
        "global_subgraphs": {},
        "i18n": {},
        "jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 0, "total": 0, "has_more": False}},
        "node_replacements": {},
        "object_info": nodes,
        "queue": {"queue_running": [], "queue_pending": []},
        "settings": {**QUIET, **settings},
        "system_stats": {"system": system, "devices": []},
        "userdata": [],
        "users": {"storage": "server", "migrated": True},
        "workflow_templates": {},
    }


async def silent(request: web.Request) -> web.StreamResponse:
    """An explorer's socket that draws nothing."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.send_json({"hello": {"sources": [], "saves": False}})
    async for _ in ws:
        pass
    return ws


def build_app(nodes: dict[str, Any], settings: dict[str, Any], explorer: Handler = silent) -> web.Application:
    """The stub as an aiohttp application.

    Args:
        nodes: an /object_info answer.
        settings: of the user.
        explorer: answers the page of CREPS Explorer.
    """
    answers = canned_answers(nodes, settings)

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def canned(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(answers[name]) if name in answers else web.Response(status=404)

    async def view(request: web.Request) -> web.Response:
        sides = [int(side) for side in request.query["filename"].partition(".")[0].split("x")]
        content = io.BytesIO()
        Image.new("RGB", (sides[0], sides[1]), "peru").save(content, "PNG")
        return web.Response(body=content.getvalue(), content_type="image/png")

    async def accept(_: web.Request) -> web.Response:
        return web.json_response({})  # the UI stores settings and drafts; nothing here reads them back

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "stub"}
        await ws.send_json({"type": "status", "data": status})
        async for _ in ws:  # until the page closes it
            pass
        return ws

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/ws", socket)
    app.router.add_get(EXPLORER, explorer)
    app.router.add_get("/api/view", view)
    app.router.add_get("/api/{name:.*}", canned)
    app.router.add_route("*", "/api/{name:.*}", accept)
    app.router.add_static(EXTENSION, PACK / "web")
    app.router.add_static("/", STATIC)
    return app


class StubBackend:
    """Context manager that serves `build_app` from a thread, on a free local port."""

    def __init__(self, nodes: dict[str, Any], settings: dict[str, Any], explorer: Handler = silent) -> None:
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner = web.AppRunner(build_app(nodes, settings, explorer), shutdown_timeout=0.1)

    async def _start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/".format(*self._runner.addresses[0])

    def _call(self, coroutine: Any) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        done.result(timeout=30)

    def __enter__(self) -> StubBackend:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8188
    recorded = json.loads(OBJECT_INFO.read_text())["nodes"]
    web.run_app(build_app(recorded, settings={}), host="127.0.0.1", port=port)
