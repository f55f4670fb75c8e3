"""Presets of new networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.network import DiscriminatorConfig, GeneratorConfig
from comfyui_creps.creps_core.training import Recipe
from comfyui_creps.creps_core.training.presets import PRESETS, bandwidth_for, preset_for
from picture_files import colours, encoded, write


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_networks_and_recipes(name: str, resolution: int):
    preset = PRESETS[name]
    generator = GeneratorConfig(**preset.generator_for(resolution))
    assert generator.img_resolution >= resolution
    assert generator.channels(generator.img_resolution) >= 1
    DiscriminatorConfig(**{"img_resolution": resolution, **preset.discriminator_for(resolution)})
    Recipe(**preset.recipe_for(resolution))


def test_what_suits_is_chosen():
    assert [bandwidth_for(side) for side in (32, 64, 256, 1024)] == [1, 2, 8, 10]
    assert preset_for("cpu", 512, 10**9) == "small"
    assert preset_for("cuda", 128, 10**9) == "medium"
    assert preset_for("cuda", 512, 10**6) == "medium"
    assert preset_for("cuda", 512, 25_000_000) == "published"
    assert preset_for("cuda", 512, None) == "medium"


def test_a_new_run_says_and_keeps_its_preset(tmp_path: Path, caplog):
    data = write(tmp_path / "pics", {f"{k}.png": encoded(colours(k)) for k in range(6)})
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--device=cpu", "--batch=4"]
    with caplog.at_level("INFO"):
        assert main([*command, "--resolution=8", "--images=4"]) == 0
    assert "the preset of this run is small" in caplog.text
    assert "4 pictures will take about" in caplog.text
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (found["identity"]["preset"], found["identity"]["bandwidth"]) == ("small", 0.25)
    assert (found["generator"]["channel_max"], found["discriminator"]["channel_max"]) == (96, 96)
    assert (found["recipe"]["pl_weight"], found["recipe"]["batch"]) == (0, 4)
    assert main([*command, "--preset=published"]) == 1
    assert "preset small, not published" in caplog.text
