"""Pictures that are rendered again and again, replayed as one CUDA graph.

A picture is a few hundred small operations; started one by one from Python, the GPU waits between them. A graph starts
them all at once. It repeats what was recorded: sizes, weights and memory stay, only latent and positions are new.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ...kernels.graphs import CudaGraph, Graph

log = logging.getLogger("CREPS")

MOST = 4
"""Graphs that are kept for a generator: each holds the memory of one picture on its way."""

enabled = os.environ.get("CREPS_GRAPHS", "1") != "0"
"""Whether to record at all; a host that was told not to sets it."""

Replay = Callable[..., Tensor]

make_graph: Callable[[torch.device], Graph] = CudaGraph


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Run `work` on a device, then record it; returns what runs it again."""
    work()  # libraries and layers allocate what they keep at the first call
    graph = make_graph(device)
    graph.capture(work)
    return graph.replay


class PictureGraphs:
    """The recordings of one generator, the least recently used one is forgotten first."""

    def __init__(self) -> None:
        self._replays: OrderedDict[Hashable, Replay] = OrderedDict()
        self._asked: set[Hashable] = set()
        self._failed = False

    def find(self, key: Hashable, make: Callable[[], Replay]) -> Replay | None:
        """What replays `key`; None the first time that it is asked for, and where recording is not possible.

        Args:
            make: records, see `record`; what it returns may take arguments.
        """
        if not enabled or self._failed:
            return None
        if key in self._replays:
            self._replays.move_to_end(key)
            return self._replays[key]
        if key not in self._asked:
            if len(self._asked) > 256:
                self._asked.clear()
            self._asked.add(key)
            return None
        while len(self._replays) >= MOST:
            self._replays.popitem(last=False)
        try:
            self._replays[key] = make()
        except torch.cuda.OutOfMemoryError:
            self.clear()
            return None  # the picture itself may fit
        except RuntimeError as error:
            self._failed = True
            self.clear()
            log.warning("pictures are not replayed as CUDA graphs: %s", str(error).splitlines()[0])
            return None
        return self._replays[key]

    def clear(self) -> None:
        """Forget all recordings and let their memory go."""
        self._replays.clear()
        self._asked.clear()

    def __len__(self) -> int:
        return len(self._replays)
