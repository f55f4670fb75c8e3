"""The built-in `alpenglow`: its fields are the formulas that they are meant to be, its pictures what they promise."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from alpenglow_lines import RANGES, write_lines
from alpenglow_meaning import PROPERTIES, Meaning
from comfyui_creps.creps_core import load_builtin, load_generator, render, sample, save_generator
from comfyui_creps.creps_core.latents import find_directions
from comfyui_creps.creps_core.network import COLUMNS, ROWS
from program import State, Value

SEEDS = range(12)
SIDE = 192


@pytest.fixture(scope="module")
def generator():
    return load_builtin("alpenglow")


@pytest.fixture(scope="module")
def latents(generator):
    return sample(generator, SEEDS)


@pytest.fixture(scope="module")
def pictures(generator, latents):
    return render(generator, latents, height=SIDE, width=SIDE)


@pytest.fixture(scope="module")
def design(generator):
    """What the latents mean, and the channels of the fields."""
    rng = np.random.RandomState(4)
    meaning, state = Meaning(rng), State(generator.config.w_dim)
    return meaning, write_lines(state, meaning, generator.config, rng)


def read(value: Value, w: torch.Tensor) -> float:
    return value.const + sum(factor * w[unit].item() / 2**0.5 for unit, factor in value.terms.items())


def fields_of(generator, ws: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[L, channels, y, x] in float64."""
    exact = copy.deepcopy(generator).double().synthesis
    styles = exact.line_styles(ws.double())
    columns, rows = exact.bilines(styles, y, COLUMNS)[0], exact.bilines(styles, x, ROWS)[0]
    return torch.einsum("lciq,lcjq->lcij", columns, rows) / 2


@pytest.mark.parametrize("seed", [0, 5, 11])
def test_fields_are_what_they_are_called(generator, latents, design, seed: int):
    meaning, channels = design
    ws = latents[seed : seed + 1]
    is_ = {name: read(value, ws[0, 0].double()) for name, value in meaning.properties.items()}
    y = torch.linspace(-0.2, 1.2, 57, dtype=torch.float64)
    x = torch.linspace(-0.3, 1.3, 61, dtype=torch.float64)
    found = dict(zip(channels, fields_of(generator, ws, y, x)[0], strict=False))
    water = (y - is_["waterline"])[:, None].expand(-1, len(x))
    lift = water.abs()
    dx, dy = (x - is_["sun x"])[None], (lift - is_["sun height"])
    expected = {
        "water": water,
        "lift": lift,
        "beside": dx.abs().expand_as(lift),
        "snow": lift - is_["snow line"],
        "mist": torch.full_like(lift, is_["mist"]),
        "cover": torch.full_like(lift, is_["clouds"]),
    }
    for name, field in expected.items():
        assert (found[name] - field).abs().max() < 1e-4, name
    square = dx.square() + dy.square()
    near = (dx.abs() < 0.09) & (dy.abs() < 0.09)
    sun = is_["sun size"] - square
    assert (found["sun"] - sun)[near].abs().max() < 2e-5  # the radius is right to 1/4000 of the frame
    assert (found["glow"] - square).abs().max() < 0.06


def test_a_field_is_found_once(generator, latents):
    """Bi-lines add up over the levels: from the second on nothing is left."""
    y = torch.linspace(0, 1, 33, dtype=torch.float64)
    first, *others = fields_of(generator, latents[:1], y, y)
    assert first.abs().max() > 0.5
    assert all(field.abs().max() < 1e-6 for field in others)


