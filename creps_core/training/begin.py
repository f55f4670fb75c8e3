"""How a run begins, and how it goes on: what it is comes from the run, and what is asked for is held against that."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...common.errors import CheckpointError, NewerFormatError, TrainingError
from ..checkpoints import fingerprint
from ..data import ImageDataset, format_aspect, normalize_aspect
from ..network import DiscriminatorConfig, GeneratorConfig
from .identity import DATA_OPTIONS, Identity
from .memory import check_memory
from .parallel import Process
from .recipe import Recipe, r1_gamma_for
from .run import Run
from .snapshots import load_state
from .start import Networks, discriminator_config_for, discriminator_for, new_generator, refit
from .trainer import Trainer

log = logging.getLogger("CREPS")

NEW = "new"
"""The start of a run that begins with random weights."""


@dataclass(frozen=True)
class Terms:
    """What things are called where the user is, for advice."""

    name: str = "--out"
    new_data: str = "--new-data"
    total: str = "--images"
    start: str = "--start"
    data: str = "--data"


@dataclass
class RunRequest:
    """What is asked of a run. Whatever is not asked for, a run that is there keeps.

    Attributes:
        open_data: opens the pictures of a source, as `open_dataset`: called with the source, and resolution, channels,
            `DATA_OPTIONS`, seed and max_side by name.
        source: folder or archive of the pictures, or what they are called; "": those of the run.
        start: what the run begins with is called; None: nothing is said, a new run begins with random weights.
        open_start: gives the networks of that start. weights: gives the fingerprint of its generator, where that is
            cheaper.
        recipe: fields of `Recipe`.
        computed: fields of `Recipe` that follow from others, for a new run only.
        data: `DATA_OPTIONS`, max_side.
        shape: of the pictures: resolution, channels.
        generator, discriminator: fields of their configs, for new ones.
        bandwidth: of a new generator, see `new_generator`.
        new_data: go on with other pictures than before.
        memory: bytes that the training may take: a batch is worked on in such parts; None: those of the recipe.
    """

    open_data: Callable[..., ImageDataset]
    source: str = ""
    start: str | None = None
    open_start: Callable[[], Networks] | None = None
    weights: Callable[[], str] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    computed: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, int] = field(default_factory=dict)
    generator: dict[str, int] = field(default_factory=dict)
    discriminator: dict[str, int] = field(default_factory=dict)
    bandwidth: float | None = None
    new_data: bool = False
    memory: int | None = None
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True)
class Beginning:
    """A run that can be trained. `notes` are for the user: what is not as he may expect."""

    trainer: Trainer
    pictures: ImageDataset
    notes: list[str]

    @property
    def finished(self) -> bool:
        """Whether all the pictures asked for have been shown."""
        return self.trainer.num_images >= self.trainer.recipe.total


def begin(
    run: Run, request: RunRequest, *, device: torch.device | str = "cpu", process: Process | None = None
) -> Beginning:
    """Begin a run, or go on with the one that is in the folder. Hold `run.lock` while this and `train` work.

    Raises:
        TrainingError: the run is not what is asked for, or has nothing to go on from; says what to do.
        CheckpointError, DatasetError, ValueError: of the start, the pictures and the options.
    """
    process = process or Process()
    if run.snapshots():
        return _go_on(run, request, device, process)
    if run.generator_file.exists():
        raise TrainingError(
            f"{run.folder.name}: holds {run.generator_file.name} but no snapshot to go on from. Begin another run, "
            f"{_another(run, request.terms)}, with {request.terms.start} {run.generator_file} "
            f"to take over what it has learnt"
        )
    return _new(run, request, device, process)


def finished_note(run: Run, trainer: Trainer, terms: Terms) -> str:
    """What to say of a run in which there is nothing left to do."""
    return (
        f"nothing to do: {trainer.num_images:,} of {trainer.recipe.total:,} pictures shown; ask for more, or choose "
        f"another name ({terms.total}, {_another(run, terms)})"
    )


def fresh_name(folder: Path) -> str:
    """A name beside this folder that no run has: "mine 2" after "mine", "mine 3" after "mine 2"."""
    stem, _, number = folder.name.rpartition(" ")
    stem, count = (stem, int(number)) if stem and number.isdigit() else (folder.name, 1)
    while folder.with_name(f"{stem} {count + 1}").exists():
        count += 1
    return f"{stem} {count + 1}"


def _new(run: Run, request: RunRequest, device: torch.device | str, process: Process) -> Beginning:
    networks = request.open_start() if request.open_start else None
    resolution = request.shape.get("resolution") or (networks.G.config.img_resolution if networks else 0)
    if not resolution:
        raise ValueError(
            "--resolution is needed for a new network: a power of two, 64 or 128 on a CPU, 256 to 1024 on GPUs"
        )
    seed = request.recipe.get("seed", 0)
    recipe = Recipe(**{"r1_gamma": r1_gamma_for(resolution), **request.computed, **request.recipe})
    channels = request.shape.get("channels") or (networks.G.config.img_channels if networks else 3)
    if not request.source:
        raise ValueError(f"a new run needs pictures to learn from: give {request.terms.data}")
    shape = networks.G.config if networks else _new_config(request, resolution, channels, 0)
    parts = dataclasses.replace(recipe, micro_batch=1) if request.memory else recipe
    check_memory(shape, _discriminator_config(request, shape, resolution), parts, process.world, device)
    aspect = format_aspect(networks.G_ema.aspect) if networks else None
    pictures, identity = _opened(request, Identity(choice=seed, aspect=aspect), recipe, resolution, channels)
    notes = []
    if networks is None:
        config = _new_config(request, resolution, channels, pictures.c_dim)
        options = {} if request.bandwidth is None else {"bandwidth": request.bandwidth}
        generator = new_generator(config, seed, **options)
        networks = Networks(generator, generator, None)
        identity = dataclasses.replace(identity, start=NEW, bandwidth=request.bandwidth)
    else:
        identity = dataclasses.replace(identity, start=request.start or "", weights=fingerprint(networks.G_ema))
        if ignored := [
            name for name in request.generator if request.generator[name] != getattr(networks.G.config, name)
        ]:
            notes.append(f"{', '.join(sorted(ignored))}: these are of a new generator; that of the start keeps its own")
        pictures.ensure_c_dim(networks.G.config.c_dim)
        if networks.G.config.c_dim and not pictures.c_dim:
            notes.append("the start has labels and these pictures have none: it goes on without")
        elif networks.G.config.c_dim != pictures.c_dim:
            notes.append(f"labels of {pictures.c_dim} numbers are new to the start: it begins to learn them")
        networks = refit(networks, pictures.c_dim, channels, seed)
    discriminator = discriminator_for(networks, _discriminator_config(request, networks.G.config, resolution), seed)
    trainer = Trainer(networks.G, discriminator, recipe, generator_ema=networks.G_ema, device=device, process=process)
    notes += _within(trainer, request)
    run.describe(identity, [])
    return Beginning(trainer, pictures, notes)


def _within(trainer: Trainer, request: RunRequest) -> list[str]:
    """Keep a trainer within the memory that is asked for, and what to say of it."""
    if not request.memory:
        return []
    trainer.limit_memory(request.memory)
    size, limit = trainer.recipe.micro_batch, f"{request.memory / 1e9:.3g} GB"
    if not size:
        return [f"the whole batch fits into {limit}"]
    groups = trainer.D.config.mbstd_group_size
    exact = "" if size % groups == 0 else f"; gradients differ from the whole batch's, since groups of {groups} are cut"
    return [f"{size} pictures at a time, to keep within {limit}{exact}"]


def _new_config(request: RunRequest, resolution: int, channels: int, c_dim: int) -> GeneratorConfig:
    levels = {"img_resolution": resolution, **request.generator}
    return GeneratorConfig(**{**levels, "img_channels": channels, "c_dim": c_dim})


def _discriminator_config(request: RunRequest, config: GeneratorConfig, resolution: int) -> DiscriminatorConfig:
    return DiscriminatorConfig.from_dict(discriminator_config_for(config, resolution).to_dict() | request.discriminator)


def _go_on(run: Run, request: RunRequest, device: torch.device | str, process: Process) -> Beginning:
    trainer, details, notes = _newest(run, request, device, process)
    notes += _within(trainer, request)
    description, problem = run.description()
    if problem:
        notes.append(f"{problem}: described anew from the snapshot")
    identity = _identity(details, description)
    _check_start(run, request, identity, trainer)
    resolution, channels = trainer.D.config.img_resolution, trainer.D.config.img_channels
    old = Recipe.from_dict(details["recipe"])
    pictures, given = _opened(request, identity, trainer.recipe, resolution, channels, run)
    pictures.ensure_c_dim(trainer.D.config.c_dim)
    history = [entry for entry in details.get("history") or [] if isinstance(entry, dict)]
    if not identity.same_data(given):
        if not request.new_data:
            raise TrainingError(
                f"{run.folder.name}: this run learns from {identity.described_data()}, and these are other pictures: "
                f"{given.described_data()}. Choose another name ({_another(run, request.terms)}), or say "
                f"{request.terms.new_data} to go on with these"
            )
        notes.append(f"from {trainer.num_images:,} pictures on with other data: {given.described_data()}")
        history.append(
            {"shown": trainer.num_images, "data": given.described_data(), "instead of": identity.described_data()}
        )
    changed = {
        name: [getattr(old, name), value]
        for name, value in trainer.recipe.to_dict().items()
        if name != "total" and value != getattr(old, name)
    }
    log.info("going on after %s pictures", f"{trainer.num_images:,}")
    if changed:
        values = ", ".join(f"{name} {now} instead of {before}" for name, (before, now) in changed.items())
        notes.append(f"from {trainer.num_images:,} pictures on with {values}")
        history.append({"shown": trainer.num_images, "recipe": changed})
    run.describe(given, history)
    return Beginning(trainer, pictures, notes)


def _newest(
    run: Run, request: RunRequest, device: torch.device | str, process: Process
) -> tuple[Trainer, dict[str, Any], list[str]]:
    """The trainer of the newest snapshot that is whole, what else the snapshot says, and notes."""

    def recipe(old: Recipe) -> Recipe:
        return dataclasses.replace(old, **request.recipe)

    damaged: list[tuple[Path, CheckpointError]] = []
    for path in reversed(run.snapshots()):
        try:
            trainer, details = load_state(path, recipe=recipe, device=device, process=process)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            damaged.append((path, error))
            continue
        notes = []
        for old, error in damaged:
            if process.is_first:
                run.put_aside(old)
            notes.append(f"{error}. It is put aside as {old.name}.damaged; the run goes on from {path.name}")
        return trainer, details, notes
    raise TrainingError(
        f"{run.folder.name}: none of its snapshots can be used: {damaged[0][1]}. Begin another run "
        f"({_another(run, request.terms)}), with {request.terms.start} {run.generator_file} if that is whole"
    )


def _identity(details: dict[str, Any], description: dict[str, Any]) -> Identity:
    """What the run is, by its snapshot, else by its `run.json`, which is all that version 0.1.0 wrote."""
    for values in (details.get("identity"), description.get("identity")):
        if isinstance(values, dict):
            return Identity.from_dict(values)
    data = description.get("data")
    data = data if isinstance(data, dict) else {}
    source = details.get("data_source") or description.get("data_source")
    return Identity.from_dict(
        {
            "start": details.get("start") or description.get("start"),
            "source": source,
            "pictures": data.get("pictures"),
            "mirror": data.get("mirror"),
        }
    )


def _check_start(run: Run, request: RunRequest, identity: Identity, trainer: Trainer) -> None:
    """Raise TrainingError if the run began with something else than is asked for."""
    terms = request.terms
    problems: list[str] = []
    weights = _start_weights(request, identity)
    if weights and identity.weights and weights != identity.weights:
        same = request.start == identity.start
        what = "which is another generator by now" if same else f"not with {request.start}"
        problems.append(f"it began with {identity.start or 'another generator'}, {what}")
    elif weights and not identity.weights and identity.start and request.start != identity.start:
        problems.append(
            f"it began with {'new networks' if identity.start == NEW else identity.start}, not with {request.start}"
        )
    d, g = trainer.D.config.to_dict(), trainer.G.config.to_dict()
    asked: list[tuple[str, Any, Any]] = [
        ("resolution", d["img_resolution"], request.shape.get("resolution")),
        ("channels", d["img_channels"], request.shape.get("channels")),
    ]
    if identity.start in (NEW, ""):
        asked += [(f"the generator's {name} is", g[name], value) for name, value in request.generator.items()]
        asked += [(f"the discriminator's {name} is", d[name], value) for name, value in request.discriminator.items()]
        asked.append(("bandwidth", identity.bandwidth, request.bandwidth))
    else:
        asked.append(("places (--tell-place) is", d["places"], request.discriminator.get("places")))
    problems += [
        f"{name} {ours}, not {theirs}" for name, ours, theirs in asked if theirs and ours is not None and ours != theirs
    ]
    if problems:
        raise TrainingError(
            f"{run.folder.name}: this is another run: {'; '.join(problems)}. Choose another name "
            f"({_another(run, terms)}), or ask for what this one began with"
        )


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


def _opened(
    request: RunRequest, identity: Identity, recipe: Recipe, resolution: int, channels: int, run: Run | None = None
) -> tuple[ImageDataset, Identity]:
    """The pictures, by what is asked for and otherwise by the identity of a run; and the identity with them."""
    options = {name: getattr(identity, name) for name in DATA_OPTIONS}
    asked = {name: value for name, value in request.data.items() if name in DATA_OPTIONS and value is not None}
    if "aspect" in asked:
        asked["aspect"] = normalize_aspect(asked["aspect"])
    if run is not None and not request.new_data:
        for name, value in asked.items():
            if options[name] is not None and options[name] != value:
                raise TrainingError(
                    f"{run.folder.name}: this run shows its pictures with {name} {options[name]}, not {value}. Choose "
                    f"another name ({_another(run, request.terms)}), or say {request.terms.new_data} to change it"
                )
    options = {name: value for name, value in {**options, **asked}.items() if value is not None}
    source = request.source or identity.source
    if not source:
        raise ValueError(f"it is not known where the pictures of this run are: give {request.terms.data}")
    max_side = request.data.get("max_side") or identity.max_side
    pictures = request.open_data(
        source,
        resolution=resolution,
        channels=channels,
        seed=identity.choice,
        max_side=max_side if recipe.patches else None,
        **options,
    )
    return pictures, identity.with_data(pictures, source, max_side)


def _another(run: Run, terms: Terms) -> str:
    """{--out such as "runs/mine 2"}"""
    name = run.folder.with_name(fresh_name(run.folder))
    return f'{terms.name} "{name if terms.name.startswith("--") else name.name}"'
