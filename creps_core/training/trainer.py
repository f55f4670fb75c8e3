"""One training step, and the state that it changes.

A step draws its inputs (`step_inputs.py`), takes the phases that are due (`phases.py`, with the losses of `losses.py`
over the forward passes of `forward.py`), and moves weights (`gradients.py`), averages and counters.

Sources: StyleGAN2 (arXiv 1912.04958, appendix B: lazy regularisation), ADA (arXiv 2006.06676), the moving average with
ramp-up (arXiv 2106.12423).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...common.errors import TrainingError
from ...common.float32 import float32_products
from ...kernels import Graph
from ..network import Discriminator, Generator
from .augment import AdaptiveProbability, Augment
from .averages import Averages
from .forward import ForwardPasses
from .gradients import NetworkOptimizer
from .losses import PathLength, make_phases
from .memory import micro_batch_for
from .parallel import Process
from .phase_graphs import PhaseGraphs, graphs_for
from .phases import Phase, PhaseResult, Tensors, run_phase
from .recipe import Recipe
from .step_inputs import StepInputs
from .synthesis import tile_sizes_for

W_AVG_DECAY = 0.998
NON_FINITE_LIMIT = 20  # skipped steps in a row, of one network


class Trainer:
    """Networks, optimisers and counters of a run.

    Everything random in a step is drawn from the seed and the step number, so a run that is stopped and resumed takes
    the same steps as one that is not.

    A phase is a function of tensors on the device (loss, gradients, Adam's step) that reads nothing on the host, so
    that a GPU can run it as one graph.

    Attributes:
        G, D, G_ema: the generator in training, the discriminator, and the moving average of the generator.
        averages: power-function averages, of which one of any width can be made afterwards; None before the first step.
        steps: steps taken.
        num_images: training images shown to the discriminator so far, over all processes.
        inputs: prepares the inputs of phases.
        passes: the forward passes of the losses.
        path_length: the path-length regularisation, with its running mean.
        phases: by name, in their order.
        optimizers: by network, "G" and "D".
        graphs: runs the phases, as graphs where the device supports them.
    """

    device: torch.device
    steps: int
    num_images: int

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
            generator, discriminator: the networks to start from.
            recipe: how to train.
            generator_ema: the moving average to start from; None for the generator.
            device: where to train.
            process: this one among several; alone by default.
            make_graph: makes a graph; True for the device's own, False to run phases eagerly.

        Raises:
            TrainingError: networks or recipe do not fit each other.
        """
        self.process: Process = process or Process()
        _check_fit(generator, discriminator, recipe, self.process)
        self.recipe, self.device = recipe, torch.device(device)
        self.G: Generator = _trainable(generator, self.device)
        self.D: Discriminator = _trainable(discriminator, self.device)
        if self.device.type in ("cpu", "cuda"):
            self.D.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.G_ema: Generator = _trainable(generator_ema or generator, self.device).eval()
        self.augment: Augment = Augment().to(self.device)
        self.augment.p.fill_(recipe.augment_p if recipe.augment != "none" else 0.0)
        self.ada: AdaptiveProbability = AdaptiveProbability(
            recipe.ada_target, recipe.ada_images / 1000, recipe.ada_interval
        ).to(self.device)
        self.averages: Averages | None = None
        self.steps = self.num_images = 0
        self._skipped_before = 0  # by the trainers before this one
        self.passes: ForwardPasses = ForwardPasses(
            self.G,
            self.D,
            self.augment,
            samples=recipe.samples,
            autocast=_autocast_dtype(recipe.precision, self.device),
            tile_sizes=tile_sizes_for(self.device, self.G.config),
        )
        self.path_length: PathLength = PathLength(self.passes, recipe, self.process, self.device)
        self.phases: dict[str, Phase] = make_phases(recipe, self.passes, self.ada, self.path_length)
        self.optimizers: dict[str, NetworkOptimizer] = self._make_optimizers()
        self.graphs: PhaseGraphs = PhaseGraphs(graphs_for(self.device) if make_graph is True else make_graph or None)
        self.inputs: StepInputs = StepInputs(
            recipe, self.G.config, self.D.config, self.augment, self.graphs, self.process
        )

    def _make_optimizers(self) -> dict[str, NetworkOptimizer]:
        recipe = self.recipe
        frozen = {p for layer in list(self.D.layers())[: recipe.freeze_d] for p in layer.parameters()}
        trained = {name: p for name, p in self.D.named_parameters() if p not in frozen}
        return {
            name: NetworkOptimizer(parameters, lr, self.phases[regularisation].interval, recipe.non_finite, self.device)
            for name, parameters, lr, regularisation in (
                ("G", dict(self.G.named_parameters()), recipe.g_lr, "Greg"),
                ("D", trained, recipe.d_lr, "Dreg"),
            )
        }

    @property
    def micro_batches(self) -> int:
        """The number of parts that the batch of this process is split into."""
        batch = self.recipe.batch // self.process.world
        return batch // (self.recipe.micro_batch or batch)

    def limit_memory(self, memory: int) -> None:
        """Choose micro-batch and tiles so that the training takes about `memory` bytes.

        Raises:
            TrainingError: that is too little.
        """
        batch, half = self.recipe.batch // self.process.world, self.passes.autocast is not None
        size = micro_batch_for(self.G.config, self.D.config, batch, memory, self.device, half)
        self.recipe: Recipe = dataclasses.replace(self.recipe, micro_batch=size)
        self.passes.tile_sizes = tile_sizes_for(self.device, self.G.config, memory)

    @property
    def skipped(self) -> int:
        """Phases skipped because a gradient was not finite. Waits for the device."""
        return self._skipped_before + sum(optimizer.skips.total for optimizer in self.optimizers.values())

    @skipped.setter
    def skipped(self, value: int) -> None:
        self._skipped_before = value - (self.skipped - self._skipped_before)

    def step(self, real: Tensor, labels: Tensor | None = None, boxes: Tensor | None = None) -> Tensors:
        """Take every phase that is due, with one batch.

        Args:
            real: this process's share of the batch, [batch / world, img_channels, R, R], uint8 or in -1..1.
            labels: [batch / world, c_dim].
            boxes: [batch / world, 4] windows of the images (`patches`), on the CPU; None for whole images.

        Returns:
            Means of the reports of all phases, by name, as scalars on the device.

        Raises:
            TrainingError: the gradients of a network have not been finite many times in a row.
        """
        stats: Tensors = {}
        due = [phase for phase in self.phases.values() if phase.is_due(self.steps)]
        with float32_products(self.device, tf32=self.recipe.precision in ("auto", "tf32")):
            inputs = self.inputs.of_step(self.steps, due, real, labels, boxes, self.micro_batches)
            for phase in due:
                stats |= self.take_phase(phase, inputs[phase.name])
            self._update_averages()
        self.steps += 1
        self.num_images += self.recipe.batch
        self._adapt_augmentation()
        self._check_divergence()
        return {**stats, "augment/p": self.augment.p.clone()}

    def take_phase(self, phase: Phase, inputs: Tensors) -> Tensors:
        """Take one phase: its loss, gradients and update, and w_avg. Returns the means of its reports, by name."""
        optimizer = self.optimizers[phase.network]
        alone = self.process.world == 1

        def work(inputs: Tensors) -> PhaseResult:
            result = run_phase(phase, inputs, list(optimizer.parameters.values()), self.micro_batches)
            if not alone:
                return result
            optimizer.step(result.gradients)
            return result._replace(gradients=[])

        # A phase that averages over processes in its middle cannot be a graph.
        capturable = alone or phase.batch_means is None
        result = self.graphs.run(phase.name, work, inputs) if capturable else work(inputs)
        reports = result.reports.clone()
        if result.w is not None:
            self._update_w_avg(result.w)
        if not alone:
            self.process.mean_all([gradient for gradient in result.gradients if gradient is not None])
            optimizer.step(result.gradients)
        return dict(zip(result.names, reports.unbind(), strict=True))

    @torch.no_grad()
    def _update_w_avg(self, mean: Tensor) -> None:
        """Move w_avg by the mean of w, [w_dim]. It follows the generator's phases alone, as in the authors' code."""
        w_avg, mean = self.G.mapping.w_avg, self.process.mean(mean.clone())
        w_avg.copy_(torch.where(mean.isfinite().all(), w_avg.lerp(mean, 1 - W_AVG_DECAY), w_avg))

    @torch.no_grad()
    def _update_averages(self) -> None:
        """Move the averages towards the generator."""
        half_life = self.recipe.half_life(self.num_images)
        beta = 0.5 ** (self.recipe.batch / max(half_life, 1e-8))
        averages, currents = ([*network.parameters()] for network in (self.G_ema, self.G))
        torch._foreach_lerp_(averages, currents, 1 - beta)  # pyright: ignore
        for average, current in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            average.copy_(current)
        if self.averages is None:
            self.averages = Averages(self.G, self.num_images)
        self.averages.update(self.G, self.num_images, self.num_images + self.recipe.batch)

    def _adapt_augmentation(self) -> None:
        if self.recipe.augment == "ada":
            if self.steps % self.recipe.ada_interval == 0:
                self.process.mean(self.ada.signs)
            self.ada.update(self.augment.p, self.steps - 1, self.recipe.batch)

    def _check_divergence(self) -> None:
        """End a training that has diverged. On a GPU only every `NON_FINITE_LIMIT` steps, since the check waits."""
        if self.device.type != "cpu" and self.steps % NON_FINITE_LIMIT:
            return
        for network, optimizer in self.optimizers.items():
            if optimizer.skips.longest >= NON_FINITE_LIMIT:
                raise TrainingError(
                    f"gradients of {network} were not finite {NON_FINITE_LIMIT} times in a row, after "
                    f"{self.num_images} pictures: the training has diverged. Go back to an earlier snapshot and lower "
                    f"the learning rates (g_lr {self.recipe.g_lr}, d_lr {self.recipe.d_lr}) or raise r1_gamma "
                    f"({self.recipe.r1_gamma}), or use precision float32"
                )


def _trainable(module, device: torch.device):
    """A float32 copy on the device that requires no gradients yet; its tensors are never inference tensors."""
    with torch.inference_mode(False):
        module = copy.deepcopy(module)
        for owner in module.modules():
            for store in (owner._parameters, owner._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        new = tensor.detach().clone().to(device, torch.float32)
                        store[name] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new
    return module.train()


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "bfloat16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None


def _check_fit(generator: Generator, discriminator: Discriminator, recipe: Recipe, process: Process) -> None:
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
