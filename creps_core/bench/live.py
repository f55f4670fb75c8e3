"""How many bytes the tensors of a training step take at their peak, as on a GPU: counted without one.

The phases run on tensors that have shapes and no values, in bfloat16, in pieces as for a GPU and without looks at
values. What an allocator, libraries and graphs take on top is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...kernels import static_shapes
from ..network import FOLDS_ON, Discriminator, Generator
from ..training import PHASES, TileSizes, Trainer, discriminator_config_for, run_phase
from .training import Case


class Live(TorchDispatchMode):
    """Follows the memory of all tensors made within; `peak` bytes at most at a time."""

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


def live_bytes(case: Case, sizes: TileSizes) -> dict[str, int]:
    """By phase, the peak of what a step of the case takes beside networks, averages and optimisers."""
    config = case.generator
    judge = case.discriminator or discriminator_config_for(config, config.img_resolution)
    recipe = replace(case.recipe, augment="none", precision="bfloat16")
    trainer = Trainer(Generator(config), Discriminator(judge), recipe, make_graph=False)
    trainer.passes.tile_sizes = sizes
    side, count = judge.img_resolution, recipe.batch
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
            with _as_on_a_gpu(), Live() as live:
                run_phase(trainer.phases[phase], rows, parameters, trainer.micro_batches)
            found[phase] = live.peak
    return found


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    FOLDS_ON.add("cpu")
    try:
        with static_shapes():
            yield
    finally:
        FOLDS_ON.discard("cpu")
