"""How a batch is cut up to fit into memory."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.common.errors import TrainingError
from comfyui_creps.creps_core.bench.training import BenchCase
from comfyui_creps.creps_core.network import GeneratorConfig
from comfyui_creps.creps_core.training import Recipe, TileSizes, discriminator_config_for
from comfyui_creps.creps_core.training.memory import expected_memory, micro_batch_for
from live_memory import live_bytes
from tiny_run import make_trainer

BIG = GeneratorConfig(512)
JUDGE = discriminator_config_for(BIG, 512)


@pytest.mark.parametrize(
    ("batch", "memory", "part"), [(8, 16e9, 0), (8, 8e9, 4), (32, 8e9, 4), (32, 48e9, 0), (32, 24e9, 16), (6, 8e9, 3)]
)
def test_the_parts_of_the_published_networks_on_a_gpu(batch: int, memory: float, part: int):
    """16 GB hold batches of 8, 8 GB parts of 4; an H200, which took 34.5 GB, the whole batch of the default recipe."""
    assert micro_batch_for(BIG, JUDGE, batch, int(memory), "cuda", True) == part


def test_too_little_memory_is_refused_with_what_it_takes():
    with pytest.raises(TrainingError, match=r"--memory 2G: one picture at a time takes about 3.\d GB"):
        micro_batch_for(BIG, JUDGE, 8, 2_000_000_000, "cuda", True)


def test_what_is_expected_is_what_tensors_take():
    """Without the weights, of networks as wide as deep: the discriminator's phases need the most."""
    config = GeneratorConfig(64, channel_base=4096, channel_max=64, z_dim=32, w_dim=32, mapping_layers=2)
    judge = discriminator_config_for(config, 64)
    found = live_bytes(BenchCase("", config, Recipe(batch=8), judge), TileSizes(1 << 12, 1 << 14))
    weights = expected_memory(config, judge, 0, 2, 1.0)
    expected = expected_memory(config, judge, 8, 2, 1.0) - weights
    print(found, expected)
    assert 0.75 * expected <= max(found["Dmain"], found["Dreg"]) <= 1.25 * expected


def test_a_trainer_keeps_within(monkeypatch):
    trainer = make_trainer(make_graph=False, batch=8)
    trainer.limit_memory(100 << 30)
    assert trainer.recipe.micro_batch == 0
    needed = expected_memory(trainer.G.config, trainer.D.config, 4, 4, 1.2) + (600 << 20)
    trainer.limit_memory(needed)
    assert trainer.recipe.micro_batch == 4
    trainer.step(torch.rand(8, 3, 16, 16))
    assert trainer.num_images == 8
