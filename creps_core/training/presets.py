"""Networks and recipes for new runs by device, resolution and length."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..network import BANDWIDTH
from .recipe import r1_gamma_for

_BANDWIDTH_SIDE = 32  # pixels per period of the bandwidth
_MEDIUM_SIDE = 128  # pixels, up to which `medium` is enough whatever the length
_FEW_IMAGES = 5_000_000  # in a shorter training the published widths do not repay their time


@dataclass(frozen=True)
class Preset:
    """Defaults of a new run, by which networks and recipe are completed.

    Attributes:
        generator: fields of `GeneratorConfig`.
        d_widths: of the discriminator: channels at the full resolution, and most channels; None: half the generator's.
        recipe: fields of `Recipe`.
        least_levels: lowest `img_resolution` of the generator.
    """

    generator: dict[str, int] = field(default_factory=dict)
    d_widths: tuple[int, int] | None = None
    recipe: dict[str, float | int | str] = field(default_factory=dict)
    least_levels: int = 4

    def generator_for(self, resolution: int) -> dict[str, int]:
        """Fields of `GeneratorConfig` for images of a resolution."""
        base = {"channel_base": max(self.generator["channel_base"], resolution)} if self.generator else {}
        return {**self.generator, **base, "img_resolution": max(resolution, self.least_levels)}

    def discriminator_for(self, resolution: int) -> dict[str, int]:
        """Fields of `DiscriminatorConfig`; {}: half the generator's widths."""
        if self.d_widths is None:
            return {}
        first, most = self.d_widths
        return {"channel_base": first * resolution, "channel_max": most}

    def recipe_for(self, resolution: int) -> dict[str, float | int | str]:
        """Fields of `Recipe` for images of a resolution."""
        if not self.recipe:
            return {}
        return {"r1_gamma": max(r1_gamma_for(resolution), 0.05), **self.recipe}


PRESETS = {
    "small": Preset(
        {
            "channel_base": 2048, "channel_max": 96, "biline_channels": 16, "z_dim": 128, "w_dim": 128,
            "mapping_layers": 4,
        },
        (32, 96),
        {"batch": 8, "g_lr": 0.002, "d_lr": 0.002, "augment": "none", "pl_weight": 0.0, "total": 200_000},
        64,
    ),
    "medium": Preset(
        {
            "channel_base": 8192, "channel_max": 256, "biline_channels": 16, "z_dim": 256, "w_dim": 256,
            "mapping_layers": 4,
        },
        (32, 256),
        {"batch": 16, "g_lr": 0.002, "d_lr": 0.002, "augment": "ada", "pl_weight": 0.0, "total": 2_000_000},
        64,
    ),
    "published": Preset(),
}  # fmt: skip
"""By name. `published` is the authors' recipe with the defaults of `Recipe` and `GeneratorConfig`."""


def preset_for(device_type: str, resolution: int, total: int | None) -> str:
    """The name of the preset for a kind of device ("cpu", "cuda"...), a resolution and the images to show."""
    if device_type == "cpu":
        return "small"
    return "medium" if resolution <= _MEDIUM_SIDE or (total or 0) < _FEW_IMAGES else "published"


def bandwidth_for(resolution: int) -> float:
    """Standard deviation of the Fourier frequencies for images of a resolution, in periods per image.

    One period for 32 pixels, up to the authors' 10. More gives combs and grids of dots, which further training does not
    remove: 2 and 10 at 32 pixels, 4 at 64.
    """
    return min(resolution / _BANDWIDTH_SIDE, BANDWIDTH)
