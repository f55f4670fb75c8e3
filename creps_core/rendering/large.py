"""Images of any size straight to a file: memory stays flat, and a render that was stopped can be resumed.

While a file is incomplete its folder holds two hidden files, see `partial_render.py`.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...common.files import cannot_write, check_target
from ...common.progress import Progress
from ..checkpoints import digest
from ..network import Generator
from .device import precision_of
from .image_writer import BLOCK, ImageWriter
from .partial_render import DAMAGE, PartialRender, ResumableFile
from .render import render_image_bands
from .spec import ImageOptions, ImageSpec
from .writers import writer_for

if TYPE_CHECKING:
    from typing_extensions import Unpack

PREVIEW_SIDE = 1024
JOURNAL_SECONDS = 5.0
_JOURNAL_VERSION = 3
_SPARE_BYTES = 32 << 20  # for the journal
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class RenderedFile:
    """Result of `render_to_file`."""

    path: Path
    size: int
    """In bytes."""
    resumed_row: int
    """The row that this render resumed from; 0 if it started at the top."""
    preview: Tensor
    """[h, w, C] float32 in -1..1: area means of the image, at most `PREVIEW_SIDE` pixels on a side."""
    others: list[PartialRender]
    """The partial renders of other images in the folder, as found when this one started."""


def render_to_file(
    generator: Generator,
    ws: Tensor,
    path: str | os.PathLike[str],
    *,
    bits: int = 8,
    text: Mapping[str, str] | None = None,
    resume: bool = True,
    clear_others: bool = False,
    progress: Progress | None = None,
    preview: AreaPreview | None = None,
    **image: Unpack[ImageOptions],
) -> RenderedFile:
    """Render one latent to a file, a block of rows at a time.

    Memory depends on the width alone: the rows along it (see `render`) and a few blocks of `BLOCK` rows of pixels. A
    render that was stopped, by an exception of `progress` or the end of the process, resumes when it is called again
    with the same image and folder, whatever the name of the file; on the same machine the file is the same, bit by bit.

    Args:
        generator, ws, progress: as for `render`; ws holds one latent.
        path: of the file, which is replaced at the end; `.png`, or `.tif` for a tiled BigTIFF with a pyramid.
        bits: per channel, 8 or 16.
        text: stored in the file before the pixels; a resumed render keeps the text that it started with.
        resume: False starts over.
        clear_others: remove the partial renders of other images in the folder.
        preview: filled while the image is rendered.
        image: height, width, window, fit, supersample, precision, backend and tile, as for `render`.

    Raises:
        As `render`, and
        ValueError: the ending of the name or `bits` is unknown, or there is not exactly one latent.
        ImportError: the format needs a library that is not installed; says how to install it.
        OSError: the disk has not enough room for the largest possible file, or became full; says what is needed.
    """
    path = Path(path)
    writer_class = writer_for(path, bits)
    spec = ImageSpec(**image, aspect=generator.aspect)
    dtype, band = (torch.uint8, BLOCK) if bits == 8 else (torch.float32, BLOCK // 4)  # of equal size in bytes
    bands = partial(render_image_bands, generator, ws, spec, dtype=dtype, band=band)
    bands()  # validates the arguments before any file is touched
    size = spec.height, spec.width, generator.config.img_channels
    preview = preview or AreaPreview(*size)
    most = writer_class.max_bytes(*size, bits)
    file = _open_partial(path, _job(generator, ws, spec, bits, writer_class), generator, resume, clear_others)
    writer = writer_class(file.file, *size, bits, text)
    try:
        _check_space(path, most, file.size)
        _resume_or_begin(file, writer, preview)
        resumed_row = writer.rows
        _write_image(bands, file, writer, preview, progress)
        return RenderedFile(path, file.commit(), resumed_row, preview.image, file.others)
    except BaseException as error:
        file.stop()
        if isinstance(error, OSError) and error.errno:
            raise _explained(error, path, file, most) from error
        raise
    finally:
        writer.close()


def _job(
    generator: Generator, ws: Tensor, spec: ImageSpec, bits: int, writer_class: type[ImageWriter]
) -> dict[str, Any]:
    """What identifies an image to a later render. A change of fields or values abandons older partial renders."""
    return {
        "version": _JOURNAL_VERSION,
        "generator": digest(generator.config, generator.state_dict()),
        "latent": hashlib.sha256(ws.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest(),
        "picture": [spec.height, spec.width, bits, spec.supersample, *spec.fitted_window],
        "precision": precision_of(generator, spec.precision).name,
        "format": f"{writer_class.__name__}{writer_class.layout}",
    }


def _open_partial(
    path: Path, job: dict[str, Any], generator: Generator, resume: bool, clear_others: bool
) -> ResumableFile:
    """The partial file of a job, with a description for users who find it incomplete."""
    height, width, bits, *_ = job["picture"]
    description = f"{width} x {height} of {generator.name}, {bits} bits, {path.suffix.lower()}, begun as {path.name}"
    target = check_target(path)
    try:
        return ResumableFile(target, job, description, resume, clear_others)
    except OSError as error:
        raise cannot_write(path, error) from error


def _resume_or_begin(file: ResumableFile, writer: ImageWriter, preview: AreaPreview) -> None:
    """Restore the writer from an earlier render if the file is intact, and the preview from the pixels in it."""
    if file.state is not None:
        try:
            writer.restore(file.rows, file.size, file.parts, file.state)
            preview.clear()
            for block in writer.read_back():
                preview.add(block)
            preview.size = writer.size
            return
        except DAMAGE as error:
            file.restart(str(error) or type(error).__name__)
            writer.reset()
    preview.clear()
    writer.begin()
    preview.size = writer.size


def _write_image(
    bands: Callable[..., Iterator[tuple[int, Tensor]]],
    file: ResumableFile,
    writer: ImageWriter,
    preview: AreaPreview,
    progress: Progress | None,
) -> None:
    """Render and write the rows that are missing, with a journal every `JOURNAL_SECONDS`, and finish the file."""
    steps, saved = _Steps(progress, writer.height, writer.finish_work), time.monotonic()
    for block in _blocks(bands(progress=steps.render, first_row=writer.rows), writer.height, writer.dtype):
        writer.write(block)
        preview.add(block)
        preview.size = writer.size
        if time.monotonic() - saved >= JOURNAL_SECONDS:
            file.save(writer.rows, writer.size, writer.parts, writer.state())
            saved = time.monotonic()
    writer.finish(steps.finish)


class AreaPreview:
    """Area means of an image while its rows are rendered; NaN where there are none yet."""

    shape: tuple[int, int]
    factor: int

    def __init__(self, height: int, width: int, channels: int, side: int = PREVIEW_SIDE):
        self.shape, self.factor = (height, width), math.ceil(max(height, width) / side)
        self.rows = 0
        self.size = 0
        """Of the file, in bytes."""
        sides = math.ceil(height / self.factor), math.ceil(width / self.factor)
        self.image: Tensor = torch.full((*sides, channels), torch.nan)
        """[h, w, C] float32 in -1..1."""

    def add(self, block: np.ndarray) -> None:
        """Add the next rows of pixels, [rows, width, C] uint8 or uint16."""
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
        """Start again at the first row."""
        self.rows: int = 0
        self.image.fill_(torch.nan)


class _Steps:
    """Combines the progress of rendering and that of finishing the file."""

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
    """Bands of pixels -> blocks of BLOCK rows [rows, width, C], fewer at the bottom; each overwrites the last."""
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


def _check_space(path: Path, most_bytes: int, written: int) -> None:
    """Raise OSError unless the disk has room for the largest possible rest of the file."""
    needed, free = most_bytes - written + _SPARE_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"Make room on the disk, choose another folder, or lower the size. {path.name} may take {_bytes(needed)} "
            f"of disk (if it does not compress), and {_bytes(free)} are free"
        )


def _explained(error: OSError, path: Path, file: ResumableFile, most_bytes: int) -> OSError:
    """An error of writing with what the user can do about it."""
    if error.errno not in _DISK_FULL:
        return cannot_write(path, error)
    kept = f"{file.rows} rows are kept: free" if file.rows else "Free"
    return OSError(
        f"{path.name}: the disk is full. {kept} up to {_bytes(most_bytes - file.size)} and render the same "
        "picture in the same folder again"
    )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
