"""The hyperparameters of a generator: everything that the shapes of its weights depend on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

RANK = 8
"""Rank of a bi-line: a channel of a pixel feature is a sum of RANK products of a column and a row."""

FIRST_LEVEL = 4
_LIMIT = 1 << 16
_LIMITS = {"mapping_layers": 64}  # each layer is an object, even a small one


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a CREPS generator. The defaults are the published widths (`--cfg=creps`).

    `levels` are named by the resolutions 4, 8, ..., `img_resolution`, as in coarse-to-fine generators. Here every
    level works at every size: `img_resolution` only sets the number of levels and the size of training images.
    """

    img_resolution: int  # power of two, >= 4
    img_channels: int = 3  # 1 (grey), 3 or 4
    z_dim: int = 512  # 0 for a generator whose only input is its label
    c_dim: int = 0  # number of classes, or length of the label vector; 0 without labels
    w_dim: int = 512
    mapping_layers: int = 8
    biline_channels: int = 32
    channel_base: int = 65536
    channel_max: int = 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("z_dim", "c_dim") else 1
            limit = _LIMITS.get(field.name, _LIMIT)
            if type(value) is not int or not lowest <= value <= limit:
                raise ValueError(f"{field.name} must be a whole number from {lowest} to {limit}, not {value!r}")
        if self.img_resolution < FIRST_LEVEL or self.img_resolution & (self.img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two and at least 4, not {self.img_resolution}")
        if self.img_channels not in (1, 3, 4):
            raise ValueError(f"img_channels must be 1, 3 or 4, not {self.img_channels}")
        if self.z_dim + self.c_dim == 0:
            raise ValueError("z_dim and c_dim are both 0: the generator would have no input")
        if self.biline_channels <= self.img_channels:
            raise ValueError(
                f"biline_channels ({self.biline_channels}) must be larger than img_channels ({self.img_channels})"
            )
        if self.channels(FIRST_LEVEL) % 2:
            raise ValueError(
                f"the first level has {self.channels(FIRST_LEVEL)} channels (channel_max {self.channel_max}, "
                f"channel_base {self.channel_base}): the sine and cosine halves need an even number"
            )
        if self.channels(self.img_resolution) < 1:
            raise ValueError(f"channel_base must be at least img_resolution, not {self.channel_base}")

    def channels(self, level: int) -> int:
        """Width of the column/row network at a level."""
        return min(self.channel_base // level, self.channel_max)

    @property
    def levels(self) -> tuple[int, ...]:
        """All levels, 4 to `img_resolution`."""
        return tuple(1 << i for i in range(2, self.img_resolution.bit_length()))

    @property
    def biline_levels(self) -> tuple[int, ...]:
        """Levels with a bi-line: all but the first, unless it is the only one."""
        return self.levels[1:] or self.levels

    @property
    def num_ws(self) -> int:
        """Number of style vectors: 1, and 1 per layer of the column/row network; the pixel blocks share the last."""
        return 2 * len(self.levels) + 1

    def to_dict(self) -> dict[str, int]:
        """The fields as a plain dictionary, as stored in a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown fields {unknown}; this version knows {sorted(known)}")
        if "img_resolution" not in values:
            raise ValueError("the field img_resolution is missing")
        return cls(**values)
