"""One training step, and everything that it changes.

Sources: StyleGAN2 (arXiv 1912.04958, sections 3.2 and 4, appendix B: lazy regularisation, path lengths), R1
(arXiv 1801.04406), ADA (arXiv 2006.06676), the moving average with ramp-up (arXiv 2106.12423).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TrainingError
from ..network import Discriminator, Generator
from .augment import AdaptiveProbability, Augment
from .parallel import Process
from .patches import box_positions
from .recipe import Recipe
from .synthesis import synthesize

W_AVG_DECAY = 0.998
NON_FINITE_LIMIT = 20  # times in a row, of one network
PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


@dataclass(frozen=True)
class Draw:
    """What a phase draws for the pictures it generates: latents and labels of the whole batch."""

    z: Tensor  # [batch, z_dim] float32
    c: Tensor  # [batch, c_dim] float32


class Trainer:
    """Networks, optimisers and counters of a run.

    Everything random in a step is drawn from the seed and the number of the step, so a run that is stopped and
    resumed goes on as if it had not been.

    Attributes:
        G, D, G_ema: the generator in training, the discriminator, and the moving average of the generator.
        steps: steps done. shown: real pictures shown, over all processes.
        skipped: phases skipped because a gradient was not finite.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        recipe: Recipe,
        *,
        generator_ema: Generator | None = None,
        device: torch.device | str = "cpu",
        process: Process | None = None,
    ):
        self.process = process or Process()
        _check(generator, discriminator, recipe, self.process)
        self.recipe = recipe
        self.device = torch.device(device)
        self.G = _trainable(generator, self.device)
        self.D = _trainable(discriminator, self.device)
        if self.device.type == "cpu":
            self.D.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.G_ema = _trainable(generator_ema or generator, self.device).eval()
        self.augment = Augment().to(self.device)
        self.augment.p.fill_(recipe.augment_p if recipe.augment != "none" else 0.0)
        self.ada = AdaptiveProbability(recipe.ada_target, recipe.ada_images / 1000, recipe.ada_interval).to(self.device)
        frozen = {p for layer in list(self.D.layers())[: recipe.freeze_d] for p in layer.parameters()}
        self.parameters = {
            "G": dict(self.G.named_parameters()),
            "D": {name: p for name, p in self.D.named_parameters() if p not in frozen},
        }
        self.optimizers = {
            "G": _adam(self.parameters["G"], recipe.g_lr, recipe.pl_interval if recipe.pl_weight else 0),
            "D": _adam(self.parameters["D"], recipe.d_lr, recipe.r1_interval if recipe.r1_gamma else 0),
        }
        self.pl_mean = torch.zeros([], device=self.device)
        self.steps = self.shown = self.skipped = 0
        self._skipped_in_a_row = dict.fromkeys(self.parameters, 0)
        self._start = 0  # of the part of the batch that is worked on
        self.autocast = _autocast_dtype(recipe.precision, self.device)
        self.labels: Tensor | None = None  # [M, c_dim] of the data set, to draw from

    def step(self, real: Tensor, labels: Tensor | None = None, boxes: Tensor | None = None) -> dict[str, Tensor]:
        """Show one batch, take every phase that is due.

        Args:
            real: this process' part of the batch, [batch / world, img_channels, R, R] in -1..1.
            labels: [batch / world, c_dim].
            boxes: [batch / world, 4] windows of the pictures (`patches`), None for whole pictures.

        Returns:
            Means of what was measured, by name, as scalars on the device.

        Raises:
            TrainingError: the gradients of a network have not been finite many times in a row.
        """
        recipe = self.recipe
        if boxes is None:
            boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(real), 4)
        real = real.to(self.device, memory_format=torch.channels_last)
        c = labels if labels is not None else torch.zeros(len(real), 0)
        self._stats: dict[str, list[Tensor]] = {}
        with _seeded(self.device, recipe.seed, self.steps, self.process.rank):
            draws = self.draw()
            for phase in self._due():
                self._take(phase, draws[phase], real, c.to(self.device), boxes)
        self._follow()
        self.steps += 1
        self.shown += recipe.batch
        self._adapt()
        self._stats["augment/p"] = [self.augment.p]
        return {
            name: torch.stack([v.detach().float().mean() for v in values]).mean()
            for name, values in self._stats.items()
        }

    def draw(self) -> dict[str, Draw]:
        """Latents and labels for every phase of this step, the same in all processes."""
        rng = torch.Generator().manual_seed(_mix(self.recipe.seed, self.steps, 0xC5E95))
        batch, config = self.recipe.batch, self.G.config
        draws = {}
        for phase in PHASES:
            z = torch.randn(batch, config.z_dim, generator=rng)
            c = torch.zeros(batch, config.c_dim)
            if self.labels is not None and config.c_dim:
                c = self.labels[torch.randint(len(self.labels), (batch,), generator=rng)]
            draws[phase] = Draw(z, c)
        return draws

    def path_noise(self, image: Tensor) -> Tensor:
        """Standard normal noise like a batch of pictures, for path lengths; the same for any number of processes."""
        rng = torch.Generator().manual_seed(_mix(self.recipe.seed, self.steps, 0x9A74, self._start))
        whole = torch.randn(len(image) * self.process.world, *image.shape[1:], generator=rng)
        return self.process.part(whole).to(image)

    # Phases

    def _due(self) -> Iterator[str]:
        recipe = self.recipe
        yield "Gmain"
        if recipe.pl_weight and recipe.pl_interval and self.steps % recipe.pl_interval == 0:
            yield "Greg"
        yield "Dmain"
        if recipe.r1_gamma and recipe.r1_interval and self.steps % recipe.r1_interval == 0:
            yield "Dreg"

    def _take(self, phase: str, draw: Draw, real: Tensor, c: Tensor, boxes: Tensor) -> None:
        """Losses and gradients of one phase, part by part, and the step of its optimiser."""
        network = phase[0]
        parameters = self.parameters[network]
        z, fake_c = (self.process.part(x).to(self.device) for x in (draw.z, draw.c))
        self.optimizers[network].zero_grad(set_to_none=True)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        size = self.recipe.micro_batch or len(real)
        parts = list(range(0, len(real), size))
        for self._start in parts:
            part = slice(self._start, self._start + size)
            match phase:
                case "Gmain":
                    loss = self._g_main(z[part], fake_c[part], boxes[part])
                case "Greg":
                    loss = self._g_reg(z[part], fake_c[part], boxes[part]) * self.recipe.pl_interval
                case "Dmain":
                    loss = self._d_main(real[part], c[part], z[part], fake_c[part], boxes[part])
                case _:
                    loss = self._d_reg(real[part], c[part]) * self.recipe.r1_interval
            (loss * (len(real[part]) / len(real))).backward()
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        self._update(network)

    def _g_main(self, z: Tensor, c: Tensor, boxes: Tensor) -> Tensor:
        logits = self._judge(self._generate(z, c, boxes)[0], c)
        self._report("scores/fake", logits)
        return self._report("loss/G", F.softplus(-logits)).mean()

    def _g_reg(self, z: Tensor, c: Tensor, boxes: Tensor) -> Tensor:
        """Path lengths: a step in w should change the picture by the same amount everywhere."""
        count = max(1, len(z) // self.recipe.pl_batch_shrink)
        image, ws = self._generate(z[:count], c[:count], boxes[:count])
        noise = self.path_noise(image) / math.sqrt(image.shape[2] * image.shape[3])
        (gradient,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()
        # The mean of the penalty over all processes, differentiated by hand: the running mean, of which this batch is
        # a part, depends on the lengths of every process.
        decay = self.recipe.pl_decay
        mean = self.process.mean(lengths.detach().mean())
        pl_mean = self.pl_mean.lerp(mean, decay)
        excess = lengths.detach() - pl_mean
        slope = 2 * (excess - decay * self.process.mean(excess.mean()))
        if torch.isfinite(pl_mean):
            self.pl_mean.copy_(pl_mean)
        self._report("path_length", lengths)
        self._report("loss/path_length", excess.square() * self.recipe.pl_weight)
        return (slope * lengths).mean() * self.recipe.pl_weight

    def _d_main(self, real: Tensor, c: Tensor, z: Tensor, fake_c: Tensor, boxes: Tensor) -> Tensor:
        with torch.no_grad():
            fake = self._generate(z, fake_c, boxes, track=False)[0]
        fake_logits, real_logits = self._judge(fake, fake_c), self._judge(real, c)
        self._report("scores/real", real_logits)
        self.ada.observe(real_logits)
        self._report("signs/real", real_logits.sign())
        loss = F.softplus(fake_logits) + F.softplus(-real_logits)
        return self._report("loss/D", loss).mean()

    def _d_reg(self, real: Tensor, c: Tensor) -> Tensor:
        """R1: the discriminator is flat around real pictures."""
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._judge(real, c).sum(), real, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3))
        self._report("r1_penalty", penalty)
        return penalty.mean() * (self.recipe.r1_gamma / 2)

    def _generate(self, z: Tensor, c: Tensor, boxes: Tensor, track: bool = True) -> tuple[Tensor, Tensor]:
        """Pictures and their ws. `track` moves w_avg: in the phases of the generator, as in the authors' code."""
        config, side = self.G.config, self.D.config.img_resolution
        ws = self.G.mapping(z, c if config.c_dim else None)
        if track:
            mean = self.process.mean(ws[:, 0].detach().mean(0))
            if torch.isfinite(mean).all():
                self.G.mapping.w_avg.lerp_(mean, 1 - W_AVG_DECAY)
        y, x = box_positions(boxes, side, config.img_resolution)
        if (boxes == boxes[0]).all():  # one line serves all
            y, x = y[0], x[0]
        with self._precision():
            return synthesize(self.G.synthesis, ws, y, x), ws

    def _judge(self, image: Tensor, c: Tensor) -> Tensor:
        if self.recipe.augment != "none":
            image = self.augment(image)
        with self._precision():
            return self.D(image, c if self.D.config.c_dim else None)

    # After the gradients

    def _update(self, network: str) -> None:
        gradients = [p.grad for p in self.parameters[network].values() if p.grad is not None]
        self.process.mean_all(gradients)
        if self.recipe.non_finite == "clean":
            clean(gradients)
        elif not _all_finite(gradients):
            self.skipped += 1
            self._skipped_in_a_row[network] += 1
            self._report("skipped", torch.ones([]))
            if self._skipped_in_a_row[network] >= NON_FINITE_LIMIT:
                raise TrainingError(
                    f"gradients of {network} were not finite {NON_FINITE_LIMIT} times in a row, after {self.shown} "
                    "pictures: the training has diverged. Go back to an earlier snapshot and lower the learning rates "
                    f"(g_lr {self.recipe.g_lr}, d_lr {self.recipe.d_lr}) or raise r1_gamma ({self.recipe.r1_gamma}), "
                    "or use precision float32"
                )
            return
        self._skipped_in_a_row[network] = 0
        self.optimizers[network].step()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the generator."""
        half_life = self.recipe.half_life(self.shown)
        beta = 0.5 ** (self.recipe.batch / max(half_life, 1e-8))
        for average, current in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
            average.lerp_(current, 1 - beta)
        for average, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            average.copy_(current)

    def _adapt(self) -> None:
        if self.recipe.augment == "ada":
            if self.steps % self.recipe.ada_interval == 0:
                self.process.mean(self.ada.signs)
            self.ada.update(self.augment.p, self.steps - 1, self.recipe.batch)

    def _report(self, name: str, values: Tensor) -> Tensor:
        self._stats.setdefault(name, []).append(values)
        return values

    def _precision(self):
        return torch.amp.autocast_mode.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )


def clean(gradients: list[Tensor]) -> None:
    """The authors' clean-up, in place: nan -> 0, +-inf -> +-1e5."""
    for gradient in gradients:
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


