"""Several processes that train together: plain `torch.distributed`, started by `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ...common.errors import TrainingError


@dataclass(frozen=True)
class Process:
    """One of `world` processes. Each works on the images `batch[rank::world]`."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch that is the same in all processes."""
        return batch[self.rank :: self.world]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, in place, without gradients."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def mean_all(self, tensors: Sequence[Tensor]) -> None:
        """`mean` of many tensors in one reduction."""
        if self.world == 1 or not tensors:
            return
        flat = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world > 1:
            dist.barrier()


def join() -> Process:
    """Join the processes that `torchrun` started; without it, a process on its own.

    Raises:
        TrainingError: the processes cannot reach each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Process()
    try:
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"{world} processes were asked for, but they cannot reach each other ({error}). Start them with "
            "torchrun --nproc-per-node N -m -- comfyui_creps.creps_core.cli train ..."
        ) from error
    return Process(dist.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")))


def leave() -> None:
    """Leave the process group of `join`."""
    if dist.is_initialized():
        dist.destroy_process_group()
