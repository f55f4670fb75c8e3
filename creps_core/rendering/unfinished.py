"""What a render leaves beside its file while that is not whole, and how another one goes on from there.

`.NAME.JOB.partial` becomes the file by being renamed, `.NAME.JOB.journal` says what picture it is, how much of it is
there, and with which checksums. JOB is a digest of the picture: renders of different pictures to one file do not meet.
The partial is locked while a process writes to it; a second render of the same picture takes names of its own.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import zlib
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import printable
from ..files import lock_file, partial_of, publish, read_json, write_json

log = logging.getLogger("CREPS")

JOURNAL = ".journal"
_SLOTS = 64  # renders of one picture to one file at a time
_PIECE = 1 << 20


class Unfinished:
    """The two hidden files of a picture that is not whole; open until `close`.

    Attributes:
        file: the partial, locked.
        rows, size: what the journal vouches for, in rows and bytes.
        parts: [end, CRC-32] of what is written.
        state: what the writer needs to go on from there; None: begin.

    Raises:
        OSError: no file can be made.
    """

    def __init__(self, target: Path, job: dict[str, Any], resume: bool):
        self.target, self.job = target, json.loads(json.dumps(job))
        self.token = hashlib.sha256(json.dumps(self.job, sort_keys=True).encode()).hexdigest()[:12]
        self.rows = self.size = 0
        self.parts: list[list[int]] = []
        self.state: dict[str, Any] | None = None
        target.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.partial, self.journal = self._take()
        if resume:
            try:
                self._load()
            except FileNotFoundError:
                if os.fstat(self.file.fileno()).st_size:
                    self.begin_anew("it has no journal")
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.begin_anew(str(error))
        else:
            self.begin_anew()
        for path in self._others():
            log.warning(
                "%s: %.1f MB of an unfinished render of another picture are in %s: render that picture again to go on, "
                "or remove it",
                target,
                path.stat().st_size / 1e6,
                path.name,
            )

    def begin_anew(self, reason: str = "") -> None:
        """Drop what there is; `reason` is said."""
        if reason:
            log.warning(
                "%s: an unfinished render of this picture cannot be gone on with (%s): begun anew",
                self.target,
                printable(reason, 100),
            )
        self.rows, self.size, self.parts, self.state = 0, 0, [], None
        self.journal.unlink(missing_ok=True)
        self.file.truncate(0)
        self.file.seek(0)

    def save(self, rows: int, size: int, parts: list[list[int]], state: dict[str, Any]) -> None:
        """Vouch for what is written: so many rows, in so many bytes.

        Args:
            rows, size: see above.
            parts: [end, CRC-32] of the parts of the file, in bytes.
            state: what the writer needs beside the file, as JSON.
        """
        os.fsync(self.file.fileno())
        write_json(self.journal, {"job": self.job, "rows": rows, "size": size, "parts": parts, "state": state})
        self.rows, self.size = rows, size

    def stopped(self) -> None:
        """Keep what is of use to another run, and let go of it."""
        if self.size:
            self.file.truncate(self.size)
        else:
            self.discard()
        self.close()

    def discard(self) -> None:
        """Remove both files."""
        self.partial.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def done(self) -> int:
        """Put the file in its place; its size in bytes."""
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        if os.name == "nt":  # renames no open file
            self.close()
        publish(self.partial, self.target)
        self.journal.unlink(missing_ok=True)
        self.close()
        return size

    def close(self) -> None:
        """Unlock the partial."""
        self.file.close()

    def _take(self) -> tuple[FileIO, Path, Path]:
        """The first pair of names that no other process works on, the partial open and locked."""
        for slot in range(_SLOTS):
            token = self.token if slot == 0 else f"{self.token}-{slot}"
            partial, journal = (partial_of(self.target, token, kind) for kind in (".partial", JOURNAL))
            for _ in range(_SLOTS):
                partial.touch()
                file = partial.open("r+b", buffering=0)
                if not lock_file(file):
                    file.close()
                    break
                if _is_at(file, partial):
                    return file, partial, journal
                file.close()  # whoever had it has just put it in its place
        raise OSError(f"{_SLOTS} processes render this picture to this file: wait for one of them")

    def _load(self) -> None:
        """The state of an earlier run of the same picture; raises what is wrong with it."""
        journal = read_json(self.journal)
        rows, size, parts, state = (journal[name] for name in ("rows", "size", "parts", "state"))
        if journal["job"] != self.job:
            raise ValueError("it is of another picture")
        if not isinstance(state, dict) or not all(type(n) is int and n >= 0 for n in (rows, size)):
            raise ValueError("its journal is damaged")
        _check_parts(self.file, parts, size)
        self.rows, self.size, self.parts, self.state = rows, size, parts, state

    def _others(self) -> list[Path]:
        """Partials of other pictures for the same file that nobody works on."""
        name = glob.escape(self.target.name)
        found = []
        for path in sorted(self.target.parent.glob(f".{name}.*partial")):
            if path.name.startswith(f".{self.target.name}.{self.token}"):
                continue
            with suppress(OSError), path.open("rb") as file:
                if lock_file(file):
                    found.append(path)
        return found


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _check_parts(file: FileIO, parts: Any, size: int) -> None:
    """Raise ValueError unless the file is what was written, a megabyte at a time."""
    file.seek(0)
    at = 0
    for part in parts:
        match part:
            case [int() as end, int() as wanted] if end >= at:
                pass
            case _:
                raise ValueError("its journal is damaged")
        found = 0
        while at < end:
            data = file.read(min(_PIECE, end - at))
            if not data:
                raise ValueError("a part of it is missing")
            found, at = zlib.crc32(data, found), at + len(data)
        if found != wanted:
            raise ValueError(f"it is damaged before byte {end}")
    if at != size:
        raise ValueError("its journal is damaged")
