"""The losses of a step's phases.

Sources: StyleGAN2 (arXiv 1912.04958, sections 3.2 and 4, appendix B: lazy regularisation, path lengths), R1
(arXiv 1801.04406), R3GAN (arXiv 2501.05441: the relativistic loss, R2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..network import Discriminator, Generator, Styles
from .augment import AdaptiveProbability, Alterations, Augment
from .parallel import Process
from .phase_graphs import Tensors
from .recipe import Recipe
from .synthesis import Pieces, synthesize


class Losses:
    """The part of a `Trainer` that judges: each loss is a function of tensors, rows of a part of the batch by name.

    `ws` collects, of the phases of the generator, the mean w of each part.
    """

    recipe: Recipe
    process: Process
    device: torch.device
    G: Generator
    D: Discriminator
    augment: Augment
    ada: AdaptiveProbability
    pl_mean: Tensor
    autocast: torch.dtype | None
    _relative: bool
    _pieces: Pieces
    _layers: Styles
    _reports: dict[str, list[Tensor]]

    def _g_main(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        image, w = self._generate(rows)
        ws.append(w.detach().mean(0))
        logits = self._judge(image, rows["c"], rows)
        self._report("scores/fake", logits)
        if self._relative:  # to the real picture beside it
            with torch.no_grad():
                real_logits = self._judge(rows["real"], rows["real_c"], rows, "real_")
            logits = logits - real_logits
        return self._report("loss/G", F.softplus(-logits)).mean()

    def _g_reg(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        """Path lengths: a step in w should change the picture by the same amount everywhere."""
        lengths, w = self._path_lengths(rows, True)
        ws.append(w[:, 0].detach().mean(0))
        # The mean of the penalty over all parts and processes, differentiated by hand: the running mean, of which this
        # batch is a part, depends on the lengths of all of them.
        decay, before = self.recipe.pl_decay, rows.get("pl_mean", self.pl_mean)
        mean = rows["path_mean"] if "path_mean" in rows else self.process.mean(lengths.detach().mean())
        pl_mean = before.lerp(mean, decay)
        excess = lengths.detach() - pl_mean
        slope = 2 * (excess - decay * (mean - pl_mean))
        self.pl_mean.copy_(torch.where(pl_mean.isfinite(), pl_mean, before))
        self._report("path_length", lengths)
        self._report("loss/path_length", excess.square() * self.recipe.pl_weight)
        return (slope * lengths).mean() * self.recipe.pl_weight * self.recipe.pl_interval

    def _path_mean(self, parts: list[Tensors]) -> Tensors:
        """What the parts of a batch have to know of each other for `_g_reg`, from a first look at all of them."""
        means = [self._path_lengths(rows, False)[0].mean() for rows in parts]
        return {"path_mean": self.process.mean(torch.stack(means).mean()), "pl_mean": self.pl_mean.clone()}

    def _path_lengths(self, rows: Tensors, create_graph: bool) -> tuple[Tensor, Tensor]:
        """[N] for the first N pictures, as many as there is noise for; and their ws."""
        count = len(rows["noise"])
        rows = {name: x[:count] if x.ndim > 1 else x for name, x in rows.items()}
        with torch.enable_grad():
            image, w = self._generate(rows, path_lengths=True)
            noise = rows["noise"] / math.sqrt(image.shape[2] * image.shape[3])
            (gradient,) = torch.autograd.grad((image * noise).sum(), w, create_graph=create_graph)
        return gradient.square().sum(2).mean(1).sqrt(), w

    def _d_main(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        with torch.no_grad():
            fake = self._generate(rows)[0]
        fake_logits = self._judge(fake, rows["c"], rows)
        real_logits = self._judge(rows["real"], rows["real_c"], rows, "real_")
        self._report("scores/real", real_logits)
        self.ada.observe(real_logits)
        self._report("signs/real", real_logits.sign())
        if self._relative:
            loss = F.softplus(fake_logits - real_logits)
        else:
            loss = F.softplus(fake_logits) + F.softplus(-real_logits)
        return self._report("loss/D", loss).mean()

    def _d_reg(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        """R1: the discriminator is flat around real pictures; R2: around generated ones too."""
        penalty = self._steepness(rows["real"], rows, "real_")
        self._report("r1_penalty", penalty)
        if self._relative:
            with torch.no_grad():
                fake = self._generate(rows)[0]
            generated = self._steepness(fake, rows, "")
            self._report("r2_penalty", generated)
            penalty = penalty + generated
        return penalty.mean() * (self.recipe.r1_gamma / 2 * self.recipe.r1_interval)

    def _steepness(self, images: Tensor, rows: Tensors, kind: str) -> Tensor:
        """For each picture, the squared length of the gradient of what the discriminator says of it."""
        images = images.detach().requires_grad_()
        logits = self._judge(images, rows[f"{kind}c"], rows, kind)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3))

    def _generate(self, rows: Tensors, path_lengths: bool = False) -> tuple[Tensor, Tensor]:
        """Pictures and their w, [N, w_dim]; for path lengths ws [N, num_ws, w_dim], in which they are differentiable
        each by itself even though the parameters are not."""
        mapping, config = self.G.mapping, self.G.config
        w = mapping.stack(rows["z"], rows["c"] if config.c_dim else None, mapping.w_avg.dtype)
        ws = w.unsqueeze(1).expand(-1, config.num_ws, -1)
        if path_lengths:
            ws = ws.contiguous()
            ws = ws if ws.requires_grad else ws.requires_grad_()
        with self._precision():
            image = synthesize(
                self.G.synthesis, ws, rows["y"], rows["x"], pieces=self._pieces, layers=self._layers
            )  # fmt: skip
        image = image if self.recipe.samples == 1 else F.avg_pool2d(image, self.recipe.samples)
        return image, ws if path_lengths else w

    def _judge(self, image: Tensor, c: Tensor, rows: Tensors, kind: str = "") -> Tensor:
        origins, colours = rows.get(f"{kind}origins"), rows.get(f"{kind}colours")
        if origins is not None or colours is not None:
            image = self.augment.alter(image, Alterations(origins, colours))
        with self._precision():
            return self.D(image, c if self.D.config.c_dim else None, rows.get("place"))

    def _report(self, name: str, values: Tensor) -> Tensor:
        self._reports.setdefault(name, []).append(values)
        return values

    def _precision(self):
        return torch.amp.autocast_mode.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )
