"""Read and write files. Only regular files are read, and a file gets its final name only when it is complete."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .errors import printable
from .locks import lock_file

if TYPE_CHECKING:
    import numpy as np

PARTIAL = ".partial"
_PARTIAL_NAME = re.compile(r"\.(.+)\.\d+\.[0-9a-f]{8}\.partial", re.DOTALL)
_TRIES = 16  # of a write whose partial file another process has taken for that of a dead one
_NAME_LIMIT = 255  # bytes, of most file systems
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Path_ = str | os.PathLike[str]


def open_file(path: Path_) -> FileIO:
    """Open a regular file for reading, unbuffered. Pipes and devices, which may never end, are refused at once.

    Raises:
        OSError: the file does not exist, may not be read, or is not a regular file.
    """
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "no file has a zero byte in its name")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = FileIO(os.open(path, flags))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file")
    return file


def open_own_file(path: Path_) -> FileIO:
    """Open or create a file of our own under a predictable name, for reading and writing, unbuffered.

    In a folder that others may write to, somebody may have put another file there: a link would have that one
    overwritten.

    Raises:
        OSError: it is a link, has a second name (a hard link), is not a regular file, or belongs to another user.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    file = FileIO(os.open(path, flags, 0o666), "r+b")
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid != _user(found):
        file.close()
        raise OSError(errno.EPERM, "it is a link, or belongs to somebody else")
    return file


def is_own_file(path: Path_) -> bool:
    """Whether there is nothing at `path`, or a regular file, not a link, of the user of this process."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_uid == _user(found)


def is_at(file: BinaryIO | FileIO, path: Path_) -> bool:
    """Whether `path` itself, not a link there, names this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except (OSError, ValueError):  # a closed file
        return False


def _user(found: os.stat_result) -> int:
    """The user of this process; on Windows, which has none, the owner of the file."""
    return os.geteuid() if hasattr(os, "geteuid") else found.st_uid


def read_exactly(file: FileIO | BytesIO, buffer: bytearray | memoryview) -> bool:
    """Fill a buffer from a file; False if the file ends first."""
    view = memoryview(buffer)
    while view:
        count = file.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def check_target(path: Path_) -> Path:
    """Check that a file can be written, before any work is done for it; returns the path with links resolved.

    Nothing is created.

    Raises:
        OSError: it is a folder or a device, its name is too long, or its folder is not writable; one sentence that
            says what to do.
    """
    path = Path(path)
    try:
        target = path.resolve(strict=False) if path.is_symlink() else path
        if target is not path and not target.parent.is_dir():
            raise OSError(errno.ELOOP, "")
        if not target.name or target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file in it")
        if len(os.fsencode(target.name)) > _NAME_LIMIT:
            raise OSError(errno.ENAMETOOLONG, "its name is too long")
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
        folder = next(parent for parent in (target.absolute().parents) if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"nothing may be written to the folder {folder}")
    except (OSError, RuntimeError, ValueError) as error:  # loops of links; zero bytes in names
        raise cannot_write(path, error) from error
    return target


def cannot_write(path: Path_, error: Exception, needed: str = "") -> OSError:
    """The OSError to raise for a failure to write `path`: what to do, what is wrong, and the original `errno`.

    `needed` names the space to free, such as "3 GB".
    """
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    advice = "Choose another name or folder"
    if number in _NO_ROOM:
        advice, reason = f"Free {needed or 'some room'} or choose another disk", f"there is no room ({reason})"
    elif number == errno.ENAMETOOLONG:
        advice, reason = "Choose a shorter name", "its name is too long"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice, reason = "Choose another folder, or change its permissions", f"it may not be written ({reason})"
    elif number == errno.ELOOP or "Symlink loop" in reason:
        advice, reason = "Name the file itself", "it is a link that leads nowhere"
    elif number in (errno.ENOTDIR, errno.EEXIST):
        reason = "a part of its path is a file, not a folder"
    result = OSError(f"{advice}. {printable(os.path.basename(path) or str(path), 80)} cannot be written: {reason}")
    result.errno = number
    return result


def path_of(text: str, inside: Path_) -> Path:
    """The folder or file that a user typed or pasted.

    File managers copy paths in quotes or as file:// addresses, and ~ stands for the home folder. A name that exists
    exactly as written takes precedence.

    Args:
        text: an absolute path, or one relative to `inside`.
        inside: the folder for relative paths.
    """
    bare = text.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1]
    address = urlsplit(bare) if bare.lower().startswith("file:") else None
    meant = url2pathname(address.path) if address else bare
    if meant[:1] == "~":
        meant = os.path.expanduser(meant)
    for name in (text, text.strip(), meant):
        path = Path(os.path.normpath(os.path.join(inside, name)))
        with suppress(OSError, ValueError):  # names that are too long, or hold zero bytes
            if name.strip() and path.exists():
                break
    return path


