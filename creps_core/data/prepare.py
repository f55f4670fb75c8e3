"""`creps data`: writes a dataset, cropped as for training, to one archive, as StyleGAN's `dataset_tool.py` does.

Names and layout are those of that tool, 00000/img00000000.png and a `dataset.json`, so StyleGAN's code reads it too.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ...common.command import Command
from ...common.duration import duration
from ...common.errors import DatasetError
from ...common.files import check_target, remove_dead_partials, replace_file
from .crop import CROPS
from .dataset import ImageDataset
from .labels import FROM_FILE, FROM_FOLDERS, LABELS_FILE, NO_LABELS
from .opening import open_dataset

log: logging.Logger = logging.getLogger("CREPS")

_IMAGES_PER_FOLDER = 1000
_BATCH = 64
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same images give the same archive


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `creps data`."""
    p = parser
    p.add_argument("source", type=Path, metavar="SRC", help="folder or zip of pictures")
    p.add_argument("target", type=Path, metavar="OUT", help="the archive to write, a .zip")
    p.add_argument("--side", type=int, required=True, help="side of the images in pixels, such as 512")
    p.add_argument(
        "--crop",
        default="center",
        choices=CROPS,
        help="center: cut out the middle (default); resize: squeeze",
    )
    c = p.add_mutually_exclusive_group()
    c.add_argument("--gray", action="store_const", dest="channels", const=1, help="one channel")
    c.add_argument("--alpha", action="store_const", dest="channels", const=4, help="with transparency")
    p.add_argument(
        "--labels",
        nargs="?",
        const=FROM_FILE,
        default=NO_LABELS,
        choices=(FROM_FILE, FROM_FOLDERS, NO_LABELS),
        help="file (the default if no word follows): labels of dataset.json; folders: an image's folder is its class",
    )
    p.add_argument("--max-pictures", type=int, help="use at most this many, chosen at random")
    p.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out files of this name, such as '*_nm*'",
    )
    p.add_argument("--seed", type=int, default=0, help="seed of that choice")


def _run(args: argparse.Namespace) -> None:
    """Run the command."""
    last_log = start = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last_log
        now = time.monotonic()
        if now - last_log > 10 and 0 < done < total:
            last_log = now
            left = duration((now - start) * (total - done) / done)
            log.info("%s: %s of %s, about %s left", what, f"{done:,}", f"{total:,}", left)

    dataset = prepare_dataset(
        args.source,
        args.target,
        side=args.side,
        channels=args.channels or 3,
        crop=args.crop,
        labels=args.labels,
        max_pictures=args.max_pictures,
        exclude=args.exclude,
        seed=args.seed,
        progress=progress,
    )
    log.info("%s", dataset.report)
    log.info("%s: %d pictures of %d x %d", args.target, len(dataset), args.side, args.side)


DATA_COMMAND = Command(
    "data", "crop images to one size and pack them, exactly as the trainer would crop them", _add_arguments, _run
)


def prepare_dataset(
    source: Path,
    target: Path,
    *,
    side: int,
    channels: int = 3,
    crop: str = "center",
    labels: str = NO_LABELS,
    max_pictures: int | None = None,
    exclude: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> ImageDataset:
    """Write the images of a folder or zip, cropped as by `open_dataset`, to an uncompressed zip of PNGs.

    Opened again at that side they are the same images, bit for bit.

    Args:
        source: folder or zip.
        target: the zip file, written atomically.
        side, channels, crop, max_pictures, exclude, seed: as of `open_dataset`.
        labels: its `use_labels`.
        progress: called as progress(task, done, total); an exception it raises stops the work.

    Returns:
        The dataset that was written, already closed.

    Raises:
        DatasetError: there is no usable image, or the labels do not fit.
        ValueError: an argument is outside its range.
        OSError: the archive cannot be written.
    """
    if target.suffix.lower() != ".zip":
        raise ValueError(f"{target}: the archive is a zip file: give it a name that ends with .zip")
    check_target(target)
    remove_dead_partials(target.parent)
    if target.exists() and source.exists() and target.samefile(source):
        raise DatasetError(f"{target}: cannot be made of itself: give it another name")
    dataset = open_dataset(
        source,
        resolution=side,
        channels=channels,
        crop=crop,
        use_labels=labels,
        max_pictures=max_pictures,
        exclude=exclude,
        seed=seed,
        progress=None if progress is None else lambda done, total: progress("read", done, total),
    )
    with closing(dataset):
        replace_file(target, lambda file: _write(file, dataset, progress))
    return dataset


def _write(file: BinaryIO, dataset: ImageDataset, progress: Callable[[str, int, int], None] | None) -> None:
    count = len(dataset)
    names = [f"{n // _IMAGES_PER_FOLDER:05d}/img{n:08d}.png" for n in range(count)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, _BATCH):
            batch = range(start, min(start + _BATCH, count))
            for number, data in zip(batch, pool.map(_png, dataset.images(batch).numpy()), strict=True):
                archive.writestr(zipfile.ZipInfo(names[number], _TIMESTAMP), data)
            if progress is not None:
                progress("written", batch.stop, count)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _TIMESTAMP), json.dumps(_labels(dataset, names)))


def _png(image: np.ndarray) -> bytes:
    """An image, uint8 [C, side, side], as PNG."""
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _labels(dataset: ImageDataset, names: list[str]) -> dict[str, object]:
    found = dataset.all_labels()
    if found is None:
        return {"labels": None}
    rows = [list(row) for row in zip(names, found.tolist(), strict=True)]
    classes = {"classes": {str(number): name for number, name in dataset.class_names.items()}}
    return {"labels": rows, **(classes if dataset.class_names else {})}
