"""What a render leaves in the folder of its file while that is not whole, and how another one goes on from there.

`.creps-JOB.partial` becomes the file by being renamed, `.creps-JOB.journal` says what picture it is, how much of it is
there, and with which checksums. JOB is a digest of the picture (latent, generator, view, size, format): whatever the
file is to be called, a render finds what an earlier one of its picture left, and nobody else touches it. The partial is
locked while a process writes to it; a second render of the same picture takes names of its own. What is left is listed
by `unfinished_in`, and removed by `clear_unfinished` alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ...common.errors import printable
from ...common.files import PARTIAL, lock_file, open_file, publish, read_json, write_json

log = logging.getLogger("CREPS")

JOURNAL = ".journal"
_PREFIX = ".creps-"
_SLOTS = 64  # renders of one picture to one file at a time
_PIECE = 1 << 20
_LOOKS = 20


@dataclass(frozen=True)
class Leftover:
    """A picture that is not whole, as `unfinished_in` finds it."""

    partial: Path
    size: int
    """In bytes, of what is there."""
    picture: str = ""
    """What it is, for people; empty where no journal says it."""
    rows: tuple[int, int] = (0, 0)
    """How many are there to go on from, and how many it has in all."""
    in_use: bool = False
    """Somebody renders it now."""

    def __str__(self) -> str:
        done, total = self.rows
        state = "being rendered" if self.in_use else f"{done} of {total} rows" if total else "nothing to go on from"
        return f"{printable(self.picture or self.partial.name, 120)}: {state}, {self.size / 1e6:.1f} MB"


def unfinished_in(folder: Path) -> list[Leftover]:
    """The unfinished pictures of a folder; those of earlier versions, which cannot be gone on with, among them."""
    found = []
    for partial in sorted(folder.glob(f".*{PARTIAL}")):
        journal = partial.with_suffix(JOURNAL)
        if not partial.name.startswith(_PREFIX) and not journal.exists():
            continue  # of another kind of file
        picture, rows = "", (0, 0)
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            entries = read_json(journal)
            if isinstance(entries["picture"], str):
                picture, rows = entries["picture"], (int(entries["rows"]), int(entries["job"]["picture"][0]))
        with suppress(OSError), open_file(partial) as file:
            in_use = not lock_file(file)
            found.append(Leftover(partial, os.fstat(file.fileno()).st_size, picture, rows, in_use))
    return found


def clear_unfinished(folder: Path, keep: Path | None = None) -> list[Leftover]:
    """Remove the unfinished pictures of a folder that nobody renders now, but for one; those that were removed."""
    removed = []
    for leftover in unfinished_in(folder):
        if leftover.partial == keep:
            continue
        with suppress(OSError), open_file(leftover.partial) as file:
            if lock_file(file):  # asked once more: somebody may have begun meanwhile
                if os.name == "nt":  # which removes no open file, and has no locks: one in use stays
                    file.close()
                leftover.partial.unlink()
                leftover.partial.with_suffix(JOURNAL).unlink(missing_ok=True)
                removed.append(leftover)
    return removed


class Unfinished:
    """The two hidden files of a picture that is not whole; open until `close`.

    Attributes:
        file: the partial, locked.
        rows, size: what the journal vouches for, in rows and bytes.
        parts: [end, CRC-32] of what is written.
        state: what the writer needs to go on from there; None: begin.
        others: what is left of other pictures in the folder, or was before it was cleared.

    Raises:
        OSError: no file can be made.
    """

    def __init__(self, target: Path, job: dict[str, Any], picture: str, resume: bool, clear_others: bool = False):
        self.target, self.job, self.picture = target, json.loads(json.dumps(job)), picture
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
        self.others = [
            left for left in unfinished_in(target.parent) if left.partial != self.partial and not left.in_use
        ]
        if clear_others:
            clear_unfinished(target.parent, keep=self.partial)
            return
        for left in self.others:
            log.warning(
                "%s: beside it is an unfinished render of another picture, %s (%s)", target, left, left.partial.name
            )
        if self.others:
            log.warning("render them again to go on with them; `creps unfinished --clear` removes them")

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
        entries = {"picture": self.picture, "rows": rows, "size": size, "parts": parts, "state": state}
        write_json(self.journal, {"job": self.job, **entries})
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
            partial, journal = (self.target.with_name(f"{_PREFIX}{token}{kind}") for kind in (PARTIAL, JOURNAL))
            for _ in range(_SLOTS):
                partial.touch()
                file = partial.open("r+b", buffering=0)
                if not _lock_patiently(file):
                    file.close()
                    break
                if _is_at(file, partial):
                    return file, partial, journal
                file.close()  # whoever had it has just put it in its place
        raise OSError(f"{_SLOTS} processes render this picture in this folder: wait for one of them")

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


def _lock_patiently(file: FileIO) -> bool:
    """Whether a file is locked now, or somebody works on it: who only looks (`unfinished_in`) has it for an instant."""
    for _ in range(_LOOKS):
        if lock_file(file):
            return True
        time.sleep(0.01)
    return lock_file(file)


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
