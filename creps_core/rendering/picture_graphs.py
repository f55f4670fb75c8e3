"""Images of one kind that are rendered repeatedly, each replayed as one CUDA graph.

An image is a few hundred small operations; launched one by one from Python, they leave the GPU idle in between. A graph
launches them all at once. It repeats what was captured: sizes, weights and memory stay, only the latent and the
positions are new.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ...common.cache import LruCache
from ...kernels import Graph

log: logging.Logger = logging.getLogger("CREPS")

MAX_GRAPHS = 4
"""Graphs kept for a generator: each holds the memory of one image in progress."""
_MAX_KEYS = 256

_allowed = os.environ.get("CREPS_GRAPHS", "1") != "0"

Replay = Callable[..., Tensor]
MakeGraph = Callable[[torch.device], Graph]


def allow_graphs(allowed: bool) -> None:
    """Switch the capture and replay of images on or off for this process. `CREPS_GRAPHS=0` starts with it off."""
    global _allowed
    _allowed = allowed


def graphs_allowed() -> bool:
    """Whether images may be captured and replayed."""
    return _allowed


def capture(work: Callable[[], None], device: torch.device, make_graph: MakeGraph) -> Callable[[], None]:
    """Run `work` on a device, then capture it; returns the function that replays it."""
    work()  # libraries and layers allocate at their first call what they keep
    graph = make_graph(device)
    graph.capture(work)
    return graph.replay


class PictureGraphs:
    """The captured images of one generator; the least recently used one is dropped first."""

    def __init__(self) -> None:
        self._replays = LruCache[Hashable, Replay](MAX_GRAPHS)
        self._requested: set[Hashable] = set()
        self._failed = False

    def find(self, key: Hashable, make: Callable[[], Replay]) -> Replay | None:
        """The function that replays `key`; None at its first request, and where a capture is not possible.

        Args:
            key: everything that the captured work depends on.
            make: captures, see `capture`; the function that it returns may take arguments.
        """
        if not _allowed or self._failed:
            return None
        if replay := self._replays.get(key):
            return replay
        if key not in self._requested:
            if len(self._requested) > _MAX_KEYS:
                self._requested.clear()
            self._requested.add(key)
            return None
        self._replays.make_room()  # before the capture, which needs the memory
        try:
            return self._replays.put(key, make())
        except torch.cuda.OutOfMemoryError:
            self.clear()
            return None  # the image itself may fit
        except RuntimeError as error:
            self._failed = True
            self.clear()
            log.warning("pictures are not replayed as CUDA graphs: %s", str(error).splitlines()[0])
            return None

    def clear(self) -> None:
        """Drop all graphs and release their memory."""
        self._replays.clear()
        self._requested.clear()

    def __len__(self) -> int:
        return len(self._replays)
