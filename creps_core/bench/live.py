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

from ...kernels.graphs import static_shapes
from ..network import FOLDS_ON, Discriminator, Generator
from ..training import PHASES, Pieces, Trainer, discriminator_config_for
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


def live_bytes(case: Case, pieces: Pieces) -> dict[str, int]:
    """By phase, the peak of what a step of the case takes beside networks, averages and optimisers."""
    config = case.generator
    judge = case.discriminator or discriminator_config_for(config, config.img_resolution)
    recipe = replace(case.recipe, augment="none", precision="bfloat16")
    trainer = Trainer(Generator(config), Discriminator(judge), recipe, make_graph=False)
    trainer._pieces = pieces
    side, count = judge.img_resolution, recipe.batch
    with FakeTensorMode(allow_non_fake_inputs=True):
        line = torch.zeros(side, dtype=torch.float64)
        inputs = {
            "z": torch.zeros(count, config.z_dim),
            "c": torch.zeros(count, 0),
            "y": line,
            "x": line,
            "real": torch.zeros(count, config.img_channels, side, side, dtype=torch.uint8),
            "real_c": torch.zeros(count, 0),
            "noise": torch.zeros(trainer._path_pictures(), config.img_channels, side, side),
        }
        found = {}
        for phase in PHASES:
            rows = {name: x for name, x in inputs.items() if name != "noise" or phase == "Greg"}
            with _as_on_a_gpu(), Live() as live:
                trainer._phase(phase, rows)
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
