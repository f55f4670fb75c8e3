"""The generator of a run, as a file for the loader."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..checkpoints import read_checkpoint, save_generator
from ..network import Discriminator, Generator
from .run import Run, num_images_of
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


def restore_generator(run: Run, trainer: Trainer) -> None:
    """Write the generator of a finished run again, if it was removed or the run was killed before it wrote it."""
    file, last = run.generator_file, run.snapshots()[-1]
    source = (run.best() if run.publishes_best else None) or last
    if file.exists() and file.stat().st_mtime >= source.stat().st_mtime:
        return
    with run.writing():
        if source == last:
            publish_generator(run, trainer.G_ema, trainer.D, trainer.num_images)
        else:
            kept = read_checkpoint(source)
            publish_generator(run, kept.generator("G_ema"), kept.discriminator(), num_images_of(source))
