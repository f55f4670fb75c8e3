"""Precision of float32 products on CUDA: TF32 or full, for one block of work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_LOCK = threading.Lock()


@contextmanager
def float32_products(device: torch.device, tf32: bool) -> Iterator[None]:
    """Compute matrix products and convolutions of float32 on a CUDA device in TF32, or in full precision.

    The switches belong to the process: concurrent blocks that want different precisions see the last one's. Blocks may
    nest, and once the last one ends the switches are as before the first. Off CUDA nothing is read or written.

    Args:
        device: where the block computes.
        tf32: allow TF32; False: full float32, even where the process allows TF32.
    """
    if device.type != "cuda":
        yield
        return
    with _LOCK:
        before = _Switches.enter(tf32)
    try:
        yield
    finally:
        with _LOCK:
            _Switches.leave(before)


class _Switches:
    """State of torch's switches. Torch has two generations of them; where a process mixes both, reading the older
    one (`allow_tf32`) raises RuntimeError, and only the newer one (`fp32_precision`, torch 2.9) is used then."""

    depth = 0
    original: _State

    @classmethod
    def enter(cls, tf32: bool) -> _State:
        before = _State()
        if not cls.depth:
            cls.original = before
        before.write(tf32)
        cls.depth += 1
        return before

    @classmethod
    def leave(cls, before: _State) -> None:
        cls.depth -= 1
        (before if cls.depth else cls.original).restore()


class _State:
    """The values of the switches at one moment."""

    def __init__(self) -> None:
        import torch

        backends: Any = torch.backends
        self.matmul: str | None = None
        self.cudnn: bool | None = None
        with suppress(RuntimeError):
            _ = backends.cuda.matmul.allow_tf32  # raises in a mixed state
            self.matmul = torch.get_float32_matmul_precision()
        with suppress(RuntimeError):
            self.cudnn = backends.cudnn.allow_tf32
        newer: list[Any] = [backends.cuda.matmul, *(getattr(backends.cudnn, name, None) for name in ("conv", "rnn"))]
        self.newer = [(switch, switch.fp32_precision) for switch in newer if hasattr(switch, "fp32_precision")]
        cpu: Any = getattr(backends.mkldnn, "matmul", None)  # `set_float32_matmul_precision` writes it too
        self.kept = [*self.newer, (cpu, cpu.fp32_precision)] if hasattr(cpu, "fp32_precision") else self.newer

    def write(self, tf32: bool) -> None:
        import torch

        if self.matmul is not None:
            torch.backends.cuda.matmul.allow_tf32 = tf32
        if self.cudnn is not None:
            torch.backends.cudnn.allow_tf32 = tf32
        for switch, _ in self.newer:
            switch.fp32_precision = "tf32" if tf32 else "ieee"

    def restore(self) -> None:
        import torch

        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None:
            torch.backends.cudnn.allow_tf32 = self.cudnn
        for switch, value in self.kept:
            switch.fp32_precision = "none"
            if switch.fp32_precision != value:  # it was not inherited from a broader switch
                switch.fp32_precision = value
