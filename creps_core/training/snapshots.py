"""Snapshots: everything a run needs to go on, in one safetensors file.

Tensors are named `G.*`, `D.*`, `G_ema.*` (official names), `average<i>.*` for averages of other widths (`averages.py`;
files of version 0.1.0 have none), `adam.G.<parameter>.<moment>` and `adam.D...`. The header
holds, as JSON under the key `creps`, the configs, the recipe, the counters and two SHA-256: of the tensors with the
generator's config, and of the header. The loader reads the generators from it as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import AGAIN, CheckpointError, shown
from ...kernels import Graph
from ..checkpoints import (
    FORMAT_VERSION,
    HEADER_KEY,
    build_discriminator,
    build_generator,
    digest,
    is_training,
    network_of,
    read_own,
    read_training_metadata,
    write_tensors,
    write_training_metadata,
)
from ..network import DiscriminatorConfig
from .averages import Averages
from .parallel import Process
from .recipe import Recipe
from .trainer import Trainer

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_COUNTERS = {"steps": "steps", "shown": "num_images", "skipped": "skipped"}  # in the header, of the trainer
_MOST_AVERAGES = 4
_MOST = 1 << 48  # of a counter: a thousand pictures a second for nine thousand years


def save_snapshot(trainer: Trainer, path: str | os.PathLike[str], details: dict[str, Any] | None = None) -> None:
    """Write the state of a run, atomically.

    Raises:
        OSError: the disk is full, for instance; an existing file is as it was.
    """
    tensors = {
        f"{name}.{key}": value
        for name, network in (("G", trainer.G), ("D", trainer.D), ("G_ema", trainer.G_ema))
        for key, value in network.state_dict().items()
    }
    for name, optimizer in trainer.optimizers.items():
        for key, parameter in optimizer.parameters.items():
            for moment, value in optimizer.adam.state.get(parameter, {}).items():
                tensors[f"adam.{name}.{key}.{moment}"] = value
    if trainer.averages:
        tensors |= trainer.averages.tensors()
    taught, labels = write_training_metadata(trainer.G_ema)
    tensors |= {f"state.{name}": value for name, value in _scalars(trainer).items()} | labels
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "version": FORMAT_VERSION,
        "kind": "training",
        "config": trainer.G.config.to_dict(),
        "discriminator": trainer.D.config.to_dict(),
        "recipe": trainer.recipe.to_dict(),
        "counters": {name: getattr(trainer, attribute) for name, attribute in _COUNTERS.items()},
        "averages": trainer.averages.header() if trainer.averages else None,
        "details": dict(details or {}),
        **taught,
        "sha256": digest(trainer.G.config, tensors),
    }
    write_tensors(path, tensors, HEADER_KEY, header)


def load_snapshot(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    device: torch.device | str = "cpu",
    process: Process | None = None,
    make_graph: Callable[[], Graph] | bool = True,
) -> Trainer:
    """`load_state` without what the file says beside."""
    return load_state(path, recipe=recipe, device=device, process=process, make_graph=make_graph)[0]


def load_state(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | Callable[[Recipe], Recipe] | None = None,
    device: torch.device | str = "cpu",
    process: Process | None = None,
    make_graph: Callable[[], Graph] | bool = True,
) -> tuple[Trainer, dict[str, Any]]:
    """A trainer as it was when the snapshot was written, and the details in its header with the `recipe` of the file.

    Args:
        path: a file of `save_snapshot`.
        recipe: to go on with another one, or what makes one of that of the file; None for that of the file. Batch,
            learning rates and regularisation may change, the networks may not.
        device: where to train.
        process: this one among several.
        make_graph: as of `Trainer`.

    Raises:
        CheckpointError: the file is damaged, or is not the snapshot of a training.
    """
    path = Path(path)
    config, header, tensors = read_own(path)

    def error(found: str, advice: str = AGAIN) -> CheckpointError:
        return CheckpointError.about(path, found, advice)

    if not is_training(header):
        raise error("holds a generator, not the state of a training", "Choose a snapshot-*.safetensors of a run")
    try:
        old = Recipe.from_dict(header["recipe"])
        judge = DiscriminatorConfig.from_dict(header["discriminator"])
        counters = {name: _counter(header["counters"], name) for name in _COUNTERS}
    except (KeyError, TypeError, ValueError) as problem:
        raise error(f"its header cannot be used ({problem})") from problem
    discriminator = build_discriminator(judge, network_of(tensors, "D"), error)
    generator, average = (build_generator(config, network_of(tensors, name), error) for name in ("G", "G_ema"))
    try:
        read_training_metadata(average, header, tensors)
    except ValueError as problem:
        raise error(str(problem)) from problem
    new = recipe(old) if callable(recipe) else recipe or old
    place = {"device": device, "process": process, "make_graph": make_graph}
    trainer = Trainer(generator, discriminator, new, generator_ema=average, **place)
    for name, optimizer in trainer.optimizers.items():
        for key, parameter in optimizer.parameters.items():
            moments = network_of(tensors, f"adam.{name}.{key}")
            if moments.keys() == set(_MOMENTS):
                for m, value in moments.items():
                    _check_shape(f"adam.{name}.{key}.{m}", value, () if m == "step" else parameter.shape, error)
                # The count of steps is where Adam keeps it; the others lie in memory as the parameter.
                home = parameter.device if optimizer.adam.defaults["fused"] else "cpu"
                optimizer.adam.state[parameter] = {
                    m: value.to(home) if m == "step" else torch.empty_like(parameter).copy_(value)
                    for m, value in moments.items()
                }
    for name, value in _scalars(trainer).items():
        if name != "augment_p" or trainer.recipe.augment == "ada":
            if f"state.{name}" not in tensors:
                raise error(f"state.{name} is missing")
            _check_shape(f"state.{name}", tensors[f"state.{name}"], value.shape, error)
            value.copy_(tensors[f"state.{name}"])
    for name, value in counters.items():
        setattr(trainer, _COUNTERS[name], value)
    if found := header.get("averages"):
        trainer.averages = averages = Averages(trainer.G, *_averages(found, error))
        for name, value in averages.tensors().items():
            if name not in tensors:
                raise error(f"{name} is missing")
            _check_shape(name, tensors[name], tuple(value.shape), error)
            value.detach().copy_(tensors[name])
    details = header.get("details")
    return trainer, {**(details if isinstance(details, dict) else {}), "recipe": old.to_dict()}


def _averages(found: Any, error: Callable[[str], Exception]) -> tuple[int, list[float]]:
    """Since when, and of what widths, as a header says."""
    try:
        since, widths = _counter(found, "since"), found["widths"]
        if not (isinstance(widths, list) and 1 <= len(widths) <= _MOST_AVERAGES):
            raise ValueError(f"widths must be 1 to {_MOST_AVERAGES} numbers, not {shown(widths)}")
        if not all(isinstance(width, float) and 0 < width < 1 for width in widths):
            raise ValueError(f"widths must lie between 0 and 1, not {shown(widths)}")
    except (KeyError, TypeError, ValueError) as problem:
        raise error(f"its header cannot be used (averages: {problem})") from problem
    return since, widths


def _counter(counters: dict[str, Any], name: str) -> int:
    value = counters[name]
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{name} must be a whole number from 0 to {_MOST}, not {shown(value)}")
    return value


def _check_shape(name: str, tensor: Tensor, wanted: tuple[int, ...], error: Callable[[str], Exception]) -> None:
    if tensor.shape != wanted:
        raise error(f"{name} has the shape {list(tensor.shape)} instead of {list(wanted)}")


def _scalars(trainer: Trainer) -> dict[str, Tensor]:
    """The state beside networks and optimisers, as the tensors that hold it."""
    return {"pl_mean": trainer.path_length.mean, "augment_p": trainer.augment.p, "signs": trainer.ada.signs}
