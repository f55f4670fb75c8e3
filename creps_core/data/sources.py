"""Files of a dataset, in a folder or a zip archive, read as bytes. Nothing is ever extracted to the disk."""

from __future__ import annotations

import errno
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
from .file_types import HEAD, archive_type, is_hidden, suffix

MAX_FILE = 1 << 29
"""Largest file that is read, in bytes, unpacked."""
_MAX_TOTAL = 1 << 40  # bytes of all files of an archive together, unpacked
_MAX_ENTRIES = 2_000_000
_LISTED_EMPTY = 1000  # empty or short entries that are reported one by one
_MIN_FILE = 12  # bytes; no format describes MIN_SIDE x MIN_SIDE pixels in fewer
# Deflate reaches 1032:1 on pure repetition: zip bombs, but also night skies and line drawings. Single files of a high
# ratio are unpacked like any other; together they may not exceed _MAX_INFLATED bytes.
_MAX_RATIO, _RATIO_FROM, _MAX_INFLATED = 200, 1 << 20, 1 << 33
_LOCAL_HEADER, _LOCAL_SIGNATURE = 30, b"PK\x03\x04"
_ENCRYPTED, _UTF8 = 0x1, 0x800
_DOS_FOLDER = 0x10
_LEADS_OUT = "leads out of the archive: not read"
_RUN_FILES = re.compile(r"(reals|losses|fakes-\d+)\.png|.*\.safetensors|run\.json|stats\.jsonl")
_RUN_DESCRIPTION, _RUN_EVIDENCE = "run.json", {"stats.jsonl", "reals.png", "generator.safetensors"}

FileFilter = Callable[[str, Callable[[], bytes]], bool | str]
"""Called with a name and a function that returns the file's first bytes. True: use the file; False: ignore it; a text:
report it as skipped, with this reason."""


class UnusableFile(Exception):
    """One file that cannot be used; the message is the reason, in a few words."""


def raise_if_exhausted(error: BaseException) -> None:
    """Raise DatasetError if an error is the system's shortage of descriptors or memory, not the file's fault."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        raise DatasetError(
            "Allow more open files (ulimit -n 4096), or close other programs, and start again: too many are open to "
            "read the pictures"
        ) from error
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        raise DatasetError("Close other programs and start again: no memory to read the pictures") from error


class ImageSource(ABC):
    """Files of a folder or an archive. `read` may be called from several threads at once.

    Hidden files (`is_hidden`) and folders of training runs are left out.
    """

    def __init__(self, path: Path):
        self.path = path
        self.names: list[str] = []
        """The files to use, sorted: paths relative to the source, with "/"."""
        self.skipped: list[tuple[str, str]] = []
        """Names and reasons of files that cannot be used, as far as known without reading them."""
        self.others: Counter[str] = Counter()
        """Number of ignored files by suffix."""

    def _record(self, name: str, choice: bool | str) -> bool:
        """Record the filter's answer for a file; returns whether to use it."""
        if isinstance(choice, str):
            self.skipped.append((name, choice))
        elif not choice:
            self.others[suffix(name)] += 1
        return choice is True

    @abstractmethod
    def size(self, name: str) -> int:
        """Approximate size of a file in bytes. Raises UnusableFile."""

    @abstractmethod
    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        """The content of a file. Raises UnusableFile: it cannot be read, or has more than `limit` bytes."""

    def close(self) -> None:  # noqa: B027
        """Close the archive."""


def open_source(path: Path, file_filter: FileFilter) -> ImageSource:
    """List the files of a folder and its subfolders, or of a zip archive, that a filter accepts.

    Raises:
        DatasetError: the path is neither, or an archive that is damaged, encrypted or malicious.
    """
    if path.is_dir():
        return _Folder(path, file_filter)
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
        if kind := archive_type(head):
            raise DatasetError(f"{path.name}: a {kind} archive, which is not read: unpack it, and give the folder")
        what = "an empty file" if not head else "not a zip file"
        raise DatasetError(f"{path.name}: {what}; give a folder or a zip file with the pictures in it")
    return _Zip(path, file_filter)


