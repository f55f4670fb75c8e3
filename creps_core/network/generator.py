"""The generator: mapping network, column/row network, per-pixel stage."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ...kernels import Layer, PixelBlock, PixelStage, entangle
from .config import RANK, GeneratorConfig
from .labels import LabelSet
from .layers import FullyConnected, ModulatedLinear, StyledLayer
from .lines import COLUMNS, ROWS, LineBlock
from .mapping import Mapping


class LineStyles(NamedTuple):
    """The column/row network with the styles of N latents applied."""

    input: Tensor  # of the Fourier features, [N, 2 * RANK, channels]
    levels: list[list[StyledLayer]]
    dtype: torch.dtype  # of the matrix products


class PixelBlockWeights(nn.Module):
    """Weights of one modulated pixel block, B_in -> width -> width, with its branch to the image."""

    def __init__(self, in_features: int, width: int, config: GeneratorConfig):
        super().__init__()
        self.fc0: ModulatedLinear = ModulatedLinear(in_features, width, config.w_dim)
        self.fc1: ModulatedLinear = ModulatedLinear(width, width, config.w_dim)
        self.tores: ModulatedLinear = ModulatedLinear(width, config.img_channels, config.w_dim, demodulate=False)

    def modulated(self, w: Tensor) -> PixelBlock:
        """Styles [N, w_dim] -> the block's weights for these latents."""
        return PixelBlock(*(Layer(*layer.modulated(w)) for layer in (self.fc0, self.fc1, self.tores)))


class Synthesis(nn.Module):
    """Styles and positions -> image. Parameter names are those of the official checkpoints."""

    b4: LineBlock

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        width = config.biline_channels
        for level in config.levels:
            setattr(self, f"b{level}", LineBlock(config, level))
        for name in (*config.biline_levels[1:], "last"):
            setattr(self, f"decoder_{name}", _decoder(width))
        self.decoder_img: FullyConnected = FullyConnected(width, config.img_channels)
        self.block0: PixelBlockWeights = PixelBlockWeights(width, 4 * width, config)
        self.block1: PixelBlockWeights = PixelBlockWeights(4 * width, 2 * width, config)

    def line_styles(self, ws: Tensor, dtype: torch.dtype | None = None) -> LineStyles:
        """Apply latents to the column/row network, for any number of calls of `bilines`.

        Args:
            ws: [N, num_ws, w_dim], of the dtype of the weights.
            dtype: of the matrix products, None for that of ws.
        """
        levels = []
        for i, level in enumerate(self.config.levels):
            # The first w belongs to the input; the last of a block is also the first of the next.
            styles = ws[:, max(2 * i - 1, 1) :]
            levels.append(getattr(self, f"b{level}").styled(styles, dtype))
        return LineStyles(self.b4.input.style(ws[:, 0]), levels, dtype or ws.dtype)

    def bilines(self, styles: LineStyles, positions: Tensor, line: int) -> Tensor:
        """Evaluate one line of the image.

        Args:
            styles: from `line_styles`.
            positions: [n] or, one line per latent, [N, n]; float64 for exactness. 0..1 across the training image;
                any value is allowed.
            line: `COLUMNS` (positions along the height) or `ROWS` (along the width).

        Returns:
            [N, L, B, n, RANK], a bi-line per level of `config.biline_levels`, summed in float32 or better.
        """
        return self._line_network(styles, self.b4.input(positions, line, styles.input))

    def both_bilines(self, styles: LineStyles, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """`bilines` of y as columns and of x as rows, in half the number of operations."""
        inputs = [self.b4.input(y, COLUMNS, styles.input), self.b4.input(x, ROWS, styles.input)]
        columns, rows = self._line_network(styles, torch.cat(inputs, 1)).split((y.shape[-1], x.shape[-1]), -2)
        return columns, rows

    def _line_network(self, styles: LineStyles, x: Tensor) -> Tensor:
        """Fourier features [N, n, RANK, channels] -> bi-lines."""
        x = rearrange(x, "n position rank c -> n (position rank) c").to(styles.dtype)
        lines, total = [], 0
        for level, layers in zip(self.config.levels, styles.levels, strict=True):
            x, branch = getattr(self, f"b{level}")(x, layers)
            if branch is not None:
                total = total + branch.to(styles.input.dtype)
                lines.append(total)
        return rearrange(torch.stack(lines, 1), "n level (position rank) c -> n level c position rank", rank=RANK)

    def pixel_stage(self, ws: Tensor) -> PixelStage:
        """The weights of the per-pixel stage for latents ws [N, num_ws, w_dim]; its styles are the last ws."""
        w, device = ws[:, -1], ws.device
        decoders = [getattr(self, f"decoder_{name}") for name in (*self.config.biline_levels[1:], "last")]
        return PixelStage(
            decoders=tuple(tuple(Layer(*layer.scaled(device)) for layer in decoder) for decoder in decoders),
            image=Layer(*self.decoder_img.scaled(device)),
            blocks=(self.block0.modulated(w), self.block1.modulated(w)),
        )

    def forward(self, ws: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """The plain, differentiable evaluation, with whole feature maps in memory; for large images see `rendering`.

        Args:
            ws: [N, num_ws, w_dim].
            y: [height] positions of the image's rows of pixels, top to bottom.
            x: [width] positions of its columns of pixels, left to right.

        Returns:
            [N, img_channels, height, width] float32, about -1..1.
        """
        styles = self.line_styles(ws)
        columns, rows = self.bilines(styles, y, COLUMNS), self.bilines(styles, x, ROWS)
        return entangle(columns, rows, self.pixel_stage(ws))


class Generator(nn.Module):
    """A CREPS generator (arXiv 2303.14157)."""

    def __init__(self, config: GeneratorConfig, name: str = "generator"):
        super().__init__()
        self.config = config
        self.name = name  # for logs and messages
        self.fingerprint = ""  # see `checkpoints.fingerprint`
        self.origin = ""  # the file it was loaded from, which may hold its discriminator as well
        # Training metadata: what is known of the training images.
        self.labels: LabelSet | None = None
        self.aspect: tuple[int, int] = (1, 1)  # width : height of the images that its frame stands for
        self.directions: dict[str, Tensor] = {}  # named directions in w, [w_dim] each
        self.mapping: Mapping = Mapping(config)
        self.synthesis: Synthesis = Synthesis(config)

    def with_training_metadata_of(self, other: Generator) -> Generator:
        """Copy the training metadata of another generator; returns itself."""
        self.labels, self.aspect, self.directions = other.labels, other.aspect, other.directions
        return self

    def forward(self, z: Tensor, c: Tensor | None = None, *, size: int | None = None) -> Tensor:
        """Latents [N, z_dim] -> images [N, img_channels, size, size]; `size` is the training resolution by default."""
        positions = torch.linspace(0, 1, size or self.config.img_resolution, dtype=torch.float64)
        return self.synthesis(self.mapping(z, c), positions, positions)


def _decoder(width: int) -> nn.Sequential:
    widths = (width, 2 * width, 4 * width, 2 * width, width)
    return nn.Sequential(*(FullyConnected(a, b) for a, b in pairwise(widths)))
