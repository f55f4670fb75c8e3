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
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from io import BufferedReader
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ...common.errors import DatasetError
from ...common.files import open_file
from .kinds import HEAD, archive_kind, ending, hidden

MAX_FILE = 1 << 29
"""Bytes of one file, unpacked. Larger ones are not read."""
_MAX_TOTAL = 1 << 40  # bytes of all files of an archive together, unpacked
_MAX_ENTRIES = 2_000_000
_SHOWN_EMPTY = 1000  # empty entries that are taken one by one
# Deflate reaches 1032:1 with nothing but repetitions, which is what bombs are made of, and night skies and line
# drawings. One of these is unpacked like any file; all together may not make more than this.
_MAX_RATIO, _RATIO_FROM, _MAX_INFLATED = 200, 1 << 20, 1 << 33
_LOCAL_HEADER, _LOCAL_SIGNATURE = 30, b"PK\x03\x04"
_ENCRYPTED, _UTF8 = 0x1, 0x800
_DOS_FOLDER = 0x10
_LEADS_OUT = "leads out of the archive: not read"
_OF_A_RUN = re.compile(r"(reals|losses|fakes-\d+)\.png|.*\.safetensors|run\.json|stats\.jsonl")
_RUN, _RUN_SIGNS = "run.json", {"stats.jsonl", "reals.png", "generator.safetensors"}

Choice = Callable[[str, Callable[[], bytes]], bool | str]
"""Of a name and what gives the file's first bytes: whether it is wanted; a text: it is not, but should be reported."""


class Unusable(Exception):
    """One file that cannot be used; the text says why, in few words."""


