"""Peak bytes of the tensors of a training step on a GPU, counted without one.

The phases run on fake tensors (shapes without values), in bfloat16, tiled as for a GPU, without reading values. What
the allocator, libraries and graphs add is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import package  # noqa: F401
import torch
from comfyui_creps.creps_core.bench.training import BenchCase
from comfyui_creps.creps_core.network import FOLDED_SMOOTHING, Discriminator, Generator
from comfyui_creps.creps_core.training import PHASES, TileSizes, Trainer, discriminator_config_for, run_phase
from comfyui_creps.kernels import static_shapes
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Tracks the bytes of all tensors created within; `peak` is the largest total at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)


def live_bytes(case: BenchCase, sizes: TileSizes) -> dict[str, int]:
    """By phase, the peak of a step of the case, without networks, averages and optimisers."""
    config = case.generator
    d_config = case.discriminator or discriminator_config_for(config, config.img_resolution)
    recipe = replace(case.recipe, augment="none", precision="bfloat16")
    trainer = Trainer(Generator(config), Discriminator(d_config), recipe, make_graph=False)
    trainer.passes.tile_sizes = sizes
    side, count = d_config.img_resolution, recipe.batch
    with FakeTensorMode(allow_non_fake_inputs=True):
        line = torch.zeros(side, dtype=torch.float64)
        shape, labels = (config.img_channels, side, side), torch.zeros(count, 0)
        inputs = {
            "latents": {"z": torch.zeros(count, config.z_dim), "c": labels, "y": line, "x": line},
            "real": {"real": torch.zeros(count, *shape, dtype=torch.uint8), "real_c": labels},
            "noise": {"noise": torch.zeros(trainer.inputs.path_images(trainer.micro_batches), *shape)},
            "window": {},
        }
        found = {}
        for phase in PHASES:
            rows = {name: x for group in trainer.phases[phase].inputs for name, x in inputs[group].items()}
            parameters = list(trainer.optimizers[phase[0]].parameters.values())
            with _as_on_a_gpu(), LiveBytes() as live:
                run_phase(trainer.phases[phase], rows, parameters, trainer.micro_batches)
            found[phase] = live.peak
    return found


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    FOLDED_SMOOTHING.add("cpu")
    try:
        with static_shapes():
            yield
    finally:
        FOLDED_SMOOTHING.discard("cpu")
