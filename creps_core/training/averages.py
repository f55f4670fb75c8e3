"""Moving averages whose width is chosen after the training.

Source: "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2, arXiv 2312.02696), section 3. At time
t of a training, measured in pictures, an average of the power gamma holds what the weights were at time tau with the
weight (gamma + 1) tau^gamma / t^(gamma + 1). Its width is that profile's standard deviation relative to t. Two widths
are followed; any other is, nearly, a linear combination of averages that snapshots hold.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...common.errors import CheckpointError
from ..checkpoints import build_generator, network_of, read_own
from ..network import Generator

WIDTHS = (0.05, 0.1)
NARROWEST, WIDEST = 0.01, 0.28
"""The widths that can be asked for; an even average of the whole training has 0.289."""


@lru_cache
def power_of(width: float) -> float:
    """gamma of a width: the largest solution of width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: a width that makes no sense.
    """
    if not NARROWEST <= width <= WIDEST:
        raise ValueError(f"the width of an average must be from {NARROWEST} to {WIDEST}, not {width}")
    t = width**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class Averages:
    """The averages of a generator in training.

    Attributes:
        widths: of them.
        networks: one for each width, on the generator's device.
        since: pictures that had been shown when they began.
    """

    def __init__(self, generator: Generator, since: int, widths: Sequence[float] = WIDTHS):
        self.widths, self.since = tuple(widths), since
        self.networks = [copy.deepcopy(generator).requires_grad_(False).eval() for _ in widths]

    @torch.no_grad()
    def update(self, current: Generator, before: int, after: int) -> None:
        """Add the weights after a step that raised `num_images` from `before` to `after`."""
        for width, network in zip(self.widths, self.networks, strict=True):
            kept = (max(before - self.since, 0) / (after - self.since)) ** (power_of(width) + 1)
            averages, currents = ([*n.parameters()] for n in (network, current))
            torch._foreach_lerp_(averages, currents, 1 - kept)  # pyright: ignore

    def tensors(self) -> dict[str, Tensor]:
        """By name in a snapshot; buffers are those of the generator."""
        return {
            f"average{i}.{name}": parameter
            for i, network in enumerate(self.networks)
            for name, parameter in network.named_parameters()
        }

    def header(self) -> dict[str, object]:
        """What a snapshot's header has to say of them."""
        return {"widths": list(self.widths), "since": self.since}


def inner_product(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Of the profiles of two averages, each (gamma, t): the integral of their product."""
    (x, s), (y, t) = a, b
    shared = math.log(min(s, t)) * (x + y + 1) - math.log(s) * (x + 1) - math.log(t) * (y + 1)
    return (x + 1) * (y + 1) / (x + y + 1) * math.exp(shared)


def combination(stored: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Coefficients of stored averages, each (gamma, t), that come nearest to a wanted one; their sum is 1.

    Returns:
        The coefficients, and how far their profile is from the wanted one, relative to its norm.
    """
    matrix = np.array([[inner_product(a, b) for b in stored] for a in stored])
    right = np.array([inner_product(a, wanted) for a in stored])
    norm = inner_product(wanted, wanted)
    # Least squares with a Lagrange multiplier, in units of the wanted profile.
    ones = np.ones((len(stored), 1))
    system = np.block([[matrix / norm, ones], [ones.T, np.zeros((1, 1))]])
    solution = np.linalg.lstsq(system, np.append(right / norm, 1.0), rcond=1e-10)[0][:-1]
    solution += (1 - solution.sum()) / len(solution)  # exactly: weights are large beside what they move by
    missed = norm - 2 * right @ solution + solution @ matrix @ solution
    return solution, math.sqrt(max(missed, 0.0) / norm)


def rebuild(path: str | os.PathLike[str], width: float, say: Callable[[str], object] = lambda line: None) -> Generator:
    """The average of a width at the time of a snapshot, from the averages in it and in older ones of its folder.

    Args:
        path: a snapshot of the trainer.
        width: relative to the length of the training.
        say: is told how near the result comes.

    Raises:
        CheckpointError: the file holds no averages, or cannot be used.
        ValueError: a width out of range.
    """
    path, power = Path(path), power_of(width)
    config, header, tensors = read_own(path)
    found = header.get("averages")
    if not found or not header["counters"]["shown"] > found["since"]:
        raise CheckpointError.about(
            path, "holds no averages of chosen width", "Choose a snapshot of version 0.2 or later, or leave out --ema"
        )
    stored: list[tuple[tuple[float, float], dict[str, Tensor]]] = []
    for file in sorted({path, *path.parent.glob("snapshot-*.safetensors")}):
        if file.name > path.name:
            continue
        other, head, values = (config, header, tensors) if file == path else read_own(file)
        averages = head.get("averages") or {"widths": [], "since": None}
        if other != config or averages["since"] != found["since"]:
            continue
        time = head["counters"]["shown"] - averages["since"]
        for i, each in enumerate(averages["widths"] if time > 0 else []):
            stored.append(((power_of(each), time), network_of(values, f"average{i}")))
    now = header["counters"]["shown"] - found["since"]
    weights, distance = combination([profile for profile, _ in stored], (power, now))
    say(f"an average of width {width} from {len(stored)} stored ones; their profile is {100 * distance:.1f} % off")
    result = network_of(tensors, "G")  # for the buffers
    for name in stored[0][1]:
        parts = [weight * values[name].double() for weight, (_, values) in zip(weights.tolist(), stored, strict=True)]
        result[name] = torch.stack(parts).sum(0).float()
    generator = build_generator(config, result, partial(CheckpointError.about, path))
    generator.name, generator.origin = path.stem, str(path)
    return generator
