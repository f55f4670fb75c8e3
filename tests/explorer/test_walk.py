"""Looks become latents and films."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core.explorer import Shot, Walk, Walker, frame_times, read_scene
from comfyui_creps.creps_core.latents import find_directions, sample
from comfyui_creps.creps_core.rendering import camera_path
from networks import make_generator


@pytest.fixture(scope="module")
def generator():
    return make_generator()


@pytest.fixture
def walker(generator) -> Walker:
    return Walker(generator)


def test_the_middle_of_the_pad_is_the_seed(generator, walker: Walker):
    latents = walker.latents(Shot(5, 0.7, walk=Walk("PCA")))
    assert torch.equal(latents.ws, sample(generator, [5], truncation_psi=0.7))
    assert latents.seeds == [5]


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_two_seeds_lie_at_one_step(generator, walker: Walker, psi: float):
    for x, y, seed in ((1, 0, 11), (0, 1, 12)):
        walk = Walk("seeds", seeds=(11, 12), x=x, y=y)
        found = walker.latents(Shot(10, psi, walk=walk)).ws
        torch.testing.assert_close(found, sample(generator, [seed], truncation_psi=psi), atol=1e-5, rtol=1e-5)
    same = walker.latents(Shot(10, psi, walk=Walk("seeds", seeds=(10, 10), x=1.0, y=1.0))).ws  # nowhere to go
    torch.testing.assert_close(same, sample(generator, [10], truncation_psi=psi))


@pytest.mark.parametrize("kind", ["SeFa", "PCA", "Named"])
def test_found_directions_come_in_pairs(generator, walker: Walker, kind: str):
    method = "SeFa" if kind == "Named" else kind  # of a generator that knows no names
    wanted = find_directions(generator, method, count=4, samples=4096 if kind == "PCA" else 1024)
    moved = walker.latents(Shot(3, walk=Walk(kind, 1, x=2.0, y=-1.0))).ws - sample(generator, [3])
    way = 2 * wanted.steps[2] * wanted.vectors[2] - wanted.steps[3] * wanted.vectors[3]
    torch.testing.assert_close(moved, way.expand_as(moved), atol=1e-4, rtol=1e-3)


def test_linked_directions(generator):
    found = find_directions(generator, count=2)
    moved = Walker(generator, found).latents(Shot(3, walk=Walk("linked", x=1.5))).ws - sample(generator, [3])
    torch.testing.assert_close(moved[0, 0], 1.5 * found.steps[0] * found.vectors[0])
    with pytest.raises(ValueError, match="no directions are linked"):
        Walker(generator).latents(Shot(walk=Walk("linked", x=1.0)))
    with pytest.raises(ValueError, match="there is no pair 1: there are 2 directions"):
        Walker(generator, found).latents(Shot(walk=Walk("linked", 1, x=1.0)))


def test_random_directions_are_those_of_their_number(generator, walker: Walker):
    def moved(number: int, x: float, y: float) -> torch.Tensor:
        return walker.latents(Shot(0, walk=Walk("random", number, x=x, y=y))).ws - sample(generator, [0])

    assert torch.equal(moved(4, 1, 0), moved(4, 1, 0))
    assert not torch.allclose(moved(4, 1, 0), moved(5, 1, 0))
    across, up = moved(4, 1, 0)[0, 0], moved(4, 0, 1)[0, 0]
    assert torch.dot(across, up).abs() < 1e-3 * across.norm() * up.norm()
    spread = (generator.mapping(torch.randn(4096, 16))[:, 0] @ (across / across.norm())).std()
    assert across.norm() == pytest.approx(spread.item(), rel=0.1)  # a step is a standard deviation


def test_only_the_chosen_styles_move(generator, walker: Walker):
    moved = walker.latents(Shot(0, walk=Walk(layers="coarse", x=1.0))).ws - sample(generator, [0])
    third = round(generator.config.num_ws / 3)
    assert (moved[0, :third].abs().sum(1) > 0).all()
    assert not moved[0, third:].any()


KEYS = [
    {"seed": 1, "seconds": 1.5},
    {"seed": 2, "seconds": 0.5, "view": {"zoom": 4, "x": 0.3}},
    {"seed": 3, "seconds": 1},
]


def test_a_film_passes_its_keys_in_their_time(generator, walker: Walker):
    scene = read_scene({"keys": KEYS, "fps": 10})
    latents, views = walker.film(scene)
    assert scene.film_seconds == 2.0
    assert len(frame_times(scene)) == len(latents) == len(views) == 21
    wanted = sample(generator, [1, 2, 3])
    for frame, key in ((0, 0), (15, 1), (20, 2)):
        torch.testing.assert_close(latents.ws[frame], wanted[key], atol=1e-5, rtol=1e-5)
        assert views[frame].zoom == pytest.approx([1, 4, 1][key])
    half = 3 * 0.4**2 - 2 * 0.4**3  # eased, 6 frames of 15
    torch.testing.assert_close(latents.ws[6], torch.lerp(wanted[0], wanted[1], half), atol=1e-5, rtol=1e-5)


def test_a_loop_does_not_repeat_its_first_frame(walker: Walker):
    scene = read_scene({"keys": KEYS, "fps": 10, "closed": True, "easing": "linear"})
    latents, views = walker.film(scene)
    assert len(views) == 30
    last, first = walker.at(scene, 2.9), walker.at(scene, 3.0)
    assert torch.equal(last[0].ws[0], latents.ws[-1])
    assert torch.equal(first[0].ws[0], latents.ws[0])


def test_views_between_keys_are_those_of_a_camera_path(walker: Walker):
    scene = read_scene({"keys": KEYS[:2], "fps": 10, "easing": "linear"})
    _, views = walker.film(scene)
    path = camera_path([key.shot.view for key in scene.keyframes], 16, timing="equal times")
    for found, wanted in zip(views, path, strict=True):
        assert found.zoom == pytest.approx(wanted.zoom)
        assert found.center_x == pytest.approx(wanted.center_x)


def test_without_two_keys_there_is_one_frame(generator, walker: Walker):
    scene = read_scene({"seed": 9, "view": {"zoom": 2}, "keys": KEYS[:1]})
    latents, views = walker.film(scene)
    assert torch.equal(latents.ws, sample(generator, [9]))
    assert views == [scene.shot.view]


@pytest.mark.parametrize("kind", ["SeFa", "PCA", "linked", "random"])
def test_a_third_direction_lies_after_the_pair(generator, kind: str):
    """The pair is what it is without it, and the three are at right angles."""
    found = find_directions(generator, "SeFa", count=3)
    walker, number = Walker(generator, found), 7 if kind == "random" else 0

    def moved(x: float, y: float, z: float) -> torch.Tensor:
        latents = walker.latents(Shot(3, walk=Walk(kind, number, x=x, y=y, z=z)))
        return (latents.ws - sample(generator, [3]))[0, 0].double()

    one, two, three = moved(1, 0, 0), moved(0, 1, 0), moved(0, 0, 1)
    torch.testing.assert_close(moved(1, -2, 0.5), one - 2 * two + three / 2, atol=1e-5, rtol=1e-4)
    if kind == "linked":
        torch.testing.assert_close(three, (found.vectors[2] * found.steps[2]).double(), atol=1e-5, rtol=1e-4)
    for other in (one, two):
        assert abs(three @ other) < 1e-3 * three.norm() * other.norm()


def test_where_there_is_no_third_direction_z_is_refused(generator, walker: Walker):
    with pytest.raises(ValueError, match="z must be 0"):
        walker.latents(Shot(walk=Walk("seeds", z=1.0)))
    with pytest.raises(ValueError, match="there is no direction 2, after pair 0"):
        Walker(generator, find_directions(generator, "SeFa", count=2)).latents(Shot(walk=Walk("linked", z=1.0)))
