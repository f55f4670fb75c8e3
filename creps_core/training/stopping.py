"""Stop a training by signals: the first one after the step, the second one at once."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress

from ...common.duration import duration

log = logging.getLogger("CREPS")

_ONE_SIGNAL = 3.0  # seconds in which several signals are one: torchrun passes on what its processes got already


class StopSignals:
    """Within `with`, SIGINT, SIGTERM and SIGHUP ask for a stop instead of ending the process.

    The first signal asks for it: the loop stops after its step. The second one ends the process at once; snapshots are
    renamed when they are complete, so the last one is whole. A thread answers both, since Python's own handlers wait
    for the operation in progress, which can take minutes.

    Attributes:
        step_seconds: what a step takes; 0: unknown.
    """

    def __init__(self) -> None:
        self.step_seconds = 0.0
        self._step_start = time.monotonic()
        self._previous: dict[int, object] = {}
        self._asked = False
        self._asked_at = 0.0
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._wakeup = -1
        self._thread: threading.Thread | None = None

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked

    def step_done(self) -> None:
        """Measure the time of a step. To be called after each."""
        now = time.monotonic()
        self.step_seconds, self._step_start = now - self._step_start, now

    def step_begins(self) -> None:
        """Measure the time of the first step from now on."""
        self._step_start = time.monotonic()

    def __enter__(self) -> StopSignals:
        numbers = [signal.SIGINT, signal.SIGTERM]
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:  # nohup
            numbers.append(hang_up)
        with suppress(OSError, RuntimeError):  # no thread to be had: then signals wait for the operation in progress
            self._watch()
        for number in numbers:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._ends:
            signal.set_wakeup_fd(self._wakeup)
            self._ends[1].close()  # the thread reads the end
            if self._thread:
                self._thread.join()
            self._ends[0].close()

    def _watch(self) -> None:
        """Start the thread that is told of signals when they arrive."""
        ends = socket.socketpair()
        ends[1].setblocking(False)
        thread = threading.Thread(target=self._answer, args=(ends[0],), daemon=True, name="creps-signals")
        thread.start()
        self._ends, self._thread = ends, thread
        self._wakeup = signal.set_wakeup_fd(ends[1].fileno(), warn_on_full_buffer=False)

    def _handle(self, number: int, frame: object) -> None:
        """Python's handler, which may run much later than the thread."""
        if self._thread is None:
            self._act()

    def _answer(self, end: socket.socket) -> None:
        while data := end.recv(1):
            if data[0] in self._previous:
                self._act()

    def _act(self) -> None:
        if self._asked:
            if "WORLD_SIZE" in os.environ and time.monotonic() - self._asked_at < _ONE_SIGNAL:
                return
            with suppress(Exception):
                log.warning("stopped at once; the same command resumes the run from its last snapshot, which is whole")
            os._exit(130)
        self._asked, self._asked_at = True, time.monotonic()
        left = max(0.0, self.step_seconds - (time.monotonic() - self._step_start))
        wait = f" (about {duration(left)})" if self.step_seconds else ""
        log.warning("stopping after this step%s; once more stops at once, without a new snapshot", wait)
