"""A dataset: images as 8-bit squares, cached in memory within a limit, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...common.cache import LruCache
from ...common.errors import DatasetError
from .crop import WHOLE_IMAGE, CropSpec, CropWindow, check_window, cut_window
from .decode import decode_image
from .file_types import mask_unprintable
from .report import DatasetReport
from .sources import ImageSource, UnusableFile


class ImageDataset:
    """Images as 8-bit squares, kept in memory up to `cache_bytes` and otherwise decoded again on access.

    Made by `open_dataset` or `from_images`. With `mirror` it is twice as long: the second half is the first one flipped
    left to right. Methods may be called from several threads at once.
    """

    crop_spec: CropSpec
    mirror: bool
    resolution: int
    channels: int
    aspect: tuple[int, int]

    def __init__(self, crop_spec: CropSpec, cache_bytes: float, mirror: bool):
        self.crop_spec, self.mirror = crop_spec, mirror
        self.resolution, self.channels, self.aspect = crop_spec.resolution, crop_spec.channels, crop_spec.aspect
        self.c_dim = 0
        self.report: DatasetReport = DatasetReport(0, [], {})
        self.names: list[str] = []
        """Of the images, without the flipped ones."""
        self.fingerprint = ""
        """SHA-256 of names, contents and labels; independent of the folder's place."""
        self.options: dict[str, Any] = {}
        """How it was opened: crop, mirror, labels, aspect, max_pictures."""
        self.class_names: dict[int, str] = {}
        """Of the classes that have one."""
        self._sides = np.empty(0, np.int32)
        self._labels: np.ndarray | None = None  # int64 [n] or float32 [n, c_dim]
        self._source: ImageSource | None = None
        self._cache = LruCache[str, np.ndarray](cache_bytes, lambda array: array.nbytes)

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirror else 1)

    def images(self, indices: Sequence[int], *, windows: Sequence[CropWindow] | None = None) -> Tensor:
        """Images, or windows of them, at the resolution.

        Args:
            indices: N, each from 0 to len - 1.
            windows: N windows of the stored images, which may be larger than the resolution; None: the whole images.

        Returns:
            uint8 [N, channels, resolution, resolution].

        Raises:
            IndexError: an index is out of range.
            ValueError: a window is empty or reaches beyond the image.
            DatasetError: a file has changed since the dataset was opened.
        """
        out = np.empty((len(indices), self.channels, self.resolution, self.resolution), np.uint8)
        if windows is not None and len(windows) != len(indices):
            raise ValueError(f"{len(windows)} windows for {len(indices)} pictures; one each is needed")
        for position, index in enumerate(indices):
            row, flipped, _ = self.locate(index)
            stored = self.stored(row)
            if flipped:
                stored = stored[:, :, ::-1]
            window = WHOLE_IMAGE if windows is None else check_window(windows[position])
            out[position] = cut_window(stored, window, self.resolution)
        return torch.from_numpy(out)

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Labels, float32 [N, c_dim]; classes one-hot. Raises IndexError: an index is out of range."""
        rows = [self.locate(index)[0] for index in indices]
        out = np.zeros((len(rows), self.c_dim), np.float32)
        if self._labels is not None and rows:
            if self._labels.ndim == 1:
                out[np.arange(len(rows)), self._labels[rows]] = 1
            else:
                out[:] = self._labels[rows]
        return torch.from_numpy(out)

    def stored_side(self, index: int) -> int:
        """The side at which an image is stored: that of the original, between the resolution and max_side."""
        return self.locate(index)[2]

    def locate(self, index: int) -> tuple[int, bool, int]:
        """The row in which an image is stored, whether it is flipped, and its stored side. Raises IndexError."""
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"there is no picture {index}; there are {len(self)}, counted from 0")
        flipped, row = divmod(index, len(self.names))
        return row, bool(flipped), int(self._sides[row])

    def stored(self, row: int) -> np.ndarray:
        """A stored image, uint8 [channels, side, side], from memory or decoded again.

        Args:
            row: counts the images that are not flipped.

        Raises:
            DatasetError: the file has changed since the dataset was opened.
        """
        name = self.names[row]
        stored = self._cache.get(name)
        if stored is not None:
            return stored
        source = self._source
        assert source is not None
        try:
            stored, _ = decode_image(lambda: source.read(name), source.size(name), self.crop_spec)
        except UnusableFile as error:
            raise DatasetError(
                f"{source.path.name}: {mask_unprintable(name)} was all right when the data set was opened, and is not "
                f"now: {error}; leave the files alone while they are in use"
            ) from error
        if stored.shape[1] != self._sides[row]:
            raise DatasetError(
                f"{source.path.name}: {mask_unprintable(name)} is another picture than when the data set was opened; "
                "leave the files alone while they are in use"
            )
        self._cache.put(name, stored)
        return stored

    @property
    def largest_side(self) -> int:
        """The largest stored side."""
        return int(self._sides.max())

    @property
    def stored_bytes(self) -> int:
        """Size of all stored images in bytes, without the flipped ones."""
        return int((self._sides.astype(np.int64) ** 2).sum()) * self.channels

    @property
    def in_memory(self) -> bool:
        """Whether all images are in memory, so that none is decoded again."""
        return not self._cache.evicted

    def all_labels(self) -> Tensor | None:
        """Labels of all images, flipped ones too: classes int64 [len], or float32 [len, c_dim]; None without labels."""
        if self._labels is None:
            return None
        return torch.from_numpy(np.concatenate([self._labels] * (2 if self.mirror else 1)))

    def label_counts(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Distinct labels, int64 [K] or float32 [K, c_dim], and their numbers of images, [K]; None without labels."""
        if self._labels is None:
            return None
        return np.unique(self._labels, axis=0, return_counts=True)

    def ensure_c_dim(self, c_dim: int) -> None:
        """Raise the number of classes to at least `c_dim`; no effect on label vectors."""
        if self._labels is not None and self._labels.ndim == 1:
            self.c_dim: int = max(self.c_dim, c_dim)

    def close(self) -> None:
        """Close the archive, if it is still open. Images that are not in memory become unavailable."""
        if self._source is not None:
            self._source.close()
