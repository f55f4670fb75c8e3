"""Files of a data set, in a folder or a zip archive, read as bytes. Nothing is ever extracted to the disk."""

from __future__ import annotations

import os
import re
import stat
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ..errors import DatasetError

MAX_FILE = 1 << 29
"""Bytes of one file, unpacked. Larger ones are not read."""
_MAX_TOTAL = 1 << 40  # bytes of all files of an archive together, unpacked
_MAX_ENTRIES = 2_000_000
# Deflate reaches 1032:1 with nothing but repetitions, which is what bombs are made of. Pictures are far from it.
_MAX_RATIO, _RATIO_FROM = 200, 1 << 20
_LOCAL_HEADER, _LOCAL_SIGNATURE = 30, b"PK\x03\x04"
_ENCRYPTED = 1


class Unusable(Exception):
    """One file that cannot be used; the text says why, in few words."""


class Source(ABC):
    """Files of a folder or an archive. `read` may be called from several threads at once.

    Hidden files (a part of their name begins with a dot) and those of `__MACOSX` do not exist here.
    """

    def __init__(self, path: Path):
        self.path = path
        self.names: list[str] = []
        """The wanted files, sorted; "/" between the folders, relative to the source."""
        self.skipped: list[tuple[str, str]] = []
        """Names and reasons: what cannot be used, as seen from outside."""
        self.others: Counter[str] = Counter()
        """How many files are there that were not wanted, by the ending of their names."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file, about. Raises Unusable."""

    @abstractmethod
    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        """A whole file. Raises Unusable: it cannot be read, or has more than `limit` bytes."""

    def close(self) -> None:  # noqa: B027
        """Give up what is held open."""


