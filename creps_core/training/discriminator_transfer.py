"""Discriminators of another size: what a trained one knows is carried over."""

from __future__ import annotations

import torch
from torch import nn

from ..network import BRANCH_GAIN, Block, Discriminator

_COLOURS = 4096  # random ones, on which new levels learn to pass colours on


@torch.no_grad()
def transfer(source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters and buffers that both have in one shape, by name."""
    found = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in found and found[name].shape == tensor.shape:
            tensor.copy_(found[name])


@torch.no_grad()
def grow(source: Discriminator, target: Discriminator) -> None:
    """Make `target`, for larger pictures, begin as a judge of the reduced picture: about as `source` judges that.

    With new levels of random weights instead, the trained ones receive features that they have never seen, and R1
    flattens the whole discriminator before it has learnt to read them.

    The levels' residual branches begin at zero. The first level reads colours with the filters of the source's first
    level, as far as it has room for them; the last new one mixes what the trained level wants out of these (least
    squares over random colours); those between pass them on.
    """
    transfer(source, target)
    read = getattr(source, f"b{source.config.img_resolution}").fromrgb
    new: list[Block] = [getattr(target, f"b{level}") for level in target.config.levels]
    new = new[: len(target.config.levels) - len(source.config.levels)]
    first = new[0].fromrgb
    kept = min(len(first.weight), len(read.weight))
    for ours, theirs in zip(first.parameters(), read.parameters(), strict=True):
        ours[:kept] = theirs[:kept]

    rng = torch.Generator().manual_seed(0)
    colours = torch.rand(_COLOURS, first.weight.shape[1], 1, 1, generator=rng).to(first.weight) * 2 - 1
    seen, wanted = (layer(colours).flatten(1) for layer in (first, read))
    mixed = torch.linalg.lstsq(
        torch.cat([seen, 1e-3 * torch.eye(seen.shape[1]).to(seen)]),
        torch.cat([wanted, wanted.new_zeros(seen.shape[1], wanted.shape[1])]),
    ).solution.T
    for i, block in enumerate(new):
        for parameter in block.conv1.parameters():
            parameter.zero_()
        out, width = block.skip.weight.shape[:2]
        passed = torch.zeros(out, width)
        if i == len(new) - 1:
            passed[:, : mixed.shape[1]] = mixed
        else:
            passed.fill_diagonal_(1)
        block.skip.weight.copy_((passed / (block.skip.weight_gain * BRANCH_GAIN))[..., None, None])
