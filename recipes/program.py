"""Compile formulas into the weights of a generator's layers.

A `Value` is a linear function of the units of one layer. A `Layer` makes units from values, with a leaky ReLU each, and
returns values of the next layer: the same values, absolute values, clipped ones, or piecewise linear functions of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

GAIN = math.sqrt(2)
"""Gain of a fully connected unit: its activation as a multiple of the intended value."""
_SLOPE = 0.2


@dataclass(frozen=True)
class Value:
    """`const + sum of terms[unit] * unit`, known to lie in `low`..`high` for all relevant inputs."""

    terms: Mapping[int, float] = field(default_factory=dict)
    const: float = 0.0
    low: float = 0.0
    high: float = 0.0
    of: int = 0  # number of the layer with these units, 0 for a constant

    def __add__(self, other: Value | float) -> Value:
        if not isinstance(other, Value):
            return replace(self, const=self.const + other, low=self.low + other, high=self.high + other)
        if self.of and other.of and self.of != other.of:
            raise ValueError("values of different layers do not add up")
        terms = dict(self.terms)
        for unit, factor in other.terms.items():
            terms[unit] = terms.get(unit, 0.0) + factor
        return Value(terms, self.const + other.const, self.low + other.low, self.high + other.high, self.of or other.of)

    def __mul__(self, factor: float) -> Value:
        ends = sorted((self.low * factor, self.high * factor))
        return Value(
            {unit: f * factor for unit, f in self.terms.items()}, self.const * factor, ends[0], ends[1], self.of
        )

    def __neg__(self) -> Value:
        return self * -1.0

    def __sub__(self, other: Value | float) -> Value:
        return self + -other

    def __rsub__(self, other: float) -> Value:
        return -self + other

    def within(self, low: float, high: float) -> Value:
        """The same value with a narrower known range: the range of a sum is too wide."""
        return replace(self, low=low, high=high)

    __radd__, __rmul__ = __add__, __mul__


def total(values: Sequence[Value]) -> Value:
    """The sum of values."""
    return sum(values, Value())


class Layer:
    """A layer under construction: each unit is `leaky_relu(value of the previous layer)`."""

    _count = 0

    def __init__(self) -> None:
        Layer._count += 1
        self._number = Layer._count
        self._inputs = 0
        self.units: list[Value] = []
        self._known: dict[tuple, int] = {}

    def leaky(self, value: Value) -> Value:
        """A unit: the leaky ReLU of a value. Equal units are shared."""
        if value.of and self._inputs not in (0, value.of):
            raise ValueError("a layer has the units of one layer as its inputs")
        self._inputs = self._inputs or value.of
        terms = {unit: factor for unit, factor in value.terms.items() if factor}
        key = (tuple(sorted(terms.items())), value.const)
        if key not in self._known:
            self._known[key] = len(self.units)
            self.units.append(replace(value, terms=terms))
        ends = [x if x > 0 else _SLOPE * x for x in (value.low, value.high)]
        return Value({self._known[key]: 1.0}, 0.0, ends[0], ends[1], self._number)

    def copy(self, value: Value) -> Value:
        """A unit that is not shared, for a value that is not negative."""
        self.units.append(value)
        return Value({len(self.units) - 1: 1.0}, 0.0, value.low, value.high, self._number)

    def keep(self, value: Value) -> Value:
        """The value itself, shifted to be positive, where the leaky ReLU is the identity."""
        return (self.leaky(value - min(value.low, 0.0)) + min(value.low, 0.0)).within(value.low, value.high)

    def all_keep(self, *values: Value) -> list[Value]:
        """`keep` for several values."""
        return [self.keep(value) for value in values]

    def abs(self, value: Value) -> Value:
        """|value|."""
        size = max(abs(value.low), abs(value.high))
        return ((self.leaky(value) + self.leaky(-value)) * (1 / (1 - _SLOPE))).within(0.0, size)

    def relu(self, value: Value) -> Value:
        """max(value, 0)."""
        if value.low >= 0:
            return self.keep(value)
        both = self.leaky(value) + self.leaky(-value) * _SLOPE
        return (both * (1 / (1 - _SLOPE**2))).within(0.0, max(value.high, 0.0))

    def clip(self, value: Value, low: float = 0.0, high: float = 1.0) -> Value:
        """The value, clamped to low..high."""
        return self.curve(value, (low, high), (low, high))

    def curve(self, value: Value, knots: Sequence[float], heights: Sequence[float]) -> Value:
        """Piecewise linear interpolation of the points (knot, height), constant outside them."""
        factors, offset = bends(np.array(knots), np.array(heights))
        parts = [
            self.leaky(value - knot) * float(factor) for knot, factor in zip(knots, factors, strict=True) if factor
        ]
        return (total(parts) + offset).within(min(heights), max(heights))

    def least(self, value: Value, bound: Value) -> Value:
        """The value, clamped to -bound..bound; `bound` is not negative."""
        both = self.leaky(value + bound) - self.leaky(value - bound)
        kept = self.keep(bound)
        clipped = (both - kept * (1 + _SLOPE)) * (1 / (1 - _SLOPE))
        return clipped.within(max(value.low, -bound.high), min(value.high, bound.high))

    def same_sign(self, a: Value, b: Value) -> Value:
        """The smaller of |a| and |b|, with the sign of a * b."""
        size = min(max(abs(v.low), abs(v.high)) for v in (a, b))
        return ((self.abs(a + b) - self.abs(a - b)) * 0.5).within(-size, size)


class State(dict[str, np.ndarray]):
    """A state dict under construction.

    Gains [units] are the activations of a layer's units as multiples of the intended values.
    """

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self._w_dim = w_dim

    def layer(self, name: str, weight: np.ndarray, bias: np.ndarray | float = 0.0) -> None:
        """Store the weight and bias of a layer."""
        self[f"{name}.weight"], self[f"{name}.bias"] = weight, np.zeros(len(weight)) + bias

    def affine(self, name: str, styles: Sequence[Value]) -> None:
        """An affine layer that makes styles, given as values of the units of w."""
        rows = matrix(styles, self._w_dim) * (math.sqrt(self._w_dim) / GAIN)
        self.layer(name, rows, np.array([style.const for style in styles]))

    def connected(self, name: str, layer: Layer, gains: np.ndarray, outputs: int, rate: float = 1.0) -> np.ndarray:
        """A fully connected layer (learning rate multiplier `rate`) for inputs with these gains; returns its gains."""
        weight, bias = _stored(layer, gains, outputs)
        self.layer(name, weight * math.sqrt(weight.shape[1]) / rate, bias / rate)
        return np.full(outputs, GAIN)

    def demodulated(self, name: str, layer: Layer, gains: np.ndarray, outputs: int) -> np.ndarray:
        """A modulated layer with styles of 1 for inputs with these gains; returns its gains."""
        weight, bias = _stored(layer, gains, outputs)
        norms = np.sqrt(np.array([math.fsum(row * row) for row in weight]))
        norms[norms == 0] = 1
        self.layer(name, weight, bias / norms)
        self.affine(f"{name}.affine", [Value(const=1.0)] * len(gains))
        return GAIN / norms

    def branch(
        self,
        name: str,
        values: Sequence[Value],
        gains: np.ndarray,
        outputs: int,
        styles: Mapping[int, Value] | None = None,
    ) -> None:
        """A modulated layer without demodulation and activation, as the branches to bi-lines and image have.

        `styles` scale inputs by their index; other inputs have a style of 1.
        """
        weight, bias = np.zeros((outputs, len(gains))), np.zeros(outputs)
        weight[: len(values)] = matrix(values, len(gains)) / gains * math.sqrt(len(gains))
        bias[: len(values)] = [value.const for value in values]
        self.layer(name, weight, bias)
        self.affine(f"{name}.affine", [(styles or {}).get(i, Value(const=1.0)) for i in range(len(gains))])

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state dict, float32."""
        return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in self.items()}


def bends(knots: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, float]:
    """A piecewise linear function, constant at both ends, as weights of leaky_relu(x - knot) and an offset."""
    weights = np.diff(np.diff(heights) / np.diff(knots), prepend=0, append=0) / (1 - _SLOPE)
    return weights, float(heights[0] + _SLOPE * math.fsum(weights * knots))


def matrix(values: Sequence[Value], inputs: int) -> np.ndarray:
    """The coefficients of values as rows [len(values), inputs]."""
    rows = np.zeros((len(values), inputs))
    for row, value in zip(rows, values, strict=True):
        for unit, factor in value.terms.items():
            row[unit] = factor
    return rows


def _stored(layer: Layer, gains: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    if len(layer.units) > outputs:
        raise ValueError(f"{len(layer.units)} units do not fit a layer of {outputs}")
    weight, bias = np.zeros((outputs, len(gains))), np.zeros(outputs)
    weight[: len(layer.units)] = matrix(layer.units, len(gains)) / gains
    bias[: len(layer.units)] = [unit.const for unit in layer.units]
    return weight, bias
