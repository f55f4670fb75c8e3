"""Devices by name, and how much memory they have free."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import printable

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
        raise ValueError(
            f"there is no device {printable(name, 60)!r} here; there {'are' if there[1:] else 'is'} {', '.join(there)}"
        )
    return torch.device(name.strip().lower())


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is not known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # a container's limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    if not found and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(min(found), 0) if found else None
