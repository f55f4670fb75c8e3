"""Read and write files. Only regular files are read, and a file gets its final name only when it is complete."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
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
_NAME_LIMIT = 255  # bytes, of most file systems
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Path_ = str | os.PathLike[str]


def open_file(path: Path_) -> FileIO:
    """Open a regular file for reading, unbuffered. Pipes and devices, which may never end, are refused at once.

    Raises:
        OSError: the file does not exist, may not be read, or is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = FileIO(os.open(path, flags))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file")
    return file


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


def replace_file(path: Path_, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` atomically: `write(file)` fills a new file next to it, which is then renamed.

    Several threads and processes may write to one path: each has its own temporary file, and the last one wins. Missing
    folders are created; the mode follows the umask. Once this returns, the file survives a power failure.

    Raises:
        OSError: the file cannot be written; one sentence that says why. An existing file stays unchanged. Other errors
            of `write` pass through.
    """
    target = check_target(path)
    partial = partial_of(target, f"{os.getpid()}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                lock_file(file)
                write(file)
                file.flush()
                os.fsync(file.fileno())
                if os.name == "nt":
                    file.close()  # Windows renames no open file
                publish(partial, target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


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


def write_json(path: Path_, value: dict[str, Any]) -> None:
    """Create or replace a JSON file atomically."""
    replace_file(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


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