class _Folder(ImageSource):
    """Follows links to files, but not to folders, which could form a cycle."""

    def __init__(self, path: Path, file_filter: FileFilter):
        super().__init__(path)
        for folder, folders, files in os.walk(path, onerror=self._unreadable):
            inside = PurePosixPath(*Path(folder).relative_to(path).parts)
            if _is_run(files) and folder != str(path):
                folders[:] = []
                self.skipped.append((f"{inside}/", "folder of a training run, no data"))
                continue
            is_run = _is_run(files)  # a run among the images, in the top folder
            kept = []
            for name in folders:
                if is_hidden(name):
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
                if is_hidden(name) or (is_run and _RUN_FILES.fullmatch(name)):
                    continue
                full = (inside / name).as_posix()
                if not os.path.isfile(os.path.join(folder, name)):
                    if self._record(full, file_filter(full, lambda: b"")):
                        self.skipped.append((full, "not a file, or a link that leads nowhere"))
                elif self._record(full, file_filter(full, lambda full=full: self._head(full))):
                    self.names.append(full)
        self.names.sort()

    def _unreadable(self, error: OSError) -> None:
        raise_if_exhausted(error)
        folder = Path(error.filename)
        if folder == self.path:
            raise DatasetError(f"{folder.name}: cannot be read ({error.strerror})") from error
        self.skipped.append((folder.relative_to(self.path).as_posix() + "/", f"cannot be read ({error.strerror})"))

    def _head(self, name: str) -> bytes:
        try:
            with open_file(self.path / name) as file:
                return file.read(HEAD) or b""
        except OSError as error:
            raise_if_exhausted(error)
            return b""

    def size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except OSError as error:
            raise_if_exhausted(error)
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from error

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        path = self.path / name
        try:
            with open_file(path) as file:
                length = os.fstat(file.fileno()).st_size
                # One byte more detects a file that grows; read(limit) would allocate all of the limit.
                data = BufferedReader(file).read(length + 1) if length <= limit else None
        except OSError as error:
            raise_if_exhausted(error)
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from error
        if data is None or len(data) > limit:
            raise UnusableFile(f"larger than {limit} bytes")
        return data


