"""One page's conversation over a WebSocket: looks come in, pictures go out.

The page sends JSON: `{"show": scene, "id", "source", "stage": [width, height, frame], "sharp", "time"}` for what it
wants to show, `{"seen": id}` for each answer that it has dealt with, and where pictures may be saved
`{"save": {...}}` and `{"stop": true}`. It gets JSON (`hello`, `generator`, `waiting`, `error`, `saving`) and frames:
four bytes with the length of a JSON header, little-endian, the header, and a JPEG.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from ..explorer import MAX_SIDE, MAX_STAGE, Cancelled, Frame, LatestOnlyWorker, Request, Session, Stage, read_scene
from .host import Host, Lease
from .saving import Saving

log = logging.getLogger("CREPS")

MAX_MESSAGE = 1 << 16
"""Bytes from the page; a scene with all its key frames takes half of it."""
MAX_CONVERSATIONS = 16
_RATE, _BURST = 500, 1000  # messages per second, and how many more at once

_conversations: set[Conversation] = set()


async def converse(
    request: web.Request, host: Host, saving: Callable[[Callable[[dict], None]], Saving] | None = None
) -> web.StreamResponse:
    """Answer a page until it goes away. The caller has made sure that it may.

    Args:
        host: of the generators.
        saving: makes what saves pictures for this page, if it may.
    """
    if len(_conversations) >= MAX_CONVERSATIONS:
        raise web.HTTPServiceUnavailable(text=f"{MAX_CONVERSATIONS} explorers are open: close one")
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=30, compress=False)
    await socket.prepare(request)
    conversation = Conversation(host, asyncio.get_running_loop(), saving)
    _conversations.add(conversation)
    sender = asyncio.ensure_future(conversation.send_all(socket))
    try:
        budget, last = float(_BURST), time.monotonic()
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            now = time.monotonic()
            budget, last = min(_BURST, budget + (now - last) * _RATE) - 1, now
            if budget < 0:  # too fast: let it wait, and TCP tells the page
                await asyncio.sleep(-budget / _RATE)
            conversation.hear(message.data)
    finally:
        _conversations.discard(conversation)
        conversation.close()
        sender.cancel()
    return socket


class Conversation:
    """What `converse` keeps of one page: its session, and what is on the way to it."""

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        saving: Callable[[Callable[[dict], None]], Saving] | None = None,
    ):
        self._host, self._loop = host, loop
        self._outbox: asyncio.Queue[bytes | dict[str, Any]] = asyncio.Queue()
        self._session: Session | None = None
        self._waits = False
        self._saving = saving(self._tell) if saving else None
        self._latest = LatestOnlyWorker(self._draw)
        self._tell(
            {"hello": {"sources": host.sources(), "saves": saving is not None, "side": MAX_SIDE, "stage": MAX_STAGE}}
        )

    def hear(self, text: str) -> None:
        """Deal with a message of the page."""
        number = -1
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise ValueError("a message must be an object")
            if type(message.get("id")) is int and 0 <= message["id"] < 1 << 53:
                number = message["id"]
            if "seen" in message:
                self._latest.seen()
            elif "show" in message:
                self._latest.ask(read_request(message, number))
            elif "save" in message and self._saving:
                self._saving.begin(message["save"])
            elif "stop" in message and self._saving:
                self._saving.stop()
            else:
                raise ValueError("this message asks for nothing that is offered here")
        except (ValueError, RecursionError) as error:
            self._tell({"error": str(error), "id": number, "refused": True})

    async def send_all(self, socket: web.WebSocketResponse) -> None:
        """Send what is to be sent, until cancelled."""
        while True:
            item = await self._outbox.get()
            try:
                await (socket.send_bytes(item) if isinstance(item, bytes) else socket.send_str(json.dumps(item)))
            except (ConnectionError, RuntimeError):  # the page has gone; reading will notice
                return

    def close(self) -> None:
        """Forget everything."""
        self._latest.close()
        if self._saving:
            self._saving.stop()

    def _draw(self, request: Request, check: Callable[[], None]) -> None:
        try:
            frame = None
            while frame is None:
                frame = self._try(request, check)
        except Cancelled:
            raise
        except Exception as error:  # the page shows it; the explorer goes on with the next look
            self._session = None
            if not isinstance(error, ValueError):  # those have a message for the user
                log.exception("the explorer could not draw a frame")
            self._post({"error": f"{error}" or type(error).__name__, "id": request.number})
            return
        self._wait({"waiting": False})
        start = time.perf_counter()
        picture = frame.jpeg()
        height, width, _ = frame.pixels.shape
        view = frame.view
        header = {
            "id": request.number,
            "width": width,
            "height": height,
            "sharp": frame.sharp,
            "quality": frame.quality,
            "view": {"x": view.center_x, "y": view.center_y, "zoom": view.zoom, "rotation": view.rotation},
            "draw": round(1000 * frame.seconds, 2),
            "encode": round(1000 * (time.perf_counter() - start), 2),
        }
        text = json.dumps(header).encode()
        self._post(len(text).to_bytes(4, "little") + text + picture)

    def _try(self, request: Request, check: Callable[[], None]) -> Frame | None:
        """The picture; None if the device was wanted for something more important."""
        with self._host.use(request.source, check, self._wait) as lease:
            session = self._session
            if (
                session is None
                or session.generator is not lease.generator
                or session.walker.linked is not lease.directions
            ):
                session = self._session = Session(lease.generator, lease.directions)
                self._tell({"generator": about(lease, request.source)})

            def go_on() -> None:
                check()
                if lease.busy():
                    raise _BusyError

            try:
                return session.draw(request, go_on)
            except _BusyError:
                return None
            except RuntimeError:
                if lease.busy():  # what is loaded for it may have put the generator away in the middle of a picture
                    self._session = None
                    return None
                raise

    def _wait(self, message: dict[str, object]) -> None:
        """Tell once that it waits, and once that it does not."""
        if message["waiting"] != self._waits:
            self._waits = bool(message["waiting"])
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        self._post(message)

    def _post(self, item: bytes | dict[str, Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, item)
        except RuntimeError as error:  # the server has stopped
            raise Cancelled from error


class _BusyError(Exception):
    """The device is wanted for something more important."""


def about(lease: Lease, source: str) -> dict[str, Any]:
    """What the page wants to know of a generator."""
    generator, directions = lease.generator, lease.directions
    return {
        "name": generator.name,
        "source": source,
        "resolution": generator.config.img_resolution,
        "aspect": list(generator.aspect),
        "classes": generator.config.c_dim,
        "pairs": generator.config.w_dim // 2,
        "device": str(generator.mapping.w_avg.device),
        "linked": 0 if directions is None else len(directions) // 2,
        "directions": {
            "own": generator.config.w_dim,
            "linked": 0 if directions is None else len(directions),
            "Named": len(generator.directions),
        },
        "names": list(generator.directions),
    }


def read_request(message: Mapping[str, Any], number: int) -> Request:
    """What a page wants to see.

    Raises:
        ValueError: a value is not of its kind or out of range; names it.
    """
    stage, source, moment = message.get("stage"), message.get("source"), message.get("time")
    if not isinstance(stage, list) or len(stage) != 3:
        raise ValueError("stage must be [width, height, frame] in pixels")
    if type(source) is not str:
        raise ValueError("source must be the name of a generator")
    if moment is not None and (type(moment) not in (int, float) or not 0 <= moment <= 1e6):
        raise ValueError(f"time must be a number of seconds, not {str(moment)[:40]!r}")
    side = message.get("side", 0)
    if type(side) is not int or not 0 <= side <= MAX_STAGE:
        raise ValueError(f"side must be a whole number from 0 to {MAX_STAGE}, not {str(side)[:40]!r}")
    return Request(
        number, read_scene(message["show"]), Stage(*stage), message.get("sharp") is True, side, moment, source
    )
