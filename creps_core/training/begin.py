"""Open a run for training: begin a new one, or resume the one in the folder (`resume.py`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from ...common.errors import TrainingError
from ..checkpoints import fingerprint
from ..data import ImageDataset, format_aspect
from ..network import DiscriminatorConfig, GeneratorConfig
from .identity import NEW, Identity
from .memory import check_memory
from .parallel import Process
from .presets import PRESETS, bandwidth_for, preset_for
from .recipe import Recipe, average_for, r1_gamma_for
from .request import RunRequest, suggest_name
from .resume import open_dataset_of, resume_run
from .run import Run
from .start import StartNetworks, discriminator_config_for, discriminator_for, new_generator, refit
from .trainer import Trainer


@dataclass(frozen=True)
class OpenedRun:
    """A run that is ready to be trained.

    Attributes:
        trainer: in its state.
        dataset: the training images.
        notes: for the user: what may be unexpected.
    """

    trainer: Trainer
    dataset: ImageDataset
    notes: list[str]

    @property
    def finished(self) -> bool:
        """Whether all the images asked for have been shown."""
        return self.trainer.num_images >= self.trainer.recipe.total


def open_run(
    run: Run, request: RunRequest, *, device: torch.device | str = "cpu", process: Process | None = None
) -> OpenedRun:
    """Begin a run, or resume the one in the folder. Hold `run.lock` during this and `train`.

    Raises:
        TrainingError: the existing run is not the one asked for, or has no snapshot to resume from; says what to do.
        CheckpointError, DatasetError, ValueError: of the start, the images and the options.
    """
    process = process or Process()
    if run.snapshots():
        return OpenedRun(*resume_run(run, request, device, process))
    if run.generator_file.exists():
        raise TrainingError(
            f"{run.folder.name}: holds {run.generator_file.name} but no snapshot to resume from. Begin another run, "
            f"{suggest_name(run, request.terms)}, with {request.terms.start} {run.generator_file} "
            f"to take over what it has learnt"
        )
    return _begin(run, request, device, process)


def _begin(run: Run, request: RunRequest, device: torch.device | str, process: Process) -> OpenedRun:
    start = request.open_start() if request.open_start else None
    resolution = _resolution(request, start)
    if not request.source:
        raise ValueError(f"a new run needs pictures to learn from: give {request.terms.data}")
    seed = request.recipe.get("seed", 0)
    given: dict[str, Any] = {"r1_gamma": r1_gamma_for(resolution), **request.computed, **request.recipe}
    preset = ""
    if start is None:
        request, preset, defaults = _with_preset(request, resolution, torch.device(device).type)
        given = {**defaults, **request.computed, **request.recipe}
    recipe = Recipe(**{**average_for(int(given.get("batch", Recipe.batch))), **given})
    channels = request.shape.get("channels") or (start.G.config.img_channels if start else 3)
    shape = start.G.config if start else _new_config(request, resolution, channels, 0)
    smallest = dataclasses.replace(recipe, micro_batch=1) if request.memory else recipe
    check_memory(shape, _discriminator_config(request, shape, resolution), smallest, process.world, device)
    aspect = format_aspect(start.G_ema.aspect) if start else None
    dataset, identity = open_dataset_of(request, Identity(choice=seed, aspect=aspect), recipe, resolution, channels)
    if start is None:
        networks, notes = _new_networks(request, resolution, channels, dataset.c_dim), []
        notes.append(f"the preset of this run is {preset}: --preset {' or '.join(PRESETS)} chooses")
        identity = dataclasses.replace(identity, start=NEW, bandwidth=request.bandwidth, preset=preset)
    else:
        networks, notes = _fit_start(request, start, dataset, channels)
        identity = dataclasses.replace(identity, start=request.start or "", weights=fingerprint(start.G_ema))
    discriminator = discriminator_for(networks, _discriminator_config(request, networks.G.config, resolution), seed)
    trainer = Trainer(networks.G, discriminator, recipe, generator_ema=networks.G_ema, device=device, process=process)
    notes += request.limit_memory(trainer)
    run.describe(identity, [])
    return OpenedRun(trainer, dataset, notes)


def _resolution(request: RunRequest, start: StartNetworks | None) -> int:
    """The resolution asked for, else that of the start; raises ValueError if there is neither."""
    resolution = request.shape.get("resolution") or (start.G.config.img_resolution if start else 0)
    if not resolution:
        raise ValueError(
            "--resolution is needed for a new network: a power of two, 32 or 64 on a CPU, 128 to 1024 on GPUs"
        )
    return resolution


def _with_preset(request: RunRequest, resolution: int, device_type: str) -> tuple[RunRequest, str, dict[str, Any]]:
    """The request completed by a preset, its name, and its fields of `Recipe`.

    Networks whose widths are given get the published recipe unless a preset is asked for.
    """
    widths = set(request.generator) - {"img_resolution"} or set(request.discriminator) - {"places"}
    suited = "published" if widths else preset_for(device_type, resolution, request.recipe.get("total"))
    name = request.preset or suited
    preset = PRESETS[name]
    completed = dataclasses.replace(
        request,
        generator={**preset.generator_for(resolution), **request.generator},
        discriminator={**preset.discriminator_for(resolution), **request.discriminator},
        bandwidth=bandwidth_for(resolution) if request.bandwidth is None else request.bandwidth,
    )
    return completed, name, {"r1_gamma": r1_gamma_for(resolution), **preset.recipe_for(resolution)}


def _new_networks(request: RunRequest, resolution: int, channels: int, c_dim: int) -> StartNetworks:
    config = _new_config(request, resolution, channels, c_dim)
    options = {} if request.bandwidth is None else {"bandwidth": request.bandwidth}
    generator = new_generator(config, request.recipe.get("seed", 0), **options)
    return StartNetworks(generator, generator, None)


def _fit_start(
    request: RunRequest, start: StartNetworks, dataset: ImageDataset, channels: int
) -> tuple[StartNetworks, list[str]]:
    """The networks of the start for the labels and channels of the dataset, and notes for the user."""
    config, notes = start.G.config, []
    if start.D is None:
        notes.append(
            "this start has no discriminator: a new one must learn first, which may undo what the generator knows. Of "
            "the built-ins, alpine has one and is meant for fine-tuning"
        )
    if request.preset:
        notes.append(f"preset {request.preset}: it is for new networks; the start keeps its own")
    if ignored := [name for name, value in request.generator.items() if value != getattr(config, name)]:
        notes.append(f"{', '.join(sorted(ignored))}: these are of a new generator; that of the start keeps its own")
    dataset.ensure_c_dim(config.c_dim)
    if config.c_dim and not dataset.c_dim:
        notes.append("the start has labels and these pictures have none: the run continues without labels")
    elif config.c_dim != dataset.c_dim:
        notes.append(f"labels of {dataset.c_dim} numbers are new to the start: it begins to learn them")
    return refit(start, dataset.c_dim, channels, request.recipe.get("seed", 0)), notes


def _new_config(request: RunRequest, resolution: int, channels: int, c_dim: int) -> GeneratorConfig:
    levels = {"img_resolution": resolution, **request.generator}
    return GeneratorConfig(**{**levels, "img_channels": channels, "c_dim": c_dim})


def _discriminator_config(request: RunRequest, config: GeneratorConfig, resolution: int) -> DiscriminatorConfig:
    return DiscriminatorConfig.from_dict(discriminator_config_for(config, resolution).to_dict() | request.discriminator)
