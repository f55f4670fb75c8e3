"""Resume a run: its identity comes from the folder, and a request that contradicts it is refused."""

from __future__ import annotations

import dataclasses
import errno
import logging
from pathlib import Path
from typing import Any

import torch

from ...common.errors import CheckpointError, NewerFormatError, TrainingError
from ..checkpoints import fingerprint
from ..data import ImageDataset, normalize_aspect
from .identity import DATA_OPTIONS, NEW, Identity
from .parallel import Process
from .recipe import Recipe
from .request import RunRequest, suggest_name
from .run import Run
from .snapshots import load_state
from .trainer import Trainer

log: logging.Logger = logging.getLogger("CREPS")

_DAMAGE = (errno.ENOENT, errno.EINVAL, errno.ELOOP, errno.EISDIR)  # the snapshot is no file


def resume_run(
    run: Run, request: RunRequest, device: torch.device | str, process: Process
) -> tuple[Trainer, ImageDataset, list[str]]:
    """The trainer of the newest usable snapshot, the dataset, and notes for the user; see `open_run`."""
    trainer, details, notes = _load_newest(run, request, device, process)
    notes += request.limit_memory(trainer)
    description, problem = run.description()
    if problem:
        notes.append(f"{problem}: described anew from the snapshot")
    identity = _identity_of(details, description)
    _check_start(run, request, identity, trainer)
    d = trainer.D.config
    dataset, given = open_dataset_of(request, identity, trainer.recipe, d.img_resolution, d.img_channels, run)
    dataset.ensure_c_dim(d.c_dim)
    history = [entry for entry in details.get("history") or [] if isinstance(entry, dict)]
    for changes in (
        _data_changes(run, request, identity, given),
        _recipe_changes(Recipe.from_dict(details["recipe"]), trainer.recipe),
    ):
        if changes:
            entry, note = changes
            history.append({"shown": trainer.num_images, **entry})
            notes.append(f"from {trainer.num_images:,} pictures on with {note}")
    log.info("resuming after %s pictures", f"{trainer.num_images:,}")
    run.describe(given, history)
    return trainer, dataset, notes


def _data_changes(
    run: Run, request: RunRequest, identity: Identity, given: Identity
) -> tuple[dict[str, Any], str] | None:
    """An entry of the history and a note, if the images have changed; raises TrainingError if they may not."""
    if identity.same_data(given):
        return None
    if not request.new_data:
        raise TrainingError(
            f"{run.folder.name}: this run learns from {identity.described_data()}, and these are other pictures: "
            f"{given.described_data()}. Choose another name ({suggest_name(run, request.terms)}), or use "
            f"{request.terms.new_data} to resume with these"
        )
    entry = {"data": given.described_data(), "instead of": identity.described_data()}
    return entry, f"other data: {given.described_data()}"


def _recipe_changes(old: Recipe, new: Recipe) -> tuple[dict[str, Any], str] | None:
    """An entry of the history and a note, if fields of the recipe other than `total` have changed."""
    changed = {
        name: [getattr(old, name), value]
        for name, value in new.to_dict().items()
        if name != "total" and value != getattr(old, name)
    }
    if not changed:
        return None
    return {"recipe": changed}, ", ".join(
        f"{name} {now} instead of {before}" for name, (before, now) in changed.items()
    )


def _load_newest(
    run: Run, request: RunRequest, device: torch.device | str, process: Process
) -> tuple[Trainer, dict[str, Any], list[str]]:
    """The trainer of the newest snapshot that is whole, the snapshot's details, and notes."""

    def recipe(old: Recipe) -> Recipe:
        return dataclasses.replace(old, **request.recipe)

    damaged: list[tuple[Path, CheckpointError | OSError]] = []
    for path in reversed(run.snapshots()):
        try:
            trainer, details = load_state(path, recipe=recipe, device=device, process=process)
        except NewerFormatError:
            raise
        except (CheckpointError, OSError) as error:
            _raise_unreadable(path, error)
            damaged.append((path, error))
            continue
        notes = []
        for old, error in damaged:
            if process.is_first:
                run.set_aside(old)
            notes.append(f"{error}. It is renamed to {old.name}.damaged; the run resumes from {path.name}")
        return trainer, details, notes
    raise TrainingError(
        f"{run.folder.name}: none of its snapshots can be used: {damaged[0][1]}. Begin another run "
        f"({suggest_name(run, request.terms)}), with {request.terms.start} {run.generator_file} if that is whole"
    )


