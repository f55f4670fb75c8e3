"""Repeats two steps of the published trainer; no training speed is measured before they come out right.

The file holds networks, the random numbers of two steps, and the losses and gradients of the published trainer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import package
import torch
from comfyui_creps.creps_core.checkpoints import build_generator
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig, GeneratorConfig
from comfyui_creps.creps_core.training import (
    PHASES,
    WARM_UP,
    LatentBatch,
    NetworkOptimizer,
    Phase,
    PhaseLoss,
    Recipe,
    StepInputs,
    Trainer,
)
from comfyui_creps.kernels import Graph
from safetensors import safe_open
from torch import Tensor

STEPS = package.ROOT / "tests" / "golden" / "train_steps.safetensors"
LIMITS = {"float32": (1e-4, 1e-3), "tf32": (2e-2, 1e-1), "bfloat16": (0.15, 0.5), "auto": (0.15, 0.5)}
"""By precision, the largest permitted errors of losses and of gradients, as `GoldenTrainer.errors` returns them."""
LOSSES = {
    "loss/G": "Loss/G/loss",
    "loss/path_length": "Loss/G/reg",
    "loss/D": "Loss/D/loss",
    "r1_penalty": "Loss/r1_penalty",
}


class GoldenInputs(StepInputs):
    """The inputs that the published trainer drew."""

    golden: dict[str, Tensor]

    def draw(self, step: int) -> dict[str, LatentBatch]:
        none = torch.zeros(8, self.generator.z_dim)
        found = {p: self.golden.get(f"in.it{step}.{p}.z", none) for p in PHASES}
        return {p: LatentBatch(z.to(self.device), torch.zeros(8, 0, device=self.device)) for p, z in found.items()}

    def path_noise(self, step: int, count: int) -> Tensor:
        return self.golden["in.it0.Greg.pl_randn"]


class GoldenTrainer(Trainer):
    """A trainer that uses the random numbers of the published one and records losses and gradients.

    Attributes:
        golden: the tensors of the file.
        losses: by ("it<step>.<phase>", name), a value per image.
        gradients: by "it<step>.<phase>", by parameter.
    """

    def __init__(self, *networks, golden: dict[str, Tensor], **options):
        super().__init__(*networks, **options)
        self.golden = golden
        self.losses: dict[tuple[str, str], Tensor] = {}
        self.gradients: dict[str, dict[str, Tensor]] = {}
        self.inputs = GoldenInputs(self.recipe, self.G.config, self.D.config, self.augment, self.graphs, self.process)
        self.inputs.golden = golden
        # By phase, the tensors that it, and later its graph, writes.
        self._values: dict[str, dict[str, Tensor]] = {}
        self._found: dict[str, dict[str, Tensor]] = {}
        self._phase = ""
        self.phases = {name: replace(phase, loss=self._recorded(phase)) for name, phase in self.phases.items()}
        for optimizer in self.optimizers.values():
            self._record(optimizer)

    def _recorded(self, phase: Phase) -> Callable[[dict[str, Tensor]], PhaseLoss]:
        """The loss of a phase, whose reports are kept."""

        def loss(rows: dict[str, Tensor]) -> PhaseLoss:
            found = phase.loss(rows)
            self._values[phase.name] = {name: values.detach() for name, values in found.report.items()}
            return found

        return loss

    def _record(self, optimizer: NetworkOptimizer) -> None:
        """Keep the gradients that an optimiser gets."""
        take_step = optimizer.step

        def step(gradients: Sequence[Tensor | None]) -> None:
            named = zip(optimizer.parameters, gradients, strict=True)
            self._found[self._phase] = {key: gradient for key, gradient in named if gradient is not None}
            take_step(gradients)

        optimizer.step = step  # type: ignore[method-assign]

    def take_phase(self, phase: Phase, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self._phase = phase.name
        stats = super().take_phase(phase, inputs)
        name = f"it{self.steps}.{phase.name}"
        self.losses |= {(name, key): value.clone() for key, value in self._values[phase.name].items()}
        self.gradients[name] = {key: gradient.clone() for key, gradient in self._found[phase.name].items()}
        return stats

    def errors(self) -> tuple[float, float]:
        """The largest error of a loss, relative to its largest value, and the largest `gradient_error` of a phase."""
        losses = [
            _relative(values, self.golden[key])
            for (phase, name), values in self.losses.items()
            if (key := f"out.{phase}.{LOSSES.get(name)}") in self.golden
        ]
        return max(losses), max(self.gradient_error(phase) for phase in PHASES)

    def gradient_error(self, phase: str) -> float:
        """Distance of the gradients of a phase of the first step from the published ones, relative to their norm."""
        wrong = right = 0.0
        for name, gradient in self.gradients[f"it0.{phase}"].items():
            wanted = self.golden[f"out.it0.{phase}.grad.{name}"].to(gradient)
            wrong += (gradient - wanted).double().square().sum().item()
            right += wanted.double().square().sum().item()
        return math.sqrt(wrong / right)


def golden_steps(
    device: torch.device | str = "cpu",
    precision: str = "float32",
    make_graph: Callable[[], Graph] | bool = False,
) -> GoldenTrainer:
    """A trainer that has taken the two steps; with graphs, after enough warm-up steps to replay them."""
    with safe_open(STEPS, "pt") as file:
        meta = json.loads(file.metadata()["creps"])
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def weights(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in golden.items() if key.startswith(name)}

    config = GeneratorConfig(**meta["G"])
    discriminator = Discriminator(
        DiscriminatorConfig(**{key: value for key, value in meta["D"].items() if key != "epilogue_kwargs"})
    )
    discriminator.load_state_dict({k: v for k, v in weights("D0.").items() if not k.endswith("resample_filter")})
    generator = build_generator(config, weights("G0."))
    average = build_generator(config, {**weights("G0."), **weights("Gema0.")})
    trainer = GoldenTrainer(
        generator,
        discriminator,
        Recipe(batch=8, r1_gamma=8.2, augment="none", ema_images=2500, precision=precision),
        generator_ema=average,
        device=device,
        make_graph=make_graph,
        golden=golden,
    )
    for _ in range(WARM_UP + 1 if trainer.graphs.active else 1):
        for mine, begun in ((trainer.G, generator), (trainer.D, discriminator), (trainer.G_ema, average)):
            mine.load_state_dict(begun.state_dict())
        for optimizer in trainer.optimizers.values():
            for value in (v for state in optimizer.adam.state.values() for v in state.values()):
                value.zero_()
        trainer.path_length.mean.copy_(golden["in.pl_mean0"].squeeze())
        trainer.steps, trainer.num_images = 0, meta["cur_nimg_start"]
        for step in range(meta["iterations"]):
            trainer.step(golden[f"in.it{step}.real"])
    return trainer


def adam_of_the_file() -> dict[str, Any]:
    """Adam's settings in the file, by network."""
    with safe_open(STEPS, "pt") as file:
        meta = json.loads(file.metadata()["creps"])
    return {name: meta[f"{name}_opt"] for name in ("G", "D")}


def _relative(found: Tensor, wanted: Tensor) -> float:
    wanted = wanted.to(found.device)
    return ((found.flatten() - wanted.flatten()).abs().max() / wanted.abs().max()).item()
