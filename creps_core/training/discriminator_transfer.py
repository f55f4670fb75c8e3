"""Transfer a trained discriminator to another size."""

from __future__ import annotations

import torch
from torch import nn

from ..network import BRANCH_GAIN, Block, Discriminator

_COLOURS = 4096  # random colours, to which the layers that read colours are fitted


@torch.no_grad()
def transfer(source: nn.Module, target: nn.Module) -> None:
    """Copy the parameters and buffers that both modules have by the same name and shape."""
    found = source.state_dict()
    for name, tensor in target.state_dict().items():
        if name in found and found[name].shape == tensor.shape:
            tensor.copy_(found[name])


@torch.no_grad()
def transfer_to_larger(source: Discriminator, target: Discriminator) -> None:
    """Initialise `target`, for larger images, to give about the logits that `source` gives the downsampled image.

    With random new levels instead, the trained levels would receive features unlike any they were trained on, and R1
    would flatten the whole discriminator before it adapts to them.

    The residual branches of the new levels start at zero. The first level reads colours with the filters of the
    source's first level, as many as it has channels for; the last new level maps these to the filters that the trained
    level expects (least squares over random colours); the levels in between pass them through.
    """
    transfer(source, target)
    trained = getattr(source, f"b{source.config.img_resolution}").fromrgb
    new: list[Block] = [getattr(target, f"b{level}") for level in target.config.levels]
    new = new[: len(target.config.levels) - len(source.config.levels)]
    first = new[0].fromrgb
    kept = min(len(first.weight), len(trained.weight))
    for ours, theirs in zip(first.parameters(), trained.parameters(), strict=True):
        ours[:kept] = theirs[:kept]

    rng = torch.Generator().manual_seed(0)
    colours = torch.rand(_COLOURS, first.weight.shape[1], 1, 1, generator=rng).to(first.weight) * 2 - 1
    inputs, targets = (layer(colours).flatten(1) for layer in (first, trained))
    mixed = torch.linalg.lstsq(
        torch.cat([inputs, 1e-3 * torch.eye(inputs.shape[1]).to(inputs)]),
        torch.cat([targets, targets.new_zeros(inputs.shape[1], targets.shape[1])]),
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
