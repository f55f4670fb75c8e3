"""A worker that always draws what is wanted now: latest wins, nothing queues."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from .session import Request

log = logging.getLogger("CREPS")

_PATIENCE = 1.0  # seconds that a draft may take before a newer request ends it
_UNSEEN = 2  # frames under way to a page that has not yet said that it shows them
_SHORTEST = 1 / 120  # seconds from frame to frame


class Cancelled(Exception):
    """The picture is not wanted any more."""


class LatestOnlyWorker:
    """Draws requests in a thread of its own, always the newest one.

    A sharp picture ends as soon as anything newer is asked for; a draft, which is nearly done, only if it takes long.
    No more than a few frames are ever under way to the page: it says `seen` as it shows them.

    Args:
        draw: called in the thread as `draw(request, check)`; `check` raises `Cancelled`, and is called between tiles.
    """

    def __init__(self, draw: Callable[[Request, Callable[[], None]], None]):
        self._draw = draw
        self._state = threading.Condition()
        self._waiting: Request | None = None
        self._unseen, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="creps-explorer", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> None:
        """Want this one, and none of those before."""
        with self._state:
            self._waiting = request
            self._state.notify_all()

    def seen(self) -> None:
        """The page shows a frame, or will never show it."""
        with self._state:
            self._unseen = max(0, self._unseen - 1)
            self._state.notify_all()

    def close(self) -> None:
        """End the work, between two tiles. Does not wait for it."""
        with self._state:
            self._closed, self._waiting = True, None
            self._state.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (request := self._next()) is not None:
            start = time.monotonic()
            check = partial(self._check, request, start)
            try:
                self._draw(request, check)
            except Cancelled:
                self.seen()
            except Exception:  # of the adapter itself: what a request did wrong, it has told the page
                log.exception("the explorer could not draw a frame")
                self.seen()
            if (rest := _SHORTEST - (time.monotonic() - start)) > 0:
                time.sleep(rest)

    def _next(self) -> Request | None:
        """The newest request, once the page has room for a frame; None at the end."""
        with self._state:
            self._state.wait_for(lambda: self._closed or (self._waiting and self._unseen < _UNSEEN))
            request, self._waiting = self._waiting, None
            if self._closed:
                return None
            self._unseen += 1
            return request

    def _check(self, request: Request, start: float) -> None:
        if self._closed:
            raise Cancelled
        if self._waiting is not None and (request.sharp or time.monotonic() - start > _PATIENCE):
            raise Cancelled
