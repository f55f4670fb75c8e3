"""Errors of the system at a chosen step of whatever writes files: opening, writing, syncing, renaming."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyui_creps.creps_core.rendering import partial_render

KINDS = (errno.ENOSPC, errno.EIO)


class Faults:
    """Counts the steps below a folder, and fails at one of them.

    Args:
        folder: other files are left alone.
        at: the step that fails, from 1; 0: none, for counting.
        number: of the error.
    """

    def __init__(self, folder: Path, at: int = 0, number: int = errno.ENOSPC):
        self.folder, self.at, self.number, self.steps = str(folder), at, number, 0

    def step(self) -> None:
        """One more; from the chosen one on every step fails, as on a disk that is full."""
        self.steps += 1
        if self.at and self.steps >= self.at:
            raise OSError(self.number, os.strerror(self.number))

    def step_done(self) -> None:
        """A call of the system has returned."""


class Ends(Faults):
    """Ends the work once, before or after a call of the system: by an exception, or by the end of the process.

    Args:
        folder, at: as for `Faults`; every call that changes something counts twice, before and after it.
        error: the exception; None ends the process, as `kill -9` does.
    """

    def __init__(self, folder: Path, at: int, error: type[BaseException] | None):
        super().__init__(folder, at)
        self.error = error

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            if self.error is None:
                os._exit(9)
            raise self.error

    step_done = step


class _File:
    """An open file whose writes are steps."""

    def __init__(self, file: Any, faults: Faults):
        self._file, self._faults = file, faults

    def write(self, data: Any) -> int:
        self._faults.step()
        count = self._file.write(data)
        self._faults.step_done()
        return count

    def truncate(self, size: int) -> int:
        self._faults.step()
        return self._file.truncate(size)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def injected(faults: Faults):
    """Files are opened, written, synced and renamed through `faults`."""
    real = {"open": builtins.open, "io_open": io.open, "fsync": os.fsync, "replace": os.replace, "unlink": os.unlink}
    real_own = partial_render.open_own_file

    def opened(real_open: Callable[..., Any]) -> Callable[..., Any]:
        def open_(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode) & set("wxa+") and str(file).startswith(faults.folder):
                faults.step()
                return _File(real_open(file, mode, *args, **options), faults)
            return real_open(file, mode, *args, **options)

        return open_

    def fsync(file: Any) -> None:
        faults.step()
        real["fsync"](file)
        faults.step_done()

    def replace(source: Any, target: Any) -> None:
        faults.step()
        real["replace"](source, target)
        faults.step_done()

    def unlink(path: Any, **options: Any) -> None:
        if str(path).startswith(faults.folder):
            faults.step()
        real["unlink"](path, **options)
        if str(path).startswith(faults.folder):
            faults.step_done()

    def own(path: Any) -> Any:
        faults.step()
        return _File(real_own(path), faults)

    builtins.open, io.open, os.fsync, os.replace = opened(real["open"]), opened(real["io_open"]), fsync, replace
    os.unlink, partial_render.open_own_file = unlink, own
    try:
        yield faults
    finally:
        builtins.open, io.open, os.fsync, os.replace, os.unlink = real.values()
        partial_render.open_own_file = real_own
