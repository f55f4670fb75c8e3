"""The mapping network: z -> w, of which every property of the scene is a linear function."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from alpenglow_colours import HOURS
from program import GAIN, Layer, Value, matrix, total

Z_DIM, W_DIM = 64, 112
FORM = 44  # the first latents shape the waves; each of the others controls one property
_ENDS = (-1.9, -0.9, 0.9, 1.9)  # standard deviations between which a normal number is mapped to a uniform one
_HOURS = (-1.5, -0.95, -0.45, 0.0, 0.45, 0.95, 1.5)  # standard deviations of the hours

PROPERTIES = {
    # name: range over the seeds; lengths in frames, y upwards from the water
    "sun x": (0.2, 0.8),
    "sun height": (0.1, 0.5),
    "sun size": (0.0008, 0.003),  # radius squared
    "waterline": (0.62, 0.72),  # y of the picture, downwards
    "mist": (-0.06, 0.08),  # how far it rises
    "snow line": (0.06, 0.34),
    "clouds": (-1.6, 0.6),
    "bank": (-0.32, -0.19),  # height of the near bank
    "mountains": (0.7, 1.25),  # height, as a factor
    "woods": (-0.5, 0.5),  # height of wooded shores, in firs
}

_DIRECTIONS = {  # sign and name
    "sun x": (1, "sun to the right"),
    "sun height": (1, "higher sun"),
    "sun size": (1, "larger sun"),
    "waterline": (-1, "wider lake"),
    "mist": (1, "mist"),
    "snow line": (-1, "snow"),
    "clouds": (1, "clouds"),
    "bank": (1, "nearer bank"),
    "mountains": (1, "higher mountains"),
    "woods": (1, "woods"),
}


class Meaning:
    """The units of w, and the properties of the scene as values of them."""

    def __init__(self, rng: np.random.RandomState) -> None:
        self.layer = Layer()
        self._rng = rng
        z = [Value({i: 1.0}, 0.0, -4.0, 4.0) for i in range(Z_DIM)]
        self._form = [self.layer.keep(value) for value in z[:FORM]]
        rest = iter(z[FORM:])
        self.properties = {name: self._even(rest, *ends) for name, ends in PROPERTIES.items()}
        hour = next(rest)
        self.hours = [self.layer.curve(hour, _HOURS, row) for row in np.eye(len(HOURS)).tolist()]
        """The share of each hour; they sum to 1."""

    def _even(self, rest: Iterator[Value], low: float, high: float) -> Value:
        shares = [0.0, *(0.5 * (1 + math.erf(end / math.sqrt(2))) for end in _ENDS[1:-1]), 1.0]
        return self.layer.curve(next(rest), _ENDS, [low + (high - low) * share for share in shares])

    def wander(self, mean: float, deviation: float) -> Value:
        """A normally distributed value that depends on the form latents, each with its own random mix of them."""
        mix = normal(self._rng, FORM)
        mix *= deviation / math.sqrt(math.fsum(mix * mix))
        return total([latent * float(factor) for latent, factor in zip(self._form, mix, strict=True)]) + mean

    def average(self) -> np.ndarray:
        """The expectation of the units of w, [W_DIM]: E leaky(a z + b) for normal z."""
        mean = np.zeros(W_DIM)
        for i, unit in enumerate(self.layer.units):
            (a,), b = unit.terms.values(), unit.const
            density = math.exp(-((b / a) ** 2) / 2) / math.sqrt(2 * math.pi)
            positive = b * 0.5 * (1 + math.erf(b / abs(a) / math.sqrt(2))) + abs(a) * density
            mean[i] = (positive + 0.2 * (b - positive)) * math.sqrt(2)
        return mean

    def directions(self) -> dict[str, np.ndarray]:
        """Steps in w, [W_DIM]: each changes one property by a quarter of its range, or moves halfway to an hour."""
        values = [*self.properties.values(), *self.hours]
        effects = np.linalg.pinv(matrix(values, W_DIM))  # the shortest steps, which leave other properties unchanged
        found = {}
        for i, (name, (low, high)) in enumerate(PROPERTIES.items()):
            sense, title = _DIRECTIONS[name]
            found[title] = effects[:, i] * (sense * (high - low) / 4)
        hours = effects[:, len(PROPERTIES) :]
        for i, name in enumerate(HOURS):
            found[name] = (hours[:, i] - hours.mean(1)) * 0.5
        return {name: direction * GAIN for name, direction in found.items()}


def normal(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    """Approximately normal numbers within 3.5 deviations, from NumPy's frozen random stream."""
    return (sum(rng.randint(-887, 888, shape, np.int32) for _ in range(4)) + np.zeros(shape)) / 1024
