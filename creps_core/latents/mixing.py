"""Style mixing (StyleGAN, arXiv 1812.04948, section 3.1): some styles of one latent, the rest of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ...common.errors import require_finite
from .ranges import parse_layers
from .sampling import Latents
from .selection import check_alike


def mix(a: Tensor, b: Tensor, layers: Sequence[int], amount: float = 1.0) -> Tensor:
    """Replace some styles of a by those of b.

    Args:
        a, b: [..., num_ws, w_dim], of shapes that broadcast.
        layers: positions of the styles to take from b.
        amount: 1 takes the styles of b; between 0 and 1 they are interpolated linearly.

    Returns:
        The mixed styles, of the broadcast shape.

    Raises:
        ValueError: amount is not finite.
    """
    require_finite("amount", amount)
    a, b = torch.broadcast_tensors(a, b)
    mixed, layers = a.clone(), list(layers)
    mixed[..., layers, :] = torch.lerp(a[..., layers, :], b[..., layers, :], amount)
    return mixed


def mix_pairs(a: Latents, b: Latents, layers: str, amount: float = 1.0) -> Latents:
    """Mix latent i of a with latent i of b; a batch of one is mixed with every latent of the other.

    Args:
        a, b: latents of one generator.
        layers: the styles to take from b, see `parse_layers`.
        amount: see `mix`.

    Raises:
        ValueError: the latents are of different generators, their numbers differ, or `layers` is not understood.
    """
    check_alike([a, b])
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise ValueError(
            f"{len(a)} latents cannot be paired with {len(b)}: give two batches of equal length, or a single latent"
        )
    ws = mix(a.ws, b.ws, parse_layers(layers, a.ws.shape[1]), amount)
    titles = [batch.titles() * (len(ws) // len(batch)) for batch in (a, b)]
    return _mixed(a, b, ws, labels=[f"{x} + {y}" for x, y in zip(*titles, strict=True)])


def mix_grid(a: Latents, b: Latents, layers: str, amount: float = 1.0) -> Latents:
    """Mix every latent of a with every latent of b: a table with a row per latent of a, stored row by row.

    Arguments and errors as for `mix_pairs`, but the batches may have any length.
    """
    check_alike([a, b])
    ws = mix(a.ws[:, None], b.ws[None], parse_layers(layers, a.ws.shape[1]), amount)
    ws = rearrange(ws, "a b layer w -> (a b) layer w")
    labels = [f"{x} + {y}" for x in a.titles() for y in b.titles()]
    return _mixed(a, b, ws, labels=labels, grid=(a.titles(), b.titles()))


def _mixed(a: Latents, b: Latents, ws: Tensor, **fields) -> Latents:
    same = a.fingerprint == b.fingerprint
    return a.derived(ws, fingerprint=a.fingerprint if same else "", **fields)
