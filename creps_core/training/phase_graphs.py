"""Phases of a step as graphs: thousands of launches at once, where the device supports it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...kernels import CudaGraph, Graph, static_shapes
from .phases import Tensors

log: logging.Logger = logging.getLogger("CREPS")

_T = TypeVar("_T")
WARM_UP = 2  # eager runs of a phase before its capture, in which libraries and optimisers allocate what they need


@dataclass
class _Recording:
    """A phase for inputs of certain shapes."""

    inputs: Tensors  # at fixed addresses
    runs: int = 0
    graph: Graph | None = None
    outputs: Any = None


class PhaseGraphs:
    """Runs phases, from their third time on as graphs. The eager runs before are steps like any other.

    A phase is a function of tensors that changes nothing on the host, see `kernels.graphs`. A phase that cannot be
    captured runs eagerly, and so does everything after it; the reason is logged, and kept in `refused`.
    """

    refused: str

    def __init__(self, make_graph: Callable[[], Graph] | None, refused: str = ""):
        self._make_graph, self.refused = make_graph, refused
        self._recordings: dict[tuple, _Recording] = {}

    @property
    def active(self) -> bool:
        """Whether phases are captured."""
        return self._make_graph is not None

    @property
    def captured(self) -> set[str]:
        """The names of the phases that have become graphs."""
        return {key[0] for key, recording in self._recordings.items() if recording.graph}

    def run(self, name: str, function: Callable[[Tensors], _T], inputs: Tensors) -> _T:
        """What the function returns; the tensors of a graph are valid until the next `run`."""
        if self._make_graph is None:
            return function(inputs)
        key = (name, *((k, tuple(x.shape), x.dtype) for k, x in inputs.items()))
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = _Recording({k: x.clone() for k, x in inputs.items()})
        else:
            _copy(list(recording.inputs.values()), list(inputs.values()))
        with static_shapes():
            if recording.graph is None and recording.runs >= WARM_UP:
                self._capture(name, recording, function)
            if recording.graph is None:
                recording.runs += 1
                return function(recording.inputs)
        recording.graph.replay()
        return recording.outputs

    def _capture(self, name: str, recording: _Recording, function: Callable[[Tensors], Any]) -> None:
        assert self._make_graph is not None
        graph = self._make_graph()
        try:
            recording.outputs = graph.capture(lambda: function(recording.inputs))
        except RuntimeError as error:
            self._make_graph, self.refused = None, f"{name} cannot be captured: {error}".splitlines()[0]
            self._recordings.clear()
            log.warning("training continues without CUDA graphs, slower: %s", self.refused)
        else:
            recording.graph = graph


def graphs_for(device: torch.device) -> Callable[[], Graph] | None:
    """A maker of graphs on a device, all in one memory pool; None where the device has none."""
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    pool = torch.cuda.graph_pool_handle()
    return lambda: CudaGraph(device, pool)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source, non_blocking=True)
