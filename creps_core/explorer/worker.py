"""A worker thread that draws only the newest request; older ones are dropped, never queued."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from .session import FrameRequest

log: logging.Logger = logging.getLogger("CREPS")

_DRAFT_SECONDS = 1.0  # that a draft may take before a newer request cancels it
_MAX_UNACKNOWLEDGED = 2  # frames sent to a page that has not confirmed them
_MIN_INTERVAL = 1 / 120  # seconds between frames


class Cancelled(Exception):
    """The result is not wanted any more."""


class LatestOnlyWorker:
    """Draws requests in a thread of its own, always the newest one.

    A newer request cancels a sharp frame at once, but a draft, which is nearly done, only if it takes long. At most a
    few frames are unacknowledged by the page at any time.

    Args:
        draw: called in the thread as `draw(request, check)`, calls `check` between tiles; `check` raises `Cancelled`.
    """

    def __init__(self, draw: Callable[[FrameRequest, Callable[[], None]], None]):
        self._draw = draw
        self._state = threading.Condition()
        self._pending: FrameRequest | None = None
        self._unacknowledged, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="creps-explorer", daemon=True)
        self._thread.start()

    @property
    def unacknowledged(self) -> int:
        """Number of frames that the page has not acknowledged."""
        return self._unacknowledged

    def submit(self, request: FrameRequest) -> None:
        """Replace the pending request."""
        with self._state:
            self._pending = request
            self._state.notify_all()

    def acknowledge(self) -> None:
        """The page has shown or discarded a frame."""
        with self._state:
            self._unacknowledged = max(0, self._unacknowledged - 1)
            self._state.notify_all()

    def close(self) -> None:
        """Stop between two tiles. Does not wait."""
        with self._state:
            self._closed, self._pending = True, None
            self._state.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (request := self._next()) is not None:
            start = time.monotonic()
            check = partial(self._check, request, start)
            try:
                self._draw(request, check)
            except Cancelled:
                self.acknowledge()
            except Exception:  # an internal error: `draw` itself reports errors of a request to the page
                log.exception("the explorer could not draw a frame")
                self.acknowledge()
            if (rest := _MIN_INTERVAL - (time.monotonic() - start)) > 0:
                time.sleep(rest)

    def _next(self) -> FrameRequest | None:
        """Wait until the page can take a frame; returns the newest request, or None once closed."""
        with self._state:
            self._state.wait_for(lambda: self._closed or (self._pending and self._unacknowledged < _MAX_UNACKNOWLEDGED))
            request, self._pending = self._pending, None
            if self._closed:
                return None
            self._unacknowledged += 1
            return request

    def _check(self, request: FrameRequest, start: float) -> None:
        if self._closed:
            raise Cancelled
        if self._pending is not None and (request.sharp or time.monotonic() - start > _DRAFT_SECONDS):
            raise Cancelled