class _Zip(ImageSource):
    """Trusts no size that an archive states: bounds what is unpacked while unpacking it.

    `zipfile` reads only the directory: its own file reader does not bound every method's output per step.
    """

    def __init__(self, path: Path, file_filter: FileFilter):
        super().__init__(path)
        self._lock = threading.Lock()  # guards the position in the file; unpacking runs in parallel
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
            except Exception as error:  # zipfile raises nearly anything on a damaged directory
                raise DatasetError(f"{path.name}: the zip file is damaged ({error})") from error
            self._list_entries(entries, file_filter)
        except BaseException:
            self._file.close()
            raise

    def _list_entries(self, entries: list[zipfile.ZipInfo], file_filter: FileFilter) -> None:
        if len(entries) > _MAX_ENTRIES:
            raise DatasetError(
                f"{self.path.name}: {len(entries)} entries, at most {_MAX_ENTRIES} are read; use a folder"
            )
        for size, reason in ((0, "empty file"), (_MIN_FILE - 1, "too short to be a picture")):
            short = [entry for entry in entries if entry.file_size <= size and not _is_folder(entry)]
            if len(short) > _LISTED_EMPTY:  # a small archive may have millions
                self.skipped.append((f"{len(short):,} entries", reason))
                entries = [entry for entry in entries if entry.file_size > size or _is_folder(entry)]
            del short
        files = [(entry, _entry_name(entry)) for entry in entries if not _is_folder(entry)]
        runs = _run_folders(name for _, name in files)
        self.skipped += [(f"{run}/", "folder of a training run, no data") for run in sorted(runs) if run]
        for entry, name in files:
            parts = name.split("/")
            leads_out = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:/", name) or "\0" in name
            if not leads_out and any(is_hidden(part) for part in parts):
                continue
            if any(run in runs for run in _parents(name)) or ("" in runs and _RUN_FILES.fullmatch(name)):
                continue
            choice = file_filter(name, lambda entry=entry: self._head(entry))
            if leads_out:
                if choice is True:
                    raise DatasetError(
                        f"{self.path.name}: the entry {name!r} leads out of the archive; such files are made to do "
                        "harm, or badly packed: pack the pictures again"
                    )
                self.skipped.append((name, _LEADS_OUT))
            elif self._record(name, choice):
                if reason := self._check(entry, name):
                    self.skipped.append((name, reason))
                else:
                    self._entries[name] = entry
        self._check_all()
        self.names = sorted(self._entries)

    def _check(self, entry: zipfile.ZipInfo, name: str) -> str | None:
        """Why an entry is skipped; None if it is not. Raises DatasetError: the whole archive is refused."""
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

    def _check_all(self) -> None:
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
        entry = self._entries[name]
        packed = entry.compress_size if entry.compress_type == zipfile.ZIP_DEFLATED else 0
        return entry.file_size and entry.file_size + packed  # both are in memory while unpacking

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        entry = self._entries[name]
        if entry.file_size > limit:
            raise UnusableFile(f"larger than {limit} bytes")
        packed = self._packed(entry)
        data = packed
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # One byte more than stated reveals a longer file; a limit of 0 would mean no limit.
                data = unpacker.decompress(packed, entry.file_size + 1)
            except zlib.error as error:
                raise UnusableFile(f"damaged in the archive ({error})") from error
        if len(data) != entry.file_size:
            raise UnusableFile("damaged in the archive (its length is not the one stated)")
        if zlib.crc32(data) != entry.CRC:
            raise UnusableFile("damaged in the archive (its checksum is wrong)")
        return data

    def _head(self, entry: zipfile.ZipInfo) -> bytes:
        """The first bytes of an entry; empty if they cannot be read."""
        if entry.flag_bits & _ENCRYPTED:
            return b""
        try:
            packed = self._packed(entry, 4 * HEAD)
            if entry.compress_type == zipfile.ZIP_DEFLATED:
                packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, HEAD)
        except (UnusableFile, zlib.error):
            return b""
        return packed[:HEAD] if entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else b""

    def _packed(self, entry: zipfile.ZipInfo, limit: int = MAX_FILE) -> bytes:
        """The compressed bytes of an entry, at most `limit`."""
        try:
            with self._lock:
                self._file.seek(entry.header_offset)
                header = self._file.read(_LOCAL_HEADER)
                if len(header) < _LOCAL_HEADER or not header.startswith(_LOCAL_SIGNATURE):
                    raise UnusableFile("damaged in the archive (its header is missing)")
                names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                start = entry.header_offset + _LOCAL_HEADER + names
                if start + entry.compress_size > self._length:
                    raise UnusableFile("cut off in the archive")
                self._file.seek(start)
                return self._file.read(min(entry.compress_size, limit))
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            raise_if_exhausted(error)
            raise UnusableFile(f"cannot be read ({error})") from error

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry without "./" and "//". Decodes UTF-8 that lacks the flag, as some tools write it."""
    name = entry.orig_filename
    if not entry.flag_bits & _UTF8 and not name.isascii():
        with suppress(UnicodeError):  # not UTF-8: keep the legacy code page
            name = name.encode("cp437").decode("utf-8")
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts)


def _is_folder(entry: zipfile.ZipInfo) -> bool:
    if entry.orig_filename.endswith(("/", "\\")) or stat.S_ISDIR(entry.external_attr >> 16):
        return True
    return bool(entry.external_attr & _DOS_FOLDER) and entry.file_size == 0


def _is_run(files: Collection[str]) -> bool:
    """Whether these are the files of a training run, whose grids and plots are not data."""
    return _RUN_DESCRIPTION in files and not _RUN_EVIDENCE.isdisjoint(files)


def _run_folders(names: Iterable[str]) -> set[str]:
    """The folders of training runs in an archive; "" if the archive itself is one."""
    folders: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    return {folder for folder, files in folders.items() if _is_run(files)}


def _parents(name: str) -> list[str]:
    """All folders that contain a name, outermost first, without the archive itself."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: k + 1]) for k in range(len(parts))]
