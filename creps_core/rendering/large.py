"""Pictures of any size straight to a file: memory stays flat, and a render that was stopped can be gone on with.

In its folder, while it is not whole, are two hidden ones, see `unfinished.py`.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...common.files import cannot_write, check_target
from ..checkpoints import digest
from ..network import Generator
from .device import precision_of
from .render import Progress, bands_of
from .spec import ImageSpec
from .unfinished import Leftover, Unfinished
from .window import WHOLE_FRAME, Window
from .writers import BLOCK, FORMATS, Writer

BITS = (8, 16)
PREVIEW_SIDE = 1024
JOURNAL_SECONDS = 5.0
_JOURNAL_VERSION = 3
_SPARE_BYTES = 32 << 20  # for the journal
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class RenderedFile:
    """What `render_to_file` made."""

    path: Path
    size: int
    """In bytes."""
    resumed_row: int
    """The row that an earlier run had come to; 0 if this one began."""
    preview: Tensor
    """[h, w, C] float32 in -1..1: the area means of the picture, at most `PREVIEW_SIDE` pixels on a side."""
    others: list[Leftover]
    """What is left of other pictures in its folder, as it was when this one was begun."""


def render_to_file(
    generator: Generator,
    ws: Tensor,
    path: str | os.PathLike[str],
    *,
    height: int,
    width: int,
    window: Window = WHOLE_FRAME,
    fit: str = "stretch",
    supersample: int = 1,
    precision: str = "auto",
    backend: str = "auto",
    tile: int | tuple[int, int] | None = None,
    bits: int = 8,
    text: Mapping[str, str] | None = None,
    resume: bool = True,
    clear_others: bool = False,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> RenderedFile:
    """Render one latent to a file, a block of rows at a time.

    Memory depends on the width alone: the lines along it (see `render`) and a few blocks of `BLOCK` rows of pixels. A
    render that was stopped, by an exception of `progress` or the end of the process, goes on where it was when it is
    called again with the same picture and folder, whatever the file is called then; on the same machine the file is the
    same, bit by bit.

    Args:
        path: of the file, replaced in the end; `.png`, or `.tif` for a tiled BigTIFF with a pyramid.
        bits: per channel, 8 or 16.
        text: kept in the file, before the pixels; when a render is gone on with, what it began with stays.
        resume: False begins anew.
        clear_others: remove what is left of other pictures in the folder.
        preview: filled while the picture grows, for those who want to look on.
        others: as for `render`.

    Raises:
        As `render`, and
        ValueError: the ending of the name or `bits` is unknown, or there is not exactly one latent.
        ImportError: the format needs a library that is not there; says how to get it.
        OSError: the disk has not enough room for the picture at worst, or became full; says what is needed.
    """
    path = Path(path)
    writer_class = _format(path, bits)

    spec = ImageSpec(height, width, window, fit, supersample, precision, backend, tile, generator.aspect)

    def bands(first_row: int, progress: Progress | None) -> Iterator[tuple[int, Tensor]]:
        dtype, band = (torch.uint8, BLOCK) if bits == 8 else (torch.float32, BLOCK // 4)  # as many bytes
        return bands_of(generator, ws, spec, progress=progress, dtype=dtype, band=band, first_row=first_row)

    bands(0, None)  # says what is wrong with the arguments before any file is touched
    target = check_target(path)
    channels = generator.config.img_channels
    preview = preview or Preview(height, width, channels)
    job = {
        "version": _JOURNAL_VERSION,
        "generator": digest(generator.config, generator.state_dict()),
        "latent": hashlib.sha256(ws.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest(),
        "picture": [height, width, bits, supersample, *spec.shown],
        "precision": precision_of(generator, precision).name,
        "format": writer_class.__name__,
    }

    most = writer_class.most_bytes(height, width, channels, bits)
    try:
        unfinished = Unfinished(target, job, _described(generator, job, path), resume, clear_others)
    except OSError as error:
        raise cannot_write(path, error) from error
    writer = writer_class(unfinished.file, height, width, channels, bits, text)
    try:
        _check_space(path, most, unfinished.size)
        steps = _Steps(progress, height, writer.finish_work)
        _go_on_or_begin(unfinished, writer, preview)
        preview.size = writer.size
        resumed_row, saved = writer.rows, time.monotonic()
        for block in _blocks(bands(writer.rows, steps.render), height, writer.dtype):
            writer.write(block)
            preview.add(block)
            preview.size = writer.size
            if time.monotonic() - saved >= JOURNAL_SECONDS:
                unfinished.save(writer.rows, writer.size, writer.parts, writer.state())
                saved = time.monotonic()
        writer.finish(steps.finish)
        size = unfinished.done()
    except BaseException as error:
        unfinished.stopped()
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise OSError(_disk_full(path, unfinished, most)) from error
        if isinstance(error, OSError) and error.errno:
            raise cannot_write(path, error) from error
        raise
    finally:
        writer.close()
    return RenderedFile(path, size, resumed_row, preview.image, unfinished.others)


def _go_on_or_begin(unfinished: Unfinished, writer: Writer, preview: Preview) -> None:
    """Take up what an earlier run left, if all of it is there; the preview is made from what is in the file."""
    if unfinished.state is not None:
        try:
            writer.restore(unfinished.rows, unfinished.size, unfinished.parts, unfinished.state)
            preview.clear()
            for block in writer.written():
                preview.add(block)
            return
        except ValueError as error:
            unfinished.begin_anew(str(error))
            writer.reset()
    preview.clear()
    writer.begin()


class Preview:
    """A picture's area means, as its rows come in; NaN where there are none yet."""

    def __init__(self, height: int, width: int, channels: int, side: int = PREVIEW_SIDE):
        self.shape, self.factor = (height, width), math.ceil(max(height, width) / side)
        self.rows = 0
        self.size = 0
        """Of the file, in bytes."""
        sides = math.ceil(height / self.factor), math.ceil(width / self.factor)
        self.image = torch.full((*sides, channels), torch.nan)
        """[h, w, C] float32 in -1..1."""

    def add(self, block: np.ndarray) -> None:
        """The next rows of pixels, [rows, width, C] of 8 or 16 bits."""
        (height, width), factor = self.shape, self.factor
        half = np.iinfo(block.dtype).max / 2
        lefts = np.arange(0, width, factor)
        across = np.diff(lefts, append=width)[:, None]
        image = self.image.numpy()
        for row in range(self.rows // factor, math.ceil((self.rows + len(block)) / factor)):
            top, bottom = row * factor, min((row + 1) * factor, height)
            rows = block[max(top - self.rows, 0) : bottom - self.rows]
            if top >= self.rows:
                image[row] = 0
            sums = np.add.reduceat(rows.sum(0, dtype=np.uint32), lefts, 0, dtype=np.float64)
            image[row] += (sums / across / half - len(rows)) / (bottom - top)
        self.rows += len(block)

    def clear(self) -> None:
        """Begin again at the first row."""
        self.rows = 0
        self.image.fill_(torch.nan)


class _Steps:
    """Progress of rendering, then of finishing the file, as one."""

    def __init__(self, progress: Progress | None, height: int, finish_work: float):
        self.progress, self.height, self.share = progress, height, finish_work
        self.rendered = self.rows = 0

    def render(self, done: int, total: int) -> None:
        self.rendered = total
        self._call(done)

    def finish(self, rows: int) -> None:
        self.rows += rows
        self._call(self.rendered + self._extra * self.rows // self.height)

    @property
    def _extra(self) -> int:
        return int(self.rendered * self.share)

    def _call(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self.rendered + self._extra)


def _blocks(bands: Iterator[tuple[int, Tensor]], height: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Bands of pixels -> blocks of BLOCK rows [rows, width, C], fewer at the bottom; the next overwrites one."""
    block = np.empty(0)
    for top, pixels in bands:
        rows = rearrange(pixels, "c h w -> h w c").numpy()
        if not block.size:
            block = np.empty((min(BLOCK, height), *rows.shape[1:]), dtype)
        start = top % BLOCK
        stop = start + len(rows)
        block[start:stop] = rows if dtype.itemsize == 1 else (rows * 32767.5 + 32768).clip(0, 65535)
        if stop == BLOCK or top + len(rows) == height:
            yield block[:stop]


def _format(path: Path, bits: int) -> type[Writer]:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: the name of the file must end in one of {', '.join(FORMATS)}")
    if bits not in BITS:
        raise ValueError(f"bits must be one of {list(BITS)}, not {bits!r}")
    writer_class = FORMATS[path.suffix.lower()]
    writer_class.require()
    return writer_class


def _described(generator: Generator, job: Mapping[str, Any], path: Path) -> str:
    """What is rendered, for those who find it unfinished."""
    height, width, bits, *_ = job["picture"]
    return f"{width} x {height} of {generator.name}, {bits} bits, {path.suffix.lower()}, begun as {path.name}"


def _check_space(path: Path, most_bytes: int, there: int) -> None:
    needed, free = most_bytes - there + _SPARE_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"Make room on the disk, choose another folder, or lower the size. {path.name} may take {_bytes(needed)} "
            f"of disk (if it does not compress), and {_bytes(free)} are free"
        )


def _disk_full(path: Path, unfinished: Unfinished, most_bytes: int) -> str:
    kept = f"{unfinished.rows} rows are kept: free" if unfinished.rows else "Free"
    return (
        f"{path.name}: the disk is full. {kept} up to {_bytes(most_bytes - unfinished.size)} and render the same "
        "picture in the same folder again"
    )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
