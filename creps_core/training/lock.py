"""One process at a time in a run's folder."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...common.errors import TrainingError
from ...common.files import open_own_file
from ...common.locks import lock_file

log: logging.Logger = logging.getLogger("CREPS")

LOCK_FILE = ".lock"


class FolderLock:
    """A lock on a folder that the system takes back from a process that dies, however it dies.

    The file says who holds it; the lock is the system's, so a file that was left behind holds nobody up.
    """

    def __init__(self, folder: Path):
        self.path: Path = folder / LOCK_FILE
        self._file: BinaryIO | None = None
        self._depth = 0
        self._made_folder = False

    def __enter__(self) -> FolderLock:
        """Take it; may be taken again by who has it.

        Raises:
            TrainingError: another process has it, named in the message, or the folder cannot be written to.
        """
        if not self._depth:
            self._file = self._taken()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth or self._file is None:
            return
        if os.name != "nt":  # which removes no open file
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None
        if self._made_folder:
            with suppress(OSError):  # in it is what a run has left
                self.path.parent.rmdir()

    def _taken(self) -> BinaryIO:
        folder = self.path.parent
        try:
            self._made_folder = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                file = open_own_file(self.path)
                try:
                    if not lock_file(file, unsupported=_warn_unsupported):
                        raise TrainingError(
                            f"{folder.name}: another process is at work on this run ({_holder(file)}): wait for it or "
                            "stop it, or choose another name for this run"
                        )
                    if self._is_ours(file):  # its last holder may have removed it between our two steps
                        file.truncate(0)
                        file.write(json.dumps(_myself()).encode())
                        return file
                except BaseException:
                    file.close()
                    raise
                file.close()
        except OSError as error:
            raise TrainingError(
                f"{folder.name}: cannot be written to ({error.strerror or error}): choose another place for the run"
            ) from error

    def _is_ours(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False


def _warn_unsupported() -> None:
    log.warning("this file system has no locks: make sure yourself that no other process trains the same run")


def _myself() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(file: BinaryIO) -> str:
    """Who holds the lock, as far as the file says."""
    try:
        file.seek(0)
        who = json.loads(file.read(1000))
        return f"process {int(who['pid'])} on {str(who['host'])[:100]}, since {str(who['since'])[:30]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which"
