"""Distances between sets of images, against known values, and `creps evaluate` on the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import save_generator
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.evaluation.distance_table import distance_table, generate_images
from comfyui_creps.creps_core.evaluation.nearest import find_nearest
from comfyui_creps.creps_core.evaluation.patch_statistics import PatchStatistics, describe
from comfyui_creps.creps_core.evaluation.pyramid import laplacian_pyramid, level_sides, resampling_matrices
from comfyui_creps.creps_core.evaluation.sliced_wasserstein import (
    NORMALISATIONS,
    Distances,
    random_directions,
    sliced_wasserstein,
    wasserstein,
)
from networks import make_generator
from PIL import Image
from scenes import scenes, write
from torch import Tensor


def compare(reference: Tensor, other: Tensor, **options) -> Distances:
    options = {"directions": 32, "repeats": 1, **options}
    return sliced_wasserstein(describe(reference), describe(other), **options)


def blurred(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False).round().to(torch.uint8)


def test_distances_of_normal_samples_are_the_known_ones():
    a = torch.randn(3, 100_000, generator=torch.Generator().manual_seed(0))
    b = torch.randn(3, 100_000, generator=torch.Generator().manual_seed(1))
    shift, scale = torch.tensor([0.5, -2.0, 0.0]), 1.5
    assert wasserstein(a, b + shift[:, None]).tolist() == pytest.approx([0.5, 2.0, 0.0], abs=0.02)
    # Of centred normals: the difference of the deviations times the mean of |x|.
    assert wasserstein(a, b * scale).tolist() == pytest.approx([(scale - 1) * math.sqrt(2 / math.pi)] * 3, abs=0.02)
    assert wasserstein(a, a.flip(1)).tolist() == [0, 0, 0]
    assert wasserstein(torch.ones(1, 5), torch.ones(1, 7)).tolist() == [0]


@pytest.mark.parametrize("count", [400, 1234])
def test_distances_are_those_between_sorted_samples(count: int):
    random = torch.Generator().manual_seed(2)
    a, b = torch.randn(4, 400, generator=random), torch.randn(4, count, generator=random).exp()
    # Every value of one as often as there are of the other: then both are as many.
    x, y = (np.sort(values.numpy().repeat(n, 1), 1) for values, n in ((a, count), (b, 400)))
    exact = np.abs(x - y).mean(1)
    assert wasserstein(a, b).tolist() == pytest.approx(exact.tolist(), rel=2e-3)


def test_identical_sets_are_at_no_distance():
    images = scenes(40, 0)
    for normalise in NORMALISATIONS:
        found = compare(images, images, normalise=normalise)
        assert found.levels == {32: 0.0, 16: 0.0}
        assert found.mean == 0


def test_a_shift_of_the_colours_is_the_mean_projection_of_the_shift():
    shift = (8, -4, 16)
    images = scenes(60, 0)
    moved = scenes(60, 0, shift=shift)
    deviation = describe(images).moments(16).deviation
    vector = (torch.tensor(shift) / 127.5 / deviation).repeat_interleave(49)
    expected = 1000 * (random_directions(32, 147, _after_levels(1)) @ vector).abs().mean().item()
    found = compare(images, moved)
    assert found.levels[16] == pytest.approx(expected, rel=5e-3)
    assert found.levels[32] < 0.5
    assert compare(images, moved, normalise="own").mean < 0.5


def _after_levels(levels: int) -> torch.Generator:
    """The generator of a comparison's random numbers, after its first levels."""
    random = torch.Generator().manual_seed(0)
    for _ in range(levels):
        random_directions(32, 147, random)
    return random


