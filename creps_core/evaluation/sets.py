"""Sets of images that metrics are computed of: generated ones, and those of a folder or archive."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import DatasetError
from ...common.progress import Progress
from ..checkpoints import fingerprint
from ..data import ImageDataset, open_dataset, stamp
from ..latents import sample
from ..network import Generator, LabelSet
from ..rendering import probe_precision, render

log: logging.Logger = logging.getLogger("CREPS")

_GREY = 127.5  # background of transparent images


class ImageSet(ABC):
    """A set of images by index."""

    identity: dict[str, Any]
    """Everything that the images depend on, for JSON."""
    facts: dict[str, Any]
    """Description of the images in a report, for JSON."""

    @abstractmethod
    def count(self) -> int | None:
        """Number of images; None: unlimited."""

    @abstractmethod
    def images(self, start: int, stop: int) -> Tensor:
        """Images `start` to `stop` - 1, uint8 [stop - start, 3, side, side]."""


class GeneratedImages(ImageSet):
    """Images of a generator: image i is that of seed `first` + i, not truncated, the whole frame as a square."""

    generator: Generator
    side: int
    first: int
    precision: str

    def __init__(
        self,
        generator: Generator,
        *,
        side: int,
        first: int = 0,
        precision: str = "auto",
        labels: LabelSet | None = None,
        name: str = "",
    ):
        """
        Args:
            generator: on any device. Its labels are drawn with their frequencies in its training set.
            side: of the images, in pixels.
            first: first seed.
            precision: see `render`.
            labels: frequencies to use where the generator does not know its own.
            name: identity of a generator whose weights change; "": a hash of its weights.
        """
        drawn_from = generator.labels or labels
        self.generator, self.side, self.first, self.precision = generator, side, first, precision
        self._own_labels, self._labels = generator.labels, drawn_from
        drawn = "none"
        if generator.config.c_dim:
            drawn = "drawn by the seed, as often as in the data set" if drawn_from else "seed modulo classes"
        values = [] if drawn_from is None else [drawn_from.values.tolist(), drawn_from.counts.tolist()]
        self.identity: dict[str, Any] = {
            "generator": name or fingerprint(generator),
            "side": side,
            "first": first,
            "precision": precision,
            "device": generator.mapping.w_avg.device.type,
            "labels": values if generator.config.c_dim else [],
        }
        self.facts: dict[str, Any] = {
            "resolution": side,
            "rendered_in": self._precision(),
            "first_seed": first,
            "labels": drawn,
        }

    def count(self) -> None:
        """Unlimited."""

    @contextmanager
    def drawing_labels(self) -> Iterator[None]:
        """Inside the `with` block the generator draws the labels of this set."""
        self.generator.labels = self._labels
        try:
            yield
        finally:
            self.generator.labels = self._own_labels

    def images(self, start: int, stop: int) -> Tensor:
        """See `ImageSet`."""
        return as_rgb(self.native_images(start, stop))

    def native_images(self, start: int, stop: int) -> Tensor:
        """As `images`, with the channels of the generator."""
        with self.drawing_labels():
            ws = sample(self.generator, range(self.first + start, self.first + stop))
        out = torch.empty(len(ws), self.generator.config.img_channels, self.side, self.side, dtype=torch.uint8)
        render(self.generator, ws, height=self.side, width=self.side, precision=self.precision, out=out)
        return out

    def _precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        on_gpu = self.generator.mapping.w_avg.device.type == "cuda"
        return str(probe_precision(self.generator).precision) if on_gpu else "float32"


class RealImages(ImageSet):
    """Images of a folder or archive, cropped as in training; with `mirror`, then all of them flipped left to right.

    The dataset is opened on first access: cached features need no images.
    """

    path: Path
    mirror: bool

    def __init__(
        self,
        path: Path,
        *,
        side: int,
        channels: int = 3,
        crop: str = "center",
        aspect: str = "1:1",
        mirror: bool = False,
        opened: ImageDataset | None = None,
        progress: Progress | None = None,
    ):
        """
        Args:
            path: folder or zip.
            side: resolution of `open_dataset`.
            channels, crop, aspect, mirror: see `open_dataset`.
            opened: the dataset, if it is open already with these options.
            progress: called as progress(done, total) while it is opened.

        Raises:
            DatasetError: there is no such folder or archive.
        """
        self.path, self.mirror = path, mirror
        self._options: dict[str, Any] = {
            "resolution": side,
            "channels": channels,
            "crop": crop,
            "aspect": aspect,
            "mirror": mirror,
            "max_pictures": opened.options["max_pictures"] if opened else None,
        }
        self._progress, self._dataset = progress, opened
        self.identity: dict[str, Any] = {"files": opened.fingerprint if opened else stamp(path), **self._options}
        self.facts: dict[str, Any] = {"pictures_of": path.name, "resolution": side, "crop": crop}

    def dataset(self) -> ImageDataset:
        """The dataset, opened on the first call. Raises DatasetError: no image can be used."""
        if self._dataset is None:
            log.info("opening %s", self.path)
            self._dataset = open_dataset(self.path, progress=self._progress, **self._options)
            log.info("%s", self._dataset.report)
        return self._dataset

    def count(self) -> int:
        """Number of images, including mirrored ones."""
        return len(self.dataset())

    def images(self, start: int, stop: int) -> Tensor:
        """See `ImageSet`."""
        return as_rgb(self.dataset().images(range(start, stop)))

    def close(self) -> None:
        """Close the archive, if one is open."""
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def labels(self) -> LabelSet | None:
        """The labels of its `dataset.json` with their frequencies; None: there are none."""
        try:
            labelled = open_dataset(self.path, use_labels="file", **self._options)
        except DatasetError as error:
            log.warning("%s", error)
            return None
        labelled.close()
        found = labelled.label_counts()
        if found is None:
            return None
        values, counts = found
        return LabelSet(torch.from_numpy(values), torch.from_numpy(counts), labelled.class_names)


def as_rgb(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] with three channels: grey is repeated, transparent images are composited on mid-grey."""
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if channels == 4:
        alpha = images[:, 3:].float() / 255
        return (images[:, :3] * alpha + _GREY * (1 - alpha)).round().to(torch.uint8)
    return images
