"""Rendering on a GPU: few operations per image, one wait at the end, and CUDA graphs where images repeat.

`renderer_of` keeps what is made once for a generator on a device: its network laid out anew (`network.FusedSynthesis`),
the resident per-pixel stage (`kernels.ResidentStage`), the precision that is good enough for it, and captured images.
`RenderEngine` says which generators are rendered here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...kernels import (
    BACKENDS,
    Backend,
    CudaGraph,
    OverflowFlag,
    ResidentStage,
    StageShape,
    axis_order,
    choose,
    empty_like_image,
    resolve_precision,
)
from ..network import RANK, AppliedLatent, FusedSynthesis, Generator, GeneratorConfig
from .picture_graphs import MakeGraph, PictureGraphs, capture
from .precision import Precision, PrecisionProbe, run_probe
from .spec import ImageSpec
from .transfer import Transfer

BAND_SAMPLES = 8192
"""Samples along the height whose columns are evaluated at a time."""
GRAPH_SAMPLES = 4 << 20
"""Most samples of an image that is captured as a graph; larger ones keep the GPU busy anyway."""
_WHOLE_SAMPLES = 16 << 20  # most samples of an image that is painted whole before it is copied to another device


@dataclass(frozen=True)
class RenderEngine:
    """How a device renders: the backends to choose from, and what captures its graphs."""

    backends: Mapping[str, Backend] = field(default_factory=lambda: BACKENDS)
    make_graph: MakeGraph | None = CudaGraph
    """None: images are never captured."""


_CUDA = RenderEngine()
_engines: WeakKeyDictionary[Generator, RenderEngine] = WeakKeyDictionary()
_renderers: WeakKeyDictionary[Generator, DeviceRenderer] = WeakKeyDictionary()
_lock = threading.Lock()


def use_engine(generator: Generator, engine: RenderEngine) -> None:
    """Render a generator by this engine wherever it lies, in place of the one that its device has."""
    with _lock:
        _engines[generator] = engine
        _renderers.pop(generator, None)


def engine_of(generator: Generator) -> RenderEngine | None:
    """The engine of a generator; None if `render` takes the path for CPUs."""
    with _lock:
        found = _engines.get(generator)
    return found or (_CUDA if generator.mapping.w_avg.device.type == "cuda" else None)


def transfer_for(generator: Generator, depth: int = 0) -> Transfer | None:
    """A `Transfer` for images of a generator; None if `render` takes the path for CPUs."""
    return None if engine_of(generator) is None else Transfer(generator.mapping.w_avg.device, depth)


def renderer_of(generator: Generator) -> DeviceRenderer:
    """The renderer that is kept for a generator, made anew if its weights have changed or moved."""
    engine = engine_of(generator) or _CUDA
    with _lock:
        found = _renderers.get(generator)
        if found is None or not found.synthesis.current:
            found = _renderers[generator] = DeviceRenderer(generator, engine)
        return found


def release_renderers(generator: Generator | None = None) -> None:
    """Release the device memory that is kept for a generator, or for all."""
    with _lock:
        if generator is None:
            _renderers.clear()
        else:
            _renderers.pop(generator, None)


def precision_of(generator: Generator, name: str) -> Precision:
    """The precision that a name means for a generator where its weights lie; `auto` is probed once on a GPU.

    Raises:
        ValueError: there is no such precision.
    """
    if name == "auto" and engine_of(generator) is not None:
        return probe_precision(generator).precision
    dtype = resolve_precision(name)
    return Precision(dtype, dtype)


def probe_precision(generator: Generator) -> PrecisionProbe:
    """The precision that `auto` means for a generator on a GPU, and how good float16 is there."""
    return renderer_of(generator).probe(generator)


def shape_of(config: GeneratorConfig) -> StageShape:
    """The shape of a generator's per-pixel stage, as `kernels` asks for it."""
    return StageShape(config.biline_channels, config.img_channels)


