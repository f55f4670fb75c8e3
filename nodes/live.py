"""The explorer's generators in ComfyUI: leased through its memory management, and never while a prompt runs."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management as mm
import torch
from aiohttp import web
from comfy.cli_args import args
from server import PromptServer

from ..creps_core.latents import Directions
from ..creps_core.rendering import release_renderers
from ..creps_core.serving.conversation import converse, reject_if_full
from ..creps_core.serving.guard import log_refusal, refuse_comfyui_origin
from ..creps_core.serving.host import Check, Lease, Notify, hold_lock
from . import bridge
from .load import BUILTIN, checkpoint_names, load_model
from .sockets import Model

log = logging.getLogger("CREPS")

ROUTE = "/creps/explorer/socket"
_FRAME_BYTES = 256 << 20  # on the device, per frame
_IDLE_SECONDS = float(os.environ.get("CREPS_EXPLORER_REST", "60"))  # until memory is released
_MAX_SHARED = 64
_RAW_WEIGHTS = " (G)"  # suffix of a file name: the weights without EMA
_SHARED = "shared "  # prefix of the names of generators from a run
_QUEUE_INTERVAL = 0.1  # seconds between checks of the queue


@dataclass(frozen=True)
class _SharedModel:
    """A generator from a run of the node. The references are weak: ComfyUI's cache decides how long it lives."""

    model: weakref.ref[Model]
    directions: weakref.ref[Directions] | None


class ComfyGenerators:
    """A `Host`: generators that the loader lists, and those that runs have shared."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: OrderedDict[str, _SharedModel] = OrderedDict()
        self._loaded: tuple[object, Model] | None = None
        self._used: weakref.WeakSet[Model] = weakref.WeakSet()
        self._watch = threading.Lock()
        self._last, self._watched = 0.0, False

    def sources(self) -> list[str]:
        """Names that the loader lists."""
        return checkpoint_names()

    def share(self, model: Model, directions: Directions | None) -> str:
        """Share a generator of a run; returns its name for the page, the same one for the same objects."""
        for name, old in list(self._shared.items()):
            if old.model() is None:
                del self._shared[name]
            elif old.model() is model and (old.directions and old.directions()) is directions:
                self._shared.move_to_end(name)
                return name
        name = _SHARED + secrets.token_hex(8)
        self._shared[name] = _SharedModel(weakref.ref(model), None if directions is None else weakref.ref(directions))
        while len(self._shared) > _MAX_SHARED:
            self._shared.popitem(last=False)
        return name

    @contextmanager
    def use(self, source: str, check: Check, notify: Notify) -> Iterator[Lease]:
        """See `Host`. Waits while a prompt runs; `Lease.busy` reports when one starts."""
        queue = PromptServer.instance.prompt_queue
        while True:
            while queue.currently_running:
                notify({"waiting": True})
                check()
                time.sleep(_QUEUE_INTERVAL)
            with hold_lock(self._lock, check):
                self._last = time.monotonic()
                self._start_watch()
                model, directions = self._find(source)
                with queue.mutex:  # no prompt can start while the model is being loaded
                    if queue.currently_running:
                        continue
                    generator = bridge.on_device(model, _FRAME_BYTES)
                self._used.add(model)
                with torch.inference_mode():
                    yield Lease(generator, directions, lambda: bool(queue.currently_running))
                self._last = time.monotonic()
                return

    def _find(self, source: str) -> tuple[Model, Directions | None]:
        shared = self._shared.get(source)
        if shared is not None:
            model = shared.model()
            if model is not None:
                return model, shared.directions and shared.directions()
        if source.startswith(_SHARED):
            raise ValueError("the generator of the last run is gone: run the workflow once more")
        weights = "G" if source.endswith(_RAW_WEIGHTS) else "G_ema"
        name = source.removesuffix(_RAW_WEIGHTS)
        if name not in self.sources():
            raise ValueError(f"there is no generator {source[:80]!r} in the list of Load CREPS Generator")
        key = (source, None if name.startswith(BUILTIN) else bridge.file_state(bridge.CHECKPOINT_FOLDER, name))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None
            self._loaded = key, load_model(name, weights)
        return self._loaded[1], None

    # Releasing memory

    def _start_watch(self) -> None:
        with self._watch:
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch_idle, name="creps-idle", daemon=True).start()

    def _watch_idle(self) -> None:
        while (left := self._last + _IDLE_SECONDS - time.monotonic()) > 0 or not self._release():
            time.sleep(max(left, 1.0))

    def _release(self) -> bool:
        """Unload the generators used; returns False if a prompt runs, which may be using them."""
        queue = PromptServer.instance.prompt_queue
        with self._lock, queue.mutex:
            if queue.currently_running:
                return False
            for model in self._used:
                mm.unload_model_and_clones(model.patcher)
                release_renderers(model.generator)
            self._loaded, self._used = None, weakref.WeakSet()
            mm.soft_empty_cache()
            log.info("the explorer has given its memory back")
            with self._watch:
                self._watched = False
            return True


GENERATORS = ComfyGenerators()


def register_route() -> None:
    """Add the WebSocket of CREPS Explorer to the server."""

    def check_origin(request: web.Request) -> None:
        loopback = set(args.listen.split(",")) <= {"127.0.0.1", "::1", "localhost"}
        if reason := refuse_comfyui_origin(request, loopback=loopback, port=args.port, cors=args.enable_cors_header):
            log_refusal(reason)
            raise web.HTTPForbidden(text=reason)

    @PromptServer.instance.routes.get(ROUTE)
    async def socket(request: web.Request) -> web.StreamResponse:
        check_origin(request)
        return await converse(request, GENERATORS)

    @PromptServer.instance.routes.post(ROUTE)
    async def explain(request: web.Request) -> web.StreamResponse:
        """Tell a page why it gets no socket, which browsers do not."""
        check_origin(request)
        reject_if_full()
        return web.Response(status=204)
