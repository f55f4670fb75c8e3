"""A phase of a training step as a value, and the gradients of its loss.

A step has up to four phases, named as in StyleGAN2: `Gmain` and `Dmain` minimise the adversarial loss, `Greg` (path
lengths) and `Dreg` (R1) regularise, lazily: only every `interval` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .gradients import add_gradients

PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
Tensors = dict[str, Tensor]


class PhaseLoss(NamedTuple):
    """The loss of a micro-batch."""

    loss: Tensor  # scalar, with its graph
    report: Tensors  # by name, values per image, of which the statistics take the mean
    w: Tensor | None = None  # [w_dim], the mean w of the micro-batch, by which w_avg moves


@dataclass(frozen=True)
class Phase:
    """One phase of a step.

    Attributes:
        name: one of `PHASES`.
        network: whose parameters it updates, "G" or "D".
        interval: steps from one time to the next; 0: never.
        loss: of a micro-batch; a function of tensors that reads nothing on the host.
        inputs: the groups of tensors that the loss takes, among "latents", "noise", "real" and "window".
        batch_means: of all micro-batches, additional inputs that each of them needs; None: there are none. It averages
            over processes, so the phase does not become a graph where there are several.
    """

    name: str
    network: str
    interval: int
    loss: Callable[[Tensors], PhaseLoss]
    inputs: tuple[str, ...]
    batch_means: Callable[[Sequence[Tensors]], Tensors] | None = None

    def is_due(self, step: int) -> bool:
        """Whether step number `step`, counted from 0, takes this phase."""
        return self.interval > 0 and step % self.interval == 0


class PhaseResult(NamedTuple):
    """What a phase computes, before its network is updated."""

    names: tuple[str, ...]  # of the reports
    reports: Tensor  # [len(names)] float32, their means
    w: Tensor | None  # [w_dim], the mean w of the batch
    gradients: list[Tensor | None]  # of the network's parameters, in their order


def run_phase(phase: Phase, inputs: Tensors, parameters: Sequence[nn.Parameter], micro_batches: int = 1) -> PhaseResult:
    """Compute the loss of a phase and its gradients, accumulated over the micro-batches.

    Args:
        phase: the phase.
        inputs: tensors of the batch; images as uint8 or in -1..1.
        parameters: to differentiate by; they require gradients only within.
        micro_batches: how many parts the batch is split into.
    """
    reports: dict[str, list[Tensor]] = {}
    ws: list[Tensor] = []
    total: list[Tensor | None] = [None] * len(parameters)
    batches = split_inputs(inputs, micro_batches)
    shared = phase.batch_means(batches) if phase.batch_means and micro_batches > 1 else {}
    for parameter in parameters:
        parameter.requires_grad_(True)
    for rows in batches:
        if "real" in rows:
            rows["real"] = _as_floats(rows["real"])
        loss, report, w = phase.loss(rows | shared)
        gradients = torch.autograd.grad(loss / micro_batches, parameters, allow_unused=True)
        total = [add_gradients(a, b, p) for a, b, p in zip(total, gradients, parameters, strict=True)]
        ws += [] if w is None else [w]
        for name, values in report.items():
            reports.setdefault(name, []).append(values)
    for parameter in parameters:
        parameter.requires_grad_(False)
    means = [torch.stack([v.detach().float().mean() for v in values]).mean() for values in reports.values()]
    return PhaseResult(tuple(reports), torch.stack(means), torch.stack(ws).mean(0) if ws else None, total)


def split_inputs(inputs: Tensors, micro_batches: int) -> list[Tensors]:
    """Split the inputs into interleaved micro-batches (`x[i::micro_batches]`).

    Interleaving keeps the groups of the minibatch standard deviation those of the whole batch, where their size divides
    that of a micro-batch, and keeps the images whose path lengths are taken. Positions that all images share, y and x
    of one dimension, are not split.
    """
    shared = {name for name, x in inputs.items() if name in ("y", "x") and x.ndim == 1}
    return [
        {name: x if name in shared else x[i::micro_batches] for name, x in inputs.items()} for i in range(micro_batches)
    ]


def _as_floats(images: Tensor) -> Tensor:
    """Map uint8 images to -1..1, and lay images out channels last."""
    if images.dtype == torch.uint8:
        images = images.float().div_(127.5).sub_(1)
    return images.contiguous(memory_format=torch.channels_last)
