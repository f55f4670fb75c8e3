"""Style mixing, editing directions, blended generators."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_creps.creps_core import render, sample
from comfyui_creps.creps_core.checkpoints import blend_weights, fingerprint, swap_levels
from comfyui_creps.creps_core.latents import (
    direction_strip,
    edit,
    find_directions,
    mix_grid,
    mix_pairs,
    sample_latents,
    select,
    truncate_latents,
)
from comfyui_creps.creps_core.latents.directions import sample_w, style_matrices
from networks import make_generator, make_relative

GENERATOR = make_generator()
CLASSES = make_generator(c_dim=3)
OTHER = make_generator(img_resolution=64)
NUM_WS = GENERATOR.config.num_ws


def test_mixing():
    a, b = sample_latents(GENERATOR, [1, 2]), sample_latents(GENERATOR, [3, 4, 5])
    table = mix_grid(a, b, "0-1, 4")
    assert table.grid == (a.titles(), b.titles())
    for i in range(2):
        for j in range(3):
            for layer in range(NUM_WS):
                wanted = b.ws[j] if layer in (0, 1, 4) else a.ws[i]
                assert torch.equal(table.ws[3 * i + j, layer], wanted[layer])
    one = mix_pairs(select(a, [0]), b, "all", amount=0.5)
    assert torch.allclose(one.ws, (a.ws[:1] + b.ws) / 2)
    assert one.titles()[2] == "seed 1 + seed 5"
    assert torch.equal(mix_pairs(a, select(b, "0, 1"), "all").ws, b.ws[:2])
    with pytest.raises(ValueError, match="paired"):
        mix_pairs(a, b, "fine")
    with pytest.raises(ValueError, match="different generators"):
        mix_grid(a, sample_latents(OTHER, [1]), "fine")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_how_far_must_be_a_finite_number(number: float):
    """Else all later nodes fail, the last with words of linear algebra."""
    latents, directions = sample_latents(GENERATOR, [1, 2]), find_directions(GENERATOR, count=2, samples=50)
    for call in (
        lambda: mix_grid(latents, latents, "fine", number),
        lambda: mix_pairs(latents, latents, "fine", number),
        lambda: edit(latents, directions, {0: number}),
        lambda: direction_strip(latents, directions, "0", reach=number),
        lambda: truncate_latents(GENERATOR, latents, number),
        lambda: truncate_latents(GENERATOR, latents, number, towards=latents),
        lambda: blend_weights(GENERATOR, GENERATOR, number),
        lambda: sample_latents(GENERATOR, [1], truncation_psi=number),
    ):
        with pytest.raises(ValueError, match=f"number.*not {number}"):
            call()


def test_every_style_has_its_matrices():
    found = [affine for layer in range(NUM_WS) for affine in style_matrices(GENERATOR, layer)]
    modules = {id(m) for name, m in GENERATOR.synthesis.named_modules() if name.endswith("affine")}
    assert {id(affine) for affine in found} == modules
    assert len(found) == len(modules)


def test_sefa_finds_what_the_weights_react_to():
    directions = find_directions(GENERATOR, "SeFa", layers="3", count=4)
    weight = torch.cat([affine.weight / affine.weight.norm() for affine in style_matrices(GENERATOR, 3)])
    gains = (directions.vectors @ weight.mT).norm(dim=1)
    assert torch.allclose(gains, torch.linalg.svdvals(weight)[:4], atol=1e-5)
    assert torch.allclose(directions.vectors @ directions.vectors.mT, torch.eye(4), atol=1e-5)
    assert directions.layers == [3]
    assert find_directions(GENERATOR, count=100).vectors.shape == (16, 16)


def test_pca_finds_where_styles_vary():
    directions = find_directions(GENERATOR, "PCA", count=5, samples=3000, seed=2)
    w = sample_w(GENERATOR, 3000, 2)
    along = ((w - w.mean(0)) @ directions.vectors.mT).std(0)
    assert torch.allclose(along, directions.steps, rtol=1e-3)
    assert (directions.steps.diff() <= 1e-6).all()
    assert len(sample_w(CLASSES, 1100)) == 1100


def test_editing():
    directions = find_directions(GENERATOR, layers="coarse", count=4)
    latents = sample_latents(GENERATOR, [1, 2])
    moved = edit(latents, directions, {2: 1.5, 0: -1.0})
    wanted = 1.5 * directions.steps[2] * directions.vectors[2] - directions.steps[0] * directions.vectors[0]
    assert torch.allclose(moved.ws[:, :3] - latents.ws[:, :3], wanted.expand(2, 3, -1), atol=1e-5)
    assert torch.equal(moved.ws[:, 3:], latents.ws[:, 3:])
    table = direction_strip(latents, directions, "1, 3", columns=5)
    assert table.grid is not None
    assert table.grid[1] == ["-3", "-1.5", "0", "+1.5", "+3"]
    assert table.ws.shape == (2 * 2 * 5, NUM_WS, 16)
    assert torch.equal(table.ws[2], latents.ws[0])
    assert torch.allclose(table.ws[19], edit(latents, directions, {3: 3.0}).ws[1], atol=1e-5)
    assert torch.equal(edit(latents, directions, {0: 1.0}, "-1").ws[:, :-1], latents.ws[:, :-1])
    for call, match in (
        (lambda: edit(latents, directions, {4: 1.0}), "no direction 4"),
        (lambda: edit(sample_latents(make_generator(w_dim=8), [0]), directions, {0: 1.0}), "different generators"),
        (lambda: direction_strip(latents, directions, columns=1), "two columns"),
        (lambda: find_directions(GENERATOR, "UMAP"), "method"),
        (lambda: find_directions(GENERATOR, count=0), "count"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_blending():
    a, b = GENERATOR, make_relative(GENERATOR)
    ws = sample(a, [1])
    views = {"height": 16, "width": 16}
    assert torch.equal(render(blend_weights(a, b, 0), ws, **views), render(a, ws, **views))
    assert torch.equal(render(blend_weights(a, b, 1.0), ws, **views), render(b, ws, **views))
    middle = blend_weights(a, b, 0.25)
    for name, tensor in middle.state_dict().items():
        assert torch.allclose(tensor, a.state_dict()[name] * 0.75 + b.state_dict()[name] * 0.25, atol=1e-5)
    assert fingerprint(middle) not in (fingerprint(a), fingerprint(b))
    swapped = swap_levels(a, b, 16, mapping_amount=1.0)
    for name, tensor in swapped.state_dict().items():
        coarse = name.startswith(("synthesis.b4.", "synthesis.b8.", "synthesis.decoder_8."))
        assert torch.equal(tensor, (a if coarse else b).state_dict()[name]), name
    with pytest.raises(ValueError, match="img_resolution 32 and 64"):
        blend_weights(a, OTHER)
    with pytest.raises(ValueError, match="levels"):
        swap_levels(a, b, 64)