class Source(ABC):
    """Files of a folder or an archive. `read` may be called from several threads at once.

    What `hidden` tells and folders of training runs do not exist here.
    """

    def __init__(self, path: Path):
        self.path = path
        self.names: list[str] = []
        """The wanted files, sorted; "/" between the folders, relative to the source."""
        self.skipped: list[tuple[str, str]] = []
        """Names and reasons: what cannot be used, as seen from outside."""
        self.others: Counter[str] = Counter()
        """How many files are there that were not wanted, by the ending of their names."""

    def _consider(self, name: str, choice: bool | str) -> bool:
        """Take account of a file; whether it is wanted."""
        if isinstance(choice, str):
            self.skipped.append((name, choice))
        elif not choice:
            self.others[ending(name)] += 1
        return choice is True

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file, about. Raises Unusable."""

    @abstractmethod
    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        """A whole file. Raises Unusable: it cannot be read, or has more than `limit` bytes."""

    def close(self) -> None:  # noqa: B027
        """Give up what is held open."""


def open_source(path: Path, choose: Choice) -> Source:
    """Look through a folder with all folders in it, or a zip archive, for the files that are to be used.

    Raises:
        DatasetError: it is neither, or an archive that is damaged, encrypted, or made to do harm.
    """
    if path.is_dir():
        return _Folder(path, choose)
    if not path.exists():
        raise DatasetError(f"{path}: there is no such folder or zip file")
    try:
        is_zip = path.is_file() and zipfile.is_zipfile(path)
        head = path.open("rb").read(512) if path.is_file() else b""
    except OSError as error:
        raise DatasetError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    if not is_zip:
        if head.startswith((b"PK\x03\x04", b"PK\x07\x08", b"PK00")):
            raise DatasetError(
                f"{path.name}: a zip file that was cut off, or one part of several: its table of contents, at the end, "
                "is missing; copy or download it again"
            )
        if kind := archive_kind(head):
            raise DatasetError(f"{path.name}: a {kind} archive, which is not read: unpack it, and give the folder")
        what = "an empty file" if not head else "not a zip file"
        raise DatasetError(f"{path.name}: {what}; give a folder or a zip file with the pictures in it")
    return _Zip(path, choose)


class _Folder(Source):
    """Links to files are followed. Links to folders are not: they may lead round in circles."""

    def __init__(self, path: Path, choose: Choice):
        super().__init__(path)
        for folder, folders, files in os.walk(path, onerror=self._unreadable):
            inside = PurePosixPath(*Path(folder).relative_to(path).parts)
            if _is_run(files) and folder != str(path):
                folders[:] = []
                self.skipped.append((f"{inside}/", "folder of a training run, no data"))
                continue
            own = _is_run(files)  # beside the pictures themselves
            kept = []
            for name in folders:
                if hidden(name):
                    continue
                if os.path.islink(os.path.join(folder, name)):
                    self.skipped.append(
                        (
                            f"{(inside / name).as_posix()}/",
                            "link to a folder, not followed: give that folder, or copy it",
                        )
                    )
                else:
                    kept.append(name)
            folders[:] = kept
            for name in files:
                if hidden(name) or (own and _OF_A_RUN.fullmatch(name)):
                    continue
                full = (inside / name).as_posix()
                if not os.path.isfile(os.path.join(folder, name)):
                    if self._consider(full, choose(full, lambda: b"")):
                        self.skipped.append((full, "not a file, or a link that leads nowhere"))
                elif self._consider(full, choose(full, lambda full=full: self._head(full))):
                    self.names.append(full)
        self.names.sort()

    def _unreadable(self, error: OSError) -> None:
        folder = Path(error.filename)
        if folder == self.path:
            raise DatasetError(f"{folder.name}: cannot be read ({error.strerror})") from error
        self.skipped.append((folder.relative_to(self.path).as_posix() + "/", f"cannot be read ({error.strerror})"))

    def _head(self, name: str) -> bytes:
        try:
            with open_file(self.path / name) as file:
                return file.read(HEAD) or b""
        except OSError:
            return b""

    def size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise Unusable(f"cannot be read ({error.strerror or error})") from error

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        path = self.path / name
        try:
            with open_file(path) as file:
                length = os.fstat(file.fileno()).st_size
                # It may grow meanwhile; but read(limit) would reserve all of the limit.
                data = BufferedReader(file).read(length + 1) if length <= limit else None
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

    def __init__(self, path: Path, choose: Choice):
        super().__init__(path)
        self._lock = threading.Lock()  # of the position in the file; unpacking goes on side by side
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DatasetError(f"{path.name}: cannot be read ({error.strerror or error})") from error
        try:
            self._length = os.fstat(self._file.fileno()).st_size
            try:
                with zipfile.ZipFile(self._file) as archive:
                    entries = archive.infolist()
            except Exception as error:  # a damaged table raises nearly anything
                raise DatasetError(f"{path.name}: the zip file is damaged ({error})") from error
            self._look_through(entries, choose)
        except BaseException:
            self._file.close()
            raise

    def _look_through(self, entries: list[zipfile.ZipInfo], choose: Choice) -> None:
        if len(entries) > _MAX_ENTRIES:
            raise DatasetError(
                f"{self.path.name}: {len(entries)} entries, at most {_MAX_ENTRIES} are read; use a folder"
            )
        empty = [entry for entry in entries if not entry.file_size and not _is_folder(entry)]
        if len(empty) > _SHOWN_EMPTY:  # of which a small archive may have millions
            self.skipped.append((f"{len(empty):,} entries", "empty file"))
            entries = [entry for entry in entries if entry.file_size]
        files = [(entry, _entry_name(entry)) for entry in entries if not _is_folder(entry)]
        runs = _run_folders(name for _, name in files)
        self.skipped += [(f"{run}/", "folder of a training run, no data") for run in sorted(runs) if run]
        for entry, name in files:
            parts = name.split("/")
            leads_out = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:/", name) or "\0" in name
            if not leads_out and any(hidden(part) for part in parts):
                continue
            if any(run in runs for run in _parents(name)) or ("" in runs and _OF_A_RUN.fullmatch(name)):
                continue
            choice = choose(name, lambda entry=entry: self._head(entry))
            if leads_out:
                if choice is True:
                    raise DatasetError(
                        f"{self.path.name}: the entry {name!r} leads out of the archive; such files are made to do "
                        "harm, or badly packed: pack the pictures again"
                    )
                self.skipped.append((name, _LEADS_OUT))
            elif self._consider(name, choice):
                if reason := self._check(entry, name):
                    self.skipped.append((name, reason))
                else:
                    self._entries[name] = entry
        self._check_together()
        self.names = sorted(self._entries)

    def _check(self, entry: zipfile.ZipInfo, name: str) -> str | None:
        """Why an entry is passed over; None if it is not. Raises DatasetError: it spoils the whole archive."""
        packed, size = entry.compress_size, entry.file_size
        if entry.flag_bits & _ENCRYPTED:
            raise DatasetError(f"{self.path.name}: {name} is encrypted; pack the pictures without a password")
        if size > MAX_FILE or packed > MAX_FILE:
            return f"has {max(size, packed)} bytes, at most {MAX_FILE} are read"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return "a symbolic link"
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"packed by method {entry.compress_type}; only deflated and uncompressed entries are read"
        if name in self._entries:
            return "another entry has the same name"
        return None

    def _check_together(self) -> None:
        entries = self._entries.values()
        total = sum(entry.file_size for entry in entries)
        if total > _MAX_TOTAL:
            raise DatasetError(f"{self.path.name}: unpacks to {total} bytes, at most {_MAX_TOTAL} are read")
        swollen = [e for e in entries if e.file_size > _RATIO_FROM and e.file_size > _MAX_RATIO * e.compress_size]
        inflated = sum(entry.file_size for entry in swollen)
        if inflated > _MAX_INFLATED:
            raise DatasetError(
                f"{self.path.name}: {len(swollen)} entries, {swollen[0].filename!r} the first, unpack to more than "
                f"{_MAX_RATIO} times their size, {inflated} bytes in all, as archives do that are made to do harm: "
                "remove them, or pack without compression"
            )
        for one, other in pairwise(sorted(entries, key=lambda entry: entry.header_offset)):
            if one.header_offset + _LOCAL_HEADER + one.compress_size > other.header_offset:
                raise DatasetError(
                    f"{self.path.name}: the entries {one.filename!r} and {other.filename!r} overlap; such files are "
                    "made to do harm, or damaged: pack the pictures again"
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

    def _head(self, entry: zipfile.ZipInfo) -> bytes:
        """The first bytes of an entry, none where they cannot be had."""
        if entry.flag_bits & _ENCRYPTED:
            return b""
        try:
            packed = self._packed(entry, 4 * HEAD)
            if entry.compress_type == zipfile.ZIP_DEFLATED:
                packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, HEAD)
        except (Unusable, zlib.error):
            return b""
        return packed[:HEAD] if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else b""

    def _packed(self, entry: zipfile.ZipInfo, limit: int = MAX_FILE) -> bytes:
        """The bytes of an entry as they lie in the archive, or the first of them."""
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
                return self._file.read(min(entry.compress_size, limit))
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            raise Unusable(f"cannot be read ({error})") from error

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry, without what means nothing in it: "./", "//". Some tools write UTF-8 and do not say so."""
    name = entry.orig_filename
    if not entry.flag_bits & _UTF8 and not name.isascii():
        with suppress(UnicodeError):  # otherwise it is in the code page of old that it is said to be
            name = name.encode("cp437").decode("utf-8")
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts)


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    if entry.orig_filename.endswith(("/", "\\")) or stat.S_ISDIR(entry.external_attr >> 16):
        return True
    return bool(entry.external_attr & _DOS_FOLDER) and entry.file_size == 0


def _is_run(files: Collection[str]) -> bool:
    """Whether files are those of a training run: its grids and plots are no data."""
    return _RUN in files and not _RUN_SIGNS.isdisjoint(files)


def _run_folders(names: Iterable[str]) -> set[str]:
    """The folders of training runs in an archive; "": the archive itself is one."""
    folders: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    return {folder for folder, files in folders.items() if _is_run(files)}


def _parents(name: str) -> list[str]:
    """The folders in which a name lies, without the archive itself."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: k + 1]) for k in range(len(parts))]