def test_random_directions_are_unit_vectors_in_all_directions_alike():
    vectors = random_directions(20_000, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    assert torch.allclose(vectors.T @ vectors / 20_000, torch.eye(3, dtype=torch.float64) / 3, atol=0.01)


def test_the_order_of_the_pictures_does_not_matter():
    flat = torch.randint(0, 256, (50, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flat = flat.expand(-1, -1, 32, 32)  # constant images
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert compare(flat, flat[order]).mean == pytest.approx(0, abs=1e-3)  # of a distance times 1000
    other = scenes(50, 3)
    assert compare(other, flat).mean == pytest.approx(compare(other, flat[order]).mean, rel=1e-6)


def test_reals_are_nearer_to_reals_than_anything_else():
    reals, others = scenes(300, 1), scenes(300, 2)
    chance = compare(reals, others)
    noise = torch.randint(0, 256, others.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert compare(reals, noise).mean > 10 * chance.mean
    assert compare(reals, others[:4].repeat(75, 1, 1, 1)).mean > 2 * chance.mean
    soft = compare(reals, blurred(others))
    assert soft.levels[32] > 10 * chance.levels[32]
    assert soft.levels[32] > 5 * soft.levels[16]


def test_palette_contrast_and_blur_count_by_the_moments_of_the_reference():
    reals, others = scenes(300, 1), scenes(300, 2)
    for changed, level in (
        (scenes(300, 2, shift=(-15, 0, 15)), 16),
        ((others.float() * 0.8 + 20).round().to(torch.uint8), 16),
        (blurred(others), 32),
    ):
        own, by_reference = (
            compare(reals, changed, normalise=normalise).levels[level] for normalise in ("own", "reference")
        )
        assert by_reference > 2 * own


def test_statistics_do_not_depend_on_batches_but_on_the_seed():
    images = scenes(70, 0)
    whole, parts = describe(images), describe(iter(images.split(9)))
    assert (whole.count, whole.levels, whole.size(16)) == (70, [32, 16], 70 * 128)
    for level in whole.levels:
        assert torch.equal(torch.cat(list(whole.patches(level))), torch.cat(list(parts.patches(level))))
        descriptors = torch.cat(list(whole.patches(level))).double().view(-1, 3, 49)
        mean, deviation = whole.moments(level)
        assert torch.allclose(descriptors.mean((0, 2)), mean, atol=1e-9)
        assert torch.allclose(descriptors.std((0, 2), correction=0), deviation, atol=1e-6)
    other = scenes(70, 1)
    assert compare(images, other) == compare(images, other)
    assert compare(images, other) != compare(images, other, seed=1)
    assert compare(images, other).mean == pytest.approx(compare(images, other, seed=1).mean, rel=0.5)
    elsewhere = sliced_wasserstein(whole, describe(images, seed=1), directions=8, repeats=1)
    assert elsewhere.mean > 0


def test_patches_are_neighbourhoods_of_the_picture():
    side = 20  # one level: the picture itself
    numbers = torch.arange(side * side).view(1, 1, side, side)
    images = torch.cat([numbers // 256, numbers % 256], 1).to(torch.uint8)
    (patches,) = describe(images, patches_per_image=2000).patches(side)
    values = ((patches.float() + 1) * 127.5).round().long().view(-1, 2, 7, 7)
    found = values[:, 0] * 256 + values[:, 1]
    first = found[:, 0, 0]
    inside = torch.arange(7)
    assert torch.equal(found - first[:, None, None], (inside[:, None] * side + inside).expand(2000, 7, 7))
    assert set(first.tolist()) == {y * side + x for y in range(14) for x in range(14)}


@pytest.mark.parametrize(
    ("side", "sides"), [(16, [16]), (31, [31, 16]), (64, [64, 32, 16]), (96, [96, 48, 24]), (101, [101, 51, 26])]
)
def test_pyramids_hold_the_whole_picture(side: int, sides: list[int]):
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    levels = laplacian_pyramid(images)
    assert level_sides(side) == sides == [level.shape[-1] for level in levels]
    again = levels[-1]
    for level in levels[-2::-1]:
        _, enlarge = resampling_matrices(level.shape[-1])
        again = level + enlarge @ again @ enlarge.T
    assert torch.allclose(again, images, atol=1e-5)
    # A slope is smooth: but for the border the highest level has nothing of it.
    slope = torch.linspace(0, 1, side).expand(1, 1, side, side)
    *bands, lowest = laplacian_pyramid(slope)
    assert all(band[..., 4:-4].abs().max() < 1e-5 for band in bands[:1])
    assert laplacian_pyramid(torch.full((1, 1, side, side), 0.3))[-1].allclose(torch.tensor(0.3))
    assert lowest.mean().item() == pytest.approx(0.5, abs=0.04)


def test_sets_that_cannot_be_compared():
    images = scenes(3, 0)
    with pytest.raises(ValueError, match="without pictures"):
        describe([])
    with pytest.raises(ValueError, match="at least 16"):
        describe(images[..., :15, :15])
    with pytest.raises(ValueError, match="uint8"):
        describe(images.float())
    with pytest.raises(ValueError, match="in a set of"):
        describe([images, images[..., :16, :16]])
    with pytest.raises(ValueError, match="patches_per_image"):
        PatchStatistics(0)
    statistics = describe(images)
    for other in (describe(images[..., :16, :16]), describe(images[:, :1])):
        with pytest.raises(ValueError, match="must agree"):
            sliced_wasserstein(statistics, other)
    with pytest.raises(ValueError, match="directions"):
        sliced_wasserstein(statistics, statistics, directions=0)
    with pytest.raises(ValueError, match="'paper'"):
        sliced_wasserstein(statistics, statistics, normalise="paper")


def test_flat_pictures_have_a_distance():
    flat = torch.full((4, 3, 32, 32), 100, dtype=torch.uint8)
    assert compare(flat, flat).mean == 0
    assert 0 < compare(flat, flat + 1).mean < math.inf


def test_the_table_compares_as_many_generated_pictures_as_reals():
    generator = make_generator()
    asked: list[int] = []
    done: list[tuple[int, int]] = []

    def held_out(side: int) -> Tensor:
        asked.append(side)
        return torch.cat(list(generate_images(generator, range(100, 140), side)))

    rows = distance_table(
        generator,
        lambda side: iter(scenes(66, 0, side).split(32)),
        held_out,
        (16, 24),
        directions=16,
        repeats=1,
        progress=lambda *state: done.append(state),
    )
    assert asked == [16, 24]
    assert [(row.side, row.count, row.held_out) for row in rows] == [(16, 66, 40), (24, 66, 40)]
    assert all(
        row.training.mean > 1.5 * row.generated.mean for row in rows
    )  # here the generator is what has been held out
    assert done == [(64, 132), (66, 132), (130, 132), (132, 132)]
    whole, parts = (torch.cat(list(generate_images(generator, range(5), 16, batch=size))) for size in (5, 2))
    assert torch.equal(whole, parts)


def test_nearest_finds_a_copy_and_a_mirrored_one():
    images = scenes(200, 0, 64)
    expected = torch.stack([images[150], images[37].flip(2), scenes(1, 9, 64)[0]])
    found = find_nearest(expected, iter(images.split(60)))
    assert found.position[:2].tolist() == [150, 37]
    assert found.mirrored[:2].tolist() == [False, True]
    assert found.distance[:2].tolist() == [0, 0]
    small = torch.nn.functional.avg_pool2d(torch.cat([images, expected[2:]]).float() / 255, 2)
    one, other = ((small[:-1] - each).square().mean((1, 2, 3)) for each in (small[-1], small[-1].flip(2)))
    assert found.distance[2].item() == pytest.approx(min(one.min().item(), other.min().item()), rel=1e-4)
    with pytest.raises(ValueError, match="near"):
        find_nearest(expected, [])
    with pytest.raises(ValueError, match="among"):
        find_nearest(expected, images[..., :32, :32])


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    write(tmp_path / "data", scenes(30, 0, 48))
    write(tmp_path / "fresh", torch.cat([scenes(20, 1, 48), scenes(30, 0, 48)[:1].flip(3)]))
    save_generator(make_generator(), tmp_path / "g.safetensors")
    return ["--data", str(tmp_path / "data"), "--held-out", str(tmp_path / "fresh")]


def test_the_command_writes_distances_and_pictures(tmp_path: Path, folders: list[str], capsys, caplog):
    command = ["evaluate", "--checkpoint", str(tmp_path / "g.safetensors"), *folders, "--device", "cpu"]
    command += ["--count", "12", "--sides", "32,64", "--nearest", "21", "--grid-side", "16"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["side", "pictures", "64", "32", "16", "mean"]
    assert [line.split()[:3] for line in lines[2:6]] == [
        [side, "12", kind] for side in ("32", "64") for kind in ("generated", "training")
    ]
    assert [len(line.split()) for line in lines[2:6]] == [6, 6, 7, 7]
    found = json.loads((tmp_path / "one" / "distances.json").read_text())
    for row, side in zip(found["distances"], (32, 64), strict=True):
        assert (row["side"], row["count"], row["held_out"]) == (side, 12, 12)
        assert row["generated"]["mean"] > 2 * row["training"]["mean"] > 0
    copy = next(each for each in found["nearest"]["held_out"]["pictures"] if each["picture"] == "020.png")
    assert copy == {"picture": "020.png", "nearest": "000.png", "mirrored": True, "distance": 0.0}
    assert len(found["nearest"]["generated"]["pictures"]) == 21
    assert found["nearest"]["generated"]["least"] > 0
    assert "flatters" in caplog.text
    # Pictures of 48 pixels know nothing of 64.
    assert found["enlarged"] == {"training": {"64": 12}, "held_out": {"64": 12}}
    with Image.open(tmp_path / "one" / "grid.png") as grid, Image.open(tmp_path / "one" / "nearest.png") as sheet:
        assert grid.size == (128, 128)
        assert sheet.size[0] == 8 * (128 + 8) + 8
    assert main([*command, "--sides", "32", "--out", str(tmp_path / "two")]) == 0
    again = json.loads((tmp_path / "two" / "distances.json").read_text())
    assert (again["distances"], again["nearest"]) == (found["distances"][:1], found["nearest"])
    for name in ("nearest.png", "grid.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_command_with_grey_pictures_and_classes(tmp_path: Path, folders: list[str]):
    save_generator(make_generator(img_channels=1, c_dim=3), tmp_path / "grey.safetensors")
    command = ["evaluate", "--checkpoint", str(tmp_path / "grey.safetensors"), *folders, "--out", str(tmp_path / "out")]
    assert main([*command, "--count", "8", "--sides", "16", "--nearest", "1", "--grid-side", "8"]) == 0
    found = json.loads((tmp_path / "out" / "distances.json").read_text())
    assert list(found["distances"][0]["generated"]) == ["16", "mean"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--builtin", "nothing"], "'nothing'"),
        (["--builtin", "textures", "--count", "0"], "--count must be at least 1"),
        (["--builtin", "textures", "--grid-side", "0"], "--grid-side must be at least 1"),
        (["--builtin", "textures", "--held-out", "DATA"], "the same pictures"),
        (["--builtin", "textures", "--data", "nowhere"], "nowhere"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, folders: list[str], change: list[str], message: str, caplog):
    change = [folders[1] if word == "DATA" else word for word in change]
    assert main(["evaluate", *folders, "--out", str(tmp_path / "out"), *change]) == 1
    assert message in caplog.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [[], ["--builtin", "textures", "--sides", "64,8"], ["--builtin", "textures", "--checkpoint", "g.pkl"]]
)
def test_arguments_that_are_wrong(tmp_path: Path, change: list[str], capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--data", "a", "--held-out", "b", "--out", str(tmp_path), *change])
    assert "evaluate" in capsys.readouterr().err
