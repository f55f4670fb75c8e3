"""The mapping network: latents z and labels c -> style vectors ws."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn

from ...kernels import leaky_relu
from .config import GeneratorConfig
from .layers import FullyConnected

_LR_MULTIPLIER = 0.01
MAX_PSI = 1000
"""Largest |psi|; beyond it styles are meaningless and may overflow."""


class MappingStack(nn.Module):
    """z, labels c, or both -> w: a stack of fully connected layers. The discriminator uses one for labels."""

    z_dim: int
    c_dim: int
    num_layers: int

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_layers: int):
        super().__init__()
        self.z_dim, self.c_dim, self.num_layers = z_dim, c_dim, num_layers
        if c_dim:
            self.embed: FullyConnected = FullyConnected(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim else 0)
        for i in range(num_layers):
            setattr(self, f"fc{i}", FullyConnected(width, w_dim, lr_multiplier=_LR_MULTIPLIER))
            width = w_dim

    def stack(self, z: Tensor | None, c: Tensor | None, dtype: torch.dtype) -> Tensor:
        """z [N, z_dim] and c [N, c_dim], each None when the network has none -> w [N, w_dim].

        Raises:
            ValueError: shapes that do not fit the network, or a label that is missing or unexpected.
        """
        parts = []
        if self.z_dim:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                found = "None" if z is None else list(z.shape)
                raise ValueError(f"z must have the shape [N, {self.z_dim}], not {found}")
            parts.append(_normalise(z.to(dtype)))
        if self.c_dim:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                found = "None" if c is None else list(c.shape)
                raise ValueError(f"this network has classes: c must have the shape [N, {self.c_dim}], not {found}")
            parts.append(self.embedded(c.to(dtype)))
        elif c is not None and c.shape[-1]:
            raise ValueError("this network has no classes: c must be None")
        x = torch.cat(parts, 1)
        for i in range(self.num_layers):
            x = leaky_relu(getattr(self, f"fc{i}")(x))
        return x

    def embedded(self, c: Tensor) -> Tensor:
        """Labels [N, c_dim], of the dtype of the weights -> [N, w_dim], their input of the first layer."""
        return _normalise(self.embed(c))


class Mapping(MappingStack):
    """The mapping network: z (and c) -> w, repeated for every layer of the synthesis."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig):
        super().__init__(config.z_dim, config.c_dim, config.w_dim, config.mapping_layers)
        self.num_ws: int = config.num_ws
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map latents to styles.

        Args:
            z: [N, z_dim], normally distributed, any float dtype.
            c: [N, c_dim] labels (one-hot or a vector); required if and only if the network has classes.
            truncation_psi: 1 leaves w unchanged, 0 gives the average w; values between trade variety for quality.
            truncation_cutoff: number of the `num_ws` styles to truncate, from the first; None for all.

        Returns:
            ws [N, num_ws, w_dim] in the dtype of the weights, float32 unless they were converted.

        Raises:
            ValueError: shapes that do not fit the network, a label that is missing or unexpected, or psi out of range.
        """
        x = self.stack(z, c, self.w_avg.dtype)
        ws = repeat(x, "n w -> n layer w", layer=self.num_ws).contiguous()
        return truncate(ws, self.w_avg.to(ws.device), truncation_psi, truncation_cutoff)


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """Truncation: `w_avg + psi * (w - w_avg)` for the first `cutoff` styles (None: all) of ws [N, num_ws, w_dim].

    Raises:
        ValueError: psi is not a number from -1000 to 1000.
    """
    if not -MAX_PSI <= psi <= MAX_PSI:
        raise ValueError(f"truncation psi must be a number from -{MAX_PSI} to {MAX_PSI}, not {psi}")
    if psi == 1 or cutoff == 0:
        return ws
    head = torch.lerp(w_avg, ws[:, :cutoff], psi)
    return head if cutoff is None else torch.cat([head, ws[:, cutoff:]], 1)


def _normalise(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
