"""Snapshots: everything that a run needs to resume, in one safetensors file.

Tensors are named `G.*`, `D.*`, `G_ema.*` (official names), `average<i>.*` for averages of other widths (`averages.py`;
files of version 0.1.0 have none), `adam.G.<parameter>.<moment>` and `adam.D...`, and `state.*`. The header holds, as
JSON under the key `creps`, the configs, the recipe, the counters and two SHA-256: of the tensors with the generator's
config, and of the header. The loader reads the generators from it as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import AGAIN, CheckpointError, quoted
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
from ..network import DiscriminatorConfig, GeneratorConfig
from .averages import Averages
from .gradients import NetworkOptimizer
from .parallel import Process
from .recipe import Recipe
from .trainer import Trainer

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_COUNTERS = {"steps": "steps", "shown": "num_images", "skipped": "skipped"}  # in the header: of the trainer
_MOST_AVERAGES = 4
_MOST = 1 << 48  # of a counter: a thousand images a second for nine thousand years


def save_snapshot(trainer: Trainer, path: str | os.PathLike[str], details: dict[str, Any] | None = None) -> None:
    """Write the state of a run, atomically.

    Raises:
        OSError: for instance, the disk is full; an existing file stays as it was.
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
    metadata, labels = write_training_metadata(trainer.G_ema)
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
        **metadata,
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
    """The trainer of `load_state`, without the details."""
    return load_state(path, recipe=recipe, device=device, process=process, make_graph=make_graph)[0]


def load_state(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | Callable[[Recipe], Recipe] | None = None,
    device: torch.device | str = "cpu",
    process: Process | None = None,
    make_graph: Callable[[], Graph] | bool = True,
) -> tuple[Trainer, dict[str, Any]]:
    """The trainer in the state of a snapshot, and the details in its header, with the `recipe` of the file.

    Args:
        path: a file of `save_snapshot`.
        recipe: to resume with another recipe, or a function of the file's; None for the file's own. Batch, learning
            rates and regularisation may change, the networks may not.
        device: where to train.
        process: this one among several.
        make_graph: as of `Trainer`.

    Raises:
        CheckpointError: the file is damaged, or is not the snapshot of a training.
    """
    file = _SnapshotFile.read(Path(path))
    discriminator = build_discriminator(file.discriminator, network_of(file.tensors, "D"), file.error)
    generator, average = (
        build_generator(file.generator, network_of(file.tensors, name), file.error) for name in ("G", "G_ema")
    )
    try:
        read_training_metadata(average, file.header, file.tensors)
    except ValueError as problem:
        raise file.error(str(problem)) from problem
    trainer = Trainer(
        generator,
        discriminator,
        recipe(file.recipe) if callable(recipe) else recipe or file.recipe,
        generator_ema=average,
        device=device,
        process=process,
        make_graph=make_graph,
    )
    for name, optimizer in trainer.optimizers.items():
        _load_adam(optimizer, name, file)
    _load_scalars(trainer, file)
    for name, value in file.counters.items():
        setattr(trainer, _COUNTERS[name], value)
    _load_averages(trainer, file)
    details = file.header.get("details")
    return trainer, {**(details if isinstance(details, dict) else {}), "recipe": file.recipe.to_dict()}


@dataclass(frozen=True)
class _SnapshotFile:
    """The content of a snapshot, of which the header has been checked."""

    path: Path
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    recipe: Recipe
    counters: dict[str, int]
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _SnapshotFile:
        """Raises CheckpointError: see `load_state`."""
        config, header, tensors = read_own(path)
        if not is_training(header):
            raise CheckpointError.about(
                path, "holds a generator, not the state of a training", "Choose a snapshot-*.safetensors of a run"
            )
        try:
            recipe = Recipe.from_dict(header["recipe"])
            discriminator = DiscriminatorConfig.from_dict(header["discriminator"])
            counters = {name: _counter(header["counters"], name) for name in _COUNTERS}
        except (KeyError, TypeError, ValueError) as problem:
            raise CheckpointError.about(path, f"its header cannot be used ({problem})", AGAIN) from problem
        return cls(path, config, discriminator, recipe, counters, header, tensors)

    def error(self, found: str, advice: str = AGAIN) -> CheckpointError:
        """The error to raise about this file."""
        return CheckpointError.about(self.path, found, advice)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Raises CheckpointError: the tensor is missing, or has another shape."""
        if name not in self.tensors:
            raise self.error(f"{name} is missing")
        tensor = self.tensors[name]
        if tensor.shape != shape:
            raise self.error(f"{name} has the shape {list(tensor.shape)} instead of {list(shape)}")
        return tensor


def _load_adam(optimizer: NetworkOptimizer, network: str, file: _SnapshotFile) -> None:
    """Load the moments of the parameters that have all of them."""
    for name, parameter in optimizer.parameters.items():
        prefix = f"adam.{network}.{name}"
        if network_of(file.tensors, prefix).keys() != set(_MOMENTS):
            continue
        moments = {m: file.tensor(f"{prefix}.{m}", () if m == "step" else parameter.shape) for m in _MOMENTS}
        # Adam wants its step count on the CPU unless it is fused; the others lie in memory as the parameter does.
        device = parameter.device if optimizer.adam.defaults["fused"] else "cpu"
        optimizer.adam.state[parameter] = {
            m: value.to(device) if m == "step" else torch.empty_like(parameter).copy_(value)
            for m, value in moments.items()
        }


def _load_scalars(trainer: Trainer, file: _SnapshotFile) -> None:
    for name, value in _scalars(trainer).items():
        if name != "augment_p" or trainer.recipe.augment == "ada":
            value.copy_(file.tensor(f"state.{name}", value.shape))


def _load_averages(trainer: Trainer, file: _SnapshotFile) -> None:
    if found := file.header.get("averages"):
        trainer.averages = averages = Averages(trainer.G, *_averages_header(found, file))
        for name, value in averages.tensors().items():
            value.detach().copy_(file.tensor(name, value.shape))


def _averages_header(found: Any, file: _SnapshotFile) -> tuple[int, list[float]]:
    """`since` and `widths` of the averages in a header."""
    try:
        since, widths = _counter(found, "since"), found["widths"]
        if not (isinstance(widths, list) and 1 <= len(widths) <= _MOST_AVERAGES):
            raise ValueError(f"widths must be 1 to {_MOST_AVERAGES} numbers, not {quoted(widths)}")
        if not all(isinstance(width, float) and 0 < width < 1 for width in widths):
            raise ValueError(f"widths must lie between 0 and 1, not {quoted(widths)}")
    except (KeyError, TypeError, ValueError) as problem:
        raise file.error(f"its header cannot be used (averages: {problem})") from problem
    return since, widths


def _counter(counters: dict[str, Any], name: str) -> int:
    value = counters[name]
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{name} must be a whole number from 0 to {_MOST}, not {quoted(value)}")
    return value


def _scalars(trainer: Trainer) -> dict[str, Tensor]:
    """The tensors of the state besides networks and optimisers."""
    return {"pl_mean": trainer.path_length.mean, "augment_p": trainer.augment.p, "signs": trainer.ada.signs}
