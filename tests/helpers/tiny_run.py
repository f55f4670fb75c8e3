"""A tiny run for tests; as a script, a run in a process of its own."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent.parent / "conftest.py"))
    sys.path.insert(0, str(Path(__file__).parent))

import torch
from comfyui_creps.creps_core.data import ImageDataset, from_images
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig
from comfyui_creps.creps_core.training import Recipe, Run, Trainer, load_snapshot, train
from comfyui_creps.creps_core.training.parallel import Process, join, leave
from fake_graph import FakeGraph
from networks import make_generator

SIDE = 16
# Everything that has a state: augmentation that adapts, windows, flips.
RECIPE = {
    "batch": 4,
    "total": 48,
    "r1_gamma": 0.1,
    "r1_interval": 3,
    "pl_interval": 2,
    "ada_interval": 2,
    "ada_images": 40.0,
    "augment_p": 0.3,
    "patches": 0.5,
}


def make_pictures() -> ImageDataset:
    """10 pictures of noise, and their mirror images; larger than the resolution."""
    images = torch.rand(10, 24, 24, 3, generator=torch.Generator().manual_seed(8))
    return from_images(images, resolution=SIDE, mirror=True, max_side=24)


def make_trainer(process: Process | None = None, make_graph=True, device="cpu", **recipe) -> Trainer:
    """Small random networks, always the same."""
    generator = make_generator(img_resolution=SIDE)
    torch.manual_seed(3)
    discriminator = Discriminator(DiscriminatorConfig(SIDE, channel_base=128, channel_max=8))
    place = {"process": process, "make_graph": make_graph, "device": device}
    return Trainer(generator, discriminator, Recipe(**{**RECIPE, **recipe}), **place)


def resume(run: Run, process: Process | None = None, **recipe) -> Trainer:
    """The trainer of the newest snapshot of a run, or a new one."""
    snapshots = run.snapshots()
    if not snapshots:
        return make_trainer(process, **recipe)
    return load_snapshot(snapshots[-1], recipe=Recipe(**{**RECIPE, **recipe}), process=process)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = join()
    here = Run(Path(sys.argv[1]), tick=4, snapshot_every=8)
    fixed = {"total": 32, "batch": 8, "make_graph": FakeGraph} if "--graphs" in sys.argv else {}
    train(here, resume(here, place, **fixed), make_pictures())
    leave()
