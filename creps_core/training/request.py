"""What is asked of a run, and the words of the user interface that advice refers to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import ImageDataset
from .run import Run
from .start import StartNetworks
from .trainer import Trainer


@dataclass(frozen=True)
class Terms:
    """What options are called in the user interface, for advice; by default on the command line."""

    name: str = "--out"
    new_data: str = "--new-data"
    total: str = "--images"
    start: str = "--start"
    data: str = "--data"


@dataclass
class RunRequest:
    """What is asked of a run. An existing run keeps everything that is not asked for.

    Attributes:
        open_data: opens a dataset, as `open_dataset`: called with the source, and with resolution, channels,
            `DATA_OPTIONS`, seed and max_side by name.
        source: folder or archive of the images, or a name for them; "": those of the run.
        start: a name for the generator to start from; None: not given, and a new run starts from random weights.
        open_start: loads the networks of that start.
        weights: returns the fingerprint of its generator, where that is cheaper than loading.
        recipe: fields of `Recipe`.
        computed: fields of `Recipe` that follow from others, for a new run only.
        data: `DATA_OPTIONS`, max_side.
        shape: of the images: resolution, channels.
        generator, discriminator: fields of their configs, for new networks.
        bandwidth: of a new generator, see `new_generator`; None: by the resolution.
        preset: name of one of `PRESETS`, for new networks; None: by device, resolution and length.
        new_data: resume with other images than before.
        memory: bytes that the training may take, by which the micro-batch is chosen; None: as in the recipe.
        terms: for advice.
    """

    open_data: Callable[..., ImageDataset]
    source: str = ""
    start: str | None = None
    open_start: Callable[[], StartNetworks] | None = None
    weights: Callable[[], str] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    computed: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    shape: dict[str, int] = field(default_factory=dict)
    generator: dict[str, int] = field(default_factory=dict)
    discriminator: dict[str, int] = field(default_factory=dict)
    bandwidth: float | None = None
    preset: str | None = None
    new_data: bool = False
    memory: int | None = None
    terms: Terms = field(default_factory=Terms)

    def limit_memory(self, trainer: Trainer) -> list[str]:
        """Apply `memory` to a trainer. Returns notes for the user.

        Raises:
            TrainingError: it is too little.
        """
        if not self.memory:
            return []
        trainer.limit_memory(self.memory)
        size, limit = trainer.recipe.micro_batch, f"{self.memory / 1e9:.3g} GB"
        if not size:
            return [f"the whole batch fits into {limit}"]
        groups = trainer.D.config.mbstd_group_size
        note = f"{size} pictures at a time, to keep within {limit}"
        exact = size % groups == 0
        return [note if exact else f"{note}; gradients differ from the whole batch's, since groups of {groups} are cut"]


def finished_note(run: Run, trainer: Trainer, terms: Terms) -> str:
    """A note for the user on a run in which nothing is left to do."""
    return (
        f"nothing to do: {trainer.num_images:,} of {trainer.recipe.total:,} pictures shown; ask for more, or choose "
        f"another name ({terms.total}, {suggest_name(run, terms)})"
    )


def suggest_name(run: Run, terms: Terms) -> str:
    """The option for a name that no run has, such as {--out "runs/mine 2"}."""
    name = run.folder.with_name(unused_name(run.folder))
    return f'{terms.name} "{name if terms.name.startswith("--") else name.name}"'


def unused_name(folder: Path) -> str:
    """A name that no run beside this folder has: "mine 2" after "mine", "mine 3" after "mine 2"."""
    stem, _, number = folder.name.rpartition(" ")
    stem, count = (stem, int(number)) if stem and number.isdigit() else (folder.name, 1)
    while folder.with_name(f"{stem} {count + 1}").exists():
        count += 1
    return f"{stem} {count + 1}"
