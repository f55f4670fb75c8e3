"""Aliasing: against waves whose folding is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.comparison import Aliasing, scale_consistency, sizes_up_to
from comfyui_creps.creps_core.evaluation.scale import measure_scale
from networks import make_generator, make_ws
from torch import Tensor

SMALL, MIDDLE, LARGE = 17, 33, 129


def waves(size: int, parts: list[tuple[float, int, int]]) -> Tensor:
    """Sums of cosines across the frame, [1, 1, size, size]: heights, half periods along the height and the width."""
    at = torch.linspace(0, 1, size, dtype=torch.float64)
    sheet = sum(h * torch.outer((math.pi * a * at).cos(), (math.pi * b * at).cos()) for h, a, b in parts)
    return sheet[None, None]


def measured(parts: list[tuple[float, int, int]], *, small: Tensor | None = None) -> dict[int, float]:
    aliasing = Aliasing([SMALL, MIDDLE, LARGE])
    for size in (SMALL, MIDDLE):
        aliasing.add(size, waves(size, parts) if small is None or size == MIDDLE else small)
    aliasing.add(LARGE, waves(LARGE, parts))
    return aliasing.decibels()


def test_what_a_size_can_show_does_not_leak():
    found = measured([(0.5, 3, 2), (0.2, 15, 0), (0.3, 7, 15)])
    assert all(value < -100 for value in found.values())


def test_a_wave_above_nyquist_leaks_with_all_its_energy():
    """At 17 pixels 16 half periods are the finest: 20 look like 12. The leak is the wave as it is seen there."""
    parts = [(0.6, 5, 1), (0.25, 20, 3)]
    seen = waves(SMALL, [(0.25, 12, 3)]).square().mean()
    variance = waves(LARGE, parts).var(correction=0)
    found = measured(parts)
    assert found[SMALL] == pytest.approx(10 * math.log10(seen / variance), abs=1e-3)
    assert found[MIDDLE] < -100


def test_a_filter_takes_it_away():
    assert measured([(0.6, 5, 1), (0.25, 20, 3)], small=waves(SMALL, [(0.6, 5, 1)]))[SMALL] < -100


def test_sizes_without_common_samples_are_refused():
    for sizes in ([16, 33], [17], [2, 33]):
        with pytest.raises(ValueError, match="divisor"):
            Aliasing(sizes)


def test_of_a_generator_and_its_pictures():
    """The same table as without looking, and the same figures as from whole pictures."""
    generator = make_generator(img_resolution=64)
    ws, sizes = make_ws(generator, 2), sizes_up_to(65, 17)
    aliasing = Aliasing(sizes)
    seen: list[int] = []

    def look(size: int, picture: Tensor) -> None:
        seen.append(size)
        aliasing.add(size, picture)

    assert scale_consistency(generator, ws, sizes, on_image=look) == scale_consistency(generator, ws, sizes)
    assert seen == [17, 33, 65] * 2
    assert -60 < aliasing.decibels()[17] < 0
    found = measure_scale(generator, [0, 1], smallest=17, largest=65)
    assert [a.larger for a in found.agreements] == [33, 65, 65]
    assert min(a.psnr for a in found.agreements) > 90
    assert found.aliasing[33] < found.aliasing[17]


def test_the_command(tmp_path, capsys):
    """It needs neither pictures nor weights."""
    command = ["evaluate", "--builtin", "alpine", "--metrics", "scale2", "--largest", "127", "--out", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "scale consistency of 2 latents" in text
    found = json.loads((tmp_path / "metrics.json").read_text())["scale"]
    assert (found["agreements"][0]["psnr"] or math.inf) > 90  # none where all samples are equal
    assert -60 < found["aliasing"]["64"] < -10
    assert f"{found['aliasing']['64']:.1f} dB" in text
