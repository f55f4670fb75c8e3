"""Combine two generators of one architecture: interpolate their weights, or swap their fine levels."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ...common.errors import require_finite
from ..network import Generator
from .build import build_generator

_LEVEL = re.compile(r"synthesis\.(?:b|decoder_)(\d+)\.")


def blend_weights(a: Generator, b: Generator, amount: float = 0.5) -> Generator:
    """Interpolate the weights of two generators linearly.

    This works for related generators (one fine-tuned from the other, or both from a third); weights of independent
    trainings have nothing in common.

    Args:
        a, b: of one architecture; neither is changed.
        amount: 0 is a, 1 is b; values outside 0..1 extrapolate and exaggerate the difference.

    Returns:
        A new generator on the device of a.

    Raises:
        ValueError: the architectures differ.
    """
    return _combine(a, b, dict.fromkeys(a.state_dict(), amount), f"{a.name} {1 - amount:.3g} + {b.name} {amount:.3g}")


def swap_levels(a: Generator, b: Generator, level: int, mapping_amount: float = 0.0) -> Generator:
    """Combine the coarse levels of a with the fine levels of b: the shapes of a in the style of b.

    Levels of the column/row network below `level`, with their decoders, come from a; all others, the last decoder and
    the pixel blocks come from b.

    Args:
        a, b: related generators of one architecture, see `blend_weights`; neither is changed.
        level: the first level taken from b, one of `config.levels`.
        mapping_amount: interpolates the mapping network: 0 is that of a, 1 that of b.

    Returns:
        A new generator on the device of a.

    Raises:
        ValueError: the architectures differ, or there is no such level.
    """
    if level not in a.config.levels:
        raise ValueError(f"{a.name} has the levels {list(a.config.levels)}, not {level}")
    amounts = {
        name: mapping_amount if name.startswith("mapping.") else _is_fine(name, level) for name in a.state_dict()
    }
    return _combine(a, b, amounts, f"{a.name} below {level} + {b.name}")


def _is_fine(name: str, level: int) -> float:
    match = _LEVEL.match(name)
    return float(match is None or int(match[1]) >= level)


def _combine(a: Generator, b: Generator, amounts: dict[str, float], name: str) -> Generator:
    for amount in amounts.values():
        require_finite("amount", amount)
    if a.config != b.config:
        ours, theirs = a.config.to_dict(), b.config.to_dict()
        differing = [f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key]]
        raise ValueError(f"{a.name} and {b.name} are of different architectures: {', '.join(differing)}")
    other = b.state_dict()
    with torch.no_grad():
        blended = {key: _lerp(tensor, other[key].to(tensor), amounts[key]) for key, tensor in a.state_dict().items()}
    generator = build_generator(a.config, blended).with_training_metadata_of(a)
    generator.name = name
    return generator


def _lerp(a: Tensor, b: Tensor, amount: float) -> Tensor:
    if amount in (0, 1):
        return (b if amount else a).clone()
    return torch.lerp(a, b, amount)