class DeviceRenderer:
    """What is kept for a generator on a device; see the module."""

    def __init__(self, generator: Generator, engine: RenderEngine):
        self.engine = engine
        self.synthesis: FusedSynthesis = FusedSynthesis(generator.synthesis, generator.mapping.w_avg.device)
        self.graphs: PictureGraphs = PictureGraphs()
        self._stages: dict[tuple[str, torch.dtype], ResidentStage] = {}
        self._probe: PrecisionProbe | None = None

    def probe(self, generator: Generator) -> PrecisionProbe:
        """The precision that is good enough for this generator; found at the first call."""
        if self._probe is None:
            self._probe = run_probe(generator, self._draw)
        return self._probe

    def _draw(self, ws: Tensor, side: int, precision: Precision) -> Tensor:
        device = self.synthesis.device
        out = torch.empty((len(ws), self.synthesis.config.img_channels, side, side), device=device)
        transfer = Transfer(device)
        image = DeviceImageRenderer(self, ws, ImageSpec(side, side), precision, transfer)
        for i in range(len(ws)):
            for top, bottom, paint in image.bands(i):
                paint(out[i, :, top:bottom])
        transfer.finish()
        return out

    def stage(self, name: str, dtype: torch.dtype) -> ResidentStage:
        """The per-pixel stage, resident in a backend (a name, or `auto`) for products in a dtype.

        Raises:
            ValueError: no such backend can run here; see `kernels.choose`.
        """
        synthesis = self.synthesis
        backend = choose(name, synthesis.device, dtype, shape_of(synthesis.config), backends=self.engine.backends)
        key = backend.name, dtype
        if key not in self._stages:
            with torch.inference_mode(False):  # memory that can be used in both modes
                self._stages[key] = backend.reside(synthesis.raw_stage(), dtype)
        return self._stages[key]


