"""Writing files so that no half-written one is ever left under its final name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


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


def write_json(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Create or replace a JSON file atomically."""
    replace_file(path, lambda partial: Path(partial).write_text(json.dumps(value, indent=2) + "\n"))


def write_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Create or replace a PNG atomically, from uint8 [H, W, 3] or [H, W]."""
    import numpy as np
    from PIL import Image

    replace_file(path, lambda partial: Image.fromarray(np.ascontiguousarray(pixels)).save(partial, "PNG"))
