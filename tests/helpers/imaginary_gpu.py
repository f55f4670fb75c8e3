"""Renders generators on this CPU as on a CUDA device: the kernel in plain torch, graphs emulated."""

from __future__ import annotations

import torch
from comfyui_creps.creps_core.network import Generator
from comfyui_creps.creps_core.rendering.device import RenderEngine, use_engine
from comfyui_creps.kernels import BACKENDS, PUBLISHED, StageShape, TritonBackend
from comfyui_creps.kernels.packing import PackedWeights
from emulated_kernel import launch
from fake_graph import FakeGraph
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class EmulatedTriton(TritonBackend):
    """The Triton backend, whose launches `emulated_kernel` computes."""

    def refuses(
        self, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
    ) -> str | None:
        return None

    def launch(self, columns: Tensor, rows: Tensor, weights: PackedWeights, out: Tensor, overflow: Tensor) -> None:
        launch(columns, rows, weights, out, overflow)


def engine(make_graph=FakeGraph, triton: TritonBackend | None = None) -> RenderEngine:
    """An engine for `rendering.device.use_engine`."""
    return RenderEngine({**BACKENDS, "triton": triton or EmulatedTriton()}, make_graph)


def on_imaginary_gpu(generator: Generator, **options) -> Generator:
    """The generator, rendered from now on by an `engine`."""
    use_engine(generator, engine(**options))
    return generator


class Counter(TorchDispatchMode):
    """Counts the operations that torch dispatches, views included, within `with Counter() as counter`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))
