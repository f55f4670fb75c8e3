"""Errors that a user can act on. What to do comes first, and files have their names alone: there is little room where
ComfyUI shows errors. For the same reason the classes are said to be of `creps`, not of a module with a long path."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

AGAIN = "Download or copy the file again"
"""What helps with most files."""
CHECK_NAME, CHECK_FILE = "Check its name and its folder", "Check that you may read it, and the disk"

MESSAGE_LIMIT = 300  # characters of a message about a file
_VALUE_LIMIT = 60
_NAME_LIMIT = 80


class FileError(ValueError):
    """A file that cannot be used. What is said of it is printable and short, whatever the file put into it."""

    def __init__(self, message: str):
        super().__init__(printable(message, MESSAGE_LIMIT))

    @classmethod
    def about(cls, path: str | os.PathLike[str], found: str, advice: str = AGAIN) -> Self:
        """What to do about a file, its name, and what was found, such as "is empty"."""
        name = printable(os.path.basename(os.fsdecode(path)), _NAME_LIMIT)
        return cls(f"{advice}. {name}: {found}")


class CheckpointError(FileError):
    """A checkpoint file that cannot be used: names the file, what was found, what to do."""


class NewerFormatError(CheckpointError):
    """A file of a later version of this program: nothing is wrong with it."""


class LatentsError(FileError):
    """A file of latents or directions that cannot be used, or not with this generator: says why and what to do."""


class DatasetError(ValueError):
    """Pictures or labels to train on that cannot be used: names the folder or archive, what was found, what to do."""


class TrainingError(RuntimeError):
    """A training run that cannot begin or go on: says why and what to change."""


for _error in (FileError, CheckpointError, NewerFormatError, LatentsError, DatasetError, TrainingError):
    _error.__module__ = "creps"


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of whichever device; torch says so in several ways."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def require(good: bool, message: str) -> None:
    """Raises ValueError with the message unless all is `good`."""
    if not good:
        raise ValueError(message)


def require_finite(name: str, value: float) -> None:
    """Raises ValueError unless a number is finite."""
    require(math.isfinite(value), f"{name} must be a finite number, not {value}")


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """A text that may come from a file as a terminal may show it: on one line, controls escaped, its middle left out
    where it is longer than `limit`."""
    if len(text) > limit:
        head = limit * 3 // 5
        text = f"{text[:head]} ... {text[len(text) - (limit - head - 5) :]}"
    if text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return escaped if len(escaped) <= limit else printable(escaped, limit)


def shown(value: object) -> str:
    """A value out of a file as a message may quote it."""
    return printable(repr(value), _VALUE_LIMIT)
