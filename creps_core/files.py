"""Writing files so that no half-written one is ever left under its final name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: str | os.PathLike[str], write: Callable[[str], object]) -> None:
    """Create or replace `path` atomically: `write(partial)` writes a file beside it, which is then renamed.

    The folder is created if need be. Whatever `write` raises leaves an existing file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(str(partial))
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
