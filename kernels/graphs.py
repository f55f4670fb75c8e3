"""Work that is launched at once: CUDA graphs, and what code must keep to so that it can become one.

Code that is captured reads no values on the host (`item`, `bool` of a tensor, copies to the CPU), makes no tensors of
host values, and takes what changes from tensors that stay where they are. Code that may look at values where that is
free, on a CPU, asks `may_read_values`.
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
        """Record what `function` does, without doing it.

        Returns:
            What `function` returns. Its tensors hold their values only after a `replay`.

        Raises:
            RuntimeError: the function does something that cannot be recorded. Nothing has been changed.
        """
        ...

    def replay(self) -> None:
        """Do it, with what is now in the tensors that the function read."""
        ...


class CudaGraph:
    """A `Graph` of CUDA. Graphs of one pool share memory: read what one returned before the next is replayed."""

    def __init__(self, device: torch.device, pool: Any = None):
        self.device, self.pool = device, pool
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, function: Callable[[], _T]) -> _T:
        # Other threads, which prepare batches in pinned memory, are not to spoil it.
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
    """Whether a look at the values of a tensor is allowed, and waits for no device."""
    return tensor.device.type == "cpu" and not _static.get()