def _raise_unreadable(path: Path, error: CheckpointError | OSError) -> None:
    """Raise TrainingError if a snapshot could not be read from its disk, which says nothing about the snapshot."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno not in _DAMAGE:
        raise TrainingError(
            f"check the disk, or copy the run elsewhere, and start again: {path.name} cannot be read "
            f"({cause.strerror or cause}). It is not known to be damaged, so the run does not resume from an older one"
        ) from error


def _identity_of(details: dict[str, Any], description: dict[str, Any]) -> Identity:
    """The identity in the snapshot, else in `run.json`, which is all that version 0.1.0 wrote."""
    for values in (details.get("identity"), description.get("identity")):
        if isinstance(values, dict):
            return Identity.from_dict(values)
    data = description.get("data")
    data = data if isinstance(data, dict) else {}
    return Identity.from_dict(
        {
            "start": details.get("start") or description.get("start"),
            "source": details.get("data_source") or description.get("data_source"),
            "pictures": data.get("pictures"),
            "mirror": data.get("mirror"),
        }
    )


def _check_start(run: Run, request: RunRequest, identity: Identity, trainer: Trainer) -> None:
    """Raise TrainingError if the run began with another start, other networks or another shape than asked for."""
    problems = [*_other_start(request, identity)]
    problems += [
        f"{name} {ours}, not {theirs}"
        for name, ours, theirs in _shape_asked(request, identity, trainer)
        if theirs and ours is not None and ours != theirs
    ]
    if problems:
        raise TrainingError(
            f"{run.folder.name}: this is another run: {'; '.join(problems)}. Choose another name "
            f"({suggest_name(run, request.terms)}), or ask for what this one began with"
        )


def _other_start(request: RunRequest, identity: Identity) -> list[str]:
    """What is wrong with the start that is asked for, [] if nothing is."""
    weights = _start_weights(request, identity)
    if weights and identity.weights and weights != identity.weights:
        same = request.start == identity.start
        what = "which is another generator by now" if same else f"not with {request.start}"
        return [f"it began with {identity.start or 'another generator'}, {what}"]
    if weights and not identity.weights and identity.start and request.start != identity.start:
        start = "new networks" if identity.start == NEW else identity.start
        return [f"it began with {start}, not with {request.start}"]
    return []


def _shape_asked(request: RunRequest, identity: Identity, trainer: Trainer) -> list[tuple[str, Any, Any]]:
    """For each property that is fixed in a run: how messages name it, its value, and the value asked for."""
    d, g = trainer.D.config.to_dict(), trainer.G.config.to_dict()
    asked: list[tuple[str, Any, Any]] = [
        ("resolution", d["img_resolution"], request.shape.get("resolution")),
        ("channels", d["img_channels"], request.shape.get("channels")),
    ]
    if identity.start in (NEW, ""):
        asked += [(f"the generator's {name} is", g[name], value) for name, value in request.generator.items()]
        asked += [(f"the discriminator's {name} is", d[name], value) for name, value in request.discriminator.items()]
        asked.append(("bandwidth", identity.bandwidth, request.bandwidth))
        asked.append(("preset", identity.preset, request.preset))
    else:
        asked.append(("places (--tell-place) is", d["places"], request.discriminator.get("places")))
    return asked


def _start_weights(request: RunRequest, identity: Identity) -> str:
    """The fingerprint of the generator that is asked for as a start; empty if none is."""
    if request.weights:
        return request.weights()
    if not request.open_start:
        return ""
    try:
        return fingerprint(request.open_start().G_ema)
    except CheckpointError:
        if request.start != identity.start:
            raise
        return ""  # it has been removed since, and is not needed any more


def open_dataset_of(
    request: RunRequest, identity: Identity, recipe: Recipe, resolution: int, channels: int, run: Run | None = None
) -> tuple[ImageDataset, Identity]:
    """Open the images asked for, else those of the identity.

    Args:
        request: its data options take precedence over the identity's.
        identity: of a run, or of a new one so far.
        recipe: of the run.
        resolution, channels: of the images.
        run: an existing one, whose data options must not change without `request.new_data`.

    Returns:
        The dataset, and the identity with it.

    Raises:
        TrainingError: data options have changed. ValueError: no source is known.
    """
    options = {name: getattr(identity, name) for name in DATA_OPTIONS}
    asked = {name: value for name, value in request.data.items() if name in DATA_OPTIONS and value is not None}
    if "aspect" in asked:
        asked["aspect"] = normalize_aspect(asked["aspect"])
    if run is not None and not request.new_data:
        for name, value in asked.items():
            if options[name] is not None and options[name] != value:
                raise TrainingError(
                    f"{run.folder.name}: this run shows its pictures with {name} {options[name]}, not {value}. Choose "
                    f"another name ({suggest_name(run, request.terms)}), or use {request.terms.new_data} to change it"
                )
    options = {name: value for name, value in {**options, **asked}.items() if value is not None}
    source = request.source or identity.source
    if not source:
        raise ValueError(f"it is not known where the pictures of this run are: give {request.terms.data}")
    max_side = request.data.get("max_side") or identity.max_side
    dataset = request.open_data(
        source,
        resolution=resolution,
        channels=channels,
        seed=identity.choice,
        max_side=max_side if recipe.patches else None,
        **options,
    )
    return dataset, identity.with_data(dataset, source, max_side)
