"""The conversation with one page over a WebSocket: requests in, frames out. See `protocol.py` for the messages."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from ..explorer import MAX_VIEWPORT, Cancelled, FrameRequest, LatestOnlyWorker, RenderedFrame, Session
from ..rendering import MAX_SIDE
from .host import Host
from .protocol import PROTOCOL, describe_generator, pack_frame, read_request
from .saving import ImageSaver

log: logging.Logger = logging.getLogger("CREPS")

MAX_MESSAGE = 1 << 16
"""Bytes of a message from the page; a scene with the maximum number of keyframes takes half of it."""
MAX_CONVERSATIONS = 16
_RATE, _BURST = 500, 1000  # messages per second, and size of the token bucket

_OUTBOX = 64  # messages that wait to be sent
_SEND_SECONDS = 30.0  # for one message, to a page that does not read
_SILENT_SECONDS = 10.0  # without any message, until a page loses its place to another

_MAX_LOGGED = 64  # different errors

_logged: set[tuple[object, ...]] = set()
_conversations: set[Conversation] = set()


async def converse(
    request: web.Request, host: Host, make_saver: Callable[[Callable[[dict], None]], ImageSaver] | None = None
) -> web.StreamResponse:
    """Serve a page until it disconnects. The caller has checked its origin.

    Args:
        host: leases the generators.
        make_saver: makes the page's `ImageSaver` from its `notify`; None where images cannot be saved.
    """
    reject_if_full()
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=30, compress=False)
    await socket.prepare(request)
    conversation = Conversation(host, asyncio.get_running_loop(), make_saver)
    conversation.abort = lambda: _abort(request)
    _conversations.add(conversation)
    sender = asyncio.ensure_future(conversation.send_all(socket))
    try:
        tokens, last = float(_BURST), time.monotonic()
        async for message in socket:
            if message.type is not WSMsgType.TEXT or _is_gone(request):
                break
            now = time.monotonic()
            tokens, last = min(_BURST, tokens + (now - last) * _RATE) - 1, now
            if tokens < 0:  # too fast: not reading makes TCP slow the page down
                await asyncio.sleep(-tokens / _RATE)
            await conversation.wait_for_room()
            if conversation.gone:
                break
            conversation.receive(message.data)
    finally:
        _conversations.discard(conversation)
        conversation.close()
        sender.cancel()
    return socket


def reject_if_full() -> None:
    """Raise 503 if there is no place for one more page. Pages that never said anything lose theirs."""
    if len(_conversations) >= MAX_CONVERSATIONS:
        silent = [one for one in _conversations if one.is_silent]
        if silent:
            oldest = min(silent, key=lambda one: one.since)
            _conversations.discard(oldest)
            oldest.abort()
            return
        raise web.HTTPServiceUnavailable(text=f"close an explorer: {MAX_CONVERSATIONS} are open")


def _is_gone(request: web.Request) -> bool:
    """Whether the connection is lost; messages that it has sent before may still wait to be read."""
    return request.transport is None or request.transport.is_closing()


def _log_error(what: str, error: Exception) -> None:
    """Log an error with its traceback, each kind once: a page may cause it many times in a second."""
    line = error.__traceback__ and error.__traceback__.tb_lineno
    key = what, type(error), str(error)[:80], line
    if key not in _logged and len(_logged) < _MAX_LOGGED:
        _logged.add(key)
        log.error(what, exc_info=error)


def _abort(request: web.Request) -> None:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()


class Conversation:
    """State of one page: its session, its worker, and the messages to send."""

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        make_saver: Callable[[Callable[[dict], None]], ImageSaver] | None = None,
    ):
        self._host, self._loop = host, loop
        self.abort: Callable[[], None] = lambda: None  # ends the connection
        self.since, self._heard, self.gone = time.monotonic(), False, False
        self._outbox: asyncio.Queue[bytes | dict[str, Any]] = asyncio.Queue()
        self._session: Session | None = None
        self._waiting = False
        self._saver = make_saver(self._notify) if make_saver else None
        self._worker = LatestOnlyWorker(self._draw)
        hello = {
            "protocol": PROTOCOL,
            "sources": host.sources(),
            "saves": self._saver is not None,
            "side": MAX_SIDE,
            "stage": MAX_VIEWPORT,
        }
        self._send({"hello": hello})

    @property
    def is_silent(self) -> bool:
        """Whether the page has had time to send a message, and has not."""
        return not self._heard and time.monotonic() - self.since > _SILENT_SECONDS

    async def wait_for_room(self) -> None:
        """Wait until the page has taken its answers: not reading makes TCP slow it down."""
        await asyncio.sleep(0)  # answers come into the outbox through the loop
        while self._outbox.qsize() >= _OUTBOX and not self.gone:
            await asyncio.sleep(0.02)

    def receive(self, text: str) -> None:
        """Handle a message from the page."""
        number = -1
        self._heard = True
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise ValueError("a message must be an object")
            if type(message.get("id")) is int and 0 <= message["id"] < 1 << 53:
                number = message["id"]
            if "seen" in message:
                self._worker.acknowledge()
            elif "show" in message:
                self._worker.submit(read_request(message, number))
            elif "save" in message and self._saver:
                self._saver.start(message["save"])
            elif "stop" in message and self._saver:
                self._saver.stop()
            else:
                raise ValueError("this message asks for nothing that is offered here")
        except (ValueError, RecursionError) as error:
            self._send({"error": str(error), "id": number, "refused": True})
        except Exception as error:  # no message ends the conversation
            _log_error("the explorer could not handle a message", error)
            self._send({"error": f"{error}" or type(error).__name__, "id": number, "refused": True})

    async def send_all(self, socket: web.WebSocketResponse) -> None:
        """Send queued messages until cancelled."""
        while True:
            item = await self._outbox.get()
            try:
                send = socket.send_bytes(item) if isinstance(item, bytes) else socket.send_str(json.dumps(item))
                await asyncio.wait_for(send, _SEND_SECONDS)
            except (ConnectionError, RuntimeError, asyncio.TimeoutError):  # the page has gone, or does not read
                self.gone = True
                self.abort()
                return

    def close(self) -> None:
        """Stop drawing and saving."""
        self._worker.close()
        if self._saver:
            self._saver.stop()

    def _draw(self, request: FrameRequest, check: Callable[[], None]) -> None:
        while self._outbox.qsize() >= _OUTBOX:  # acknowledged, but not read
            check()
            time.sleep(0.02)
        try:
            frame = None
            while frame is None:
                frame = self._try(request, check)
        except Cancelled:
            raise
        except Exception as error:  # reported to the page; the worker continues with the next request
            self._session = None
            if not isinstance(error, ValueError):  # whose message is for the user
                _log_error("the explorer could not draw a frame", error)
            self._send({"error": f"{error}" or type(error).__name__, "id": request.number})
            return
        self._send_waiting({"waiting": False})
        self._send(pack_frame(request, frame))

    def _try(self, request: FrameRequest, check: Callable[[], None]) -> RenderedFrame | None:
        """Draw a frame; None if a higher-priority task needs the device."""
        with self._host.use(request.source, check, self._send_waiting) as lease:
            session = self._session
            if (
                session is None
                or session.generator is not lease.generator
                or session.walker.linked is not lease.directions
            ):
                session = self._session = Session(lease.generator, lease.directions)
                self._send({"generator": describe_generator(lease, request.source)})

            def check_lease() -> None:
                check()
                if lease.busy():
                    raise _BusyError

            try:
                return session.draw(request, check_lease)
            except _BusyError:
                return None
            except RuntimeError:
                if lease.busy():  # loading its models may have unloaded the generator
                    self._session = None
                    return None
                raise

    def _send_waiting(self, message: dict[str, object]) -> None:
        """Send `waiting` only when it changes."""
        if message["waiting"] != self._waiting:
            self._waiting = bool(message["waiting"])
            self._send(message)

    def _notify(self, message: dict[str, Any]) -> None:
        """Send news of saving; progress only while the page reads."""
        if "done" not in message["saving"] or self._outbox.qsize() < _OUTBOX:
            self._send(message)

    def _send(self, item: bytes | dict[str, Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, item)
        except RuntimeError as error:  # the server has stopped
            raise Cancelled from error


class _BusyError(Exception):
    """A higher-priority task needs the device."""
