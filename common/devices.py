"""Select a device by name, and query its free memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import printable

if TYPE_CHECKING:
    import torch


def device_of(name: str | None = None) -> torch.device:
    """The device of that name; without a name a CUDA GPU if available, else the CPU.

    Args:
        name: cpu, cuda, cuda:1, mps, xpu...; None: the default.

    Raises:
        ValueError: this machine has no such device; lists those it has.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        available += ["xpu", *(f"xpu:{index}" for index in range(torch.xpu.device_count()))]
    if name is None:
        return torch.device("cuda" if "cuda" in available else "cpu")
    if name.strip().lower() not in available:
        verb = "are" if available[1:] else "is"
        raise ValueError(f"there is no device {printable(name, 60)!r} here; there {verb} {', '.join(available)}")
    return torch.device(name.strip().lower())


def free_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes, within the limit of a container; None if unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):  # the limit of a container
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    if not found and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(min(found), 0) if found else None