def partial_of(path: Path, token: str, kind: str = PARTIAL) -> Path:
    """The hidden file next to `path` that a job writes before renaming it, or another temporary file of the job."""
    ending = f".{token}{kind}"
    room = _NAME_LIMIT - len(ending) - 1
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:room])}{ending}")


def replace_file(path: Path_, write: Callable[[BinaryIO], object], *, follow_links: bool = True) -> None:
    """Create or replace `path` atomically: `write(file)` fills a new file next to it, which is then renamed.

    Several threads and processes may write to one path: each has its own temporary file, and the last one wins. Missing
    folders are created; the mode follows the umask. Once this returns, the file survives a power failure.

    Args:
        path: of the file; a link to another file stays one, and that file is replaced.
        write: fills the new file.
        follow_links: False replaces the link itself.

    Raises:
        OSError: the file cannot be written; one sentence that says why. An existing file stays unchanged. Other errors
            of `write` pass through.
    """
    target = check_target(path) if follow_links else Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_partials(target.parent, target)
        if not any(_replace(target, write) for _ in range(_TRIES)):
            raise OSError(errno.EBUSY, "other processes keep removing what is written there")
    except OSError as error:
        raise cannot_write(path, error) from error


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> bool:
    """`replace_file` with one partial file; False if another process took it for that of a dead one."""
    partial = partial_of(target, f"{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(partial, "xb") as file:
            if not lock_file(file) or not is_at(file, partial):
                return False  # swept between its creation and its lock
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows renames no open file
            publish(partial, target)
            return True
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class PartialFile:
    """What a process that writes a file leaves next to it if it is killed: `replace_file` removes it otherwise."""

    path: Path
    target: str
    """Name of the file that it was to become."""
    size: int
    """In bytes."""
    in_use: bool
    """A process is writing it, or the file system has no locks, so that nobody knows."""

    def __str__(self) -> str:
        state = "being written" if self.in_use else "nothing to resume from"
        return f"{printable(self.target, 120)}: {state}, {self.size / 1e6:.1f} MB"


def find_partial_files(folder: Path, target: Path | None = None) -> list[PartialFile]:
    """The partial files of `replace_file` in a folder; those of one target only, if it is given."""
    return _partial_files(folder, target, remove=False)


def remove_dead_partials(folder: Path, target: Path | None = None) -> list[PartialFile]:
    """Remove the partial files of processes that no longer run, which the system has unlocked; returns them."""
    return _partial_files(folder, target, remove=True)


def _partial_files(folder: Path, target: Path | None, remove: bool) -> list[PartialFile]:
    stem = None if target is None else _PARTIAL_NAME.fullmatch(partial_of(target, "0.00000000").name)
    found = []
    names: list[str] = []
    with suppress(OSError):
        names = sorted(os.listdir(folder))
    for name in names:
        match = _PARTIAL_NAME.fullmatch(name)
        path = folder / name
        if not match or (stem and match[1] != stem[1]):
            continue
        unsupported: list[bool] = []
        with suppress(OSError):
            if not is_own_file(path):
                continue
            with open_file(path) as file:
                locked = lock_file(file, unsupported=lambda flags=unsupported: flags.append(True))
                in_use = not locked or bool(unsupported)
                if remove and (in_use or not is_at(file, path)):
                    continue
                size = os.fstat(file.fileno()).st_size
                if remove:
                    if os.name == "nt":  # Windows removes no open file
                        file.close()
                    path.unlink()
                found.append(PartialFile(path, match[1], size, in_use))
    return found


def publish(partial: Path, target: Path) -> None:
    """Rename a complete file to its final name, durably."""
    os.replace(partial, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure, where the system supports it."""
    with suppress(OSError):  # Windows, and some file systems
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_json(path: Path_, limit: int = 1 << 26) -> dict[str, Any]:
    """Read a JSON object from a file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is larger, or holds something else.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"it has {size} bytes, more than {limit}")
        data = bytearray(size)
        if not read_exactly(file, data):
            raise ValueError("it became shorter while it was read")
    return parse_json(data.decode())


def parse_json(text: str) -> dict[str, Any]:
    """Parse a JSON object; NaN and infinity, which Python's parser accepts, are refused.

    Raises:
        ValueError: the text is something else, is nested too deeply, or has a number that is not finite.
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def write_json(path: Path_, value: dict[str, Any], *, follow_links: bool = True) -> None:
    """Create or replace a JSON file atomically; `follow_links` as for `replace_file`."""
    text = json.dumps(value, indent=2) + "\n"
    replace_file(path, lambda file: file.write(text.encode()), follow_links=follow_links)


def write_png(path: Path_, pixels: np.ndarray) -> None:
    """Create or replace a PNG atomically, from uint8 [H, W, 3] or [H, W]."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    replace_file(path, lambda file: image.save(file, "PNG"))


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:20]} is too large")
    return value