def _all_finite(gradients: list[Tensor]) -> bool:
    return bool(torch.stack([gradient.sum() for gradient in gradients]).isfinite().all())


def _adam(parameters: dict[str, nn.Parameter], lr: float, interval: int) -> torch.optim.Adam:
    """Adam, with its rates adjusted for the extra steps of lazy regularisation (StyleGAN2, appendix B)."""
    ratio = interval / (interval + 1) if interval else 1.0
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters.values())  # other devices may lack it
    return torch.optim.Adam(list(parameters.values()), lr=lr * ratio, betas=(0.0, 0.99**ratio), eps=1e-8, fused=fused)


def _trainable(module, device: torch.device):
    """A copy on the device, without gradients for now; never an inference tensor."""
    with torch.inference_mode(False):
        module = copy.deepcopy(module)
        for owner in module.modules():
            for store in (owner._parameters, owner._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        fresh = tensor.detach().clone().to(device, torch.float32)
                        store[name] = nn.Parameter(fresh, False) if isinstance(tensor, nn.Parameter) else fresh
    return module.train()


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None


@contextmanager
def _seeded(device: torch.device, *numbers: int):
    """torch's default generators seeded from these numbers; afterwards as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_mix(*numbers))
        yield


def _mix(*numbers: int) -> int:
    """A seed of 63 bits from several numbers (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def _check(generator: Generator, discriminator: Discriminator, recipe: Recipe, process: Process) -> None:
    g, d = generator.config, discriminator.config
    for name in ("img_channels", "c_dim"):
        if getattr(g, name) != getattr(d, name):
            raise TrainingError(
                f"the generator has {name} {getattr(g, name)}, the discriminator {getattr(d, name)}: they must agree"
            )
    if recipe.batch % process.world:
        raise TrainingError(f"batch {recipe.batch} must be a multiple of the {process.world} processes")
    if recipe.micro_batch and recipe.batch // process.world % recipe.micro_batch:
        raise TrainingError(
            f"the batch of a process, {recipe.batch // process.world}, must be a multiple of micro_batch "
            f"{recipe.micro_batch}"
        )
