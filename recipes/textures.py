"""The built-in `textures`: a generator with designed weights, not trained ones.

    python recipes/textures.py  writes creps_core/checkpoints/textures.safetensors

Random decoders fold a few smooth waves into silk and agate; the pixel blocks are a palette whose hues the latent turns.
The numbers are drawn as integers from NumPy's frozen random stream and computed by operations that IEEE 754 rounds
exactly (no logarithm, no BLAS sum), so the weights are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import builtin_file  # first: makes comfyui_creps importable
import numpy as np
import torch
from comfyui_creps.creps_core.network import RANK, Generator, GeneratorConfig
from program import State, bends

_SEED = 6  # chosen by eye
_FORM, _HUES = 60, 4  # latents that shape the lines, latents that turn the palette
_CONFIG = GeneratorConfig(
    128, z_dim=_FORM + _HUES, w_dim=_FORM + 2 * _HUES, mapping_layers=1, channel_base=1 << 14, channel_max=128
)
# Each level's cycles per frame, and the gain of its lines (the picture feels the square): large forms from the first,
# the others bend them. A strong fine level would show as a woven grid.
_LEVELS = ((0.42, 0.33), (0.7, 0.2), (1.5, 0.12), (3.5, 0.05), (10.0, 0.025))
_FIELDS = 3  # channels that a level feeds: with few, the decoders draw curves; with many, clouds
_DECODER_GAIN = 1.094  # keeps the variance of centred features through a leaky ReLU
_TONE = (1.7, 0.36)  # gain and offset of the field that runs along the palette: how many folds, how dark
_PATCH = (1.6, 0.5)  # and of the field that chooses between the two palettes
_FOLDS = np.arange(-20, 25) / 4  # knots of the tone: it runs to and fro through the palette, without an end in sight
_AMBER, _GREEN = np.array([1, 0.1, -1.1]), np.array([-0.35, 0.7, -0.35])  # hue axes; green and magenta soon look garish
# From shade to light: red, green, blue, and what the hues of the latent add, as a turned and scaled (amber, green).
_PALETTES = (
    (
        (-0.86, -0.88, -0.70, 0.04, -0.02),
        (-0.62, -0.70, -0.42, 0.22, -0.08),
        (-0.26, -0.26, -0.12, 0.44, 0.00),
        (0.24, 0.22, 0.14, 0.38, 0.10),
        (0.86, 0.76, 0.56, 0.10, 0.06),
    ),
    (
        (-0.86, -0.86, -0.74, 0.04, 0.02),
        (-0.56, -0.60, -0.42, 0.26, 0.08),
        (-0.14, -0.14, -0.06, 0.46, 0.00),
        (0.34, 0.32, 0.28, 0.36, -0.10),
        (0.84, 0.80, 0.70, 0.10, -0.06),
    ),
)
_STOPS = len(_PALETTES[0])
_HUE_MEAN = (0.15, -0.05, -0.15, 0.0)  # the average latent: amber in the first palette, azure in the second
_OPPOSITE, _OWN = -0.6, 0.6  # the second palette: the first one's hue turned by 135 degrees, plus a hue of its own


def build_textures() -> Generator:
    """The generator, on the CPU and ready to render."""
    rng = np.random.RandomState(_SEED)

    def normal(*shape: int) -> np.ndarray:
        """About normal, within 3.5 deviations; multiples of 1/1024, so that sums are exact in any order."""
        return (sum(rng.randint(-887, 888, shape, np.int32) for _ in range(4)) + np.zeros(shape)) / 1024

    state = _State(_CONFIG.w_dim)
    _fill_mapping(state)
    _fill_lines(state, normal)
    _fill_decoders(state, normal)
    _fill_palette(state, normal)
    with torch.random.fork_rng(devices=[]):  # the usual initialisation must not move torch's random stream
        generator = Generator(_CONFIG, "textures")
    generator.load_state_dict(state.tensors())
    return generator.eval().requires_grad_(False)


class _State(State):
    """A state dict under construction."""

    def modulated(
        self, name: str, weight: np.ndarray, style: np.ndarray | None = None, mean: np.ndarray | float = 1.0
    ) -> None:
        """A layer whose inputs are scaled by `style @ w / sqrt(w_dim) + mean`, by default by 1."""
        self.layer(name, weight)
        inputs = weight.shape[1]
        self.layer(f"{name}.affine", np.zeros((inputs, _CONFIG.w_dim)) if style is None else style, mean)

    def rows(self, name: str, rows: np.ndarray, bias: np.ndarray | float, shape: tuple[int, int]) -> np.ndarray:
        """A layer that computes these rows, padded with zeros to its shape; returns the gain of each output."""
        weight = np.zeros(shape)
        weight[: rows.shape[0], : rows.shape[1]] = rows
        self.modulated(name, weight)
        norms = np.array([math.sqrt(math.fsum(row * row)) for row in rows])
        self[f"{name}.bias"][: len(rows)] = bias / norms
        return math.sqrt(2) / norms


def _fill_mapping(state: _State) -> None:
    # Form latents are passed on. A hue latent x becomes leaky(1.5 x + 1) and leaky(1.5 x - 1), whose difference is a
    # ramp with flat ends: hardly a seed is grey, and none too colourful.
    weight = np.zeros((_CONFIG.w_dim, _CONFIG.z_dim))
    weight[:_FORM, :_FORM] = np.eye(_FORM)
    weight[_FORM:, _FORM:] = np.repeat(np.eye(_HUES), 2, 0) * 1.5
    bias = np.append(np.zeros(_FORM), np.tile([1.0, -1.0], _HUES))
    # The learning rate multiplier of the mapping is 0.01.
    state.layer("mapping.fc0", weight * 100 * math.sqrt(_CONFIG.z_dim), bias * 100)
    # Expectations for normal latents.
    state["mapping.w_avg"] = np.append(np.full(_FORM, 0.4514), np.tile([1.672, 1.672 - 1.2 * math.sqrt(2)], _HUES))


def _fill_lines(state: _State, normal: Callable[..., np.ndarray]) -> None:
    width, levels = _CONFIG.channel_max, _CONFIG.biline_levels
    waves, pairs = width // 4, RANK // 2  # half of the Fourier features are in use, the layers carry each twice
    owner = np.arange(waves) * len(levels) // waves  # the level that a wave belongs to
    band = np.array([cycles for cycles, _ in _LEVELS])[owner, None]
    # Ranks come in pairs, the real and the imaginary part of a complex line: products are waves in all directions,
    # where products of real lines cross upright, like tartan. A latent picks amplitudes and phases.
    freqs = np.zeros((2 * waves, RANK))
    freqs[:waves] = np.repeat(normal(waves, pairs), 2, 1) * band
    sign = np.zeros((2, 2 * waves, 2, pairs, 2))  # sine or cosine, wave, line, pair, part
    sign[:, :waves] = 1
    sign[1, :waves, ..., 1] = -1
    style = np.zeros((*sign.shape, _CONFIG.w_dim))
    amplitude = normal(2, waves, 2, pairs, _FORM)
    style[:, :waves, ..., :_FORM] = np.stack([amplitude, amplitude[::-1]], -2)
    style = style.reshape(-1, _CONFIG.w_dim)
    state["synthesis.b4.input.freqs"] = freqs.reshape(1, -1)
    state["synthesis.b4.input.weight"] = sign.reshape(1, width, 1, 2 * RANK)
    # 0.5 for the average latent, which so has a picture.
    state.layer("synthesis.b4.input.affine", style, 0.5 - style.sum(1) * (0.4514 / math.sqrt(_CONFIG.w_dim)))

    # The layers pass the waves on unbent, as x = (leaky(x) - leaky(-x)) / 1.2: a bend in a line would be an edge
    # across the picture. Each level takes the former's waves back, since coarse columns times fine rows are streaks.
    first = np.kron([[1, 0, 0, 0], [0, 0, 1, 0]], np.eye(waves))
    keep = np.kron([[1, -1], [-1, 1]], np.eye(2 * waves))
    state.modulated("synthesis.b4.fc1", np.append(first, -first, 0))
    gain, before = 1.2 * math.sqrt(2) / width, 0.0
    for k, level in enumerate(levels):
        gain *= 1.44
        fields = np.zeros((_CONFIG.biline_channels, 2 * waves))
        fields[_FIELDS * k : _FIELDS * (k + 1)] = np.tile(normal(_FIELDS, waves) * (owner == k) * _LEVELS[k][1], 2)
        change, before = (fields - before) / gain, fields
        state.modulated(f"synthesis.b{level}.fc0", keep)
        state.modulated(f"synthesis.b{level}.fc1", keep)
        state.modulated(f"synthesis.b{level}.tores", np.append(change, -change, 1))


def _fill_decoders(state: _State, normal: Callable[..., np.ndarray]) -> None:
    # Rows of sum zero take off what all features have in common, which would grow until the picture were flat.
    sizes = [_CONFIG.biline_channels * n for n in (1, 2, 4, 2, 1)]
    for name in (*_CONFIG.biline_levels[1:], "last"):
        for i in range(4):
            weight = normal(sizes[i + 1], sizes[i])
            state.layer(f"synthesis.decoder_{name}.{i}", (weight - weight.mean(1, keepdims=True)) * _DECODER_GAIN)


def _fill_palette(state: _State, normal: Callable[..., np.ndarray]) -> None:
    # Two fields are read off the feature. Block 0 turns the tone into shares of the stops of the first palette,
    # block 1 exchanges them for the second where the patch is 1. Shares sum to 1: no colour leaves the palettes.
    features, copies, folds = _CONFIG.biline_channels, 1 + _HUES, len(_FOLDS)
    tone, patch = (field - field.mean() for field in normal(2, features))
    rows = np.append(np.tile(tone * _TONE[0], (folds, 1)), np.tile(patch * _PATCH[0], (2, 1)), 0)
    offsets = np.append(_TONE[1] - _FOLDS, [_PATCH[1], _PATCH[1] - 1])
    gains = state.rows("synthesis.block0.fc0", rows / math.sqrt(features), offsets, (4 * features, features))
    place = np.abs((_FOLDS + 1) % 2 - 1) * (_STOPS - 1)
    rows, offsets = np.zeros((_STOPS + 1, folds + 2)), np.zeros(_STOPS + 1)
    for j in range(_STOPS):
        rows[j, :folds], offsets[j] = bends(_FOLDS, np.maximum(1 - np.abs(place - j), 0))
    rows[-1, folds:], offsets[-1] = bends(np.arange(2), np.arange(2))
    repeats = [copies] * _STOPS + [1]
    gains = state.rows(
        "synthesis.block0.fc1",
        np.repeat(rows / gains, repeats, 0),
        np.repeat(offsets, repeats),
        (4 * features, 4 * features),
    )
    first, second = _colours(_PALETTES[0], 1, 0, 0), _colours(_PALETTES[1], _OPPOSITE, _OPPOSITE, _OWN)
    state.layer("synthesis.decoder_img", np.zeros((3, features)))
    _paint(state, "synthesis.block0.tores", first, gains[:-1], 4 * features)

    gate = np.append(np.kron(np.eye(_STOPS), np.eye(copies)[0]), np.ones((_STOPS, 1)), 1) / gains  # both - 1 > 0
    gains = state.rows(
        "synthesis.block1.fc0", np.append(gate, -gate, 0), np.repeat([-1, 1], _STOPS), (2 * features, 4 * features)
    )
    relu = np.kron([1, 0.2], np.eye(_STOPS)) / 0.96 / gains
    gains = state.rows("synthesis.block1.fc1", np.repeat(relu, copies, 0), 0, (2 * features, 2 * features))
    _paint(state, "synthesis.block1.tores", second - first, gains, 2 * features)


def _colours(palette: tuple, amber: float, green: float, own: float) -> np.ndarray:
    """What each stop has of its colour by itself, and by each hue of the latent: [stops * (1 + hues), 3]."""
    table = np.array(palette)[:, None]
    p, q = table[..., 3:4], table[..., 4:]
    turned = [_axes(p * amber - q * green, p * green + q * amber), _axes(p * own, q * own)]
    return np.concatenate([table[..., :3], *turned], 1).reshape(-1, 3)


def _axes(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.append(p * _AMBER + q * _GREEN, p * _GREEN - q * _AMBER, 1)


def _paint(state: _State, name: str, colours: np.ndarray, gains: np.ndarray, inputs: int) -> None:
    """Units -> picture: the first of each `1 + _HUES` has its colour as it is, the others scale it by a hue."""
    units, copies, ramp = len(colours), 1 + _HUES, math.sqrt(_CONFIG.w_dim / 2) / 0.8
    weight, style, bias = np.zeros((3, inputs)), np.zeros((inputs, _CONFIG.w_dim)), np.ones(inputs)
    weight[:, :units] = (colours / gains[:, None]).T * math.sqrt(inputs)
    for i, mean in enumerate(_HUE_MEAN):
        style[i + 1 : units : copies, _FORM + 2 * i : _FORM + 2 * i + 2] = ramp, -ramp
        bias[i + 1 : units : copies] = mean - 1.5
    state.modulated(name, weight, style, bias)


if __name__ == "__main__":
    builtin_file.write_builtin(build_textures, __file__)
