"""Sets of pictures that metrics are computed of: generated ones, and those of a folder or archive."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.errors import DatasetError
from ..checkpoints import fingerprint
from ..data import ImageDataset, open_dataset, stamp
from ..latents import sample
from ..network import Generator, LabelSet
from ..rendering import probe_precision, render

log = logging.getLogger("CREPS")

_GREY = 127.5  # behind transparent pictures


class PictureSet(ABC):
    """Pictures by their numbers."""

    identity: dict[str, Any]
    """All that they depend on, for JSON."""
    facts: dict[str, Any]
    """What a report says of them."""

    @abstractmethod
    def count(self) -> int | None:
        """How many there are; None: as many as are asked for."""

    @abstractmethod
    def pictures(self, start: int, stop: int) -> Tensor:
        """Some of them, uint8 [stop - start, 3, side, side]."""


class Generated(PictureSet):
    """Pictures of a generator: the i-th is that of the seed `first` + i, not truncated, whole, as a square."""

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
            generator: on any device; its labels are drawn as often as among the pictures that it was trained on.
            side: of the pictures.
            first: seed.
            precision: as of `render`.
            labels: to be drawn instead, where it does not know how often its own occurred.
            name: its identity, for a generator that changes; "": by its weights.
        """
        known = generator.labels or labels
        self.generator, self.side, self.first, self.precision = generator, side, first, precision
        self._own, self._labels = generator.labels, known
        drawn = "none"
        if generator.config.c_dim:
            drawn = "drawn by the seed, as often as in the data set" if known else "seed modulo classes"
        values = [] if known is None else [known.values.tolist(), known.counts.tolist()]
        self.identity = {
            "generator": name or fingerprint(generator),
            "side": side,
            "first": first,
            "precision": precision,
            "device": generator.mapping.w_avg.device.type,
            "labels": values if generator.config.c_dim else [],
        }
        self.facts = {"resolution": side, "rendered_in": self._precision(), "first_seed": first, "labels": drawn}

    def count(self) -> None:
        """As many as are asked for."""

    @contextmanager
    def drawing_labels(self) -> Iterator[None]:
        """Meanwhile the generator draws the labels of this set."""
        self.generator.labels = self._labels
        try:
            yield
        finally:
            self.generator.labels = self._own

    def pictures(self, start: int, stop: int) -> Tensor:
        """See `PictureSet`."""
        return three_channels(self.raw(start, stop))

    def raw(self, start: int, stop: int) -> Tensor:
        """`pictures` with the channels of the generator."""
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


class Real(PictureSet):
    """Pictures of a folder or archive, cut as in training; with `mirror`, then all of them flipped left to right.

    They are opened when the first one is asked for: features that were kept need none.
    """

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
        progress: Callable[[int, int], None] | None = None,
    ):
        """
        Args:
            path: folder or zip.
            side, channels, crop, aspect, mirror: as of `open_dataset`.
            opened: where they are open already, with these options.
            progress: called as progress(done, total) while they are opened.

        Raises:
            DatasetError: there is no such thing.
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
        self._progress, self._opened = progress, opened
        self.identity = {"files": opened.fingerprint if opened else stamp(path), **self._options}
        self.facts = {"pictures_of": path.name, "resolution": side, "crop": crop}

    def opened(self) -> ImageDataset:
        """The pictures. Raises DatasetError: none can be used."""
        if self._opened is None:
            log.info("opening %s", self.path)
            self._opened = open_dataset(self.path, progress=self._progress, **self._options)
            log.info("%s", self._opened.report)
        return self._opened

    def count(self) -> int:
        """With the mirrored ones."""
        return len(self.opened())

    def pictures(self, start: int, stop: int) -> Tensor:
        """See `PictureSet`."""
        return three_channels(self.opened().images(range(start, stop)))

    def close(self) -> None:
        """Close the archive, if one is open."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def labels(self) -> LabelSet | None:
        """The labels in its `dataset.json`, and how often each occurs; None: there are none."""
        try:
            pictures = open_dataset(self.path, use_labels="file", **self._options)
        except DatasetError as error:
            log.warning("%s", error)
            return None
        pictures.close()
        found = pictures.label_counts()
        if found is None:
            return None
        values, counts = found
        return LabelSet(torch.from_numpy(values), torch.from_numpy(counts), pictures.class_names)


def three_channels(pictures: Tensor) -> Tensor:
    """uint8 [N, C, H, W] with three channels: grey ones thrice, transparent ones before grey."""
    channels = pictures.shape[1]
    if channels == 1:
        return pictures.expand(-1, 3, -1, -1).contiguous()
    if channels == 4:
        alpha = pictures[:, 3:].float() / 255
        return (pictures[:, :3] * alpha + _GREY * (1 - alpha)).round().to(torch.uint8)
    return pictures
