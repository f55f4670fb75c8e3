"""The losses of the phases of a step, each a function of the inputs of a micro-batch.

Sources: StyleGAN2 (arXiv 1912.04958, sections 3.2 and 4, appendix B: lazy regularisation, path lengths), R1
(arXiv 1801.04406), R3GAN (arXiv 2501.05441: R2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .adversarial import ADVERSARIAL_LOSSES, FAKE, REAL, AdversarialLoss
from .augment import AdaptiveProbability
from .forward import ForwardPasses
from .parallel import Process
from .phases import Phase, PhaseLoss, Tensors
from .recipe import Recipe


def make_phases(
    recipe: Recipe, passes: ForwardPasses, ada: AdaptiveProbability, path_length: PathLength
) -> dict[str, Phase]:
    """The phases of a recipe, by name, in the order in which a step takes them."""
    adversarial = ADVERSARIAL_LOSSES[recipe.loss]
    main = MainLosses(passes, adversarial, ada)
    penalty = GradientPenalty(passes, recipe.r1_gamma, recipe.r1_interval)

    def inputs(phase: str) -> tuple[str, ...]:
        groups = {FAKE: "latents", REAL: "real"}
        return (*(group for kind, group in groups.items() if (phase, kind) in adversarial.images), "window")

    phases = (
        Phase("Gmain", "G", 1, main.generator_loss, inputs("Gmain")),
        Phase(
            "Greg", "G", recipe.pl_interval if recipe.pl_weight else 0, path_length.loss, ("latents", "noise"),
            path_length.batch_means,
        ),
        Phase("Dmain", "D", 1, main.discriminator_loss, inputs("Dmain")),
        Phase("Dreg", "D", recipe.r1_interval if recipe.r1_gamma else 0, penalty.loss, inputs("Dreg")),
    )  # fmt: skip
    return {phase.name: phase for phase in phases}


class MainLosses:
    """The adversarial losses of both networks."""

    passes: ForwardPasses
    adversarial: AdversarialLoss
    ada: AdaptiveProbability

    def __init__(self, passes: ForwardPasses, adversarial: AdversarialLoss, ada: AdaptiveProbability):
        self.passes, self.adversarial, self.ada = passes, adversarial, ada

    def generator_loss(self, rows: Tensors) -> PhaseLoss:
        """`Gmain`. Real images take part where the adversarial loss asks for them."""
        image, w = self.passes.generate(rows)
        mean_w = w.detach().mean(0)
        fake_logits = self.passes.discriminate(image, rows)
        real_logits = None
        if "real" in rows:
            with torch.no_grad():
                real_logits = self.passes.discriminate(rows["real"], rows, REAL)
        loss = self.adversarial.generator(fake_logits, real_logits)
        return PhaseLoss(loss.mean(), {"scores/fake": fake_logits, "loss/G": loss}, mean_w)

    def discriminator_loss(self, rows: Tensors) -> PhaseLoss:
        """`Dmain`. The signs of the real logits steer the augmentation."""
        with torch.no_grad():
            fake = self.passes.generate(rows)[0]
        fake_logits = self.passes.discriminate(fake, rows)
        real_logits = self.passes.discriminate(rows["real"], rows, REAL)
        self.ada.observe(real_logits)
        loss = self.adversarial.discriminator(fake_logits, real_logits)
        report = {"scores/real": real_logits, "signs/real": real_logits.sign(), "loss/D": loss}
        return PhaseLoss(loss.mean(), report)


class GradientPenalty:
    """R1: the squared gradient of the discriminator at real images; R2: at generated ones too, where there are any."""

    passes: ForwardPasses
    gamma: float
    interval: int

    def __init__(self, passes: ForwardPasses, gamma: float, interval: int):
        self.passes, self.gamma, self.interval = passes, gamma, interval

    def loss(self, rows: Tensors) -> PhaseLoss:
        """`Dreg`, scaled by the interval (lazy regularisation)."""
        penalty = self._squared_gradient(rows["real"], rows, REAL)
        report = {"r1_penalty": penalty}
        if "z" in rows:
            with torch.no_grad():
                fake = self.passes.generate(rows)[0]
            report["r2_penalty"] = r2 = self._squared_gradient(fake, rows, FAKE)
            penalty = penalty + r2
        return PhaseLoss(penalty.mean() * (self.gamma / 2 * self.interval), report)

    def _squared_gradient(self, images: Tensor, rows: Tensors, kind: str) -> Tensor:
        """[N], for each image the squared length of the gradient of its logit."""
        images = images.detach().requires_grad_()
        logits = self.passes.discriminate(images, rows, kind)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3))


class PathLength:
    """Path-length regularisation: a step in w should change the image by the same amount everywhere.

    Attributes:
        mean: scalar, the running mean of the lengths.
    """

    passes: ForwardPasses
    process: Process
    decay: float
    scale: tuple[float, int]

    def __init__(self, passes: ForwardPasses, recipe: Recipe, process: Process, device: torch.device):
        self.passes, self.process = passes, process
        self.decay, self.scale = recipe.pl_decay, (recipe.pl_weight, recipe.pl_interval)
        self.mean: Tensor = torch.zeros([], device=device)

    def loss(self, rows: Tensors) -> PhaseLoss:
        """`Greg`.

        The gradient of the penalty's mean over all micro-batches and processes is written out: the running mean, to
        which this batch contributes, depends on the lengths of all of them.
        """
        weight, interval = self.scale
        lengths, ws = self._lengths(rows, create_graph=True)
        before = rows.get("path_mean_before", self.mean)
        mean = rows["path_mean"] if "path_mean" in rows else self.process.mean(lengths.detach().mean())
        running = before.lerp(mean, self.decay)
        excess = lengths.detach() - running
        slope = 2 * (excess - self.decay * (mean - running))
        self.mean.copy_(torch.where(running.isfinite(), running, before))
        report = {"path_length": lengths, "loss/path_length": excess.square() * weight}
        return PhaseLoss((slope * lengths).mean() * weight * interval, report, ws[:, 0].detach().mean(0))

    def batch_means(self, micro_batches: Sequence[Tensors]) -> Tensors:
        """The mean length over all micro-batches and processes, by a first pass without second derivatives."""
        means = [self._lengths(rows, create_graph=False)[0].mean() for rows in micro_batches]
        return {"path_mean": self.process.mean(torch.stack(means).mean()), "path_mean_before": self.mean.clone()}

    def _lengths(self, rows: Tensors, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Path lengths [N] of the first N images, for which there is noise, and their ws [N, num_ws, w_dim]."""
        count = len(rows["noise"])
        rows = {name: x[:count] if x.ndim > 1 else x for name, x in rows.items()}
        with torch.enable_grad():
            ws = self.passes.expand(self.passes.map_latents(rows)).contiguous()  # each w is differentiated by itself
            ws = ws if ws.requires_grad else ws.requires_grad_()  # also where parameters need no gradients
            image = self.passes.synthesize(ws, rows)
            noise = rows["noise"] / math.sqrt(image.shape[2] * image.shape[3])
            (gradient,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=create_graph)
        return gradient.square().sum(2).mean(1).sqrt(), ws
