"""What metrics of torch-fidelity are computed from: rows of numbers for single images, or for pairs of latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import fidelity
from .chunks import RowFunction, RowsDone
from .fidelity import Extractor
from .networks import FeatureNetworks
from .path_length import STEP_COLUMN, PathSteps
from .sets import GeneratedImages, ImageSet

_BATCH, _BATCH_ON_CPU = 64, 16  # images; fewer on a CPU, where batches take seconds and work should stop soon
_MAX_BATCH_PIXELS = 1 << 24


class RowSource(ABC):
    """A way to compute rows of a set of images. `metrics` are names of those that use it."""

    task: ClassVar[str]
    """Name of the work in progress messages."""
    images_per_row: ClassVar[int]
    facts: ClassVar[Mapping[str, Any]]
    """What a report says of the images beyond `ImageSet.facts`."""

    @abstractmethod
    def identity(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> dict[str, Any]:
        """What rows depend on, beyond the columns' names, for JSON."""

    @abstractmethod
    def function(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> RowFunction:
        """Computes the columns of some metrics."""

    @abstractmethod
    def column(self, metric: str, networks: FeatureNetworks, layer: str) -> str:
        """The name of a metric's column."""


class _FeatureRows(RowSource):
    """A row is the features of an image."""

    task: ClassVar[str] = "generated pictures"
    images_per_row: ClassVar[int] = 1
    facts: ClassVar[Mapping[str, Any]] = {}

    def identity(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> dict[str, Any]:
        return images.identity

    def function(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> RowFunction:
        return feature_function(images, [networks.extractor(metric) for metric in metrics])

    def column(self, metric: str, networks: FeatureNetworks, layer: str) -> str:
        extractor = networks.extractor(metric)
        return extractor.column(layer or extractor.layers[0])


class _PathRows(RowSource):
    """A row is the LPIPS distance of a small step between the latents of two seeds."""

    task: ClassVar[str] = "pairs of w"
    images_per_row: ClassVar[int] = 2
    facts: ClassVar[Mapping[str, Any]] = {"rendered_in": "float32", "bits": 32}

    def identity(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> dict[str, Any]:
        return {"paths": images.identity, "lpips": networks.lpips(metrics[0]).label}

    def function(self, images: ImageSet, metrics: Sequence[str], networks: FeatureNetworks) -> RowFunction:
        assert isinstance(images, GeneratedImages)
        return PathSteps(images, networks.lpips(metrics[0])).rows

    def column(self, metric: str, networks: FeatureNetworks, layer: str) -> str:
        return STEP_COLUMN


FEATURE_ROWS, PATH_ROWS = _FeatureRows(), _PathRows()
LOGITS_LAYER = fidelity.LOGITS


def feature_function(images: ImageSet, extractors: Sequence[Extractor]) -> RowFunction:
    """Computes features of images by several extractors, each image rendered or read once."""
    distinct = list({id(extractor): extractor for extractor in extractors}.values())
    side = images.facts["resolution"]
    on_cpu = all(extractor.device.type == "cpu" for extractor in distinct)
    batch = max(1, min(_BATCH_ON_CPU if on_cpu else _BATCH, _MAX_BATCH_PIXELS // side**2))

    def compute(start: int, stop: int, rows_done: RowsDone) -> dict[str, Tensor]:
        columns: dict[str, list[Tensor]] = {}
        for first in range(start, stop, batch):
            some = images.images(first, min(first + batch, stop))
            for extractor in distinct:
                for layer, features in extractor(some).items():
                    columns.setdefault(extractor.column(layer), []).append(features)
            rows_done(first + len(some) - start)
        return {column: torch.cat(rows) for column, rows in columns.items()}

    return compute
