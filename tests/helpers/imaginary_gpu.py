"""Makes of this CPU what the rendering takes for a GPU: the kernel in plain torch, graphs emulated."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from comfyui_creps import kernels
from comfyui_creps.creps_core.rendering import device, picture_graphs, precision
from comfyui_creps.kernels import fused
from emulated_kernel import launch
from fake_graph import FakeGraph
from torch.utils._python_dispatch import TorchDispatchMode

render_module = import_module("comfyui_creps.creps_core.rendering.render")  # the package has a function of that name


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the time of a test: `render` and the like take the way that they take on a CUDA device."""
    for module in (device, render_module):
        monkeypatch.setattr(module, "serves", lambda device: True)
    monkeypatch.setattr(picture_graphs, "make_graph", FakeGraph)
    monkeypatch.setattr(picture_graphs, "enabled", True)
    monkeypatch.setattr(fused, "launch", launch)
    backend = kernels.Backend(lambda *_, **__: None, fused.prepare, fused.entangle)
    monkeypatch.setitem(kernels.BACKENDS, "triton", backend)
    monkeypatch.setattr(precision, "explicit", explicit)
    monkeypatch.setattr(device, "explicit", explicit)
    monkeypatch.setattr(render_module, "explicit", explicit)


def explicit(name: str, device: torch.device) -> precision.Precision | None:
    """As `precision.explicit` on a GPU."""
    if name == "auto":
        return None
    dtype = kernels.resolve_precision(name, device)
    return precision.Precision(dtype, dtype)


class Counter(TorchDispatchMode):
    """Counts the operations that torch dispatches, views included, within `with Counter() as counter`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))
