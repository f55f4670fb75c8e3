"""The protocol of a backend: how the per-pixel stage is prepared for one latent, or kept on a device for many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from .stage import PUBLISHED, PixelStage, StageLatent, StageShape


def _ignore(pixels: int) -> None:
    pass


class Backend(ABC):
    """A way to run the per-pixel stage."""

    name: str
    """As users choose it."""

    @abstractmethod
    def refuses(
        self, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
    ) -> str | None:
        """Return why this backend cannot run there, or None.

        Args:
            device: of the lines.
            dtype: of the matrix products.
            shape: of the stage.
            wait: for answers that take seconds; without it such a question is refused until the answer is known.
        """

    @abstractmethod
    def prepare(self, stage: PixelStage, dtype: torch.dtype) -> Any:
        """Pack the stage of one latent (no batch axes) for `paint`."""

    @abstractmethod
    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        weights: Any,
        out: Tensor,
        *,
        supersample: int,
        tile: tuple[int, int] | None,
        after_tile: Callable[[int], None],
    ) -> None:
        """Fill `out`; see `PreparedStage.paint`. `weights` come from `prepare`."""

    def reside(self, stage: PixelStage, dtype: torch.dtype) -> ResidentStage:
        """Keep a stage on its device, for latents that follow each other.

        Args:
            stage: the blocks' weights before modulation, as the network stores them.
            dtype: of the matrix products.
        """
        return _RepreparedStage(self, stage, dtype)


@dataclass(frozen=True)
class PreparedStage:
    """The stage of one latent, packed for the backend that runs it."""

    backend: Backend
    weights: Any

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        out: Tensor,
        *,
        supersample: int = 1,
        tile: tuple[int, int] | None = None,
        after_tile: Callable[[int], None] = _ignore,
    ) -> None:
        """Fill `out` with the image of a pair of lines.

        Args:
            columns: [L, B, height * supersample, rank], line 0, float32 or the dtype of the products.
            rows: [L, B, width * supersample, rank], line 1, likewise.
            out: [C, height, width], any strides, on the device of the lines or on the CPU. A float dtype receives
                values of about -1..1; uint8 receives `x * 127.5 + 128`, clamped to 0..255 and truncated.
            supersample: samples per pixel and side; a pixel is their mean.
            tile: (height, width) of a tile in pixels; None for a size that suits the backend and keeps memory flat.
            after_tile: called in the calling thread after every tile with its number of pixels; an exception from it
                ends the work.

        Raises:
            OverflowError: the image has values that are not finite, which half precision can cause.
        """
        self.backend.paint(columns, rows, self.weights, out, supersample=supersample, tile=tile, after_tile=after_tile)


class OverflowFlag:
    """Whether painted images had values that are not finite: set on the device, read once, at the end."""

    def __init__(self, device: torch.device):
        self.flag: Tensor = torch.zeros(1, dtype=torch.int32, device=device)
        """int32 [1], not 0 after an overflow."""
        self.dtype: torch.dtype = torch.float32
        """Dtype of the products, for the advice in the message."""

    def clear(self) -> None:
        """Forget what was set."""
        self.flag.zero_()

    def merge(self, other: OverflowFlag) -> None:
        """Set this flag if the other one is set."""
        self.flag.logical_or_(other.flag)

    def check(self) -> None:
        """Wait for the device, and raise OverflowError if an image was not finite."""
        if self.flag.item():
            advice = "" if self.dtype == torch.float32 else "; render with precision float32"
            raise OverflowError(f"the picture has values that are not finite{advice}")


class ResidentStage(ABC):
    """The per-pixel stage of a generator that stays on a device: `fill` in a latent, then `paint` its images.

    Lines come here as [L, n, rank, channels], the columns halved, in memory from `reserve`.

    Args:
        stage: with the blocks' weights before modulation.
        dtype: of the matrix products.
        channels: of the lines, at least the stage's; further channels are 0.
    """

    dtype: torch.dtype
    channels: int

    replayable = False
    """Whether `fill` and `paint` only queue work on the device, so that a CUDA graph can hold them."""

    def __init__(self, stage: PixelStage, dtype: torch.dtype, channels: int):
        self.dtype, self.channels = dtype, channels
        self._levels, self._padding = len(stage.decoders), channels - stage.channels
        self._device = stage.image.weight.device

    def reserve(self, positions: int, rank: int) -> Tensor:
        """Memory for lines, [L, positions, rank, channels]: padding is 0, the rest is uninitialised."""
        shape = (self._levels, positions, rank, self.channels)
        make = torch.zeros if self._padding else torch.empty
        return make(shape, dtype=self.dtype, device=self._device)

    @abstractmethod
    def fill(self, latent: StageLatent) -> None:
        """Apply a latent to the weights."""

    @abstractmethod
    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        out: Tensor,
        overflow: OverflowFlag,
        *,
        supersample: int = 1,
        tile: tuple[int, int] | None = None,
        after_tile: Callable[[int], None] = _ignore,
    ) -> None:
        """Fill `out` [C, height, width] with the image of the latent that was filled in.

        Args:
            columns: [L, height * supersample, rank, channels], halved; may be a slice of longer lines.
            rows: [L, width * supersample, rank, channels], likewise, not halved.
            out, supersample, tile, after_tile: as for `PreparedStage.paint`. Where the work is only queued,
                `after_tile` is called when a tile is queued.
            overflow: set if a value is not finite; a backend that knows at once raises OverflowError instead.
        """


class _RepreparedStage(ResidentStage):
    """A resident stage of any backend: `fill` prepares it anew."""

    def __init__(self, backend: Backend, stage: PixelStage, dtype: torch.dtype):
        super().__init__(stage, dtype, stage.channels)
        self._backend = backend
        self._weights: Any = None

    def fill(self, latent: StageLatent) -> None:
        self._weights = self._backend.prepare(latent.pixel_stage(), self.dtype)

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        out: Tensor,
        overflow: OverflowFlag,
        *,
        supersample: int = 1,
        tile: tuple[int, int] | None = None,
        after_tile: Callable[[int], None] = _ignore,
    ) -> None:
        columns, rows = (rearrange(line, "l n rank b -> l b n rank") for line in (columns * 2, rows))
        self._backend.paint(
            columns, rows, self._weights, out, supersample=supersample, tile=tile, after_tile=after_tile
        )
