"""Saving what the page shows as a picture file, of any size, in the folder that the server was given."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image

from ...common.files import replace_file
from ..explorer import Cancelled, Scene, Walker, read_scene
from ..network import Generator
from ..rendering import BITS, View, render_to_file, render_view

FORMATS = {"png": ".png", "tif": ".tif"}
_MOST_TURNED = 64 << 20  # pixels of a view that does not stand upright: it is kept in memory
_PAUSE = 0.1  # seconds between two messages of progress


class Saving:
    """Saves one picture at a time, in a thread of its own.

    Args:
        folder: where files go; their names are made here.
        load: gives a generator of its own, by name.
        tell: is told `{"saving": {...}}`: progress, and in the end the file or why there is none.
    """

    def __init__(self, folder: Path, load: Callable[[str], Generator], tell: Callable[[dict[str, Any]], None]):
        self._folder, self._load, self._tell = folder, load, tell
        self._stopped, self._busy = threading.Event(), False

    def begin(self, wanted: object) -> None:
        """Save a picture: `{"scene", "source", "format", "bits"}`.

        Raises:
            ValueError: a value is out of range; or a picture is being saved.
        """
        if not isinstance(wanted, Mapping):
            raise ValueError("what to save must be an object")
        kind, bits, source = (wanted.get(name) for name in ("format", "bits", "source"))
        if kind not in FORMATS or bits not in BITS or type(source) is not str:
            raise ValueError(f"a picture is saved as one of {list(FORMATS)}, with {BITS[0]} or {BITS[1]} bits")
        scene = read_scene(wanted.get("scene"))
        if self._busy:
            raise ValueError("a picture is being saved: wait for it, or stop it")
        self._stopped.clear()
        self._busy = True
        threading.Thread(target=self._save, args=(scene, source, kind, bits), name="creps-save", daemon=True).start()

    def stop(self) -> None:
        """End saving, within a tile. The same picture asked for again goes on where this one stopped."""
        self._stopped.set()

    def _save(self, scene: Scene, source: str, kind: str, bits: int) -> None:
        shown = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal shown
            if self._stopped.is_set():
                raise Cancelled
            if time.monotonic() - shown > _PAUSE:
                shown = time.monotonic()
                self._tell({"saving": {"done": done / max(total, 1)}})

        try:
            self._tell({"saving": {"done": 0.0}})
            generator = self._load(source)
            path = free_path(self._folder, f"{generator.name}-seed{scene.look.seed}-{scene.width}x{scene.height}", kind)
            save_picture(generator, scene, path, bits, progress)
            end: dict[str, Any] = {"file": str(path), "size": path.stat().st_size}
        except Cancelled:
            end = {"stopped": True}
        except Exception as error:  # of whatever kind, the page is told
            end = {"error": str(error) or type(error).__name__}
        self._busy = False
        with suppress(Cancelled):  # the page has gone
            self._tell({"saving": end})


def save_picture(
    generator: Generator, scene: Scene, path: Path, bits: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the picture of a scene's look.

    Args:
        path: ends in `.png` or `.tif`.
        bits: per channel, 8 or 16; a view that is turned by other than 180 degrees is saved with 8.

    Raises:
        ValueError, OSError, ImportError: see `render_to_file`; a turned view is too large.
    """
    look, height, width = scene.look, scene.height, scene.width
    ws = Walker(generator).latents(look).ws
    text = {"creps": f"{generator.name} seed {look.seed} {width}x{height}"}
    if look.view.rotation % 180 == 0:
        extent = look.view.extent(height, width, "crop", generator.aspect)
        window, _ = look.view.placement(extent, generator.aspect)
        render_to_file(
            generator, ws, path, height=height, width=width, window=window, bits=bits, text=text, progress=progress
        )
        return
    _save_turned(generator, ws, look.view, path, height, width, bits, progress)


def _save_turned(
    generator: Generator,
    ws: torch.Tensor,
    view: View,
    path: Path,
    height: int,
    width: int,
    bits: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    if height * width > _MOST_TURNED or bits != 8:
        raise ValueError(
            f"a turned view is saved with 8 bits, up to {_MOST_TURNED >> 20} megapixels: turn it back, or change size"
        )
    pixels = torch.empty((1, height, width, generator.config.img_channels), dtype=torch.uint8)
    out = rearrange(pixels, "n h w c -> n c h w")
    render_view(generator, ws, view, height=height, width=width, out=out, progress=progress)
    image = Image.fromarray(pixels[0].squeeze(-1).numpy())
    replace_file(path, lambda file: image.save(file, "PNG" if path.suffix == ".png" else "TIFF"))


def free_path(folder: Path, name: str, kind: str) -> Path:
    """A file that does not exist yet."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
    for number in range(1, 100_000):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}{FORMATS[kind]}"
        if not path.exists():
            return path
    raise ValueError(f"{folder} holds too many pictures of this name")
