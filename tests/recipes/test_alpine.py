"""The alpine scenes of `recipes/alpine.py`: the same at every size and every time, and what they show."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_generator, render, sample
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.evaluation.patch_statistics import describe
from comfyui_creps.creps_core.evaluation.sliced_wasserstein import sliced_wasserstein
from paths import ROOT
from PIL import Image

STYLES = ("rich", "simple")
SCRIPT = ROOT / "recipes" / "alpine.py"


@pytest.fixture(scope="module")
def alpine() -> ModuleType:
    spec = importlib.util.spec_from_file_location("alpine", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _boxes(picture: np.ndarray, side: int) -> np.ndarray:
    factor = len(picture) // side
    return picture.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))


def _luminance(picture: np.ndarray) -> np.ndarray:
    return picture @ np.array([0.2126, 0.7152, 0.0722])


def test_a_seed_is_a_picture(alpine: ModuleType):
    first = alpine.draw(5, 64)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, alpine.draw(5, 64))


@pytest.mark.parametrize("style", STYLES)
def test_no_two_seeds_are_alike(alpine: ModuleType, style: str):
    pictures = np.stack([alpine.draw(seed, 32, style) for seed in range(24)]).astype(float)
    differences = np.abs(pictures[:, None] - pictures[None]).mean(axis=(2, 3, 4))
    np.fill_diagonal(differences, 255)
    assert differences.min() > 5


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(6))
def test_the_same_scene_at_every_side(alpine: ModuleType, seed: int, style: str):
    small = alpine.draw(seed, 64, style).astype(float)
    assert np.abs(small - _boxes(alpine.draw(seed, 256, style), 64)).mean() < 2


def test_46_numbers_decide_a_simple_scene(alpine: ModuleType):
    """A small step of one of them changes the picture a little; the rest of the vector changes nothing."""
    from alpine_simple import LATENT, scene_of

    z = np.random.default_rng(2).standard_normal(LATENT)
    picture = alpine.paint(scene_of(z), 64).astype(int)
    changes = [np.abs(alpine.paint(scene_of(z + step), 64) - picture).mean() for step in 0.05 * np.eye(LATENT)]
    assert max(changes) < 3
    assert LATENT // 2 < np.count_nonzero(changes) <= 46
    assert not any(changes[46:])


def test_sides_that_are_no_power_of_two(alpine: ModuleType):
    large = Image.fromarray(alpine.draw(3, 256)).resize((100, 100), Image.Resampling.BOX)
    assert np.abs(alpine.draw(3, 100).astype(float) - np.asarray(large)).mean() < 2


def test_strips_leave_no_seam(alpine: ModuleType):
    scene = alpine.make_scene(8)
    whole, strips = alpine.paint(scene, 128).astype(int), alpine.paint(scene, 128, strip=48)
    assert np.abs(whole - strips).max() <= 1  # sums of another length round differently


def test_broad_range_of_tones_and_colours(alpine: ModuleType):
    spans, means = [], []
    for seed in range(24):
        picture = alpine.draw(seed, 64)
        low, high = np.percentile(_luminance(picture), [1, 99])
        spans.append(high - low)
        means.append(picture.mean(axis=(0, 1)))
    assert min(spans) > 60
    assert (np.std(means, axis=0) > 25).all()  # all hours of the day


def test_every_value_is_finite(alpine: ModuleType):
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        for seed in range(1_000_000, 1_000_020):
            alpine.draw(seed, 32)


def test_the_lake_mirrors_the_land(alpine: ModuleType):
    side, correlations = 128, []
    for seed in range(30):
        scene = alpine.make_scene(seed)
        if scene.foreground is not None:
            continue
        brightness = _luminance(alpine.draw(seed, side))
        shore = round(scene.waterline * side)
        height = int((side - shore) * 0.7)
        lake, land = brightness[shore + 2 : shore + 2 + height], brightness[shore - 2 - height : shore - 2][::-1]
        correlations.append(np.corrcoef(lake.ravel(), land.ravel())[0, 1])
    assert len(correlations) > 8
    assert np.median(correlations) > 0.6
    assert min(correlations) > 0.2


def test_sun_or_moon_stands_in_the_sky(alpine: ModuleType):
    for seed in range(100):
        scene = alpine.make_scene(seed)
        assert 0.1 < scene.light.x < 0.9
        assert 0 < scene.light.y < scene.waterline


def test_zip_of_the_command(tmp_path: Path):
    def pictures(name: str, workers: int) -> dict[str, bytes]:
        command = [sys.executable, str(SCRIPT), str(tmp_path / name), "--count", "4", "--side", "32"]
        command += ["--first-seed", "998", "--workers", str(workers)]
        subprocess.run(command, check=True, capture_output=True)
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            return {entry: archive.read(entry) for entry in archive.namelist()}

    once = pictures("a.zip", 1)
    assert list(once) == [f"{seed // 1000:05d}/img{seed:08d}.png" for seed in range(998, 1002)]
    assert once == pictures("b.zip", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_folder_and_sheet_of_the_command(alpine: ModuleType, tmp_path: Path):
    alpine.main([str(tmp_path / "out"), "--count", "2", "--side", "16"])
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert [path.name for path in files] == ["img00000000.png", "img00000001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(files[1])), alpine.draw(1, 16))
    alpine.main(["--sheet", str(tmp_path / "sheet.png"), "--columns", "3", "--rows", "2", "--side", "16"])
    assert Image.open(tmp_path / "sheet.png").size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either OUT or --sheet"),
        (["{}/a.zip", "--sheet", "{}/b.png"], "either OUT or --sheet"),
        (["{}/a.zip", "--count", "0"], "--count must be at least 1"),
        (["{}/a.zip", "--side", "8"], "--side must lie between"),
        (["{}/a.zip", "--first-seed", "-1"], "must not be negative"),
        (["{}/missing/a.zip"], "does not exist"),
        (["--sheet", "{}/a.tar"], "must end with"),
    ],
)
def test_bad_arguments(
    alpine: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    with pytest.raises(SystemExit):
        alpine.main([argument.format(tmp_path) for argument in arguments])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_small_run_of_the_recipe_learns_the_scenes(alpine: ModuleType, tmp_path: Path):
    """The commands of docs/training.md, smaller: the distance to scenes that the training has not seen falls."""
    alpine.main([str(tmp_path / "scenes.zip"), "--count", "200", "--side", "16", "--style", "simple"])
    seeds = range(1_000_000, 1_000_200)
    fresh = torch.stack([torch.from_numpy(alpine.draw(seed, 16, "simple")).permute(2, 0, 1) for seed in seeds])
    command = ["train", "--data", str(tmp_path / "scenes.zip"), "--out", str(tmp_path / "run"), "--resolution", "16"]
    command += ["--batch", "8", "--gamma", "0.1", "--augment", "none", "--path-length", "0", "--device", "cpu"]
    command += ["--channel-base", "512", "--channel-max", "32", "--biline-channels", "8", "--bandwidth", "2"]
    command += ["--z-dim", "32", "--w-dim", "32", "--mapping-layers", "2", "--ema-images", "200"]
    command += ["--d-channel-base", "512", "--d-channel-max", "32"]
    distances = []
    for images in ("8", "800"):
        assert main([*command, "--images", images]) == 0
        generator = load_generator(tmp_path / "run" / "generator.safetensors")
        pictures = render(generator, sample(generator, range(200)), height=16, width=16)
        found = (pictures * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        distances.append(sliced_wasserstein(describe(fresh), describe(found), directions=64, repeats=1).mean)
    assert distances[1] < 0.6 * distances[0]
