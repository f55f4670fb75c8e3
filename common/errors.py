"""Errors that a user can act on, and how to quote untrusted text.

Messages start with what to do and name files without their folders, as ComfyUI has little room for errors. For the same
reason `__module__` of the classes is `creps` instead of a long path.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

AGAIN = "Download or copy the file again"
"""Advice for most files."""
CHECK_NAME, CHECK_FILE = "Check its name and its folder", "Check that you may read it, and the disk"

MESSAGE_LIMIT = 300  # characters of a message about a file
_VALUE_LIMIT = 60
_NAME_LIMIT = 80


class FileError(ValueError):
    """A file that cannot be used. The message is printable and at most `MESSAGE_LIMIT` long for any file content."""

    def __init__(self, message: str):
        super().__init__(printable(message, MESSAGE_LIMIT))

    @classmethod
    def about(cls, path: str | os.PathLike[str], found: str, advice: str = AGAIN) -> Self:
        """The error for a file: advice, the file's name, and the problem found, such as "is empty"."""
        name = printable(os.path.basename(os.fsdecode(path)), _NAME_LIMIT)
        return cls(f"{advice}. {name}: {found}")


class CheckpointError(FileError):
    """A checkpoint file that cannot be used: names the file, what was found, what to do."""


class NewerFormatError(CheckpointError):
    """A valid file of a later version of this program."""


class LatentsError(FileError):
    """Latents or directions that cannot be used, or not with this generator: says why and what to do."""


class DatasetError(FileError):
    """Training images or labels that cannot be used: names the folder or archive, what was found, what to do."""


class TrainingError(RuntimeError):
    """A training run that cannot start or continue: says why and what to change. Printable, and of bounded length."""

    def __init__(self, message: str):
        super().__init__("\n".join(printable(line, 2 * MESSAGE_LIMIT) for line in message.splitlines()[:8]))


for _error in (FileError, CheckpointError, NewerFormatError, LatentsError, DatasetError, TrainingError):
    _error.__module__ = "creps"


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on any device. Torch reports it in several ways."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def require(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_finite(name: str, value: float) -> None:
    """Raise ValueError unless a number is finite."""
    require(math.isfinite(value), f"{name} must be a finite number, not {value}")


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Make untrusted text safe for a terminal: one line, control characters escaped, at most `limit` characters.

    The middle of a longer text is left out.
    """
    if len(text) > limit:
        head = limit * 3 // 5
        text = f"{text[:head]} ... {text[len(text) - (limit - head - 5) :]}"
    if text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return escaped if len(escaped) <= limit else printable(escaped, limit)


def quoted(value: object) -> str:
    """The repr of an untrusted value for a message: printable, at most 60 characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or an integer of too many digits
        text = f"a huge {type(value).__name__}"
    return printable(text, _VALUE_LIMIT)
