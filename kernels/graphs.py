"""CUDA graphs, which launch recorded work at once, and the rules for code that they can capture.

Captured code reads no values on the host (`item`, `bool` of a tensor, copies to the CPU), makes no tensors of host
values, and takes what changes from tensors that stay in place. Code that reads values only where that is free, on a
CPU, asks `may_read_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")
_static: ContextVar[bool] = ContextVar("static", default=False)


class Graph(Protocol):
    """Recorded work."""

    def capture(self, function: Callable[[], _T]) -> _T:
        """Record the work of `function` without doing it.

        Returns:
            The result of `function`, whose tensors hold their values only after a `replay`.

        Raises:
            RuntimeError: the function does something that cannot be recorded. Nothing was changed.
        """
        ...

    def replay(self) -> None:
        """Do the work with the current values of the tensors that `function` read."""
        ...


class CudaGraph:
    """A `Graph` of CUDA. Graphs of one `pool` share memory: read the result of one before the next is replayed."""

    def __init__(self, device: torch.device, pool: Any = None):
        self.device, self.pool = device, pool
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], _T]) -> _T:
        # thread_local: other threads prepare batches in pinned memory, which must not invalidate the capture.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(self._graph, pool=self.pool, capture_error_mode="thread_local"),
        ):
            return function()

    def replay(self) -> None:
        self._graph.replay()


@contextmanager
def static_shapes(active: bool = True) -> Iterator[None]:
    """Within, code makes no decision by the values of tensors (see `may_read_values`): it always does the same."""
    token = _static.set(active)
    try:
        yield
    finally:
        _static.reset(token)


def may_read_values(tensor: Tensor) -> bool:
    """Whether code may read the values of a tensor: allowed here, and without waiting for a device."""
    return tensor.device.type == "cpu" and not _static.get()
