"""The inputs of a step's phases: latents, positions and augmentations, drawn from the seed and the step number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import may_read_values
from ..network import DiscriminatorConfig, GeneratorConfig
from .adversarial import ADVERSARIAL_LOSSES
from .augment import Augment
from .parallel import Process
from .patches import WHOLE, box_positions, window_code
from .phase_graphs import PhaseGraphs
from .phases import PHASES, Phase, Tensors
from .recipe import Recipe


@dataclass(frozen=True)
class LatentBatch:
    """The latents and labels of the images that a phase generates, of the whole batch."""

    z: Tensor  # [batch, z_dim] float32
    c: Tensor  # [batch, c_dim] float32


class StepInputs:
    """Prepares the inputs of phases as tensors on the device.

    Attributes:
        labels: class numbers [M] or labels [M, c_dim] of the dataset, of which generated images get random ones; None:
            zeros.
    """

    recipe: Recipe
    process: Process
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    augment: Augment
    graphs: PhaseGraphs

    def __init__(
        self,
        recipe: Recipe,
        generator: GeneratorConfig,
        discriminator: DiscriminatorConfig,
        augment: Augment,
        graphs: PhaseGraphs,
        process: Process,
    ):
        """Prepare for a training.

        Args:
            recipe: batch, samples, windows, augmentation and seed; the micro-batch is not used.
            generator, discriminator: the shapes of the networks.
            augment: draws augmentations; its device is that of all inputs.
            graphs: composes the matrices of augmentations.
            process: this process.
        """
        self.recipe, self.process = recipe, process
        self.generator, self.discriminator = generator, discriminator
        self.augment, self.graphs = augment, graphs
        self.device: torch.device = augment.p.device
        self.labels: Tensor | None = None
        self._rng = torch.Generator(self.device)
        self._shared: tuple[list[float], Tensor, Tensor] | None = None  # the last box shared by a batch, its y and x

    def of_step(
        self,
        step: int,
        phases: Sequence[Phase],
        real: Tensor,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        micro_batches: int = 1,
    ) -> dict[str, Tensors]:
        """The inputs of some phases of a step, by phase.

        They have a row for each image of this process, except for positions that all images share and for the noise,
        which has a row for each image whose path lengths are taken: the first images of each micro-batch.

        Args:
            step: its number, counted from 0.
            phases: the phases that are due.
            real: training images of this process, [batch / world, img_channels, R, R], uint8 or in -1..1.
            labels: [batch / world, c_dim]; None: there are none.
            boxes: [batch / world, 4] windows of the images (`patches`), on the CPU; None for whole images.
            micro_batches: how many parts the batch of this process is split into.
        """
        boxes = torch.tensor([WHOLE]).expand(len(real), 4) if boxes is None else boxes
        labels = torch.zeros(len(real), 0) if labels is None else labels
        y, x = self._positions(step, boxes)
        latents = self.draw(step)
        real_inputs = {"real": self.upload(real), "real_c": self.upload(labels)}
        window = {"window": self.upload(window_code(boxes))} if self.discriminator.window_conditioning else {}

        def latent_inputs(phase: str) -> Tensors:
            own = latents[phase]
            found = {"z": self.process.part(own.z), "c": self.process.part(own.c), "y": y, "x": x}
            return {name: self.upload(tensor) for name, tensor in found.items()}

        groups: dict[str, Callable[[str], Tensors]] = {
            "latents": latent_inputs,
            "noise": lambda phase: {"noise": self.upload(self.path_noise(step, self.path_images(micro_batches)))},
            "real": lambda phase: real_inputs,
            "window": lambda phase: window,
        }
        augmentations = self._augmentations(step)
        inputs: dict[str, Tensors] = {}
        for phase in phases:
            found = inputs[phase.name] = {}
            for group in phase.inputs:
                found |= groups[group](phase.name)
            found |= augmentations.get(phase.name, {})
        return inputs

    def draw(self, step: int) -> dict[str, LatentBatch]:
        """Latents and labels for every phase of a step, the same in all processes."""
        rng = self._random(step, 0xC5E95)
        batch, config = self.recipe.batch, self.generator
        latents = {}
        for phase in PHASES:
            z = torch.randn(batch, config.z_dim, generator=rng, device=self.device)
            c = z.new_zeros(batch, config.c_dim)
            if self.labels is not None and config.c_dim:
                self.labels = self.labels.to(self.device)
                drawn = self.labels[torch.randint(len(self.labels), (batch,), generator=rng, device=self.device)]
                c = drawn if drawn.ndim > 1 else c.scatter_(1, drawn[:, None], 1.0)
            latents[phase] = LatentBatch(z, c)
        return latents

    def path_noise(self, step: int, count: int) -> Tensor:
        """Standard normal noise for the path lengths of `count` images of this process.

        Returns:
            [count, img_channels, R, R]; of the whole batch the same for any number of processes.
        """
        config, world = self.discriminator, self.process.world
        shape = (count * world, config.img_channels, config.img_resolution, config.img_resolution)
        return self.process.part(torch.randn(shape, generator=self._random(step, 0x9A74), device=self.device))

    def path_images(self, micro_batches: int) -> int:
        """The number of images of this process whose path lengths are taken."""
        size = self.recipe.batch // self.process.world // micro_batches
        return micro_batches * max(1, size // self.recipe.pl_batch_shrink)

    def upload(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for it."""
        if tensor.device.type == "cpu" and self.device.type == "cuda" and tensor.numel() and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _random(self, step: int, purpose: int) -> torch.Generator:
        """Random numbers of a step for one purpose, on the device."""
        return self._rng.manual_seed(_mix(self.recipe.seed, step, purpose))

    def _positions(self, step: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """y and x of the generated images: [R * samples], or [N, R * samples] when windows differ or may differ."""
        side, resolution, samples = (
            self.discriminator.img_resolution,
            self.generator.img_resolution,
            self.recipe.samples,
        )
        jitter = None
        if samples > 1:
            shape = (2, self.recipe.batch, side * samples)
            rng = torch.Generator().manual_seed(_mix(self.recipe.seed, step, 0x5A3E))  # positions are made on the CPU
            jitter = torch.rand(shape, generator=rng)[:, self.process.rank :: self.process.world]
        if jitter is not None or self.recipe.patches or not (boxes == boxes[0]).all():
            y, x = box_positions(boxes, side, resolution, samples, jitter)
            return self.upload(y), self.upload(x)
        box = boxes[0].tolist()
        if self._shared is None or self._shared[0] != box:
            y, x = box_positions(boxes[:1], side, resolution)
            self._shared = box, self.upload(y[0]), self.upload(x[0])
        return self._shared[1:]

    def _augmentations(self, step: int) -> dict[str, Tensors]:
        """By phase, the matrices that alter its images; names of those for real images begin with `real_`."""
        pipeline = self.augment
        may_skip = may_read_values(pipeline.p) and not self.graphs.active
        if self.recipe.augment == "none" or (may_skip and pipeline.p == 0):
            return {}
        images = ADVERSARIAL_LOSSES[self.recipe.loss].images
        kinds, batch, side = len(images), self.recipe.batch, self.discriminator.img_resolution
        numbers = pipeline.draw(kinds * batch, self._random(step, 0xADA)).unflatten(2, (kinds, batch))
        numbers = numbers[..., self.process.rank :: self.process.world].flatten(2)

        def compose(inputs: Tensors) -> Tensors:
            found = pipeline.alterations(inputs["numbers"], side, side)
            return {name: matrix for name, matrix in found._asdict().items() if matrix is not None}

        found = self.graphs.run("augmentation", compose, {"numbers": numbers})
        result: dict[str, Tensors] = {}
        for name, matrix in found.items():
            for (phase, kind), rows in zip(images, matrix.clone().chunk(kinds), strict=True):
                result.setdefault(phase, {})[f"{kind}{name}"] = rows
        return result


def _mix(*numbers: int) -> int:
    """A seed of 63 bits from several numbers (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
