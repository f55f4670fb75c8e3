"""Pictures on their way from a GPU to where they are wanted: the next one is computed while one is copied."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import fused


class Transfer:
    """What some pictures share that are rendered one after the other: copies under way, and whether one overflowed.

    Args:
        device: the GPU.
        depth: copies under way, through pinned memory; 0 waits for each.
    """

    def __init__(self, device: torch.device, depth: int = 0):
        self.device, self.depth = device, depth
        self.overflow = torch.zeros(1, dtype=torch.int32, device=device)
        """int32 [1], set by whoever renders."""
        self.dtype = torch.float32
        """Of the products, set likewise: for the advice when a picture is not finite."""
        self._under_way: list[tuple[torch.cuda.Event, Tensor, Tensor]] = []
        self._pinned: list[Tensor] = []

    def send(self, picture: Tensor, out: Tensor) -> None:
        """Copy a picture [C, height, width] into `out`, perhaps later. Work queued after this may change `picture`."""
        if out.device == picture.device or not self.depth:
            out.copy_(picture)
            return
        if len(self._under_way) == self.depth:
            self._land()
        pinned = self._memory(picture)
        pinned.copy_(picture, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._under_way.append((event, pinned, out))

    def finish(self) -> None:
        """Wait until all pictures have arrived; raises OverflowError if one was not finite."""
        while self._under_way:
            self._land()
        fused.check(self.overflow, self.dtype)

    def _land(self) -> None:
        event, pinned, out = self._under_way.pop(0)
        event.synchronize()
        out.copy_(pinned)
        self._pinned.append(pinned)

    def _memory(self, picture: Tensor) -> Tensor:
        """Pinned memory in the order of a picture."""
        for i, pinned in enumerate(self._pinned):
            if (pinned.shape, pinned.dtype, pinned.stride()) == (picture.shape, picture.dtype, picture.stride()):
                return self._pinned.pop(i)
        return torch.empty_strided(picture.shape, picture.stride(), dtype=picture.dtype, pin_memory=True)
