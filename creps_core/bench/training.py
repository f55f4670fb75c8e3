"""How fast training is, phase by phase, in a process of its own.

    python -m comfyui_creps.creps_core.bench.training              what suits this machine: a GPU if there is one

Before anything is timed, the steps of the published trainer are taken again on the device, in every precision and both
ways (as they are, and as graphs); with losses or gradients beyond their limits nothing is timed. The pictures are
noise, which costs what others cost. Prints a line of JSON for the steps and one for each case.
"""

from __future__ import annotations

import argparse
import json
import logging
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
from .golden import golden_steps

log = logging.getLogger("CREPS")

LIMITS = {"float32": (1e-4, 1e-3), "tf32": (2e-2, 1e-1), "bfloat16": (0.15, 0.5), "auto": (0.15, 0.5)}
"""By precision, the largest errors of losses and of gradients, as `GoldenTrainer.errors` gives them."""
TIMED = 2  # of which the medians are


@dataclass(frozen=True)
class Case:
    """Networks and a recipe to measure."""

    name: str
    generator: GeneratorConfig
    recipe: Recipe
    discriminator: DiscriminatorConfig | None = None  # None: half the generator's widths


_SMALL = {"z_dim": 128, "w_dim": 128, "mapping_layers": 4, "biline_channels": 16}
CASES = {
    "cuda": (
        Case(
            "128 pixels, 8192/96",
            GeneratorConfig(128, channel_base=8192, channel_max=96, **_SMALL),
            Recipe(batch=64, augment="none", pl_weight=0.0, r1_gamma=r1_gamma_for(128)),
            DiscriminatorConfig(128, channel_base=8192, channel_max=96),
        ),
        Case("512 pixels, 65536/1024, the default recipe", GeneratorConfig(512), Recipe()),
    ),
    "cpu": (
        Case(
            "64 pixels, the networks and recipe of `alpine`",
            GeneratorConfig(64, channel_base=2048, channel_max=96, **_SMALL),
            Recipe(batch=16, augment="none", pl_weight=0.0, r1_gamma=0.1),
            DiscriminatorConfig(64, channel_base=2048, channel_max=96),
        ),
    ),
}


class Timed(Trainer):
    """A trainer that takes the time of its phases."""

    def __init__(self, *networks, **options):
        super().__init__(*networks, **options)
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.timing = True

    def take_phase(self, phase: Phase, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.timing:
            return super().take_phase(phase, inputs)
        wait(self.device)
        start = time.perf_counter()
        stats = super().take_phase(phase, inputs)
        wait(self.device)
        self.seconds[phase.name].append(time.perf_counter() - start)
        return stats


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gate(device: torch.device, make_graph: Callable[[], Graph] | bool) -> dict[str, dict[str, tuple[float, float]]]:
    """By way (eager, graph) and precision, the errors of losses and gradients of the published steps.

    Raises:
        ValueError: one is beyond its limit, so no figure is worth having.
    """
    gpu = device.type == "cuda"
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for way in ["eager", "graph"] if make_graph else ["eager"]:
        for precision in ["float32", *(["tf32"] if gpu and way == "eager" else []), *(["auto"] if gpu else [])]:
            trainer = golden_steps(device, precision, make_graph if way == "graph" else False)
            if trainer.graphs.refused:  # the figures of the cases say why
                log.warning("%s: %s", precision, trainer.graphs.refused)
                continue
            errors = trainer.errors()
            found.setdefault(way, {})[precision] = errors
            if not all(e <= limit for e, limit in zip(errors, LIMITS[precision], strict=True)):
                raise ValueError(
                    f"{way}, {precision}: losses of the published steps are off by {errors[0]:.1e}, gradients by "
                    f"{errors[1]:.1e}: no figures of wrong steps"
                )
    return found


def measure(case: Case, device: torch.device, make_graph: Callable[[], Graph] | bool = True) -> dict[str, Any]:
    """Milliseconds of each phase, eager and as a graph, pictures per second, and the peak of memory in MiB."""
    torch.manual_seed(0)
    generator = Generator(case.generator)
    side = case.generator.img_resolution
    discriminator = Discriminator(case.discriminator or discriminator_config_for(case.generator, side))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    result: dict[str, Any] = {"name": case.name, "batch": case.recipe.batch, "micro_batch": case.recipe.micro_batch}
    trainer = Timed(generator, discriminator, case.recipe, device=device, make_graph=make_graph)
    rng = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (case.recipe.batch, case.generator.img_channels, side, side), generator=rng)
    real = trainer.inputs.upload(real.to(torch.uint8))

    def take(times: int) -> float:
        """Steps in which every phase is due; the median of their seconds beside the phases."""
        rest = []
        for _ in range(times):
            before = {phase: len(values) for phase, values in trainer.seconds.items()}
            trainer.steps = 0
            wait(device)
            start = time.perf_counter()
            trainer.step(real)
            wait(device)
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
    eager = WARM_UP - 1 if trainer.graphs.active else TIMED
    result["eager"] = figures(eager, take(eager))
    if trainer.graphs.active:
        take(1)  # captures
        if trainer.graphs.active:
            result["graph"] = figures(TIMED, take(TIMED))
            result["graph"]["images_per_second"] = _rate(trainer, real)
        else:
            result["refused"] = trainer.graphs.refused
    if device.type == "cuda":
        result["peak"] = torch.cuda.max_memory_reserved(device) / 2**20
    return result


def _rate(trainer: Timed, real: Tensor) -> float:
    """Pictures per second of steps that do not wait for each other, with each phase as often as it is due."""
    recipe = trainer.recipe
    steps = recipe.pl_interval or 4
    trainer.steps, trainer.timing = 1, False
    wait(trainer.device)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(real)
    wait(trainer.device)
    seconds = time.perf_counter() - start
    if trainer.seconds["Dreg"]:  # seldom due: its share, instead of the whole of it now and then
        missing = steps / recipe.r1_interval - len([s for s in range(1, 1 + steps) if s % recipe.r1_interval == 0])
        seconds += missing * trainer.seconds["Dreg"][-1]
    return steps * recipe.batch / seconds


def measure_all(device: torch.device) -> Iterator[dict[str, Any]]:
    """{"gate": ...}, and {"case": ...} for each; what does not fit the memory is measured with the batch in parts."""
    yield {"gate": gate(device, device.type == "cuda")}
    for case in CASES["cuda" if device.type == "cuda" else "cpu"]:
        try:
            found = measure(case, device)
        except torch.OutOfMemoryError:
            found = None
        if found is None:  # outside of the handler, which holds on to the memory
            parts = replace(case.recipe, micro_batch=max(1, case.recipe.batch // 4))
            found = measure(replace(case, recipe=parts), device)
        yield {"case": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for found in measure_all(device):
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
