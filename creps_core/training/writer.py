"""What the first process of a training writes into the folder of a run."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from torch import Tensor

from ...common.files import write_json, write_png
from ..data import ImageDataset
from .publish import publish_generator, remove_old_snapshots, restore_folder, write_loss_plot, write_sheet
from .run import DESCRIPTION, Run
from .sheets import training_grid
from .snapshot_metrics import METRIC_PREFIX
from .snapshots import save_snapshot
from .stats import StatsLog, TickMeans, forget_stats_after
from .status import RunClock
from .trainer import Trainer

log: logging.Logger = logging.getLogger("CREPS")

GUESSING_TICKS = 5  # in a row, after which a discriminator that only guesses is reported
_GUESSING_LOSS = 2 * math.log(2)  # loss/D of logits 0
_GUESSING_MARGIN = 0.03


class RunWriter:
    """Writes the statistics, sheets, snapshots and the generator of a run.

    Attributes:
        means: of the last tick, by name; {} before the first.
        saved: `num_images` of the last snapshot.
    """

    run: Run
    trainer: Trainer
    clock: RunClock

    def __init__(self, run: Run, trainer: Trainer, dataset: ImageDataset, clock: RunClock):
        """Prepare the folder: remove leftovers, and write the description and the sheet of training images.

        Raises:
            TrainingError: the folder cannot be written to.
        """
        self.run, self.trainer, self.clock = run, trainer, clock
        self.means: dict[str, float] = {}
        self.saved = trainer.num_images
        self._tick = TickMeans()
        self._tick_start = time.monotonic(), trainer.num_images, 0.0  # time, images, seconds waited for data
        self._guessing = 0  # ticks in a row
        with run.writing():
            run.folder.mkdir(parents=True, exist_ok=True)
            run.clear_leftovers()
            forget_stats_after(run.folder, trainer.num_images)
            write_json(run.folder / DESCRIPTION, _description(trainer, dataset, run))
            write_png(run.folder / "reals.png", training_grid(dataset))
        if run.snapshots() and run.snapshots()[-1] == run.snapshot_path(trainer.num_images):
            restore_folder(run, trainer)
        self._stats = StatsLog(run.folder)

    def add_step(self, stats: dict[str, Tensor], waited: float) -> None:
        """Add the reports of a step; when a tick is over, log a line of statistics.

        Args:
            stats: as of `Trainer.step`.
            waited: seconds that the training has waited for data so far.
        """
        self._tick.add(stats)
        trainer = self.trainer
        before, images, waited_before = self._tick_start
        if trainer.num_images // self.run.tick == images // self.run.tick:
            return
        self.means = self._tick.take()
        self._warn_of_guessing()
        now = time.monotonic()
        seconds = max(now - before, 1e-9)
        line = {
            "shown": trainer.num_images,
            "steps": trainer.steps,
            "seconds": round(now - self.clock.start, 3),
            "images_per_second": round((trainer.num_images - images) / seconds, 3),
            "skipped": trainer.skipped,
            "waiting": round((waited - waited_before) / seconds, 4),
            **{name: round(value, 6) for name, value in self.means.items()},
        }
        self._tick_start = now, trainer.num_images, waited
        with self.run.writing():
            self._stats.append(line, self.means)

    def _warn_of_guessing(self) -> None:
        """Warn once of a discriminator that only guesses: losses look calm, and the generator learns nothing."""
        loss = self.means.get("loss/D", 0.0)
        self._guessing = self._guessing + 1 if abs(loss - _GUESSING_LOSS) < _GUESSING_MARGIN else 0
        if self._guessing == GUESSING_TICKS:
            log.warning(
                "for %d ticks the discriminator has not told real from generated pictures (loss/D %.3f, guessing gives "
                "1.386): the generator learns nothing from it. Lower --gamma (to a tenth, say), or start again from an "
                "earlier snapshot",
                GUESSING_TICKS,
                loss,
            )

    def write_snapshot(self) -> None:
        """Write the state, then what is made of it; then remove old snapshots.

        Raises:
            TrainingError: a file cannot be written.
        """
        run, trainer = self.run, self.trainer
        with run.writing():
            save_snapshot(trainer, run.snapshot_path(trainer.num_images), run.info)
            self.saved: int = trainer.num_images
            if not run.publishes_best or not run.generator_file.exists():
                self._publish()
        write_sheet(run, trainer)
        with run.writing():
            write_loss_plot(run)
            remove_old_snapshots(run)

    def add_metrics(self, found: dict[str, float]) -> None:
        """Log the metrics of the snapshot written last, and publish its generator if it is the best so far."""
        num_images = self.trainer.num_images
        values = {METRIC_PREFIX + name: value for name, value in found.items() if math.isfinite(value)}
        with self.run.writing():
            self._stats.append({"shown": num_images, **values}, values)
        log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        with self.run.writing():
            write_loss_plot(self.run)
            if self.run.publishes_best and self.run.best() == self.run.snapshot_path(num_images):
                self._publish()

    def close(self) -> None:
        """End the statistics."""
        self._stats.close()

    def _publish(self) -> None:
        publish_generator(self.run, self.trainer.G_ema, self.trainer.D, self.trainer.num_images)


def _description(trainer: Trainer, dataset: ImageDataset, run: Run) -> dict[str, Any]:
    """The content of `run.json`."""
    from .. import __version__

    return {
        "version": __version__,
        "torch": torch.__version__,
        "device": str(trainer.device),
        "processes": trainer.process.world,
        "generator": trainer.G.config.to_dict(),
        "discriminator": trainer.D.config.to_dict(),
        "recipe": trainer.recipe.to_dict(),
        "data": {
            "pictures": dataset.report.used,
            "mirror": dataset.mirror,
            "fingerprint": dataset.fingerprint,
            "skipped": dataset.report.skipped[:1000],
            "notes": dataset.report.notes,
        },
        "intervals": {name: getattr(run, name) for name in ("tick", "snapshot_every", "keep")},
        **run.info,
    }
