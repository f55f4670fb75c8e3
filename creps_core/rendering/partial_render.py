"""Partial renders: files on disk while rendering, and how to resume from them.

A render to a file keeps two hidden files in its folder until it is complete. `.creps-JOB.partial` holds what is
rendered, and becomes the file by being renamed; `.creps-JOB.journal` says which image it is, how many rows are there,
and with which checksums. JOB is a digest of the image (latent, generator, view, size, format), so a render finds what
an earlier one of the same image left, whatever the file is called, and no other render touches it. The partial file is
locked while a process writes to it; a second render of the same image uses names of its own. `find_partial_renders`
lists what is in a folder; only `remove_partial_renders` removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ...common.errors import printable
from ...common.files import (
    PARTIAL,
    is_at,
    is_own_file,
    open_file,
    open_own_file,
    publish,
    read_json,
    remove_dead_partials,
    write_json,
)
from ...common.locks import lock_file

log: logging.Logger = logging.getLogger("CREPS")

JOURNAL = ".journal"
_PREFIX = ".creps-"
_SLOTS = 64  # simultaneous renders of one image to one folder
_READ = 1 << 20  # bytes at a time
_LOCK_PATIENCE = 0.2  # seconds; `find_partial_renders` locks a file for an instant
_FOREIGN = {errno.EPERM, errno.EACCES, errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO}
DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, MemoryError, zlib.error)
"""What reading a damaged partial render may raise."""


@dataclass(frozen=True)
class PartialRender:
    """An incomplete render, as `find_partial_renders` finds it."""

    partial: Path
    size: int
    """Of the partial file, in bytes."""
    picture: str = ""
    """A description of the image; empty if there is no journal."""
    rows: tuple[int, int] = (0, 0)
    """Rows to resume from, and rows of the whole image."""
    in_use: bool = False
    """A process is rendering it."""

    def __str__(self) -> str:
        done, total = self.rows
        state = "being rendered" if self.in_use else f"{done} of {total} rows" if total else "nothing to resume from"
        return f"{printable(self.picture or self.partial.name, 120)}: {state}, {self.size / 1e6:.1f} MB"


def find_partial_renders(folder: Path) -> list[PartialRender]:
    """The partial renders in a folder, including those of earlier versions, which cannot be resumed."""
    found = []
    for partial in sorted(folder.glob(f".*{PARTIAL}")):
        journal = partial.with_suffix(JOURNAL)
        if not partial.name.startswith(_PREFIX) and not journal.exists():
            continue  # the partial file of something else
        if not is_own_file(partial):
            continue
        picture, rows = "", (0, 0)
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            entries = read_json(journal)
            if isinstance(entries["picture"], str):
                picture, rows = entries["picture"], (int(entries["rows"]), int(entries["job"]["picture"][0]))
        with suppress(OSError), open_file(partial) as file:
            in_use = not lock_file(file)
            found.append(PartialRender(partial, os.fstat(file.fileno()).st_size, picture, rows, in_use))
    return found


def find_lone_journals(folder: Path) -> list[Path]:
    """Journals whose partial file is gone: a process was killed just when its image was complete."""
    return [path for path in sorted(folder.glob(f"{_PREFIX}*{JOURNAL}")) if not path.with_suffix(PARTIAL).exists()]


def remove_lone_journals(folder: Path) -> list[Path]:
    """Remove journals whose partial file is gone; returns those that were removed."""
    removed = []
    for journal in find_lone_journals(folder):
        partial = journal.with_suffix(PARTIAL)
        with suppress(OSError), open_own_file(partial) as file:
            if lock_file(file) and is_at(file, partial):  # no render of the image starts meanwhile
                journal.unlink(missing_ok=True)
                removed.append(journal)
                if os.name == "nt":  # Windows removes no open file
                    file.close()
                partial.unlink()
    return removed


def _remove_useless(folder: Path, found: list[PartialRender]) -> None:
    """Remove what killed processes left and nothing can resume from. What can be resumed stays."""
    remove_dead_partials(folder)
    remove_lone_journals(folder)
    for render in found:
        partial = render.partial
        if partial.name.startswith(_PREFIX) and not partial.with_suffix(JOURNAL).exists():
            with suppress(OSError), open_own_file(partial) as file:
                if lock_file(file) and is_at(file, partial) and not partial.with_suffix(JOURNAL).exists():
                    if os.name == "nt":
                        file.close()
                    partial.unlink()


def remove_partial_renders(folder: Path, keep: Path | None = None) -> list[PartialRender]:
    """Remove the partial renders in a folder that no process is rendering; returns those that were removed.

    Args:
        folder: where files were rendered to.
        keep: a partial file that stays.
    """
    removed = []
    for found in find_partial_renders(folder):
        if found.partial == keep:
            continue
        with suppress(OSError), open_file(found.partial) as file:
            if lock_file(file):  # checked again: a render may have started meanwhile
                if os.name == "nt":  # Windows removes no open file; one in use stays
                    file.close()
                found.partial.unlink()
                found.partial.with_suffix(JOURNAL).unlink(missing_ok=True)
                removed.append(found)
    return removed


class ResumableFile:
    """The two hidden files of a render; open until `commit`, `stop` or `close`.

    Args:
        target: the file that is to be rendered; its folder is made if it does not exist.
        job: identifies the image, as JSON; only a partial render with an equal job is resumed.
        picture: describes the image to users.
        resume: False discards what an earlier render of the image left.
        remove_others: remove the partial renders of other images in the folder.

    Attributes:
        file: the partial file, locked.
        rows, size: what the journal guarantees, in rows and bytes.
        parts: [end, CRC-32] of each part of the file.
        state: what the writer needs to resume; None if there is nothing to resume from.
        others: the partial renders of other images in the folder, as found before any were removed.

    Raises:
        OSError: no file can be created.
    """

    target: Path
    job: Any
    picture: str
    rows: Any
    size: Any
    file: FileIO
    partial: Path
    journal: Path

    def __init__(self, target: Path, job: dict[str, Any], picture: str, resume: bool, remove_others: bool = False):
        self.target, self.job, self.picture = target, json.loads(json.dumps(job)), picture
        self.token: str = hashlib.sha256(json.dumps(self.job, sort_keys=True).encode()).hexdigest()[:12]
        self.rows = self.size = self._kept = 0
        self.parts: list[list[int]] = []
        self.state: dict[str, Any] | None = None
        target.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.partial, self.journal = self._take()
        if resume and os.fstat(self.file.fileno()).st_size:
            try:
                self._load()
            except FileNotFoundError:
                self.restart("it has no journal")
            except DAMAGE as error:
                self.restart(str(error))
        else:
            self.restart()
        found = find_partial_renders(target.parent)
        self.others: list[PartialRender] = [
            other for other in found if other.partial != self.partial and not other.in_use
        ]
        _remove_useless(target.parent, self.others)
        if remove_others:
            remove_partial_renders(target.parent, keep=self.partial)
            return
        for other in self.others:
            if not other.partial.exists():
                continue
            log.warning(
                "%s: its folder holds an unfinished render of another picture, %s (%s)",
                target,
                other,
                other.partial.name,
            )
        if any(other.partial.exists() for other in self.others):
            log.warning("render them again to resume them; `creps unfinished --clear` removes them")

    def restart(self, reason: str = "") -> None:
        """Discard what is there; logs `reason`."""
        if reason:
            log.warning(
                "%s: an unfinished render of this picture cannot be resumed (%s): starting over",
                self.target,
                printable(reason, 100),
            )
        self.rows, self.size, self._kept, self.parts, self.state = 0, 0, 0, [], None
        self.journal.unlink(missing_ok=True)
        self.file.truncate(0)
        self.file.seek(0)

    def save(self, rows: int, size: int, parts: list[list[int]], state: dict[str, Any]) -> None:
        """Write the journal.

        Args:
            rows, size: what is in the file, in rows and bytes.
            parts: [end, CRC-32] of each part of the file, `end` in bytes.
            state: what the writer needs besides the file to resume, as JSON.
        """
        os.fsync(self.file.fileno())
        entries = {"picture": self.picture, "rows": rows, "size": size, "parts": parts, "state": state}
        self._kept = size
        write_json(self.journal, {"job": self.job, **entries}, follow_links=False)
        self.rows, self.size = rows, size

    def stop(self) -> None:
        """Keep what another process can resume from, and unlock it. A file that `commit` has moved stays untouched."""
        if not is_at(self.file, self.partial):  # whatever came after the renaming: the file is complete
            with suppress(OSError):
                self.journal.unlink(missing_ok=True)
        elif self.size or self.journal.exists():
            with suppress(OSError):  # more than the journal counts does no harm
                self.file.truncate(self._kept)
        else:
            self.discard()
        self.close()

    def discard(self) -> None:
        """Remove both files, as far as the system lets us."""
        for path in (self.partial, self.journal):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def commit(self) -> int:
        """Move the file to its target; returns its size in bytes. Nothing touches the file after that."""
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        if os.name == "nt":  # Windows renames no open file
            self.close()
        publish(self.partial, self.target)
        with suppress(OSError):  # a journal that stays is removed by the next render
            self.journal.unlink(missing_ok=True)
        self.close()
        return size

    def close(self) -> None:
        """Unlock the partial file."""
        self.file.close()

    def _take(self) -> tuple[FileIO, Path, Path]:
        """The first pair of names that no other process uses, with the partial file open and locked."""
        for slot in range(_SLOTS):
            token = self.token if slot == 0 else f"{self.token}-{slot}"
            partial, journal = (self.target.with_name(f"{_PREFIX}{token}{kind}") for kind in (PARTIAL, JOURNAL))
            for _ in range(_SLOTS):
                file = _open_slot(partial, journal)
                if file is None:
                    break
                if not lock_file(file, patience=_LOCK_PATIENCE):
                    file.close()
                    break
                if is_at(file, partial):
                    return file, partial, journal
                file.close()  # its process has just moved it to its target
        raise OSError(f"{_SLOTS} processes are rendering this picture in this folder: wait for one of them")

    def _load(self) -> None:
        """Take over the state of an earlier render of the same image; raises if it is missing or damaged."""
        journal = read_json(self.journal)
        rows, size, parts, state = (journal[name] for name in ("rows", "size", "parts", "state"))
        if journal["job"] != self.job:
            raise ValueError("it belongs to another picture")
        if not isinstance(state, dict) or not all(type(n) is int and n >= 0 for n in (rows, size)):
            raise ValueError("its journal is damaged")
        _check_parts(self.file, parts, size)
        self.rows, self.size, self.parts, self.state = rows, size, parts, state


def _open_slot(partial: Path, journal: Path) -> FileIO | None:
    """The partial file, created if it does not exist; None, and logged, if it or the journal is not ours."""
    try:
        file = open_own_file(partial)
    except OSError as error:
        if not os.path.lexists(partial) or error.errno not in _FOREIGN:
            raise
    else:
        if is_own_file(journal):
            return file
        file.close()
    log.warning("%s: left alone: it or its journal is a link, or belongs to somebody else", partial)
    return None


def _check_parts(file: FileIO, parts: Any, size: int) -> None:
    """Raise ValueError unless the file matches its checksums. Reads a megabyte at a time."""
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
            data = file.read(min(_READ, end - at))
            if not data:
                raise ValueError("a part of it is missing")
            found, at = zlib.crc32(data, found), at + len(data)
        if found != wanted:
            raise ValueError(f"it is damaged before byte {end}")
    if at != size:
        raise ValueError("its journal is damaged")
