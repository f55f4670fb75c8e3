"""The loop of a training: batches, steps, and what is written in between."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from ...common.devices import free_memory
from ...common.errors import TrainingError
from ..data import Batches, ImageDataset, WindowCutter, can_cut_on
from ..network import Generator, LabelSet
from .patches import random_box
from .publish import restore_folder
from .run import Run, num_images_of
from .status import RunClock, Status
from .trainer import Trainer
from .writer import RunWriter

log: logging.Logger = logging.getLogger("CREPS")

DATASET_SHARE = 1 / 8  # of a GPU's free memory, for images to cut windows from
_MOST_LABELS = 1 << 21  # numbers, of labels that are vectors, in a checkpoint


def train(
    run: Run,
    trainer: Trainer,
    dataset: ImageDataset,
    *,
    progress: Callable[[Status], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Generator:
    """Train until `recipe.total` images have been shown, or until `stop`; write snapshots in between and at the end.

    Args:
        run: where to write.
        trainer: new, or from `load_snapshot`; training resumes from its state.
        dataset: its resolution, channels and labels must be the discriminator's.
        progress: called after every step. An exception from it ends the run, after a snapshot.
        stop: called after every step; True ends the run, after a snapshot.

    Returns:
        The moving average of the generator, on the CPU.

    Raises:
        TrainingError: the dataset does not fit the networks, the training diverges, or a file cannot be written; the
            last snapshot is whole.
    """
    with run.lock if trainer.process.is_first else nullcontext():
        _check_dataset(trainer, dataset)
        _check_snapshots(run, trainer)
        set_training_metadata(trainer, dataset)
        if trainer.num_images < trainer.recipe.total or not run.snapshots():
            _Loop(run, trainer, dataset, progress, stop).train()
        elif trainer.process.is_first:
            restore_folder(run, trainer)
        return _result(trainer)


class _Loop:
    """The state of a training beside the trainer: its writer, its clock, and what has been saved."""

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        dataset: ImageDataset,
        progress: Callable[[Status], None] | None,
        stop: Callable[[], bool] | None,
    ):
        self.run, self.trainer, self.dataset = run, trainer, dataset
        self.progress, self.stop = progress, stop
        self.clock = RunClock(trainer.num_images)
        self.writer = RunWriter(run, trainer, dataset, self.clock) if trainer.process.is_first else None
        self._saved = trainer.num_images  # when the last snapshot was due, in all processes
        self._between_steps = True  # whether the state is that between two steps

    def train(self) -> None:
        """Take steps until all images have been shown or the run is to stop, and write what is left to write."""
        trainer = self.trainer
        try:
            with _open_batches(trainer, self.dataset) as batches:
                while trainer.num_images < trainer.recipe.total:
                    self._take_step(batches)
                    if self._stopped():
                        break
        except BaseException as error:
            self._save_before(error)
            raise
        self._finish()

    def _take_step(self, batches: Batches) -> None:
        """One step, and what is due after it."""
        batch = next(batches)
        self._between_steps = False
        stats = self.trainer.step(batch.images, batch.labels, batch.windows)
        self._between_steps = True
        if self.writer:
            self.writer.add_step(stats, batches.wait_seconds)
        if self.trainer.num_images // self.run.snapshot_every > self._saved // self.run.snapshot_every:
            self._snapshot()
        if self.progress and self.writer:
            self.progress(self.clock.status(self.trainer, self.writer.means))

    def _snapshot(self) -> None:
        """Write a snapshot and measure it; in all processes."""
        if self.writer:
            self.writer.write_snapshot()
        if self.run.metrics is not None:
            found = self.run.metrics.measure(self.trainer, self.dataset)
            if self.writer:
                self.writer.add_metrics(found)
        self._saved = self.trainer.num_images

    def _stopped(self) -> bool:
        """Whether `stop` returns True in any process."""
        process, flag = self.trainer.process, self.stop() if self.stop else False
        if process.world == 1:
            return flag
        return bool(process.mean(torch.tensor(float(flag), device=self.trainer.device)) > 0)

    def _save_before(self, error: BaseException) -> None:
        """Write a snapshot before an error ends the run, unless files cannot be written or a step is half done."""
        writer = self.writer if self._between_steps and not isinstance(error, TrainingError) else None
        if writer and writer.saved < self.trainer.num_images:
            writer.write_snapshot()

    def _finish(self) -> None:
        trainer, writer = self.trainer, self.writer
        if trainer.num_images >= trainer.recipe.total and self._saved < trainer.num_images:
            self._snapshot()
        if writer:
            if writer.saved < trainer.num_images or not self.run.snapshots():
                writer.write_snapshot()
            writer.close()
        trainer.process.wait()


def _open_batches(trainer: Trainer, dataset: ImageDataset) -> Batches:
    """Batches of the dataset, beginning after the images that the trainer has seen."""
    recipe, process, on_cpu = trainer.recipe, trainer.process, trainer.device.type == "cpu"

    def window(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        return random_box(rng, side, dataset.resolution, recipe.patches)

    return Batches(
        dataset,
        recipe.batch // process.world,
        seed=recipe.seed,
        start=trainer.num_images,
        rank=process.rank,
        world=process.world,
        window=window if recipe.patches else None,
        workers=2 if on_cpu else min(8, os.cpu_count() or 1),
        pin=trainer.device.type == "cuda",
        cutter=_window_cutter(trainer, dataset),
    )


def _window_cutter(trainer: Trainer, dataset: ImageDataset) -> WindowCutter | None:
    """Cuts windows on the device; None where Pillow does. Both give the same bits."""
    if not trainer.recipe.patches or not can_cut_on(dataset, trainer.device):
        return None
    cutter = WindowCutter(dataset, trainer.device, int((free_memory(trainer.device) or 0) * DATASET_SHARE))
    log.info(
        "windows are cut on %s; the images are %s", trainer.device, "kept there" if cutter.resident else "copied there"
    )
    return cutter


def set_training_metadata(trainer: Trainer, dataset: ImageDataset) -> None:
    """Give the trainer the labels to draw from, and the generators their training metadata."""
    trainer.inputs.labels = dataset.all_labels()  # class numbers stay numbers: as vectors they may take gigabytes
    found = dataset.label_counts()
    labels = None if found is None else LabelSet(*_storable_labels(*found), dataset.class_names)
    for generator in (trainer.G, trainer.G_ema):
        generator.labels, generator.aspect = labels, dataset.aspect


def _storable_labels(values: np.ndarray, counts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Labels and their counts; of label vectors a random choice that a checkpoint has room for."""
    if values.ndim > 1 and values.size > _MOST_LABELS:
        chosen = np.random.default_rng(0).choice(len(values), max(1, _MOST_LABELS // values.shape[1]), replace=False)
        values, counts = values[chosen], counts[chosen]
    return torch.from_numpy(values), torch.from_numpy(counts)


def _result(trainer: Trainer) -> Generator:
    generator = copy.deepcopy(trainer.G_ema).cpu().eval()
    generator.fingerprint = ""  # the copied one is that of the generator it started from
    return generator


def _check_dataset(trainer: Trainer, dataset: ImageDataset) -> None:
    """Raise TrainingError if the images do not fit the discriminator."""
    d = trainer.D.config
    for name, theirs, ours in (
        ("resolution", dataset.resolution, d.img_resolution),
        ("channels", dataset.channels, d.img_channels),
        ("c_dim", dataset.c_dim, d.c_dim),
    ):
        if theirs != ours:
            raise TrainingError(f"the data have {name} {theirs}, the discriminator {ours}: they must agree")


def _check_snapshots(run: Run, trainer: Trainer) -> None:
    """Raise TrainingError if the folder holds snapshots of more images: those of another run."""
    if newer := [path.name for path in run.snapshots() if num_images_of(path) > trainer.num_images]:
        raise TrainingError(
            f"{run.folder.name}: holds {newer[-1]}, which is beyond these {trainer.num_images} pictures: resume from "
            "it, remove it, or choose another folder"
        )
