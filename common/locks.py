"""Locks on open files between processes, on POSIX and on Windows."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from io import FileIO
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # network file systems
_INTERVAL = 0.01  # seconds between attempts
_OFFSET = 1 << 40
"""Windows locks ranges of bytes, and nobody else may read or write them: one byte beyond the end of any of ours."""


def lock_file(
    file: BinaryIO | FileIO, *, patience: float = 0.0, unsupported: Callable[[], object] = lambda: None
) -> bool:
    """Lock an open file exclusively until it is closed or its process ends, however it ends.

    A second handle of the same process is refused like another process.

    Args:
        file: its position stays.
        patience: seconds for which a locked file is tried again.
        unsupported: called where the file system has no locks.

    Returns:
        Whether this handle holds the lock; True where the file system has no locks.
    """
    end = time.monotonic() + patience
    while True:
        try:
            _try_lock(file)
            return True
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                unsupported()
                return True
        if time.monotonic() >= end:
            return False
        time.sleep(_INTERVAL)


def _try_lock(file: BinaryIO | FileIO) -> None:
    """Raise OSError unless the lock is free."""
    number = file.fileno()
    if fcntl is not None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        windows: Any = msvcrt
        position = os.lseek(number, 0, os.SEEK_CUR)
        try:
            os.lseek(number, _OFFSET, os.SEEK_SET)
            windows.locking(number, windows.LK_NBLCK, 1)
        finally:
            os.lseek(number, position, os.SEEK_SET)
