"""Images on their way from a GPU to where they are wanted: the next one is computed while one is copied."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import OverflowFlag


class Transfer:
    """Copies under way, and an overflow flag, shared by images that are rendered one after the other.

    Args:
        device: the GPU.
        depth: number of copies under way, through pinned memory; 0 waits for each.
    """

    device: torch.device
    depth: int

    def __init__(self, device: torch.device, depth: int = 0):
        self.device, self.depth = device, depth
        self.overflow: OverflowFlag = OverflowFlag(device)
        """Set by the renderer of the images."""
        self._under_way: list[tuple[torch.cuda.Event, Tensor, Tensor]] = []
        self._pinned: list[Tensor] = []

    def send(self, image: Tensor, out: Tensor) -> None:
        """Copy an image [C, height, width] into `out`, perhaps later. Work queued after this may change `image`."""
        if out.device == image.device or not self.depth:
            out.copy_(image)
            return
        if len(self._under_way) == self.depth:
            self._land()
        pinned = self._memory(image)
        pinned.copy_(image, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._under_way.append((event, pinned, out))

    def finish(self) -> None:
        """Wait until all images have arrived; raises OverflowError if one was not finite."""
        while self._under_way:
            self._land()
        self.overflow.check()

    def _land(self) -> None:
        event, pinned, out = self._under_way.pop(0)
        event.synchronize()
        out.copy_(pinned)
        self._pinned.append(pinned)

    def _memory(self, image: Tensor) -> Tensor:
        """Pinned memory with the strides of an image."""
        for i, pinned in enumerate(self._pinned):
            if (pinned.shape, pinned.dtype, pinned.stride()) == (image.shape, image.dtype, image.stride()):
                return self._pinned.pop(i)
        return torch.empty_strided(image.shape, image.stride(), dtype=image.dtype, pin_memory=True)