class DeviceImageRenderer:
    """An image of each of some latents, on a GPU.

    Args:
        renderer: of the generator.
        ws: [N, num_ws, w_dim].
        spec: of the images.
        precision: of the products.
        transfer: takes the images to `out`; call its `finish` at the end.
        advance: called with the work done, in pixels.
        line_work: the work of a position on a line, in pixels.
    """

    renderer: DeviceRenderer
    synthesis: FusedSynthesis
    spec: ImageSpec
    precision: Precision
    line_work: int
    y: Tensor
    x: Tensor

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
        self.renderer, self.synthesis, self.spec, self.precision = renderer, renderer.synthesis, spec, precision
        self.advance, self.line_work = advance, line_work
        device = self.synthesis.device
        self.stage: ResidentStage = renderer.stage(spec.backend, precision.pixels)
        self.ws: Tensor = ws.to(device, torch.float32)
        self.y, self.x = (positions.to(device) for positions in spec.positions())
        self.transfer = transfer
        transfer.overflow.dtype = precision.pixels
        self.queue: _LaunchQueue = _LaunchQueue(device)

    @torch.no_grad()
    def bands(
        self, i: int, band: int | None = None, first_row: int = 0
    ) -> Iterator[tuple[int, int, Callable[[Tensor], None]]]:
        """See `render._CpuImageRenderer.bands`."""
        k, height = self.spec.supersample, self.spec.height
        band = band or max(1, BAND_SAMPLES // k)
        self.advance(first_row * (self.spec.width + k * self.line_work))
        if first_row == 0 and height <= band:
            yield 0, height, lambda out: self._whole(i, out)
            return
        with self.synthesis.latent(self.ws[i]) as latent:
            rows = self._lines(latent, self.y[:0], self.x)
        top = first_row
        while top < height:
            bottom = min((top // band + 1) * band, height)
            yield top, bottom, lambda out, part=slice(top * k, bottom * k): self._band(i, part, rows, out)
            top = bottom

    @torch.no_grad()
    def _whole(self, i: int, out: Tensor) -> None:
        """An image whose lines are evaluated at once."""
        samples = out[0].numel() * self.spec.supersample**2
        with self.synthesis.lock:
            if samples <= GRAPH_SAMPLES and (replay := self._replay_for(out)) is not None:
                self.transfer.send(replay(self.ws[i], self.y, self.x, self.transfer.overflow), out)
                self.advance((len(self.y) + len(self.x)) * self.line_work + out[0].numel())
                return
            with self.synthesis.latent(self.ws[i]) as latent:
                lines = self._lines(latent, self.y, self.x)
                away = out.device != self.synthesis.device and samples <= _WHOLE_SAMPLES
                target = empty_like_image(out, out.dtype, self.synthesis.device) if away else out
                self._paint(latent, lines[:, : len(self.y)], lines[:, len(self.y) :], target)
            if target is not out:
                self.transfer.send(target, out)

    @torch.no_grad()
    def _band(self, i: int, part: slice, rows: Tensor, out: Tensor) -> None:
        with self.synthesis.latent(self.ws[i]) as latent:  # another thread may have applied its own meanwhile
            columns = self._lines(latent, self.y[part], self.x[:0])
            self._paint(latent, columns, rows, out)

    def _lines(self, latent: AppliedLatent, y: Tensor, x: Tensor) -> Tensor:
        lines = self._evaluate(latent, y, x)
        self.advance((len(y) + len(x)) * self.line_work)
        return lines

    def _evaluate(self, latent: AppliedLatent, y: Tensor, x: Tensor) -> Tensor:
        """Lines as a resident stage reads them, [L, ny + nx, RANK, channels], the columns halved."""
        lines = self.stage.reserve(len(y) + len(x), RANK)
        latent.lines(y, x, lines, self.precision.lines, tf32=self.precision.tf32)
        return lines

    def _paint(self, latent: AppliedLatent, columns: Tensor, rows: Tensor, out: Tensor) -> None:
        self.stage.fill(latent)
        self.stage.paint(
            columns,
            rows,
            out,
            self.transfer.overflow,
            supersample=self.spec.supersample,
            tile=self.spec.tile_size if self.spec.tile else None,
            after_tile=self._after_tile,
        )

    def _after_tile(self, pixels: int) -> None:
        self.queue.limit()
        self.advance(pixels)

    # Captured images

    def _replay_for(self, out: Tensor) -> Callable[..., Tensor] | None:
        """What replays an image like `out`, if one was requested before: (ws, y, x, overflow) -> image."""
        if self.renderer.engine.make_graph is None or not self.stage.replayable or self.spec.tile is not None:
            return None
        key = (*out.shape, out.dtype, axis_order(out), self.spec.supersample, self.precision, self.stage)
        return self.renderer.graphs.find(key, lambda: self._capture(out))

    def _capture(self, out: Tensor) -> Callable[..., Tensor]:
        device, make_graph = self.synthesis.device, self.renderer.engine.make_graph
        assert make_graph is not None
        with torch.inference_mode(False):
            ws, y, x = self.ws[0].clone(), self.y.clone(), self.x.clone()
            image, overflow = empty_like_image(out, out.dtype, device), OverflowFlag(device)

        def work() -> None:
            overflow.clear()
            with self.synthesis.latent(ws) as latent:
                lines = self._evaluate(latent, y, x)
                self.stage.fill(latent)
                columns, rows = lines[:, : len(y)], lines[:, len(y) :]
                self.stage.paint(columns, rows, image, overflow, supersample=self.spec.supersample)

        replay = capture(work, device, make_graph)

        def replay_with(new_ws: Tensor, new_y: Tensor, new_x: Tensor, found: OverflowFlag) -> Tensor:
            ws.copy_(new_ws)
            y.copy_(new_y)
            x.copy_(new_x)
            replay()
            found.merge(overflow)
            return image

        return replay_with


class _LaunchQueue:
    """Keeps the queue of launches short, so that a cancelled image ends soon and progress is true."""

    device: torch.device

    _LENGTH = 2

    def __init__(self, device: torch.device):
        self.device, self.events = device, []

    def limit(self) -> None:
        """Note a launch, and wait until few are queued."""
        if self.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return
        event = torch.cuda.Event()
        event.record()
        self.events.append(event)
        if len(self.events) > self._LENGTH:
            self.events.pop(0).synchronize()
