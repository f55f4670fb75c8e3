"""Averages of a chosen width, against integrals and against an average that was followed all the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import CheckpointError, load_generator
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.training import Run, rebuild, train
from comfyui_creps.creps_core.training.averages import WIDTHS, Averages, combination, inner_product, power_of
from networks import make_generator
from tiny_run import make_pictures, make_trainer

# From the paper: widths of 5 and 10 % of the training are the powers 16.97 and 6.94.
PUBLISHED = {0.05: 16.97, 0.1: 6.94}


@pytest.mark.parametrize("width", PUBLISHED)
def test_powers_of_widths(width: float):
    gamma = power_of(width)
    assert gamma == pytest.approx(PUBLISHED[width], abs=5e-3)
    tau = np.linspace(0, 1, 200_001)
    profile = (gamma + 1) * tau**gamma
    mean = np.trapezoid(profile * tau, tau)
    assert np.sqrt(np.trapezoid(profile * (tau - mean) ** 2, tau)) == pytest.approx(width, rel=1e-4)


def test_inner_products_are_integrals():
    a, b = (6.94, 700.0), (16.97, 1000.0)
    tau = np.linspace(0, 700, 400_001)
    product = (a[0] + 1) * tau ** a[0] / a[1] ** (a[0] + 1) * (b[0] + 1) * tau ** b[0] / b[1] ** (b[0] + 1)
    assert inner_product(a, b) == pytest.approx(np.trapezoid(product, tau), rel=1e-6)
    assert inner_product(a, b) == inner_product(b, a)


@pytest.mark.parametrize("wanted", [0.03, 0.05, 0.07, 0.1, 0.15])
def test_a_combination_is_near_what_is_wanted(wanted: float):
    stored = [(power_of(width), time) for time in (250, 500, 750, 1000) for width in WIDTHS]
    weights, distance = combination(stored, (power_of(wanted), 1000))
    print(wanted, distance)
    assert sum(weights) == pytest.approx(1, abs=1e-9)
    assert distance < (0.05 if 0.05 <= wanted <= 0.1 else 0.4)
    if wanted in WIDTHS:
        assert distance < 1e-3


def test_weights_that_grow_evenly_are_averaged_at_their_mean_time():
    generator = make_generator(img_resolution=16)
    averages = Averages(generator, 100)
    for step in range(1, 2001):
        for parameter in generator.parameters():
            parameter.fill_(step)
        averages.update(generator, 100 + 4 * (step - 1), 100 + 4 * step)
    for width, network in zip(averages.widths, averages.networks, strict=True):
        gamma = power_of(width)
        for parameter in network.parameters():
            assert parameter.mean().item() == pytest.approx(2000 * (gamma + 1) / (gamma + 2), rel=2e-3)


def test_a_snapshot_gives_any_width(tmp_path: Path):
    """Near the average of that width that was followed from the beginning; the stored widths come out as they are."""
    run = Run(tmp_path / "run", tick=100, snapshot_every=16, keep=10)
    trainer = make_trainer(total=64, r1_interval=0, pl_interval=0)
    other = Averages(trainer.G, 0, (0.07,))

    def watch(status) -> None:
        other.update(trainer.G, status.num_images - 4, status.num_images)

    train(run, trainer, make_pictures(), progress=watch)
    last = run.snapshots()[-1]
    assert trainer.averages is not None
    moved = max((p - q).abs().max() for p, q in zip(trainer.G.parameters(), make_trainer().G.parameters(), strict=True))
    told: list[str] = []
    for width, wanted in ((0.05, trainer.averages.networks[0]), (0.07, other.networks[0])):
        found = rebuild(last, width, told.append)
        worst = max((p - q).abs().max() for p, q in zip(found.parameters(), wanted.parameters(), strict=True))
        assert worst <= (1e-5 if width == 0.05 else 0.02) * moved, width
    assert told[0].startswith("an average of width 0.05 from 8 stored ones; their profile is 0.0 % off")
    target = tmp_path / "narrow.safetensors"
    assert main(["convert", str(last), str(target), "--ema", "0.05"]) == 0
    assert torch.equal(
        load_generator(target).synthesis.decoder_img.weight, rebuild(last, 0.05).synthesis.decoder_img.weight
    )


def test_what_cannot_be_rebuilt_is_explained(tmp_path: Path):
    run = Run(tmp_path / "run", tick=100)
    train(run, make_trainer(total=4, r1_interval=0, pl_interval=0), make_pictures())
    with pytest.raises(ValueError, match=r"from 0.01 to 0.28, not 0.5"):
        rebuild(run.snapshots()[-1], 0.5)
    with pytest.raises(CheckpointError, match="holds no averages"):
        rebuild(run.generator_file, 0.05)
