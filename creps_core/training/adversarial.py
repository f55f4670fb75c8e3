"""The adversarial losses: what generator and discriminator minimise, as a table by name.

Sources: the non-saturating logistic loss of StyleGAN2 (arXiv 1912.04958, appendix B); the relativistic loss of R3GAN
(arXiv 2501.05441, equation 2), which compares each generated image with a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

FAKE, REAL = "", "real_"
"""Kinds of images, as the prefixes of their inputs: `c` and `real_c`, `origins` and `real_origins`."""

_DISCRIMINATED = (("Gmain", FAKE), ("Dmain", FAKE), ("Dmain", REAL), ("Dreg", REAL))


@dataclass(frozen=True)
class AdversarialLoss:
    """An adversarial loss. Its functions map logits [N] of generated and of real images to losses [N].

    Attributes:
        generator: minimised by the generator; the real logits are None unless `images` has ("Gmain", REAL).
        discriminator: minimised by the discriminator.
        images: by phase, the kinds of images that the discriminator sees. Their augmentations are drawn in this order.
    """

    generator: Callable[[Tensor, Tensor | None], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]
    images: tuple[tuple[str, str], ...] = _DISCRIMINATED


def _relativistic_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    assert real is not None
    return F.softplus(-(fake - real))


ADVERSARIAL_LOSSES = {
    "nonsaturating": AdversarialLoss(
        generator=lambda fake, real: F.softplus(-fake),
        discriminator=lambda fake, real: F.softplus(fake) + F.softplus(-real),
    ),
    "relativistic": AdversarialLoss(
        generator=_relativistic_generator,
        discriminator=lambda fake, real: F.softplus(fake - real),
        images=(*_DISCRIMINATED, ("Gmain", REAL), ("Dreg", FAKE)),
    ),
}
