"""Formulas compiled into layers: the layers of a network compute the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.network import FullyConnected, ModulatedLinear
from program import Layer, State, Value

X, Y = Value({0: 1.0}, 0.0, -2.0, 2.0), Value({1: 1.0}, 0.0, -2.0, 2.0)
POINTS = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, (200, 2))).float()
x, y = POINTS.double().T.numpy()
KNOTS, HEIGHTS = (-1.0, 0.25, 1.5), (0.5, -1.0, 2.0)
CASES = {
    "keep": (lambda layer: layer.keep(X * 0.5 - Y), x * 0.5 - y),
    "abs": (lambda layer: layer.abs(X + Y * 0.3 - 0.2), np.abs(x + 0.3 * y - 0.2)),
    "relu": (lambda layer: layer.relu(X - 0.5), np.maximum(x - 0.5, 0)),
    "curve": (lambda layer: layer.curve(X, KNOTS, HEIGHTS), np.interp(x, KNOTS, HEIGHTS)),
    "a step": (lambda layer: layer.curve(X, (-0.01, 0.01), (0.0, 1.0)), np.clip(x * 50 + 0.5, 0, 1)),
    "least": (lambda layer: layer.least(X, (Y + 2.0) * 0.25), np.clip(x, -(y + 2) / 4, (y + 2) / 4)),
    "same_sign": (lambda layer: layer.same_sign(X, Y), np.sign(x * y) * np.minimum(abs(x), abs(y))),
    "a sum": (lambda layer: layer.abs(X) * 2.0 - layer.relu(Y) + 1.0, 2 * np.abs(x) - np.maximum(y, 0) + 1),
}


def activated(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.leaky_relu(features, 0.2) * 2**0.5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["connected", "demodulated"])
def test_a_layer_computes_its_formula(case: str, kind: str):
    """Two layers: the second keeps what the first made, from the gains that the first reported."""
    state, first, second = State(3), Layer(), Layer()
    formula, expected = CASES[case]
    second.keep(formula(first))
    gains = np.array([1.0, 1.0])
    for name, layer, size in (("a", first, 8), ("b", second, 4)):
        gains = getattr(state, kind)(name, layer, gains, size)
    features, w = POINTS, torch.zeros(1, 3)
    for name, sizes in (("a", (2, 8)), ("b", (8, 4))):
        module = FullyConnected(*sizes) if kind == "connected" else ModulatedLinear(*sizes, 3)
        tensors = state.tensors()
        module.load_state_dict({key[2:]: t for key, t in tensors.items() if key.startswith(name + ".")})
        features = activated(module(features)) if kind == "connected" else module(features[None], w)[0]
    found = features[:, 0].detach().double().numpy() / gains[0]
    lifted = second.units[0]
    shift = (found - expected).mean()  # what is kept is lifted above zero
    assert shift > -1e-3
    assert np.abs(found - expected - shift).max() < 2e-4
    assert lifted.low >= 0


def test_ranges_hold():
    layer = Layer()
    for formula, expected in CASES.values():
        value = formula(layer)
        assert value.low <= expected.min() + 1e-9
        assert value.high >= expected.max() - 1e-9


def test_equal_units_are_one():
    layer = Layer()
    layer.abs(X)
    layer.abs(X)
    layer.keep(Y)
    assert len(layer.units) == 3


def test_values_of_different_layers_do_not_mix():
    first, second = Layer(), Layer()
    kept = second.keep(first.keep(X))
    with pytest.raises(ValueError, match="different layers"):
        kept + first.abs(X)
    with pytest.raises(ValueError, match="one layer"):
        second.keep(kept)


def test_a_layer_that_is_too_narrow_says_so():
    layer = Layer()
    layer.abs(X)
    with pytest.raises(ValueError, match="2 units do not fit a layer of 1"):
        State(3).connected("a", layer, np.ones(2), 1)
