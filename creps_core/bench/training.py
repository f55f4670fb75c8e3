"""Training speed, phase by phase, in a process of its own.

    python -m comfyui_creps.creps_core.bench.training              on a GPU if there is one

The images are noise, which costs as much as real ones. Prints a line of JSON per case. Nothing here checks that the
steps are right: that needs the numbers of the published trainer, which come with the repository, not with the package.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...kernels import Graph
from ..network import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from ..training import PHASES, WARM_UP, Phase, Recipe, Trainer, discriminator_config_for, r1_gamma_for

_TIMED_STEPS = 2  # their medians are reported


@dataclass(frozen=True)
class BenchCase:
    """Networks and a recipe to measure."""

    name: str
    generator: GeneratorConfig
    recipe: Recipe
    discriminator: DiscriminatorConfig | None = None  # None: half the generator's widths


_SMALL = {"z_dim": 128, "w_dim": 128, "mapping_layers": 4, "biline_channels": 16}
BENCH_CASES: dict[str, tuple[BenchCase, ...]] = {
    "cuda": (
        BenchCase(
            "128 pixels, 8192/96",
            GeneratorConfig(128, channel_base=8192, channel_max=96, **_SMALL),
            Recipe(batch=64, augment="none", pl_weight=0.0, r1_gamma=r1_gamma_for(128)),
            DiscriminatorConfig(128, channel_base=8192, channel_max=96),
        ),
        BenchCase("512 pixels, 65536/1024, the default recipe", GeneratorConfig(512), Recipe()),
    ),
    "cpu": (
        BenchCase(
            "64 pixels, the networks and recipe of `alpine`",
            GeneratorConfig(64, channel_base=2048, channel_max=96, **_SMALL),
            Recipe(batch=16, augment="none", pl_weight=0.0, r1_gamma=0.1),
            DiscriminatorConfig(64, channel_base=2048, channel_max=96),
        ),
    ),
}


class TimedTrainer(Trainer):
    """A trainer that records the seconds of each phase."""

    def __init__(self, *networks: Any, **options: Any):
        super().__init__(*networks, **options)
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.timing = True

    def take_phase(self, phase: Phase, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.timing:
            return super().take_phase(phase, inputs)
        synchronize(self.device)
        start = time.perf_counter()
        stats = super().take_phase(phase, inputs)
        synchronize(self.device)
        self.seconds[phase.name].append(time.perf_counter() - start)
        return stats


def synchronize(device: torch.device) -> None:
    """Block until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_case(
    case: BenchCase, device: torch.device, make_graph: Callable[[], Graph] | bool = True
) -> dict[str, Any]:
    """Milliseconds of each phase, eager and as a graph, images per second, and peak memory in MiB."""
    torch.manual_seed(0)
    generator = Generator(case.generator)
    side = case.generator.img_resolution
    discriminator = Discriminator(case.discriminator or discriminator_config_for(case.generator, side))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    result: dict[str, Any] = {"name": case.name, "batch": case.recipe.batch, "micro_batch": case.recipe.micro_batch}
    trainer = TimedTrainer(generator, discriminator, case.recipe, device=device, make_graph=make_graph)
    rng = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (case.recipe.batch, case.generator.img_channels, side, side), generator=rng)
    real = trainer.inputs.upload(real.to(torch.uint8))

    def take(times: int) -> float:
        """Run `times` steps in which every phase is due; returns the median of the seconds spent outside the phases."""
        rest = []
        for _ in range(times):
            before = {phase: len(values) for phase, values in trainer.seconds.items()}
            trainer.steps = 0
            synchronize(device)
            start = time.perf_counter()
            trainer.step(real)
            synchronize(device)
            seconds = time.perf_counter() - start
            rest.append(seconds - sum(sum(v[before[phase] :]) for phase, v in trainer.seconds.items()))
        return statistics.median(rest)

    def figures(times: int, rest: float) -> dict[str, Any]:
        recipe = case.recipe
        phases = {phase: statistics.median(values[-times:]) for phase, values in trainer.seconds.items() if values}
        often = {"Greg": 1 / max(recipe.pl_interval, 1), "Dreg": 1 / max(recipe.r1_interval, 1)}
        step = rest + sum(seconds * often.get(phase, 1.0) for phase, seconds in phases.items())
        return {
            "ms": {phase: 1000 * seconds for phase, seconds in phases.items()} | {"rest": 1000 * rest},
            "images_per_second": recipe.batch / step,
        }

    take(1)
    eager = WARM_UP - 1 if trainer.graphs.active else _TIMED_STEPS
    result["eager"] = figures(eager, take(eager))
    if trainer.graphs.active:
        take(1)  # captures the graphs
        if trainer.graphs.active:
            result["graph"] = figures(_TIMED_STEPS, take(_TIMED_STEPS))
            result["graph"]["images_per_second"] = _rate(trainer, real)
        else:
            result["refused"] = trainer.graphs.refused
    if device.type == "cuda":
        result["peak"] = torch.cuda.max_memory_reserved(device) / 2**20
    return result


def _rate(trainer: TimedTrainer, real: Tensor) -> float:
    """Images per second of steps that run without synchronising, with each phase at its interval."""
    recipe = trainer.recipe
    steps = recipe.pl_interval or 4
    trainer.steps, trainer.timing = 1, False
    synchronize(trainer.device)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(real)
    synchronize(trainer.device)
    seconds = time.perf_counter() - start
    if trainer.seconds["Dreg"]:  # rarely due: add its average share instead of a whole phase
        missing = steps / recipe.r1_interval - len([s for s in range(1, 1 + steps) if s % recipe.r1_interval == 0])
        seconds += missing * trainer.seconds["Dreg"][-1]
    return steps * recipe.batch / seconds


def measure_cases(device: torch.device) -> Iterator[dict[str, Any]]:
    """{"case": ...} for each case; one that does not fit into memory is measured with smaller micro-batches."""
    for case in BENCH_CASES["cuda" if device.type == "cuda" else "cpu"]:
        try:
            found = measure_case(case, device)
        except torch.OutOfMemoryError:
            found = None
        if found is None:  # outside of the handler, whose traceback keeps the memory alive
            smaller = replace(case.recipe, micro_batch=max(1, case.recipe.batch // 4))
            found = measure_case(replace(case, recipe=smaller), device)
        yield {"case": found}


def _main() -> None:
    torch.set_flush_denormal(True)
    for found in measure_cases(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
