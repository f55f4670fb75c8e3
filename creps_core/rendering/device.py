"""Pictures on a GPU: few operations a picture, no wait but one at the end, and graphs where pictures repeat.

What is made once for a generator on a device is kept by `renderer_of`: its network laid out anew
(`network.FusedSynthesis`), the packed weights of its per-pixel stage, the precision that is good enough for it, and
recorded pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import Tensor

from ... import kernels
from ...kernels import fused
from ...kernels.packing import Config, PendingStage, padded
from ..network import RANK, FusedSynthesis, Generator, GeneratorConfig
from . import picture_graphs
from .precision import Look, Precision, explicit, look
from .spec import ImageSpec
from .transfer import Transfer

BAND = 8192
"""Samples along the height whose columns are evaluated at a time."""
RECORDED = 4 << 20  # samples of a picture that is worth recording: a larger one keeps the GPU busy anyway
SMALL = 16 << 20  # likewise of one that is painted whole before it is copied

_renderers: WeakKeyDictionary[Generator, DeviceRenderer] = WeakKeyDictionary()
_lock = threading.Lock()


def serves(device: torch.device) -> bool:
    """Whether pictures on a device are rendered here."""
    return device.type == "cuda"


def renderer_of(generator: Generator) -> DeviceRenderer:
    """What is kept for a generator where its weights lie now."""
    with _lock:
        found = _renderers.get(generator)
        if found is None or not found.lean.current:
            found = _renderers[generator] = DeviceRenderer(generator)
        return found


def release(generator: Generator | None = None) -> None:
    """Let go of the memory that is kept on a device for a generator, or for all."""
    with _lock:
        if generator is None:
            _renderers.clear()
        else:
            _renderers.pop(generator, None)


def precision_of(generator: Generator, precision: str) -> Precision:
    """What a name means for a generator where its weights lie; the first time with `auto` on a GPU it is looked at.

    Raises:
        ValueError: there is no such precision.
    """
    found = explicit(precision, generator.mapping.w_avg.device)
    return found or renderer_of(generator).look(generator).precision


def look_at(generator: Generator) -> Look:
    """What precision `auto` is for a generator on a GPU, and how good float16 is there."""
    return renderer_of(generator).look(generator)


def shape_of(config: GeneratorConfig) -> kernels.StageShape:
    """What `kernels` must know of a generator's per-pixel stage."""
    return kernels.StageShape(config.biline_channels, config.img_channels)


class DeviceRenderer:
    """See the module."""

    def __init__(self, generator: Generator):
        self.lean = FusedSynthesis(generator.synthesis, generator.mapping.w_avg.device)
        self.recordings = picture_graphs.PictureGraphs()
        self._stages: dict[tuple[torch.dtype, Config], PendingStage] = {}
        self._look: Look | None = None

    def look(self, generator: Generator) -> Look:
        """The precision that is good enough for this generator, and how good half precision is."""
        if self._look is None:

            def draw(ws: Tensor, side: int, precision: Precision) -> Tensor:
                out = torch.empty((len(ws), generator.config.img_channels, side, side), device=self.lean.device)
                transfer = Transfer(self.lean.device)
                picture = DevicePicture(self, ws, ImageSpec(side, side), precision, transfer)
                for i in range(len(ws)):
                    for top, bottom, paint in picture.bands(i):
                        paint(out[i, :, top:bottom])
                transfer.finish()
                return out

            self._look = look(generator, draw)
        return self._look

    def stage(self, dtype: torch.dtype, config: Config) -> PendingStage:
        """The packed per-pixel stage in a dtype, waiting for a latent."""
        if (dtype, config) not in self._stages:
            with torch.inference_mode(False):
                self._stages[dtype, config] = PendingStage(self.lean.raw_stage(), dtype, config)
        return self._stages[dtype, config]