def open_source(path: Path, wanted: Callable[[str], bool]) -> Source:
    """Look through a folder with all folders in it, or a zip archive, for the files whose name is `wanted`.

    Raises:
        DatasetError: it is neither, or an archive that is damaged, encrypted, or made to do harm.
    """
    if path.is_dir():
        return _Folder(path, wanted)
    if not path.exists():
        raise DatasetError(f"{path}: there is no such folder or zip file")
    try:
        is_zip = path.is_file() and zipfile.is_zipfile(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not is_zip:
        raise DatasetError(f"{path}: not a zip file; give a folder or a zip file with the pictures in it")
    return _Zip(path, wanted)


class _Folder(Source):
    """Links to files are followed. Links to folders are not: they may lead round in circles."""

    def __init__(self, path: Path, wanted: Callable[[str], bool]):
        super().__init__(path)
        for folder, folders, files in os.walk(path, onerror=self._unreadable):
            folders[:] = [name for name in folders if not _hidden(name)]
            inside = Path(folder).relative_to(path)
            for name in files:
                full = PurePosixPath(*inside.parts, name).as_posix()
                if _hidden(name):
                    continue
                if not wanted(full):
                    self.others[ending(name)] += 1
                elif not os.path.isfile(os.path.join(folder, name)):
                    self.skipped.append((full, "not a file, or a link that leads nowhere"))
                else:
                    self.names.append(full)
        self.names.sort()

    def _unreadable(self, error: OSError) -> None:
        folder = Path(error.filename)
        if folder == self.path:
            raise DatasetError(f"{folder}: cannot be read ({error.strerror})") from error
        self.skipped.append((folder.relative_to(self.path).as_posix() + "/", f"cannot be read ({error.strerror})"))

    def size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise Unusable(f"cannot be read ({error.strerror or error})") from error

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                # It may grow meanwhile; but read(limit) would reserve all of the limit.
                data = file.read(length + 1) if length <= limit else None
        except OSError as error:
            raise Unusable(f"cannot be read ({error.strerror or error})") from error
        if data is None or len(data) > limit:
            raise Unusable(f"larger than {limit} bytes")
        return data


class _Zip(Source):
    """Believes no length that an archive states: what is unpacked is counted as it comes out.

    Only the table of contents is left to `zipfile`, whose own reader does not bound what one step may unpack with every
    method.
    """

    def __init__(self, path: Path, wanted: Callable[[str], bool]):
        super().__init__(path)
        self._lock = threading.Lock()  # of the position in the file; unpacking goes on side by side
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            self._length = os.fstat(self._file.fileno()).st_size
            try:
                with zipfile.ZipFile(self._file) as archive:
                    entries = archive.infolist()
            except Exception as error:  # a damaged table raises nearly anything
                raise DatasetError(f"{path}: the zip file is damaged ({error})") from error
            self._look_through(entries, wanted)
        except BaseException:
            self._file.close()
            raise

    def _look_through(self, entries: list[zipfile.ZipInfo], wanted: Callable[[str], bool]) -> None:
        if len(entries) > _MAX_ENTRIES:
            raise DatasetError(f"{self.path}: {len(entries)} entries, at most {_MAX_ENTRIES} are read; use a folder")
        for entry in entries:
            name = entry.orig_filename.replace("\\", "/")
            parts = name.split("/")
            if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
                raise DatasetError(
                    f"{self.path}: the entry {name!r} leads out of the archive; such files are made to do harm, or "
                    "badly packed: pack the pictures again"
                )
            if entry.is_dir() or any(_hidden(part) for part in parts):
                continue
            if not wanted(name):
                self.others[ending(name)] += 1
                continue
            reason = self._check(entry, name)
            if reason:
                self.skipped.append((name, reason))
            else:
                self._entries[name] = entry
        self._check_together()
        self.names = sorted(self._entries)

    def _check(self, entry: zipfile.ZipInfo, name: str) -> str | None:
        """Why an entry is passed over; None if it is not. Raises DatasetError: it spoils the whole archive."""
        packed, size = entry.compress_size, entry.file_size
        if entry.flag_bits & _ENCRYPTED:
            raise DatasetError(f"{self.path}: {name} is encrypted; pack the pictures without a password")
        if size > MAX_FILE or packed > MAX_FILE:
            raise DatasetError(
                f"{self.path}: {name} has {max(size, packed)} bytes, at most {MAX_FILE} are read; remove it"
            )
        if size > _RATIO_FROM and size > _MAX_RATIO * packed:
            raise DatasetError(
                f"{self.path}: {name} unpacks from {packed} to {size} bytes, more than {_MAX_RATIO} times as many, as "
                "only archives do that are made to fill the memory; remove it, or pack without compression"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "a symbolic link"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"packed by method {entry.compress_type}; only deflated and uncompressed entries are read"
        if name in self._entries:
            return "another entry has the same name"
        return None

    def _check_together(self) -> None:
        total = sum(entry.file_size for entry in self._entries.values())
        if total > _MAX_TOTAL:
            raise DatasetError(f"{self.path}: unpacks to {total} bytes, at most {_MAX_TOTAL} are read")
        for one, other in pairwise(sorted(self._entries.values(), key=lambda entry: entry.header_offset)):
            if one.header_offset + _LOCAL_HEADER + one.compress_size > other.header_offset:
                raise DatasetError(
                    f"{self.path}: the entries {one.filename!r} and {other.filename!r} overlap; such files are made to "
                    "do harm, or damaged: pack the pictures again"
                )

    def size(self, name: str) -> int:
        return self._entries[name].file_size

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        entry = self._entries[name]
        if entry.file_size > limit:
            raise Unusable(f"larger than {limit} bytes")
        packed = self._packed(entry)
        data = packed
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte more than there should be shows that there is more. A limit of 0 would mean none.
                data = unpacker.decompress(packed, entry.file_size + 1)
            except zlib.error as error:
                raise Unusable(f"damaged in the archive ({error})") from error
        if len(data) != entry.file_size:
            raise Unusable("damaged in the archive (its length is not the one stated)")
        if zlib.crc32(data) != entry.CRC:
            raise Unusable("damaged in the archive (its checksum is wrong)")
        return data

    def _packed(self, entry: zipfile.ZipInfo) -> bytes:
        """The bytes of an entry as they lie in the archive."""
        try:
            with self._lock:
                self._file.seek(entry.header_offset)
                header = self._file.read(_LOCAL_HEADER)
                if len(header) < _LOCAL_HEADER or not header.startswith(_LOCAL_SIGNATURE):
                    raise Unusable("damaged in the archive (its header is missing)")
                names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                start = entry.header_offset + _LOCAL_HEADER + names
                if start + entry.compress_size > self._length:
                    raise Unusable("cut off in the archive")
                self._file.seek(start)
                return self._file.read(entry.compress_size)
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            raise Unusable(f"cannot be read ({error})") from error

    def close(self) -> None:
        with self._lock:
            self._file.close()


def printable(text: str) -> str:
    """Names in archives may hold anything, such as what moves the cursor of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def ending(name: str) -> str:
    """The ending of a file's name in small letters with its dot; empty if there is none."""
    return PurePosixPath(name).suffix.lower()


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
