"""One training step, and everything that it changes.

Sources: StyleGAN2 (arXiv 1912.04958, sections 3.2 and 4, appendix B: lazy regularisation, path lengths), R1
(arXiv 1801.04406), ADA (arXiv 2006.06676), the moving average with ramp-up (arXiv 2106.12423).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.graphs import Graph, may_look
from ..errors import TrainingError
from ..network import Discriminator, Generator
from .augment import AdaptiveProbability, Alterations, Augment
from .averages import Averages
from .captured import Captured, Tensors, graphs_for
from .gradients import Skips, adam, added, clean, not_finite
from .parallel import Process
from .patches import WHOLE, box_positions
from .recipe import Recipe
from .synthesis import pieces_for, synthesize

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

    A step prepares the inputs of its phases, and then takes them: a phase is a function of tensors on the device
    (losses, gradients, the optimiser's step) that reads nothing on the host, so that a GPU can run it as one graph.

    Attributes:
        G, D, G_ema: the generator in training, the discriminator, and the moving average of the generator.
        averages: others, of which an average of any width can be made afterwards.
        steps: steps done. shown: real pictures shown, over all processes.
        captured: what runs the phases.
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
        make_graph: Callable[[], Graph] | bool = True,
    ):
        """Copy the networks to the device.

        Args:
            generator, discriminator: to begin with.
            recipe: how to train.
            generator_ema: the moving average to begin with; None for the generator.
            device: where to train.
            process: this one among several; alone by default.
            make_graph: what makes a graph; True for what the device has, False to run phases as they are.

        Raises:
            TrainingError: networks or recipe do not fit each other.
        """
        self.process = process or Process()
        _check(generator, discriminator, recipe, self.process)
        self.recipe = recipe
        self.device = torch.device(device)
        self.G = _trainable(generator, self.device)
        self.D = _trainable(discriminator, self.device)
        if self.device.type in ("cpu", "cuda"):
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
            "G": adam(self.parameters["G"], recipe.g_lr, recipe.pl_interval if recipe.pl_weight else 0),
            "D": adam(self.parameters["D"], recipe.d_lr, recipe.r1_interval if recipe.r1_gamma else 0),
        }
        self.pl_mean = torch.zeros([], device=self.device)
        self.averages: Averages | None = None  # begin with the first step, or with those of a snapshot
        self.steps = self.shown = 0
        self.labels: Tensor | None = None  # classes [M] or [M, c_dim] of the data set, to draw from
        self.autocast, self._tf32 = _autocast_dtype(recipe.precision, self.device), recipe.precision in ("auto", "tf32")
        self._relative = recipe.loss == "relativistic"
        self._skips = {name: Skips(self.device) for name in self.parameters}
        self._skipped = 0  # before this trainer
        self._pieces = pieces_for(self.device, self.G.config)
        self._rng = torch.Generator(self.device)
        self._whole: tuple[list[float], Tensor, Tensor] | None = None  # a box that all share, and its y and x
        self._names: dict[str, list[str]] = {}  # of what a phase reports
        self._reports: dict[str, list[Tensor]] = {}
        self.captured = Captured(graphs_for(self.device) if make_graph is True else make_graph or None)

    @property
    def skipped(self) -> int:
        """Phases skipped because a gradient was not finite. Waits for the device."""
        return self._skipped + sum(skips.total for skips in self._skips.values())

    @skipped.setter
    def skipped(self, value: int) -> None:
        self._skipped = value - (self.skipped - self._skipped)

    def step(self, real: Tensor, labels: Tensor | None = None, boxes: Tensor | None = None) -> dict[str, Tensor]:
        """Show one batch, take every phase that is due.

        Args:
            real: this process' part of the batch, [batch / world, img_channels, R, R], uint8 or in -1..1.
            labels: [batch / world, c_dim].
            boxes: [batch / world, 4] windows of the pictures (`patches`), on the CPU; None for whole pictures.

        Returns:
            Means of what was measured, by name, as scalars on the device.

        Raises:
            TrainingError: the gradients of a network have not been finite many times in a row.
        """
        stats: dict[str, Tensor] = {}
        with self._products():
            for phase, inputs in self._inputs(real, labels, boxes).items():
                stats |= self._take(phase, inputs)
            self._follow()
        self.steps += 1
        self.shown += self.recipe.batch
        self._adapt()
        self._watch()
        return {**stats, "augment/p": self.augment.p.clone()}

    # What a step is a function of

    def draw(self) -> dict[str, Draw]:
        """Latents and labels for every phase of this step, the same in all processes."""
        rng = self._random(0xC5E95)
        batch, config = self.recipe.batch, self.G.config
        draws = {}
        for phase in PHASES:
            z = torch.randn(batch, config.z_dim, generator=rng, device=self.device)
            c = z.new_zeros(batch, config.c_dim)
            if self.labels is not None and config.c_dim:
                self.labels = self.labels.to(self.device)
                drawn = self.labels[torch.randint(len(self.labels), (batch,), generator=rng, device=self.device)]
                c = drawn if drawn.ndim > 1 else c.scatter_(1, drawn[:, None], 1.0)
            draws[phase] = Draw(z, c)
        return draws

    def path_noise(self, count: int) -> Tensor:
        """Standard normal noise for path lengths, of as many pictures of this process as are worked on at a time.

        Returns:
            [parts of the batch, count, img_channels, R, R]; of the whole batch the same for any number of processes.
        """
        config, world = self.D.config, self.process.world
        shape = (len(self._parts()), count * world, config.img_channels, config.img_resolution, config.img_resolution)
        whole = torch.randn(shape, generator=self._random(0x9A74), device=self.device)
        return whole[:, self.process.rank :: world]

    def _random(self, purpose: int) -> torch.Generator:
        """Random numbers of this step, on the device."""
        return self._rng.manual_seed(_mix(self.recipe.seed, self.steps, purpose))

    def _inputs(self, real: Tensor, labels: Tensor | None, boxes: Tensor | None) -> dict[str, Tensors]:
        """By phase that is due, the tensors on the device that it is a function of.

        They have a row for each picture of this process, but for positions that all share and the noise, which has one
        for each part.
        """
        c = self._upload(labels if labels is not None else torch.zeros(len(real), 0))
        shown = {"real": self._upload(real), "real_c": c}
        y, x = self._positions(boxes, len(real))
        draws, altered = self.draw(), self._alterations()
        inputs: dict[str, Tensors] = {}
        for phase in self._due():
            found = inputs[phase] = {}
            if phase != "Dreg" or self._relative:
                draw = draws[phase]
                found |= {"z": self.process.part(draw.z), "c": self.process.part(draw.c), "y": y, "x": x}
                found |= {name: self._upload(tensor) for name, tensor in found.items()}
            if phase == "Greg":
                found["noise"] = self._upload(self.path_noise(self._path_pictures()))
            if phase[0] == "D" or (self._relative and phase == "Gmain"):
                found |= shown
            found |= altered.get(phase, {})
        return inputs

    def _upload(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for it."""
        if tensor.device.type == "cpu" and self.device.type == "cuda" and tensor.numel() and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _positions(self, boxes: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """Where the generator is evaluated: [R], or [count, R] when windows differ or may differ."""
        side, resolution = self.D.config.img_resolution, self.G.config.img_resolution
        boxes = torch.tensor([WHOLE]).expand(count, 4) if boxes is None else boxes
        if self.recipe.patches or not (boxes == boxes[0]).all():
            y, x = box_positions(boxes, side, resolution)
            return self._upload(y), self._upload(x)
        box = boxes[0].tolist()
        if self._whole is None or self._whole[0] != box:  # one line serves all
            y, x = box_positions(boxes[:1], side, resolution)
            self._whole = box, self._upload(y[0]), self._upload(x[0])
        return self._whole[1:]

    def _alterations(self) -> dict[str, Tensors]:
        """By phase, what augmentation does to the pictures of this step; names of real ones begin with `real_`."""
        pipeline = self.augment
        looks = may_look(pipeline.p) and not self.captured.active
        if self.recipe.augment == "none" or (looks and pipeline.p == 0):
            return {}
        kinds = [("Gmain", ""), ("Dmain", ""), ("Dmain", "real_"), ("Dreg", "real_")]
        kinds += [("Gmain", "real_"), ("Dreg", "")] if self._relative else []
        judged, batch, side = len(kinds), self.recipe.batch, self.D.config.img_resolution
        numbers = pipeline.draw(judged * batch, self._random(0xADA)).unflatten(2, (judged, batch))
        numbers = numbers[..., self.process.rank :: self.process.world].flatten(2)

        def compose(inputs: Tensors) -> Tensors:
            found = pipeline.alterations(inputs["numbers"], side, side)
            return {name: matrix for name, matrix in found._asdict().items() if matrix is not None}

        found = self.captured.run("augmentation", compose, {"numbers": numbers})
        result: dict[str, Tensors] = {}
        for name, matrix in found.items():
            for (phase, kind), part in zip(kinds, matrix.clone().chunk(judged), strict=True):
                result.setdefault(phase, {})[f"{kind}{name}"] = part
        return result

    # Phases

    def _due(self) -> Iterator[str]:
        recipe = self.recipe
        yield "Gmain"
        if recipe.pl_weight and recipe.pl_interval and self.steps % recipe.pl_interval == 0:
            yield "Greg"
        yield "Dmain"
        if recipe.r1_gamma and recipe.r1_interval and self.steps % recipe.r1_interval == 0:
            yield "Dreg"

    def _take(self, phase: str, inputs: Tensors) -> dict[str, Tensor]:
        """One phase, and what it measured."""
        alone = self.process.world == 1

        def work(inputs: Tensors) -> Tensors:
            outputs, gradients = self._phase(phase, inputs)
            if alone:
                self._update(phase[0], gradients)
                return outputs
            return outputs | {f"gradient {i}": gradient for i, gradient in enumerate(gradients) if gradient is not None}

        # Path lengths need a mean over all processes in their middle.
        whole = alone or phase != "Greg"
        outputs = self.captured.run(phase, work, inputs) if whole else work(inputs)
        reports = outputs["reports"].clone()
        if "w" in outputs:
            self._move_w_avg(outputs["w"])
        if not alone:
            names = [f"gradient {i}" for i in range(len(self.parameters[phase[0]]))]
            self.process.mean_all([outputs[name] for name in names if name in outputs])
            self._update(phase[0], [outputs.get(name) for name in names])
        return dict(zip(self._names[phase], reports.unbind(), strict=True))

    def _parts(self) -> list[slice]:
        """The parts of the batch of this process that are worked on one after the other."""
        count = self.recipe.batch // self.process.world
        size = self.recipe.micro_batch or count
        return [slice(start, start + size) for start in range(0, count, size)]

    def _path_pictures(self) -> int:
        """Pictures of a part whose path lengths are taken."""
        part = self._parts()[0]
        return max(1, (part.stop - part.start) // self.recipe.pl_batch_shrink)

    def _phase(self, phase: str, inputs: Tensors) -> tuple[Tensors, list[Tensor | None]]:
        """What a phase measured, and the gradients of its network's parameters: a function of tensors alone."""
        losses = {"Gmain": self._g_main, "Greg": self._g_reg, "Dmain": self._d_main, "Dreg": self._d_reg}
        parameters = list(self.parameters[phase[0]].values())
        for parameter in parameters:
            parameter.requires_grad_(True)
        self._reports = {}
        ws: list[Tensor] = []
        total: list[Tensor | None] = [None] * len(parameters)
        parts = self._parts()
        for i, part in enumerate(parts):
            rows = {
                name: x[i] if name == "noise" else x if name in ("y", "x") and x.ndim == 1 else x[part]
                for name, x in inputs.items()
            }
            if "real" in rows:
                rows["real"] = _as_floats(rows["real"])
            loss = losses[phase](rows, ws) / len(parts)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            total = [added(a, b, p) for a, b, p in zip(total, gradients, parameters, strict=True)]
        for parameter in parameters:
            parameter.requires_grad_(False)
        means = {
            name: torch.stack([v.detach().float().mean() for v in values]).mean()
            for name, values in self._reports.items()
        }
        self._names[phase] = list(means)
        outputs = {"reports": torch.stack(list(means.values()))}
        return outputs | ({"w": torch.stack(ws)} if ws else {}), total

    def _g_main(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        image, w = self._generate(rows)
        ws.append(w[:, 0].detach().mean(0))
        logits = self._judge(image, rows["c"], rows)
        self._report("scores/fake", logits)
        if self._relative:  # to the real picture beside it
            with torch.no_grad():
                real_logits = self._judge(rows["real"], rows["real_c"], rows, "real_")
            logits = logits - real_logits
        return self._report("loss/G", F.softplus(-logits)).mean()

    def _g_reg(self, rows: Tensors, ws: list[Tensor]) -> Tensor:
        """Path lengths: a step in w should change the picture by the same amount everywhere."""
        count, noise = self._path_pictures(), rows["noise"]
        image, w = self._generate({name: x[:count] if len(x) > count and x.ndim > 1 else x for name, x in rows.items()})
        ws.append(w[:, 0].detach().mean(0))
        noise = noise / math.sqrt(image.shape[2] * image.shape[3])
        (gradient,) = torch.autograd.grad((image * noise).sum(), w, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()
        # The mean of the penalty over all processes, differentiated by hand: the running mean, of which this batch is
        # a part, depends on the lengths of every process.
        decay = self.recipe.pl_decay
        mean = self.process.mean(lengths.detach().mean())
        pl_mean = self.pl_mean.lerp(mean, decay)
        excess = lengths.detach() - pl_mean
        slope = 2 * (excess - decay * self.process.mean(excess.mean()))
        self.pl_mean.copy_(torch.where(pl_mean.isfinite(), pl_mean, self.pl_mean))
        self._report("path_length", lengths)
        self._report("loss/path_length", excess.square() * self.recipe.pl_weight)
        return (slope * lengths).mean() * self.recipe.pl_weight * self.recipe.pl_interval

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

    def _generate(self, rows: Tensors) -> tuple[Tensor, Tensor]:
        """Pictures and their ws."""
        ws = self.G.mapping(rows["z"], rows["c"] if self.G.config.c_dim else None)
        with self._precision():
            return synthesize(self.G.synthesis, ws, rows["y"], rows["x"], pieces=self._pieces), ws

    def _judge(self, image: Tensor, c: Tensor, rows: Tensors, kind: str = "") -> Tensor:
        origins, colours = rows.get(f"{kind}origins"), rows.get(f"{kind}colours")
        if origins is not None or colours is not None:
            image = self.augment.alter(image, Alterations(origins, colours))
        with self._precision():
            return self.D(image, c if self.D.config.c_dim else None)

    # After the gradients

    def _update(self, network: str, gradients: Sequence[Tensor | None]) -> None:
        """The optimiser's step, unless a gradient is not finite. Decided on the device."""
        parameters, optimizer = self.parameters[network].values(), self.optimizers[network]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        found = [gradient for gradient in gradients if gradient is not None]
        if self.recipe.non_finite == "clean":
            clean(found)
            optimizer.step()
        else:
            bad = not_finite(found)
            self._skips[network].count(bad)
            if optimizer.defaults["fused"]:
                setattr(optimizer, "found_inf", bad)  # noqa: B010 - as `torch.amp.GradScaler` tells it
                optimizer.step()
            elif not bad:
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _move_w_avg(self, means: Tensor) -> None:
        """Means of w over the parts of the batch, [parts, w_dim]: w_avg follows the generator's phases alone, as in the
        authors' code.
        """
        w_avg = self.G.mapping.w_avg
        for mean in self.process.mean(means.clone()):
            w_avg.copy_(torch.where(mean.isfinite().all(), w_avg.lerp(mean, 1 - W_AVG_DECAY), w_avg))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the generator."""
        half_life = self.recipe.half_life(self.shown)
        beta = 0.5 ** (self.recipe.batch / max(half_life, 1e-8))
        averages, currents = ([*network.parameters()] for network in (self.G_ema, self.G))
        torch._foreach_lerp_(averages, currents, 1 - beta)  # pyright: ignore
        for average, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            average.copy_(current)
        if self.averages is None:
            self.averages = Averages(self.G, self.shown)
        self.averages.follow(self.G, self.shown, self.shown + self.recipe.batch)

    def _adapt(self) -> None:
        if self.recipe.augment == "ada":
            if self.steps % self.recipe.ada_interval == 0:
                self.process.mean(self.ada.signs)
            self.ada.update(self.augment.p, self.steps - 1, self.recipe.batch)

    def _watch(self) -> None:
        """Ends a training that has diverged. A GPU is asked once in so many steps, since that waits for it."""
        if self.device.type != "cpu" and self.steps % NON_FINITE_LIMIT:
            return
        for network, skips in self._skips.items():
            if skips.longest >= NON_FINITE_LIMIT:
                raise TrainingError(
                    f"gradients of {network} were not finite {NON_FINITE_LIMIT} times in a row, after {self.shown} "
                    "pictures: the training has diverged. Go back to an earlier snapshot and lower the learning rates "
                    f"(g_lr {self.recipe.g_lr}, d_lr {self.recipe.d_lr}) or raise r1_gamma ({self.recipe.r1_gamma}), "
                    "or use precision float32"
                )

    def _report(self, name: str, values: Tensor) -> Tensor:
        self._reports.setdefault(name, []).append(values)
        return values

    def _precision(self):
        return torch.amp.autocast_mode.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False
        )

    @contextmanager
    def _products(self) -> Iterator[None]:
        """What float32 products of a GPU are made of: TF32, or with precision float32 that alone."""
        products: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
        before = [p.allow_tf32 for p in products]
        try:
            if self.device.type == "cuda":
                for p in products:
                    p.allow_tf32 = self._tf32
            yield
        finally:
            if self.device.type == "cuda":
                for p, allowed in zip(products, before, strict=True):
                    p.allow_tf32 = allowed


def _as_floats(pictures: Tensor) -> Tensor:
    """uint8 pictures in -1..1; others as they are, but for the memory format."""
    if pictures.dtype == torch.uint8:
        pictures = pictures.float().div_(127.5).sub_(1)
    return pictures.contiguous(memory_format=torch.channels_last)


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