class DevicePicture:
    """A picture that is wanted of some latents, on a GPU.

    Args:
        renderer: of the generator.
        ws: [N, num_ws, w_dim].
        spec: what is wanted.
        precision: of the products.
        transfer: takes the pictures to `out`; `finish` it in the end.
        advance: called with the work done, in pixels.
        line_work: the work of a position on a line, in pixels.
    """

    def __init__(
        self,
        renderer: DeviceRenderer,
        ws: Tensor,
        spec: ImageSpec,
        precision: Precision,
        transfer: Transfer,
        advance: Callable[[int], None] = lambda work: None,
        line_work: int = 1,
    ):
        self.renderer, self.lean, self.spec, self.precision = renderer, renderer.lean, spec, precision
        self.advance, self.line_work = advance, line_work
        device, config = self.lean.device, self.lean.config
        shape = shape_of(config)
        self.backend = kernels.choose(spec.backend, device, precision.pixels, shape)
        self.fused = self.backend == "triton"
        self.ws = ws.to(device, torch.float32)
        self.y, self.x = (positions.to(device) for positions in spec.positions())
        self.channels = padded(config.biline_channels) if self.fused else config.biline_channels
        self.transfer = transfer
        transfer.dtype = precision.pixels
        self.stage = None
        if self.fused:
            self.stage = renderer.stage(precision.pixels, fused.configuration(device, precision.pixels, shape))
        self.pace = _Pace(device)

    @torch.no_grad()
    def bands(
        self, i: int, band: int | None = None, first_row: int = 0
    ) -> Iterator[tuple[int, int, Callable[[Tensor], None]]]:
        """See `render._Picture.bands`."""
        k, height = self.spec.supersample, self.spec.height
        band = band or max(1, BAND // k)
        self.advance(first_row * (self.spec.width + k * self.line_work))
        if first_row == 0 and height <= band:
            yield 0, height, lambda out: self._whole(i, out)
            return
        rows = self._lines(i, self.y[:0], self.x)
        top = first_row
        while top < height:
            bottom = min((top // band + 1) * band, height)
            yield top, bottom, lambda out, part=slice(top * k, bottom * k): self._band(i, part, rows, out)
            top = bottom

    @torch.no_grad()
    def _whole(self, i: int, out: Tensor) -> None:
        """A picture whose lines are evaluated at once."""
        samples = out[0].numel() * self.spec.supersample**2
        positions = (len(self.y) + len(self.x)) * self.line_work
        with self.lean.lock:
            if samples <= RECORDED and (replay := self._recording(out)) is not None:
                self.transfer.send(replay(self.ws[i], self.y, self.x, self.transfer.overflow), out)
                self.advance(positions + out[0].numel())
                return
            self.lean.apply(self.ws[i])
            lines = self._evaluate(self.y, self.x)
            self.advance(positions)
            away = out.device != self.lean.device and samples <= SMALL
            target = fused.like(out, out.dtype, self.lean.device) if away else out
            self._paint(i, lines[:, : len(self.y)], lines[:, len(self.y) :], target)
            if target is not out:
                self.transfer.send(target, out)

    def _lines(self, i: int, y: Tensor, x: Tensor) -> Tensor:
        with self.lean.lock:
            self.lean.apply(self.ws[i])
            lines = self._evaluate(y, x)
        self.advance((len(y) + len(x)) * self.line_work)
        return lines

    @torch.no_grad()
    def _band(self, i: int, part: slice, rows: Tensor, out: Tensor) -> None:
        with self.lean.lock:  # another thread may have applied its latent meanwhile
            columns = self._lines(i, self.y[part], self.x[:0])
            self._paint(i, columns, rows, out)

    def _evaluate(self, y: Tensor, x: Tensor) -> Tensor:
        """Lines of the latent that was applied, [L, ny + nx, RANK, channels], the columns halved."""
        shape = (len(self.lean.config.biline_levels), len(y) + len(x), RANK, self.channels)
        make = torch.empty if self.channels == self.lean.config.biline_channels else torch.zeros
        lines = make(shape, dtype=self.precision.pixels, device=self.lean.device)
        self.lean.lines(y, x, lines, self.precision.lines, tf32=self.precision.tf32)
        return lines

    def _paint(self, i: int, columns: Tensor, rows: Tensor, out: Tensor) -> None:
        spec = self.spec
        options: dict[str, Any] = {"supersample": spec.supersample, "tile": spec.tile_size if spec.tile else None}
        if self.stage is not None:
            self.lean.fill(self.stage)
            packed = self.stage.packed
            fused.paint(columns, rows, packed, out, self.transfer.overflow, after_tile=self._after_tile, **options)
            return
        stage = self.lean.synthesis.pixel_stage(self.ws[i : i + 1]).sample(0)
        prepared = kernels.prepare(stage, self.lean.device, dtype=self.precision.pixels, backend=self.backend)
        columns, rows = (rearrange(line, "l n rank b -> l b n rank") for line in (columns * 2, rows))
        kernels.entangle(columns, rows, prepared, out, after_tile=self.advance, **options)

    def _after_tile(self, pixels: int) -> None:
        self.pace.step()
        self.advance(pixels)

    # Recorded pictures

    def _recording(self, out: Tensor) -> Callable[..., Tensor] | None:
        """What replays a picture like `out`, if one was asked for before: (ws, y, x, overflow) -> picture."""
        if self.stage is None or self.spec.tile is not None:
            return None
        key = (*out.shape, out.dtype, fused.order(out), self.spec.supersample, self.precision, self.stage.packed.config)
        return self.renderer.recordings.find(key, lambda: self._record(out))

    def _record(self, out: Tensor) -> Callable[..., Tensor]:
        with torch.inference_mode(False):
            ws, y, x = self.ws[0].clone(), self.y.clone(), self.x.clone()
            picture = fused.like(out, out.dtype, self.lean.device)
            overflow = torch.zeros_like(self.transfer.overflow)
        stage, spec, lean = self.stage, self.spec, self.lean
        assert stage is not None

        def work() -> None:
            overflow.zero_()
            lean.apply(ws)
            lines = self._evaluate(y, x)
            lean.fill(stage)
            fused.paint(
                lines[:, : len(y)], lines[:, len(y) :], stage.packed, picture, overflow, supersample=spec.supersample
            )

        replay = picture_graphs.record(work, lean.device)

        def again(new_ws: Tensor, new_y: Tensor, new_x: Tensor, found: Tensor) -> Tensor:
            ws.copy_(new_ws)
            y.copy_(new_y)
            x.copy_(new_x)
            replay()
            found.logical_or_(overflow)
            return picture

        return again


class _Pace:
    """Keeps the queue of launches short, so that a cancelled picture ends soon and progress is true."""

    def __init__(self, device: torch.device):
        self.device, self.events = device, []

    def step(self) -> None:
        if self.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return
        event = torch.cuda.Event()
        event.record()
        self.events.append(event)
        if len(self.events) > 2:
            self.events.pop(0).synchronize()
