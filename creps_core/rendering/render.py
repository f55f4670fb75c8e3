"""Render latents to images, tile by tile: memory does not grow with the image.

A latent becomes bi-lines (`LineEvaluator`), and bi-lines become pixels (`kernels.PreparedStage.paint`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from ... import kernels
from ...common.progress import Progress, WorkCounter
from ..network import COLUMNS, RANK, ROWS, Generator, GeneratorConfig, LineStyles
from .device import (
    BAND_SAMPLES,
    GRAPH_SAMPLES,
    DeviceImageRenderer,
    precision_of,
    renderer_of,
    shape_of,
    transfer_for,
)  # fmt: skip
from .spec import ImageOptions, ImageSpec, check_ws
from .transfer import Transfer
from .window import WHOLE_FRAME, Window

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LINE_WORKERS = 4
# Bytes of one layer of the line network over all workers; about eight layers are alive at a time. Every call packs the
# weights, so longer chunks are faster, most of all in half precision.
_LINE_BYTES = {4: 3 << 20, 2: 8 << 20}
_MAX_CHUNK = 512
_BAND = 512  # positions along the height at a time: workers synchronise after the lines and after the pixels


def render(
    generator: Generator,
    ws: Tensor,
    *,
    height: int,
    width: int,
    window: Window = WHOLE_FRAME,
    fit: str = "stretch",
    supersample: int = 1,
    precision: str = "auto",
    backend: str = "auto",
    tile: int | tuple[int, int] | None = None,
    progress: Progress | None = None,
    out: Tensor | None = None,
    cache: RenderCache | None = None,
) -> Tensor:
    """Render latents at any size.

    Beyond the weights and the image this takes the rows along the width (1 KB per level and sample: 7 KB per column of
    pixels for a 512 model) and at most 64 MB, whatever the size.

    Args:
        generator: on any device, which does the work.
        ws: [N, num_ws, w_dim] from `generator.mapping`.
        height, width: of the image, in pixels.
        window: (top, left, bottom, right): the part of the frame to show; (0, 0, 1, 1) is the whole frame. The
            first and last pixels lie on its edges. Outside 0..1 the image continues. A reversed window mirrors.
        fit: `stretch` shows the window unchanged; `crop` (centred) and `extend` cut or widen it so that the scale is
            the same along both axes in the aspect of the generator's frame.
        supersample: 1..16, samples per pixel and side; a pixel is the mean of its samples.
        precision: of the matrix products, a name in `RENDER_PRECISIONS`.
        backend: `auto`, or a name in `kernels.BACKENDS`.
        tile: (height, width) or side of a tile in pixels; None picks one.
        progress: called in the calling thread after every tile and every chunk of the lines; the unit is the work of
            a pixel. An exception from it ends the work within one tile.
        out: where to write: [N, C, height, width] of any strides; see `kernels.PreparedStage.paint` for dtypes.
        cache: kept between the images of a film: what consecutive images have in common is computed once.

    Returns:
        [N, C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        ValueError: an argument is out of range or does not fit the generator; names it.
        OverflowError: half precision overflowed, or the weights or the latent are unusable.
    """
    spec = ImageSpec(height, width, window, fit, supersample, precision, backend, tile, generator.aspect)
    return render_image(generator, ws, spec, progress=progress, out=out, cache=cache)


def render_image(
    generator: Generator,
    ws: Tensor,
    spec: ImageSpec,
    *,
    progress: Progress | None = None,
    out: Tensor | None = None,
    cache: RenderCache | None = None,
) -> Tensor:
    """`render` for an image given as one value."""
    check_ws(generator.config, ws)
    out = spec.output(generator, len(ws), out)
    transfer = cache.transfer if cache is not None else None
    own = transfer_for(generator, 2 if len(ws) > 1 else 0) if transfer is None else None
    renderer = _image_renderer(generator, ws, spec, progress, cache, transfer or own)
    for i in range(len(ws)):
        for top, bottom, paint in renderer.bands(i):
            paint(out[i, :, top:bottom])
    if own is not None:
        own.finish()
    return out


def render_bands(
    generator: Generator,
    ws: Tensor,
    *,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.uint8,
    band: int = 256,
    first_row: int = 0,
    **image: Unpack[ImageOptions],
) -> Iterator[tuple[int, Tensor]]:
    """Render one latent from top to bottom, for images that do not fit into memory.

    Args:
        generator, ws: as for `render`; ws holds one latent.
        progress: as for `render`; counts the rows above `first_row` as done.
        dtype: of the pixels; see `kernels.PreparedStage.paint`.
        band: rows of pixels at a time.
        first_row: start here, to resume an image.
        image: height, width, window, fit, supersample, precision, backend and tile, as for `render`.

    Returns:
        An iterator over (row, [C, rows, width]): the first row of a band and its pixels on the CPU, contiguous by
        rows of pixels. Bands end at multiples of `band`; the next band overwrites the pixels.

    Raises:
        As `render`, and ValueError: there is not exactly one latent, or the band or the first row is out of range.
    """
    spec = ImageSpec(**image, aspect=generator.aspect)
    return render_image_bands(generator, ws, spec, progress=progress, dtype=dtype, band=band, first_row=first_row)


def render_image_bands(
    generator: Generator,
    ws: Tensor,
    spec: ImageSpec,
    *,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.uint8,
    band: int = 256,
    first_row: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """`render_bands` for an image given as one value."""
    if len(ws) != 1:
        raise ValueError(f"give one latent, not {len(ws)}: an image rendered band by band, or to a file, shows one")
    if band < 1 or not 0 <= first_row <= spec.height:
        raise ValueError(f"band must be at least 1, not {band}, and first_row from 0 to {spec.height}, not {first_row}")
    check_ws(generator.config, ws)
    transfer = transfer_for(generator)
    renderer = _image_renderer(generator, ws, spec, progress, None, transfer)

    def bands() -> Iterator[tuple[int, Tensor]]:
        pixels = torch.empty((min(band, spec.height), spec.width, generator.config.img_channels), dtype=dtype)
        pixels = rearrange(pixels, "h w c -> c h w")
        for top, bottom, paint in renderer.bands(0, band, first_row):
            paint(pixels[:, : bottom - top])
            if transfer is not None:
                transfer.finish()
            yield top, pixels[:, : bottom - top]

    return bands()


def memory_estimate(config: GeneratorConfig, height: int, width: int, supersample: int = 1) -> int:
    """Largest number of bytes that `render` takes on a GPU, beyond weights and image; a CPU needs less.

    Counted are the lines in float32, the features of one layer twice with their temporaries, and the image of a
    recorded CUDA graph.
    """
    samples = width * supersample + min(height * supersample, BAND_SAMPLES)
    lines = len(config.biline_levels) * config.biline_channels * RANK * samples * 4
    recorded = height * width * supersample**2 <= GRAPH_SAMPLES
    return lines + (256 << 20) + (2 * config.img_channels * height * width * 4 if recorded else 0)


class RenderCache:
    """What consecutive images share. On a CPU: the latent applied to the weights, and the last two lines. On a GPU: the
    transfer to the host. Call `finish` after the last image.

    With it a pan along one axis evaluates half of the lines, and a film whose view stands still evaluates none.

    Args:
        longest: largest number of positions along the height for which the columns are cached (7 KB per position for
            a 512 model); by default lines are not cached.
        transfer: on a GPU, from `transfer_for` of the generator.
    """

    def __init__(self, longest: int = 0, transfer: Transfer | None = None):
        self.longest, self.transfer = longest, transfer
        self.applied: tuple[kernels.PreparedStage, LineStyles] | None = None
        self._key: tuple[Any, ...] = ()
        self._styles = torch.empty(0)
        self._lines: dict[int, tuple[Tensor, Tensor]] = {}

    def finish(self) -> None:
        """Wait for all transfers; raises OverflowError if an image was not finite."""
        if self.transfer is not None:
            self.transfer.finish()

    def select(self, synthesis: Any, styles: Tensor, dtype: torch.dtype, backend: str) -> None:
        """Clear the cache unless it belongs to these weights, this latent, dtype and backend."""
        key = (synthesis, dtype, backend, styles.device)
        if self._key != key or not torch.equal(self._styles, styles):
            self._key, self._styles = key, styles.clone()
            self.applied, self._lines = None, {}

    def find(self, line: int, positions: Tensor) -> Tensor | None:
        """The cached line at exactly these positions, or None."""
        cached, lines = self._lines.get(line, (None, None))
        return lines if cached is not None and torch.equal(cached, positions) else None

    def store(self, line: int, positions: Tensor, lines: Tensor) -> None:
        """Cache a line; it replaces the last one of its kind (columns or rows)."""
        if self.longest:
            self._lines[line] = positions, lines


def _image_renderer(
    generator: Generator,
    ws: Tensor,
    spec: ImageSpec,
    progress: Progress | None,
    cache: RenderCache | None,
    transfer: Transfer | None,
) -> _CpuImageRenderer | DeviceImageRenderer:
    """The renderer of an image, on a CPU or on a GPU."""
    config, k = generator.config, spec.supersample
    counter, line_work = WorkCounter(progress), _pixels_per_position(config)
    counter.total = len(ws) * (spec.height * spec.width + (spec.height + spec.width) * k * line_work)
    if transfer is not None:
        precision = precision_of(generator, spec.precision)
        return DeviceImageRenderer(renderer_of(generator), ws, spec, precision, transfer, counter.add, line_work)
    dtype = kernels.resolve_precision(spec.precision)
    return _CpuImageRenderer(generator, ws, spec, dtype, counter, line_work, cache or RenderCache())


class _CpuImageRenderer:
    """Renders an image on a CPU, or on a device without a renderer of its own: positions, then lines, then pixels."""

    def __init__(
        self,
        generator: Generator,
        ws: Tensor,
        spec: ImageSpec,
        dtype: torch.dtype,
        counter: WorkCounter,
        line_work: int,
        cache: RenderCache,
    ):
        config, self.device = generator.config, generator.mapping.w_avg.device
        self.spec, self.synthesis, self.ws, self.dtype, self.cache = spec, generator.synthesis, ws, dtype, cache
        self.counter, self.line_work = counter, line_work
        kernels.choose(spec.backend, self.device, dtype, shape_of(config))
        self.y, self.x = spec.positions()
        self.lines = LineEvaluator(generator, dtype, lambda positions: counter.add(positions * line_work))

    @torch.no_grad()
    def bands(
        self, i: int, band: int | None = None, first_row: int = 0
    ) -> Iterator[tuple[int, int, Callable[[Tensor], None]]]:
        """The bands of latent i from `first_row` down: (top, bottom, paint), where `paint` fills [C, rows, width].

        Args:
            i: index of the latent.
            band: rows of pixels whose columns are evaluated at a time; bands end at its multiples.
            first_row: of the first band.
        """
        k, styles = self.spec.supersample, self.ws[i : i + 1].to(self.device, torch.float32)
        band = band or max(1, max(self.lines.round, _BAND) // k)
        self.counter.add(first_row * (self.spec.width + k * self.line_work))
        self.cache.select(self.synthesis, styles, self.dtype, self.spec.backend)
        prepared, line_styles = self.cache.applied or self._prepare(styles)
        self.cache.applied = prepared, line_styles

        def evaluate(positions: Tensor, line: int) -> Tensor:
            return self.lines.evaluate(line_styles, positions, line)

        rows = self._whole(ROWS, self.x, evaluate)
        whole = self._whole(COLUMNS, self.y, evaluate) if len(self.y) <= self.cache.longest else None
        top = first_row
        while top < self.spec.height:
            bottom = min((top // band + 1) * band, self.spec.height)
            part = slice(top * k, bottom * k)
            columns = evaluate(self.y[part], COLUMNS) if whole is None else whole[:, :, part]
            yield top, bottom, partial(self._paint, columns, rows, prepared)
            top = bottom

    def _whole(self, line: int, positions: Tensor, evaluate: Callable[[Tensor, int], Tensor]) -> Tensor:
        """A whole line, from the cache if possible."""
        found = self.cache.find(line, positions)
        if found is None:
            found = evaluate(positions, line)
            self.cache.store(line, positions, found)
        else:
            self.counter.add(len(positions) * self.line_work)
        return found

    def _prepare(self, styles: Tensor) -> tuple[kernels.PreparedStage, LineStyles]:
        """Apply a latent [1, num_ws, w_dim] to both parts of the synthesis network, in parallel on a CPU."""
        results: list[Any] = [None, None]

        def work(part: int) -> int:
            if part == 0:
                stage = self.synthesis.pixel_stage(styles).sample(0)
                results[0] = kernels.prepare(stage, self.device, dtype=self.dtype, backend=self.spec.backend)
            else:
                results[1] = self.synthesis.line_styles(styles, self.dtype)
            return 0

        kernels.run_parallel(work, range(2), 2 if self.device.type == "cpu" else 1, self.counter.add)
        return results[0], results[1]

    @torch.no_grad()
    def _paint(self, columns: Tensor, rows: Tensor, prepared: kernels.PreparedStage, out: Tensor) -> None:
        prepared.paint(
            columns,
            rows,
            out,
            supersample=self.spec.supersample,
            tile=self.spec.tile_size if self.spec.tile else None,
            after_tile=self.counter.add,
        )


class LineEvaluator:
    """Evaluates lines in chunks of positions, on a CPU several chunks in parallel.

    Args:
        after_chunk: called with the number of positions of each finished chunk.
    """

    def __init__(self, generator: Generator, dtype: torch.dtype, after_chunk: Callable[[int], None]):
        config, self.device = generator.config, generator.mapping.w_avg.device
        self.synthesis, self.dtype, self.after_chunk = generator.synthesis, dtype, after_chunk
        self.shape = (len(config.biline_levels), config.biline_channels, -1, RANK)
        cpu = self.device.type == "cpu"
        self.workers = min(torch.get_num_threads(), _LINE_WORKERS) if cpu else 1
        floats = _LINE_BYTES[dtype.itemsize] // (dtype.itemsize * self.workers)
        widest = max(config.channels(level) for level in config.levels)
        self.chunk = min(_MAX_CHUNK, max(1, floats // (RANK * widest)))
        self.round = self.chunk * self.workers
        """Positions in one chunk per worker."""

    def evaluate(self, styles: LineStyles, positions: Tensor, line: int) -> Tensor:
        """The line (`COLUMNS` or `ROWS`) of one latent at positions [n], [L, B, n, RANK]."""
        levels, channels, _, rank = self.shape
        result = torch.empty((levels, channels, len(positions), rank), device=self.device, dtype=self.dtype)
        # A short line is split into one chunk per worker too. As a single chunk it would run on all of torch's threads,
        # which wait for each other in a busy loop and slow down next to a browser that displays the frames.
        step = min(self.chunk, max(1, math.ceil(len(positions) / self.workers)))

        def work(start: int) -> int:
            chunk = slice(start, start + step)
            bilines = self.synthesis.bilines(styles, positions[chunk], line)[0]
            result[:, :, chunk] = bilines
            return bilines.shape[2]

        starts = range(0, len(positions), step)
        kernels.run_parallel(work, starts, min(self.workers, len(starts)), self.after_chunk)
        return result


def _pixels_per_position(config: GeneratorConfig) -> int:
    """Work of one position on a line in units of a pixel: the ratio of their multiplications."""
    levels = config.levels
    widths = [config.channels(level) for level in levels]
    line = sum(RANK * b * (a + b) for a, b in pairwise(widths)) + RANK * widths[0] ** 2
    pixel = 20 * config.biline_channels**2 * (len(config.biline_levels) + 1)
    return 1 + line // pixel