def test_the_sun_stands_where_it_should_and_is_round(generator, design):
    """The disc of a seed, found by its colour, has the area and the extents of a circle."""
    meaning, _ = design
    ws = sample(generator, [9])  # night: nothing else is as bright
    w = ws[0, 0].double()
    x, height, waterline = (read(meaning.properties[name], w) for name in ("sun x", "sun height", "waterline"))
    radius = read(meaning.properties["sun size"], w) ** 0.5
    y, n = waterline - height, 400
    window = (y - 0.1, x - 0.1, y + 0.1, x + 0.1)
    shown = render(generator, ws, height=n, width=n, window=window)[0].mean(0)
    disc = (shown > shown[n // 2, n // 2] - 0.5).double()
    scale = 0.2 / (n - 1)
    assert disc.sum() * scale**2 == pytest.approx(np.pi * radius**2, rel=0.02)
    for axis in (0, 1):
        assert disc.amax(axis).sum() * scale == pytest.approx(2 * radius, rel=0.02)


def test_edges_are_as_sharp_as_the_frame_is_fine(generator, latents):
    """The bank's edge is narrower than 1/1000 of the frame: it was not drawn in pixels."""
    ws = latents[3:4]
    column = torch.tensor([0.41], dtype=torch.float64)
    y = torch.linspace(0.7, 1.1, 40001, dtype=torch.float64)
    with torch.no_grad():
        line = generator.synthesis(ws, y, column)[0, :, :, 0].mean(0)
    steps = line.diff()
    steepest = steps.abs().argmax()
    below, above = line[max(steepest - 100, 0)], line[steepest + 100]
    inside = ((line - below) / (above - below))[steepest - 100 : steepest + 100]
    assert ((inside > 0.1) & (inside < 0.9)).sum() * (0.4 / 40000) < 1e-3


def test_shares_sum_to_one(generator, latents):
    """With one colour for every share, and no lights, the picture has that colour everywhere."""
    plain = copy.deepcopy(generator)
    tores = plain.synthesis.block0.tores
    with torch.no_grad():
        tores.affine.weight.zero_()
        bias = torch.zeros_like(tores.affine.bias)
        bias[: 3 * 11] = 1.5
        tores.affine.bias.copy_(bias)
    picture = render(plain, latents[:4], height=97, width=97)
    off = (picture - 0.5).abs()
    assert (off < 0.01).float().mean() > 0.98  # edges of two outlines in one pixel may be off
    assert off.max() < 1.6


def test_float32_is_enough(generator, latents):
    y = torch.linspace(0, 1, 65, dtype=torch.float64)
    exact = copy.deepcopy(generator).double().synthesis
    with torch.no_grad():
        levels = (generator.synthesis(latents[:2], y, y) - exact(latents[:2].double(), y, y)).abs() * 127.5
    assert (levels < 1).float().mean() > 0.995


def test_seeds_are_different_scenes(pictures):
    small = torch.nn.functional.avg_pool2d(pictures, 16).flatten(1)
    distances = torch.cdist(small, small) / small.shape[1] ** 0.5
    assert distances[~torch.eye(len(small), dtype=torch.bool)].min() > 0.08
    assert pictures.std((1, 2, 3)).min() > 0.2


def test_psi_calms(generator, pictures):
    calm = render(generator, sample(generator, SEEDS, truncation_psi=0.5), height=SIDE, width=SIDE)
    assert calm.flatten(1).std(0).mean() < 0.7 * pictures.flatten(1).std(0).mean()
    none = render(generator, sample(generator, [1, 2], truncation_psi=0.0), height=64, width=64)
    assert torch.equal(none[0], none[1])
    assert none.std() > 0.2


def test_w_avg_is_the_mean_of_w(generator):
    w = sample(generator, range(4000))[:, 0]
    assert (w.mean(0) - generator.mapping.w_avg).abs().max() < 0.1


def test_the_land_goes_on_beyond_the_frame(generator, latents):
    wide = render(generator, latents[:1], height=96, width=288, window=(0.0, -1.0, 1.0, 2.0))[0]
    left, middle, right = wide.split(96, dim=2)
    for part in (left, right):
        assert part.std() > 0.5 * middle.std()
        assert part.diff(dim=2).abs().mean() > 0.3 * middle.diff(dim=2).abs().mean()


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_named_direction_changes_its_property_alone(generator, latents, design, name: str):
    meaning, _ = design
    directions = find_directions(generator, "Named", count=100)
    index = list(PROPERTIES).index(name)
    before = latents[0, 0].double()
    after = before + (directions.steps[index] * directions.vectors[index]).double()
    low, high = PROPERTIES[name]
    for other, value in meaning.properties.items():
        change = read(value, after) - read(value, before)
        assert abs(change) == pytest.approx((high - low) / 4 if other == name else 0, abs=1e-5), other
    assert all(abs(read(hour, after) - read(hour, before)) < 1e-5 for hour in meaning.hours)


def test_named_directions_survive_a_checkpoint(generator, tmp_path):
    save_generator(generator, tmp_path / "g.safetensors")
    again = load_generator(tmp_path / "g.safetensors")
    assert list(again.directions) == list(generator.directions)
    found = find_directions(again, "Named", count=3)
    assert found.titles == ("sun to the right", "higher sun", "larger sun")
    with pytest.raises(ValueError, match="no directions with names"):
        find_directions(load_builtin("textures"), "Named")


def test_every_range_is_seen(generator, latents, design):
    """Over the seeds, each range of mountains, the woods and the bank show somewhere."""
    _, channels = design
    y = torch.linspace(0, 1, 64, dtype=torch.float64)
    for r in range(RANGES):
        inside = [fields_of(generator, ws[None], y, y)[0, channels[f"range {r}"]] > 0 for ws in latents[:6]]
        assert any(0.003 < part.double().mean() < 0.95 for part in inside), r
