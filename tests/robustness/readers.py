"""What is done with a file of any kind: all readers, and with what loads, all that is drawn from it."""

from __future__ import annotations

from pathlib import Path

from comfyui_creps.creps_core.checkpoints import inspect_checkpoint, load_generator
from comfyui_creps.creps_core.latents import find_directions, load_directions, load_latents, sample
from comfyui_creps.creps_core.rendering import render
from comfyui_creps.creps_core.training import load_networks, load_snapshot


def draw(path: Path) -> None:
    """A generator loaded, and a few pixels and directions of it."""
    generator = load_generator(path)
    render(generator, sample(generator, [0]), height=2, width=2)
    find_directions(generator, count=2, samples=8)


READERS = {
    "draw": draw,
    "info": inspect_checkpoint,
    "networks": load_networks,
    "snapshot": load_snapshot,
    "latents": load_latents,
    "directions": load_directions,
}
OF_KIND = {
    "generator": ("draw", "info", "networks"),
    "snapshot": ("snapshot", "networks", "draw", "info"),
    "latents": ("latents",),
    "directions": ("directions",),
    "official": ("draw", "networks", "info"),
}
