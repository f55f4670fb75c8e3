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


class _File:
    """An open file whose writes are steps."""

    def __init__(self, file: Any, faults: Faults):
        self._file, self._faults = file, faults

    def write(self, data: Any) -> int:
        self._faults.step()
        return self._file.write(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def injected(faults: Faults):
    """Files are opened, written, synced and renamed through `faults`."""
    real = {"open": builtins.open, "io_open": io.open, "fsync": os.fsync, "replace": os.replace}

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

    def replace(source: Any, target: Any) -> None:
        faults.step()
        real["replace"](source, target)

    builtins.open, io.open, os.fsync, os.replace = opened(real["open"]), opened(real["io_open"]), fsync, replace
    try:
        yield faults
    finally:
        builtins.open, io.open, os.fsync, os.replace = real.values()
