"""The server of `creps explore` with a small generator, and a client in place of its page."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from comfyui_creps.creps_core import Generator
from comfyui_creps.creps_core.serving.host import Generators
from comfyui_creps.creps_core.serving.standalone import build_app
from networks import make_generator
from PIL import Image

TOKEN = "secret-of-this-test"
SOON = 60.0  # seconds; far more than is needed


class Page:
    """The client of a conversation."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.texts: list[dict[str, Any]] = []

    async def send(self, message: Any) -> None:
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def show(self, number: int, scene: Any = None, **fields: Any) -> None:
        message = {"show": scene or {}, "id": number, "source": "small", "stage": [48, 32, 48], "sharp": True}
        await self.send({**message, **fields})

    async def receive(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first message that `wanted` accepts: JSON, or the header of a frame and its `image`. Acknowledges
        all frames before it."""
        return await asyncio.wait_for(self._receive(wanted), SOON)

    async def _receive(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                length = int.from_bytes(message.data[:4], "little")
                heard = json.loads(message.data[4 : 4 + length])
                heard["image"] = Image.open(io.BytesIO(message.data[4 + length :]))
                await self.send({"seen": heard["id"]})
            elif message.type is aiohttp.WSMsgType.TEXT:
                heard = json.loads(message.data)
                self.texts.append(heard)
            else:
                raise ConnectionError(f"closed with {self.socket.close_code}")
            if wanted(heard):
                return heard

    async def frame(self, number: int) -> dict[str, Any]:
        return await self.receive(lambda heard: "image" in heard and heard["id"] == number)

    async def error(self) -> str:
        return (await self.receive(lambda heard: "error" in heard))["error"]


class Server:
    """A running server, and the address of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"http://{address}/{TOKEN}/"

    @asynccontextmanager
    async def page(self, **headers: str) -> AsyncIterator[Page]:
        headers = {"Origin": f"http://{self.address}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.url + "socket", headers=headers) as socket,
        ):
            yield Page(socket)


def app_of(folder: Path, make: Callable[[], Generator] = make_generator) -> web.Application:
    return build_app(
        Generators({"small": make, "builtin: grey": lambda: make_generator(img_channels=1)}), folder, TOKEN
    )


def talk(folder: Path, act: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    """Run `act` with a server."""

    async def run() -> None:
        runner = web.AppRunner(app_of(folder), shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            await act(Server("{}:{}".format(*runner.addresses[0])))
        finally:
            await runner.cleanup()

    asyncio.run(run())


@contextmanager
def serving(folder: Path, make: Callable[[], Generator] = make_generator) -> Iterator[Server]:
    """Run a server in a thread, for a browser."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(app_of(folder, make), shutdown_timeout=0.2)

    async def begin() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

    asyncio.run_coroutine_threadsafe(begin(), loop).result(SOON)
    try:
        yield Server("{}:{}".format(*runner.addresses[0]))
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(SOON)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SOON)
        loop.close()
