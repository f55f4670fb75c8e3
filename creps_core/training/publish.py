"""What a run makes of a snapshot: a generator for the loader, a sheet, a plot."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ...common.errors import CheckpointError
from ...common.files import write_png
from ..checkpoints import read_checkpoint, save_generator
from ..network import Discriminator, Generator
from .curves import loss_plot
from .run import Run, num_images_of
from .sheets import sample_grid
from .stats import read_stats
from .trainer import Trainer

_PRIVATE = ("identity", "history", "metrics")  # details of a run that others need not know: they name folders


def publish_generator(run: Run, generator: Generator, discriminator: Discriminator | None, num_images: int) -> None:
    """Write `generator.safetensors`: in half precision, unless float16 cannot hold the weights.

    Raises:
        OSError: the file cannot be written.
    """
    details = {"trained": f"{num_images} pictures", **run.info}
    for name in _PRIVATE:
        details.pop(name, None)
    if "data_source" in details:
        details["data_source"] = Path(details["data_source"]).name
    save = partial(save_generator, generator, run.generator_file, details=details, discriminator=discriminator)
    try:
        save(half=True)
    except ValueError:
        save()


def restore_folder(run: Run, trainer: Trainer) -> None:
    """Make what a killed run did not come to make of its last snapshot, so that its folder is as without the kill.

    Files are judged by their content: clocks may have been set back since.

    Args:
        run: with snapshots.
        trainer: in the state of the last one.
    """
    if not run.sheet_path(trainer.num_images).exists():
        write_sheet(run, trainer)
    with run.writing():
        write_loss_plot(run)
        remove_old_snapshots(run)
    _restore_generator(run, trainer)


def write_sheet(run: Run, trainer: Trainer) -> None:
    """Write the sheet of generated images of a snapshot."""
    sheet = sample_grid(trainer.G_ema, trainer.D.config.img_resolution)
    with run.writing():
        write_png(run.sheet_path(trainer.num_images), sheet)


def write_loss_plot(run: Run) -> None:
    """Write `losses.png`, if there are losses."""
    if (losses := loss_plot(read_stats(run.folder))) is not None:
        write_png(run.folder / "losses.png", np.asarray(losses))


def remove_old_snapshots(run: Run) -> None:
    """Remove all snapshots but the last `run.keep` and the best."""
    best = run.best()
    for old in run.snapshots()[: -run.keep]:
        if old != best:
            old.unlink(missing_ok=True)


def _restore_generator(run: Run, trainer: Trainer) -> None:
    """Write `generator.safetensors` unless it is that of the last snapshot, or of the best."""
    last = run.snapshots()[-1]
    source = (run.best() if run.publishes_best else None) or last
    if _published(run) == num_images_of(source):
        return
    with run.writing():
        if source == last:
            publish_generator(run, trainer.G_ema, trainer.D, trainer.num_images)
        else:
            kept = read_checkpoint(source)
            publish_generator(run, kept.generator("G_ema"), kept.discriminator(), num_images_of(source))


def _published(run: Run) -> int | None:
    """The images after which `generator.safetensors` was published; None if it is missing or cannot be read."""
    try:
        trained = str(read_checkpoint(run.generator_file).details.get("trained"))
    except (CheckpointError, OSError):
        return None
    count, _, unit = trained.partition(" ")
    return int(count) if count.isdecimal() and unit == "pictures" else None
