"""Power-function averages of weights, whose width is chosen after the training.

Source: "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2, arXiv 2312.02696), section 3. At time
t of a training, measured in images, an average of power gamma weights the network at time tau by
(gamma + 1) tau^gamma / t^(gamma + 1). Its width is the standard deviation of this profile relative to t. Two widths are
updated during training; any other is approximately a linear combination of the averages in snapshots.
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
"""The range of widths; a uniform average of the whole training has 0.289."""


@lru_cache
def power_of(width: float) -> float:
    """gamma of a width: the largest solution of width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises:
        ValueError: the width is out of range.
    """
    if not NARROWEST <= width <= WIDEST:
        raise ValueError(f"the width of an average must be from {NARROWEST} to {WIDEST}, not {width}")
    t = width**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class Averages:
    """Power-function averages of a generator in training.

    Attributes:
        widths: of the averages.
        networks: one per width, on the generator's device.
        since: images shown before they began.
    """

    widths: tuple[float, ...]
    since: int

    def __init__(self, generator: Generator, since: int, widths: Sequence[float] = WIDTHS):
        self.widths, self.since = tuple(widths), since
        self.networks: list[Generator] = [copy.deepcopy(generator).requires_grad_(False).eval() for _ in widths]

    @torch.no_grad()
    def update(self, current: Generator, before: int, after: int) -> None:
        """Add the weights after a step that raised `num_images` from `before` to `after`."""
        for width, network in zip(self.widths, self.networks, strict=True):
            kept = (max(before - self.since, 0) / (after - self.since)) ** (power_of(width) + 1)
            averages, currents = ([*n.parameters()] for n in (network, current))
            torch._foreach_lerp_(averages, currents, 1 - kept)  # pyright: ignore

    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters by their names in a snapshot; buffers are those of the generator."""
        return {
            f"average{i}.{name}": parameter
            for i, network in enumerate(self.networks)
            for name, parameter in network.named_parameters()
        }

    def header(self) -> dict[str, object]:
        """Their description in a snapshot's header."""
        return {"widths": list(self.widths), "since": self.since}


def inner_product(a: tuple[float, float], b: tuple[float, float]) -> float:
    """The integral of the product of two profiles, each (gamma, t)."""
    (x, s), (y, t) = a, b
    shared = math.log(min(s, t)) * (x + y + 1) - math.log(s) * (x + 1) - math.log(t) * (y + 1)
    return (x + 1) * (y + 1) / (x + y + 1) * math.exp(shared)


def combination(stored: Sequence[tuple[float, float]], target: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Coefficients that approximate a target average by stored ones, each (gamma, t); their sum is 1.

    Returns:
        The coefficients, and the distance of their profile from the target, relative to its norm.
    """
    matrix = np.array([[inner_product(a, b) for b in stored] for a in stored])
    right = np.array([inner_product(a, target) for a in stored])
    norm = inner_product(target, target)
    # Least squares with a Lagrange multiplier, in units of the target profile.
    ones = np.ones((len(stored), 1))
    system = np.block([[matrix / norm, ones], [ones.T, np.zeros((1, 1))]])
    solution = np.linalg.lstsq(system, np.append(right / norm, 1.0), rcond=1e-10)[0][:-1]
    solution += (1 - solution.sum()) / len(solution)  # exactly: weights are large compared to their changes
    residual = norm - 2 * right @ solution + solution @ matrix @ solution
    return solution, math.sqrt(max(residual, 0.0) / norm)


def rebuild(
    path: str | os.PathLike[str], width: float, report: Callable[[str], object] = lambda line: None
) -> Generator:
    """Reconstruct the average of a width at the time of a snapshot, from it and the older snapshots in its folder.

    Args:
        path: a snapshot of a training.
        width: relative to the length of the training.
        report: called with a line on the accuracy of the result.

    Raises:
        CheckpointError: the file holds no averages, or cannot be used.
        ValueError: the width is out of range.
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
    report(f"an average of width {width} from {len(stored)} stored ones; their profile is {100 * distance:.1f} % off")
    result = network_of(tensors, "G")  # for the buffers
    for name in stored[0][1]:
        terms = [weight * values[name].double() for weight, (_, values) in zip(weights.tolist(), stored, strict=True)]
        result[name] = torch.stack(terms).sum(0).float()
    generator = build_generator(config, result, partial(CheckpointError.about, path))
    generator.name, generator.origin = path.stem, str(path)
    return generator
