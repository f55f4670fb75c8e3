"""One training step, and everything that it changes.

`step_inputs.py` draws what a step is a function of, `losses.py` says what its phases minimise; here gradients are
taken, and weights, averages and counters moved.

Sources: StyleGAN2 (arXiv 1912.04958, appendix B: lazy regularisation), ADA (arXiv 2006.06676), the moving average with
ramp-up (arXiv 2106.12423).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import TrainingError
from ...kernels.graphs import Graph
from ..network import Discriminator, Generator, Styles
from .augment import AdaptiveProbability, Augment
from .averages import Averages
from .gradients import Skips, adam, added, clean, not_finite
from .losses import Losses
from .memory import part_for
from .parallel import Process
from .phase_graphs import PhaseGraphs, Tensors, graphs_for
from .recipe import Recipe
from .step_inputs import StepInputs
from .synthesis import pieces_for

W_AVG_DECAY = 0.998
NON_FINITE_LIMIT = 20  # times in a row, of one network


class Trainer(StepInputs, Losses):
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
        self.autocast, self._tf32 = _autocast_dtype(recipe.precision, self.device), recipe.precision in ("auto", "tf32")
        self._skips = {name: Skips(self.device) for name in self.parameters}
        self._skipped = 0  # before this trainer
        self._pieces = pieces_for(self.device, self.G.config)
        self._layers = Styles(self.G.synthesis)
        self._names: dict[str, list[str]] = {}  # of what a phase reports
        self._reports: dict[str, list[Tensor]] = {}
        StepInputs.__init__(self)
        self.captured = PhaseGraphs(graphs_for(self.device) if make_graph is True else make_graph or None)

    def keep_within(self, memory: int) -> None:
        """Work on so much at a time that the training takes about so many bytes.

        Raises:
            TrainingError: that is too little.
        """
        batch, half = self.recipe.batch // self.process.world, self.autocast is not None
        size = part_for(self.G.config, self.D.config, batch, memory, self.device, half)
        self.recipe = dataclasses.replace(self.recipe, micro_batch=size)
        self._pieces = pieces_for(self.device, self.G.config, memory)

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

    # Phases

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

    def _phase(self, phase: str, inputs: Tensors) -> tuple[Tensors, list[Tensor | None]]:
        """What a phase measured, and the gradients of its network's parameters: a function of tensors alone."""
        losses = {"Gmain": self._g_main, "Greg": self._g_reg, "Dmain": self._d_main, "Dreg": self._d_reg}
        parameters = list(self.parameters[phase[0]].values())
        self._reports = {}
        ws: list[Tensor] = []
        total: list[Tensor | None] = [None] * len(parameters)
        parts = self._parts(inputs)
        shared = self._path_mean(parts) if phase == "Greg" and len(parts) > 1 else {}
        for parameter in parameters:
            parameter.requires_grad_(True)
        for rows in parts:
            if "real" in rows:
                rows["real"] = _as_floats(rows["real"])
            loss = losses[phase](rows | shared, ws) / len(parts)
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
        return outputs | ({"w": torch.stack(ws).mean(0)} if ws else {}), total

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
    def _move_w_avg(self, mean: Tensor) -> None:
        """The mean of w, [w_dim]: w_avg follows the generator's phases alone, as in the authors' code."""
        w_avg, mean = self.G.mapping.w_avg, self.process.mean(mean.clone())
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
