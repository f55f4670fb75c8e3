"""Save the scene as an image file of any size, in the server's folder."""

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
from ...common.progress import Progress
from ..explorer import Cancelled, Scene, Walker, read_scene
from ..network import Generator
from ..rendering import BITS, FILE_FORMATS, render_to_file, render_view

SUFFIXES = {format.ending.lstrip("."): format.ending for format in FILE_FORMATS}
_MAX_ROTATED = 64 << 20  # pixels of a rotated view, which is rendered in memory
_PROGRESS_INTERVAL = 0.1  # seconds


class ImageSaver:
    """Saves one image at a time, in a thread of its own.

    Args:
        folder: for the files, whose names are generated.
        load: loads a separate copy of a generator by name.
        notify: gets `{"saving": {...}}`: progress, and finally the file or the error.
    """

    def __init__(self, folder: Path, load: Callable[[str], Generator], notify: Callable[[dict[str, Any]], None]):
        self._folder, self._load, self._notify = folder, load, notify
        self._stopped, self._busy = threading.Event(), False

    def start(self, request: object) -> None:
        """Start to save an image: `{"scene", "source", "format", "bits"}`.

        Raises:
            ValueError: a value is invalid; or an image is being saved already.
        """
        if not isinstance(request, Mapping):
            raise ValueError("what to save must be an object")
        format, bits, source = (request.get(name) for name in ("format", "bits", "source"))
        named = type(format) is str and type(source) is str
        if not named or format not in SUFFIXES or type(bits) is not int or bits not in BITS:
            raise ValueError(f"a picture is saved as one of {list(SUFFIXES)}, with {BITS[0]} or {BITS[1]} bits")
        scene = read_scene(request.get("scene"))
        if self._busy:
            raise ValueError("a picture is being saved: wait for it, or stop it")
        self._stopped.clear()
        self._busy = True
        threading.Thread(target=self._save, args=(scene, source, format, bits), name="creps-save", daemon=True).start()

    def stop(self) -> None:
        """Stop after the current tile. Saving the same image again resumes there."""
        self._stopped.set()

    def _save(self, scene: Scene, source: str, format: str, bits: int) -> None:
        last = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal last
            if self._stopped.is_set():
                raise Cancelled
            if time.monotonic() - last > _PROGRESS_INTERVAL:
                last = time.monotonic()
                self._notify({"saving": {"done": done / max(total, 1)}})

        try:
            self._notify({"saving": {"done": 0.0}})
            generator = self._load(source)
            name = f"{generator.name}-seed{scene.shot.seed}-{scene.width}x{scene.height}"
            path = free_path(self._folder, name, format)
            save_image(generator, scene, path, bits, progress)
            result: dict[str, Any] = {"file": str(path), "size": path.stat().st_size}
        except Cancelled:
            result = {"stopped": True}
        except Exception as error:  # any error is reported to the page
            result = {"error": str(error) or type(error).__name__}
        self._busy = False
        with suppress(Cancelled):  # the page has gone
            self._notify({"saving": result})


def save_image(generator: Generator, scene: Scene, path: Path, bits: int, progress: Progress | None = None) -> None:
    """Render the shot of a scene to a file.

    Args:
        path: ends in `.png` or `.tif`.
        bits: per channel, 8 or 16; only 8 for views rotated by anything but multiples of 180 degrees.

    Raises:
        ValueError, OSError, ImportError: see `render_to_file`; or a rotated view is too large.
    """
    shot, height, width = scene.shot, scene.height, scene.width
    rotated = shot.view.rotation % 180 != 0
    if rotated and (height * width > _MAX_ROTATED or bits != 8):
        raise ValueError(
            f"a turned view is saved with 8 bits, up to {_MAX_ROTATED >> 20} megapixels: turn it back, or change size"
        )
    ws = Walker(generator).latents(shot).ws
    if not rotated:
        text = {"creps": f"{generator.name} seed {shot.seed} {width}x{height}"}
        extent = shot.view.extent(height, width, "crop", generator.aspect)
        window, _ = shot.view.placement(extent, generator.aspect)
        render_to_file(
            generator, ws, path, height=height, width=width, window=window, bits=bits, text=text, progress=progress
        )
        return
    pixels = torch.empty((1, height, width, generator.config.img_channels), dtype=torch.uint8)
    out = rearrange(pixels, "n h w c -> n c h w")
    render_view(generator, ws, shot.view, height=height, width=width, out=out, progress=progress)
    image = Image.fromarray(pixels[0].squeeze(-1).numpy())
    replace_file(path, lambda file: image.save(file, "PNG" if path.suffix == ".png" else "TIFF"))


def free_path(folder: Path, name: str, format: str) -> Path:
    """The path of a new file, numbered if the name is taken."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:80]
    for number in range(1, 100_000):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}{SUFFIXES[format]}"
        if not path.exists():
            return path
    raise ValueError(f"{folder} holds too many pictures of this name")
