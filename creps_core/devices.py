"""The device that is meant by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_of(name: str | None = None) -> torch.device:
    """The device of that name, or a GPU if there is one, else the CPU.

    Args:
        name: cpu, cuda, cuda:1, mps...; None: the best there is.

    Raises:
        ValueError: this machine has none of that name; says which there are.
    """
    import torch

    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        there += ["xpu", *(f"xpu:{index}" for index in range(torch.xpu.device_count()))]
    if name is None:
        return torch.device("cuda" if "cuda" in there else "cpu")
    if name.strip().lower() not in there:
        raise ValueError(f"there is no device {name!r} here; there {'are' if there[1:] else 'is'} {', '.join(there)}")
    return torch.device(name.strip().lower())
