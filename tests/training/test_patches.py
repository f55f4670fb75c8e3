"""Windows: where the generator is evaluated, and what the discriminator is told."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from comfyui_creps.creps_core.network import WINDOW_CODE, Discriminator, DiscriminatorConfig
from comfyui_creps.creps_core.training import Recipe, Trainer, discriminator_for, load_snapshot
from comfyui_creps.creps_core.training.patches import WHOLE, box_positions, window_code
from comfyui_creps.creps_core.training.snapshots import save_snapshot
from comfyui_creps.creps_core.training.start import StartNetworks
from comfyui_creps.creps_core.training.synthesis import synthesize
from fake_graph import FakeGraph
from networks import make_generator
from tiny_run import RECIPE, SIDE, make_trainer

BOXES = torch.tensor([WHOLE, (0.5, 0.25, 1.0, 0.75), (0.0, 0.0, 0.125, 0.125)], dtype=torch.float64)


def test_samples_lie_in_their_part_of_the_pixel():
    """2 x 2 in the middle of their quarters are the pixels of a picture of twice the side; jittered, within them."""
    y, x = box_positions(BOXES, 8, 16, samples=2)
    wanted = box_positions(BOXES, 16, 16)
    assert torch.equal(y, wanted[0])
    assert torch.equal(x, wanted[1])
    low, high = (box_positions(BOXES, 8, 16, 2, torch.full((2, 3, 16), value)) for value in (0.0, 1.0))
    drawn = box_positions(BOXES, 8, 16, 2, torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(0)))
    for axis in range(2):
        assert torch.all((low[axis] <= drawn[axis]) & (drawn[axis] <= high[axis]))
        assert (high[axis][:, :-1] - low[axis][:, 1:]).abs().max() < 1e-12
    assert not torch.equal(drawn[0], drawn[1])


def test_a_place_is_four_numbers():
    assert window_code(BOXES).tolist() == [[0, 0, 0, 0], [1, 1, 0.5, 0], [3, 3, -0.875, -0.875]]


def test_generated_pictures_are_means_of_their_samples():
    trainer = make_trainer(make_graph=False, samples=2, pl_weight=0.0, augment="none")
    boxes = BOXES[[0, 1, 2, 1]]

    def inputs_of(step: int) -> dict[str, torch.Tensor]:
        return trainer.inputs.of_step(step, [trainer.phases["Dmain"]], torch.zeros(4, 3, SIDE, SIDE), None, boxes)[
            "Dmain"
        ]

    inputs = inputs_of(0)
    assert inputs["y"].shape == inputs["x"].shape == (4, 2 * SIDE)
    with torch.no_grad():
        found, w = trainer.passes.generate(inputs)
        fine = synthesize(
            trainer.G.synthesis, w[:, None].expand(-1, trainer.G.config.num_ws, -1), inputs["y"], inputs["x"]
        )
    assert found.shape == (4, 3, SIDE, SIDE)
    wanted = fine.unflatten(2, (SIDE, 2)).unflatten(4, (SIDE, 2)).mean((3, 5))
    assert (found - wanted).abs().max() < 1e-6
    assert torch.equal(inputs_of(0)["y"], inputs["y"])
    assert not torch.equal(inputs_of(1)["y"], inputs["y"])


def test_a_discriminator_that_is_told_begins_as_it_was():
    generator = make_generator(img_resolution=SIDE)
    torch.manual_seed(3)
    old = Discriminator(DiscriminatorConfig(SIDE, channel_base=128, channel_max=8))
    wanted = dataclasses.replace(old.config, window_conditioning=1)
    new = discriminator_for(StartNetworks(generator, generator, old), wanted, 0)
    images, place = torch.randn(4, 3, SIDE, SIDE), torch.randn(4, WINDOW_CODE)
    assert new.config == wanted
    assert torch.equal(new(images, None, place), old(images))
    new.place.weight.data.normal_()
    assert not torch.equal(new(images, None, place), old(images))
    assert torch.equal(new(images), old(images))  # the whole picture
    assert discriminator_for(StartNetworks(generator, generator, new), old.config, 0) is new  # stays told
    assert DiscriminatorConfig.from_dict({k: v for k, v in old.config.to_dict().items() if k != "places"}) == old.config


@pytest.mark.parametrize("make_graph", [False, FakeGraph])
def test_it_is_trained_and_kept(make_graph, tmp_path):
    """Places and samples in every phase, as graphs, in parts, and on from a snapshot bit for bit."""
    made = make_trainer()
    torch.manual_seed(3)
    judge = Discriminator(DiscriminatorConfig(SIDE, channel_base=128, channel_max=8, window_conditioning=1))
    recipe = Recipe(**{**RECIPE, "samples": 2, "micro_batch": 2, "r1_interval": 2})

    def step(trainer: Trainer) -> None:
        rng = torch.Generator().manual_seed(trainer.steps)
        trainer.step(torch.rand(4, 3, SIDE, SIDE, generator=rng), None, BOXES[[0, 1, 2, 1]])

    whole, half = (Trainer(made.G, judge, recipe, make_graph=make_graph) for _ in range(2))
    for _ in range(5):
        step(whole)
    for _ in range(2):
        step(half)
    save_snapshot(half, tmp_path / "half.safetensors")
    half = load_snapshot(tmp_path / "half.safetensors", make_graph=make_graph)
    assert half.D.config.window_conditioning == 1
    for _ in range(3):
        step(half)
    assert whole.D.place.weight.abs().max() > 0
    for name, value in whole.D.state_dict().items():
        assert torch.equal(value, half.D.state_dict()[name]), name
