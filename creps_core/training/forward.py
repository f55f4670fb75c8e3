"""The forward passes of generator and discriminator, as the losses call them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network import Discriminator, Generator, Styles
from .adversarial import FAKE
from .augment import Alterations, Augment
from .phases import Tensors
from .synthesis import TileSizes, synthesize


class ForwardPasses:
    """Generator and discriminator with autocast, augmentation and averaged samples.

    Attributes:
        tile_sizes: how much of the synthesis is computed at a time.
    """

    augment: Augment
    samples: int
    autocast: torch.dtype | None
    tile_sizes: TileSizes

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        augment: Augment,
        *,
        samples: int,
        autocast: torch.dtype | None,
        tile_sizes: TileSizes,
    ):
        """Keep references to the networks.

        Args:
            generator, discriminator: the networks in training.
            augment: alters the images that the discriminator sees.
            samples: along a pixel of generated images; averaged.
            autocast: of activations; None: no autocast.
            tile_sizes: how much of the synthesis is computed at a time.
        """
        self.G, self.D, self.augment = generator, discriminator, augment
        self.samples, self.autocast, self.tile_sizes = samples, autocast, tile_sizes
        self._styles = Styles(generator.synthesis)

    def map_latents(self, rows: Tensors) -> Tensor:
        """w [N, w_dim] of `z` and `c`."""
        mapping = self.G.mapping
        return mapping.stack(rows["z"], rows["c"] if self.G.config.c_dim else None, mapping.w_avg.dtype)

    def expand(self, w: Tensor) -> Tensor:
        """The same w for every layer: a view [N, num_ws, w_dim]."""
        return w.unsqueeze(1).expand(-1, self.G.config.num_ws, -1)

    def synthesize(self, ws: Tensor, rows: Tensors) -> Tensor:
        """Images [N, img_channels, R, R] of ws [N, num_ws, w_dim] at the positions `y` and `x`, about -1..1."""
        with self._autocast():
            image = synthesize(
                self.G.synthesis, ws, rows["y"], rows["x"], tile_sizes=self.tile_sizes, styles=self._styles
            )
        return image if self.samples == 1 else F.avg_pool2d(image, self.samples)

    def generate(self, rows: Tensors) -> tuple[Tensor, Tensor]:
        """Images [N, img_channels, R, R] and their w [N, w_dim]."""
        w = self.map_latents(rows)
        return self.synthesize(self.expand(w), rows), w

    def discriminate(self, image: Tensor, rows: Tensors, kind: str = FAKE) -> Tensor:
        """Logits of images, [N, 1], with the augmentations, labels and windows in the inputs.

        Args:
            image: [N, img_channels, R, R], about -1..1.
            rows: inputs of the phase.
            kind: which of the inputs belong to the images, FAKE or REAL.
        """
        origins, colours = rows.get(f"{kind}origins"), rows.get(f"{kind}colours")
        if origins is not None or colours is not None:
            image = self.augment.alter(image, Alterations(origins, colours))
        with self._autocast():
            return self.D(image, rows[f"{kind}c"] if self.D.config.c_dim else None, rows.get("window"))

    def _autocast(self):
        device = self.G.mapping.w_avg.device.type
        return torch.amp.autocast_mode.autocast(
            device, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )
