"""Ways through the space of latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import Generator, load_builtin, render, sample
from comfyui_creps.creps_core.latents import (
    CURVES,
    LATENT_EASINGS,
    average_latents,
    concatenate,
    interpolate,
    random_walk,
    sample_latents,
)
from comfyui_creps.creps_core.latents.interpolation import latent_curve, periodic_noise
from networks import make_generator

GENERATOR = make_generator()
CLASSES = make_generator(c_dim=3)
OTHER = make_generator(img_resolution=64)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("easing", [easing for easing in LATENT_EASINGS if easing != "even"])
@pytest.mark.parametrize("closed", [False, True])
def test_paths_pass_their_keys(curve: str, easing: str, closed: bool):
    keys = torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(0))
    points = latent_curve(keys, frames=5, curve=curve, easing=easing, closed=closed)
    assert len(points) == (20 if closed else 16)
    assert (points[::5] - keys).abs().max() < 1e-5


def test_curves():
    keys = torch.randn(5, 16, dtype=torch.float64)
    fine = latent_curve(keys, frames=1000, closed=True)  # no corner, also not where it closes
    speed = torch.cat([fine, fine[:1]]).diff(dim=0)
    assert (speed - speed.roll(1, 0)).norm(dim=1).max() < 0.01 * speed.norm(dim=1).max()
    line = torch.arange(4, dtype=torch.float64)[:, None]
    assert torch.allclose(latent_curve(line, frames=4)[:, 0], torch.arange(13, dtype=torch.float64) / 4)
    sphere = torch.nn.functional.normalize(keys, dim=1) * 3 + 1
    ball = latent_curve(sphere, frames=7, curve="spherical", centre=torch.ones(16))
    assert torch.allclose((ball - 1).norm(dim=1), torch.full((29,), 3.0, dtype=torch.float64))
    opposite = latent_curve(torch.stack([keys[0], -keys[0], -keys[0]]), frames=4, curve="spherical")
    assert opposite.isfinite().all()
    for wrong in ({"frames": 0}, {"frames": 5, "curve": "x"}, {"frames": 5, "easing": "x"}, {"frames": 1 << 20}):
        with pytest.raises(ValueError, match=r"frames|curve|easing"):
            latent_curve(keys, **wrong)
    with pytest.raises(ValueError, match="at least two"):
        latent_curve(keys[:1], frames=3)


@pytest.mark.parametrize("generator", [GENERATOR, CLASSES], ids=["plain", "classes"])
def test_interpolation_in_both_spaces(generator: Generator):
    keys = concatenate([sample_latents(generator, [1, 2], truncation_psi=0.5), sample_latents(generator, [3])])
    for space in ("z", "ws"):
        for curve in CURVES:
            way = interpolate(generator, keys, frames=3, space=space, curve=curve)
            assert (way.ws[::3] - keys.ws).abs().max() < 1e-5
            assert (way.origin is not None) == (space == "z")
    again = interpolate(generator, interpolate(generator, keys, frames=1, space="z"), frames=2, space="z")
    assert len(again) == 5
    with pytest.raises(ValueError, match="no z"):
        interpolate(generator, average_latents(keys), frames=2, space="z")
    with pytest.raises(ValueError, match="styles"):
        interpolate(OTHER, keys, frames=2)


def test_random_walk_loops_smoothly_and_is_normal():
    noise = periodic_noise(5, 240, 20.0, 4000)
    assert abs(noise.std().item() - 1) < 0.05
    correlation = [(noise * noise.roll(lag, 0)).mean().item() for lag in (0, 10, 20, 60, 239)]
    assert np.allclose(correlation, np.exp(-((np.array([0, 10, 20, 60, 1]) / 20) ** 2) / 2), atol=0.05)
    walk = random_walk(GENERATOR, 7, frames=24, smoothness=6, reach=0.5, truncation_psi=0.7)
    steps = torch.cat([walk.ws, walk.ws[:1]]).diff(dim=0).flatten(1).norm(dim=1)
    assert steps[-1] < 3 * steps.mean()
    assert torch.equal(walk.ws, random_walk(GENERATOR, 7, frames=24, smoothness=6, reach=0.5, truncation_psi=0.7).ws)
    still = random_walk(CLASSES, 7, frames=3, smoothness=6, reach=0)
    assert torch.allclose(still.ws, sample(CLASSES, [7]).expand(3, -1, -1), atol=1e-5)
    assert len(random_walk(GENERATOR, (1 << 64) - 1, frames=1, smoothness=1)) == 1
    for wrong in ({"frames": 0}, {"smoothness": 0.0}, {"reach": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            random_walk(GENERATOR, 0, **{"frames": 5, "smoothness": 2.0, **wrong})


def test_an_even_pace_is_even_to_the_eye():
    """Through keys that lie far apart and near to each other, every step changes the picture by about as much."""
    generator = load_builtin("alpine")
    keys = sample_latents(generator, [3, 8, 16])
    near = keys.derived(torch.cat([keys.ws, torch.lerp(keys.ws[2:], keys.ws[:1], 0.1)]))

    def steps(easing: str) -> torch.Tensor:
        ws = interpolate(generator, near, frames=6, curve="linear", easing=easing, closed=True).ws
        pictures = render(generator, torch.cat([ws, ws[:1]]), height=40, width=56, supersample=2).clamp(-1, 1)
        return pictures.diff(dim=0).square().mean((1, 2, 3)).sqrt()

    plain, even = steps("linear"), steps("even")
    assert len(even) == len(plain) == 24
    assert plain.max() > 10 * plain.min()
    assert even.max() < 1.5 * even.median()
    assert even.min() > 0.6 * even.median()


def test_an_even_pace_of_a_path_that_stands_still():
    generator = load_builtin("alpine")
    keys = sample_latents(generator, [3, 3])
    assert len(interpolate(generator, keys, frames=3, easing="even")) == 4
