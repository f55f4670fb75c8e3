"""The explorer's generators in ComfyUI: lent by its memory management, never while a prompt runs."""

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
from ..creps_core.rendering import device
from ..creps_core.serving.conversation import converse
from ..creps_core.serving.guard import refuse_origin
from ..creps_core.serving.host import Check, Lease, Tell, turn
from . import bridge
from .load import BUILTIN, checkpoint_names, load_model
from .sockets import Model

log = logging.getLogger("CREPS")

ROUTE = "/creps/explorer/socket"
_MEMORY = 256 << 20  # that a frame takes on the device
_REST = float(os.environ.get("CREPS_EXPLORER_REST", "60"))  # seconds without a frame until memory is given back
_MOST_LENT = 64
_OTHER = " (G)"  # after the name of a file: its other weights
_LENT = "lent "
_LOOK = 0.1  # seconds between two looks at the queue


@dataclass(frozen=True)
class _Offer:
    """What a run of the node has lent to its page; ComfyUI's cache keeps it alive, or does not."""

    model: weakref.ref[Model]
    directions: weakref.ref[Directions] | None


class ComfyGenerators:
    """A `Host`: generators under the names that the loader lists, and those that prompts have made."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        self._own: tuple[object, Model] | None = None
        self._used: weakref.WeakSet[Model] = weakref.WeakSet()
        self._watch = threading.Lock()
        self._last, self._watched = 0.0, False

    def sources(self) -> list[str]:
        """What the loader lists."""
        return checkpoint_names()

    def offer(self, model: Model, directions: Directions | None) -> str:
        """Lend what a prompt has made; returns the name under which the page may ask for it, always the same one."""
        for name, old in list(self._offers.items()):
            if old.model() is None:
                del self._offers[name]
            elif old.model() is model and (old.directions and old.directions()) is directions:
                self._offers.move_to_end(name)
                return name
        name = _LENT + secrets.token_hex(8)
        self._offers[name] = _Offer(weakref.ref(model), None if directions is None else weakref.ref(directions))
        while len(self._offers) > _MOST_LENT:
            self._offers.popitem(last=False)
        return name

    @contextmanager
    def use(self, source: str, check: Check, tell: Tell) -> Iterator[Lease]:
        """See `Host`. Waits as long as a prompt runs; `Lease.busy` says when one begins."""
        queue = PromptServer.instance.prompt_queue
        while True:
            while queue.currently_running:
                tell({"waiting": True})
                check()
                time.sleep(_LOOK)
            with turn(self._turn, check):
                self._last = time.monotonic()
                self._start_watch()
                model, directions = self._find(source)
                with queue.mutex:  # no prompt can begin while the model is loaded
                    if queue.currently_running:
                        continue
                    generator = bridge.on_device(model, _MEMORY)
                self._used.add(model)
                with torch.inference_mode():
                    yield Lease(generator, directions, lambda: bool(queue.currently_running))
                self._last = time.monotonic()
                return

    def _find(self, source: str) -> tuple[Model, Directions | None]:
        offer = self._offers.get(source)
        if offer is not None:
            model = offer.model()
            if model is not None:
                return model, offer.directions and offer.directions()
        if source.startswith(_LENT):
            raise ValueError("the generator of the last run is gone: run the workflow once more")
        weights = "G" if source.endswith(_OTHER) else "G_ema"
        name = source.removesuffix(_OTHER)
        if name not in self.sources():
            raise ValueError(f"there is no generator {source[:80]!r} in the list of Load CREPS Generator")
        key = (source, None if name.startswith(BUILTIN) else bridge.file_state(bridge.FOLDER, name))
        if self._own is None or self._own[0] != key:
            self._own = None
            self._own = key, load_model(name, weights)
        return self._own[1], None

    # Giving memory back

    def _start_watch(self) -> None:
        with self._watch:
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch_rest, name="creps-rest", daemon=True).start()

    def _watch_rest(self) -> None:
        while (left := self._last + _REST - time.monotonic()) > 0 or not self._give_back():
            time.sleep(max(left, 1.0))

    def _give_back(self) -> bool:
        """Unload what was used; False if a prompt runs, which may be using it."""
        queue = PromptServer.instance.prompt_queue
        with self._turn, queue.mutex:
            if queue.currently_running:
                return False
            for model in self._used:
                mm.unload_model_and_clones(model.patcher)
                device.release(model.generator)
            self._own, self._used = None, weakref.WeakSet()
            mm.soft_empty_cache()
            log.info("the explorer has given its memory back")
            with self._watch:
                self._watched = False
            return True


GENERATORS = ComfyGenerators()


def register_route() -> None:
    """Let the page of a CREPS Explorer talk to this server."""

    def named(name: str) -> bool:
        """Whether this server may go by a name: not if it listens to this machine alone, where only DNS rebinding
        could have led a page here."""
        return not set(args.listen.split(",")) <= {"127.0.0.1", "::1", "localhost"}

    @PromptServer.instance.routes.get(ROUTE)
    async def socket(request: web.Request) -> web.StreamResponse:
        if reason := refuse_origin(request, named):
            raise web.HTTPForbidden(text=reason)
        return await converse(request, GENERATORS)
