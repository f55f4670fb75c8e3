"""Phases of a step that become graphs: thousands of launches at once, where the device can do that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels.graphs import CudaGraph, Graph, static_shapes

log = logging.getLogger("CREPS")

WARM_UP = 2  # times that a phase runs as it is before it is captured: libraries and optimisers make what they need
Tensors = dict[str, Tensor]
Phase = Callable[[Tensors], Tensors]


@dataclass
class _Work:
    """A phase for inputs of certain shapes."""

    inputs: Tensors  # stay where they are
    runs: int = 0
    graph: Graph | None = None
    outputs: Tensors = field(default_factory=dict)


class PhaseGraphs:
    """Runs phases, from their third time on as graphs. The first times are steps like any other.

    A phase is a function of tensors that changes nothing on the host, see `kernels.graphs`. What cannot be captured
    runs as it is, and so does everything after it; the reason is logged, and kept in `refused`.
    """

    def __init__(self, make_graph: Callable[[], Graph] | None, refused: str = ""):
        self._make_graph, self.refused = make_graph, refused
        self._works: dict[tuple, _Work] = {}

    @property
    def active(self) -> bool:
        """Whether phases are captured."""
        return self._make_graph is not None

    def run(self, name: str, phase: Phase, inputs: Tensors) -> Tensors:
        """What the phase returns; as a graph, valid until the next `run`."""
        if self._make_graph is None:
            return phase(inputs)
        key = (name, *((k, tuple(x.shape), x.dtype) for k, x in inputs.items()))
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work({k: x.clone() for k, x in inputs.items()})
        else:
            _copy(list(work.inputs.values()), list(inputs.values()))
        with static_shapes():
            if work.graph is None and work.runs >= WARM_UP:
                self._capture(name, work, phase)
            if work.graph is None:
                work.runs += 1
                return phase(work.inputs)
        work.graph.replay()
        return work.outputs

    def _capture(self, name: str, work: _Work, phase: Phase) -> None:
        assert self._make_graph is not None
        graph = self._make_graph()
        try:
            work.outputs = graph.capture(lambda: phase(work.inputs))
        except RuntimeError as error:
            self._make_graph, self.refused = None, f"{name} cannot be captured: {error}".splitlines()[0]
            self._works.clear()
            log.warning("training goes on without CUDA graphs, slower: %s", self.refused)
        else:
            work.graph = graph


def graphs_for(device: torch.device) -> Callable[[], Graph] | None:
    """What makes graphs on a device, all in one pool of memory; None where there are none."""
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    pool = torch.cuda.graph_pool_handle()
    return lambda: CudaGraph(device, pool)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source, non_blocking=True)
