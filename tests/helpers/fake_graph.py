"""CUDA graphs, emulated on a CPU.

    graph = FakeGraph()
    outputs = graph.capture(function)   # records the operations that torch dispatches; has no effect
    graph.replay()                      # repeats them on the tensors of the capture; outputs hold the results

It has the two methods of `kernels.graphs.CudaGraph` and its rules:

- a capture has no effect: tensors from outside that the function changes are restored, and its results are NaN until a
  replay;
- a replay reads from the same tensors as the capture did (the same addresses), runs no Python of the function, and
  writes into the same outputs;
- whatever a real capture cannot hold raises HostRead, a RuntimeError: reading a value on the host (`item`, `bool`,
  `nonzero`, `equal`, `x[mask]`), making a tensor of host values (`torch.tensor`), random numbers from a default
  generator. Values that Python takes from a CPU tensor without an operation (`numpy`) cannot be seen; `tolist` can (it
  is refused).

`launched` counts the operations of a capture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")
REFUSED = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "lift_fresh", "unique", "_unique2"}


class HostRead(RuntimeError):
    """An operation that a CUDA graph cannot hold."""


class FakeGraph:
    """See the module."""

    def __init__(self, *_: object) -> None:
        self._recorder: _Recorder | None = None

    @property
    def launched(self) -> int:
        """Operations of the capture, views not counted."""
        return len(self._recorder.operations) if self._recorder else 0

    def capture(self, function: Callable[[], T]) -> T:
        """Record `function`, whose effects are undone."""
        recorder = _Recorder()
        try:
            with recorder, mock.patch.object(Tensor, "tolist", _refuse_tolist):
                outputs = function()
        finally:
            recorder.undo()
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and recorder.made_here(tensor) and tensor.is_floating_point():
                with torch.no_grad():
                    tensor.detach().fill_(float("nan"))
        self._recorder = recorder
        return outputs

    def replay(self) -> None:
        """Repeat the recorded operations."""
        assert self._recorder is not None, "nothing has been captured"
        self._recorder.replay()


def _refuse_tolist(tensor: Tensor) -> Any:
    raise HostRead("tolist reads values on the host")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []
        self._kept: list[Tensor] = []  # so that no address is given out twice
        self._made: set[int] = set()  # addresses of storages
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # storages from outside that were changed

    def made_here(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")
        if name[0] == "profiler":
            return func(*args, **kwargs)
        masks = name[1].startswith("index") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in tree_leaves(args[1:2])
        )
        if name[1] in REFUSED or masks:
            raise HostRead(f"{func} reads values on the host, or copies them from it")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise HostRead(f"{func} draws random numbers that a replay would draw again")
        written = _written(func, args, kwargs)
        for tensor in written:
            self._remember(tensor)
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        fresh = [x for x in tensors if x.untyped_storage().data_ptr() not in inputs]
        self._made |= {x.untyped_storage().data_ptr() for x in fresh}
        self._kept += tensors
        if written or fresh:  # others are views
            self.operations.append((func, args, kwargs, result))
        return result

    def _remember(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address not in self._made and address not in self._before:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._before[address] = whole, whole.clone()

    def undo(self) -> None:
        for whole, before in self._before.values():
            whole.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            result = func(*args, **kwargs)
            for old, new in zip(tree_leaves(recorded), tree_leaves(result), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr() and old.numel():
                    old.detach().copy_(new)


def _written(func, args: tuple, kwargs: dict) -> list[Tensor]:
    """The arguments that an operation changes, by its schema."""
    found: list[Tensor] = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += [x for x in tree_leaves(value) if isinstance(x, Tensor)]
    return found


@contextlib.contextmanager
def counted():
    """Counts the operations that torch dispatches, except views: `with counted() as count: ...; count[0]`."""
    count = [0]

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            views = bool(outputs) and all(x.untyped_storage().data_ptr() in inputs for x in outputs)
            count[0] += bool(_written(func, args, kwargs or {})) or not views
            return result

    with Counter():
        yield count
