"""What a step is a function of: latents, positions, alterations, all drawn from the seed and the number of the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.graphs import may_look
from ..network import Discriminator, Generator
from .augment import Augment
from .parallel import Process
from .patches import WHOLE, box_positions, window_code
from .phase_graphs import PhaseGraphs, Tensors
from .recipe import Recipe

PHASES = ("Gmain", "Greg", "Dmain", "Dreg")


@dataclass(frozen=True)
class Draw:
    """What a phase draws for the pictures it generates: latents and labels of the whole batch."""

    z: Tensor  # [batch, z_dim] float32
    c: Tensor  # [batch, c_dim] float32


class StepInputs:
    """The part of a `Trainer` that prepares the inputs of a step's phases, as tensors on the device."""

    recipe: Recipe
    process: Process
    device: torch.device
    G: Generator
    D: Discriminator
    augment: Augment
    captured: PhaseGraphs
    steps: int

    def __init__(self) -> None:
        self.labels: Tensor | None = None  # classes [M] or [M, c_dim] of the data set, to draw from
        self._relative = self.recipe.loss == "relativistic"
        self._rng = torch.Generator(self.device)
        self._whole: tuple[list[float], Tensor, Tensor] | None = None  # a box that all share, and its y and x

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
        """Standard normal noise for path lengths, for so many pictures of this process.

        Returns:
            [count, img_channels, R, R]; of the whole batch the same for any number of processes.
        """
        config, world = self.D.config, self.process.world
        shape = (count * world, config.img_channels, config.img_resolution, config.img_resolution)
        return self.process.part(torch.randn(shape, generator=self._random(0x9A74), device=self.device))

    def _random(self, purpose: int) -> torch.Generator:
        """Random numbers of this step, on the device."""
        return self._rng.manual_seed(_mix(self.recipe.seed, self.steps, purpose))

    def _inputs(self, real: Tensor, labels: Tensor | None, boxes: Tensor | None) -> dict[str, Tensors]:
        """By phase that is due, the tensors on the device that it is a function of.

        They have a row for each picture of this process, but for positions that all share and the noise, which has one
        for each picture whose path lengths are taken: the first of each part.
        """
        c = self._upload(labels if labels is not None else torch.zeros(len(real), 0))
        shown = {"real": self._upload(real), "real_c": c}
        boxes = torch.tensor([WHOLE]).expand(len(real), 4) if boxes is None else boxes
        told = {"place": self._upload(window_code(boxes))} if self.D.config.places else {}
        y, x = self._positions(boxes)
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
            if phase != "Greg":
                found |= told
            found |= altered.get(phase, {})
        return inputs

    def _upload(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, without waiting for it."""
        if tensor.device.type == "cpu" and self.device.type == "cuda" and tensor.numel() and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _positions(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Where the generator is evaluated: [R * samples], or [N, R * samples] when windows differ or may differ."""
        side, resolution, samples = self.D.config.img_resolution, self.G.config.img_resolution, self.recipe.samples
        jitter = None
        if samples > 1:
            shape = (2, self.recipe.batch, side * samples)
            rng = torch.Generator().manual_seed(_mix(self.recipe.seed, self.steps, 0x5A3E))  # positions are made here
            jitter = torch.rand(shape, generator=rng)[:, self.process.rank :: self.process.world]
        if jitter is not None or self.recipe.patches or not (boxes == boxes[0]).all():
            y, x = box_positions(boxes, side, resolution, samples, jitter)
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

    def _due(self) -> Iterator[str]:
        recipe = self.recipe
        yield "Gmain"
        if recipe.pl_weight and recipe.pl_interval and self.steps % recipe.pl_interval == 0:
            yield "Greg"
        yield "Dmain"
        if recipe.r1_gamma and recipe.r1_interval and self.steps % recipe.r1_interval == 0:
            yield "Dreg"

    def _count(self) -> int:
        """The parts of the batch of this process, which are worked on one after the other."""
        batch = self.recipe.batch // self.process.world
        return batch // (self.recipe.micro_batch or batch)

    def _path_pictures(self) -> int:
        """Pictures of this process whose path lengths are taken."""
        count = self._count()
        part = self.recipe.batch // self.process.world // count
        return count * max(1, part // self.recipe.pl_batch_shrink)

    def _parts(self, inputs: Tensors) -> list[Tensors]:
        """The inputs of each part, which has every so-manieth picture.

        So the groups of the minibatch standard deviation are those of the whole batch, where their size divides that of
        a part, and the pictures whose path lengths are taken are those of the whole batch too.
        """
        count = self._count()
        shared = {name for name, x in inputs.items() if name in ("y", "x") and x.ndim == 1}
        return [{name: x if name in shared else x[i::count] for name, x in inputs.items()} for i in range(count)]


def _mix(*numbers: int) -> int:
    """A seed of 63 bits from several numbers (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
