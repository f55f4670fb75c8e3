"""Networks for metrics, loaded from the weight files that are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from . import fidelity
from .fidelity import Extractor, Lpips
from .weights import Weights, WeightsError, find_weights, read_weights


@dataclass(frozen=True)
class WeightFiles:
    """Where weights may come from; see `find_weights`.

    Attributes:
        inception, vgg, lpips: files that the user named.
        folder: with files under their published names.
        download: download what is missing.
    """

    inception: Path | None = None
    vgg: Path | None = None
    lpips: Path | None = None
    folder: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class FeatureNetworks:
    """Loaded networks by the name of the metric that uses them: "fid", "ppl", ..."""

    by_metric: Mapping[str, Extractor | Lpips] = field(default_factory=dict)

    def extractor(self, metric: str) -> Extractor:
        """The feature extractor of a metric."""
        network = self.by_metric[metric]
        assert isinstance(network, Extractor)
        return network

    def lpips(self, metric: str) -> Lpips:
        """The perceptual distance of a metric."""
        network = self.by_metric[metric]
        assert isinstance(network, Lpips)
        return network


class NetworkLoader:
    """Loads each weight file and each network once.

    Its methods raise ImportError (torch-fidelity cannot be imported) and WeightsError (a file is missing or unusable).
    """

    files: WeightFiles
    device: torch.device

    def __init__(self, files: WeightFiles, device: torch.device):
        self.files, self.device = files, device
        self._weights: dict[str, Weights] = {}
        self._extractors: dict[str, Extractor] = {}

    def inception(self) -> Extractor:
        """Inception with features and logits."""
        return self._extractor("inception", [fidelity.FEATURE_LAYERS[fidelity.INCEPTION], fidelity.LOGITS])

    def vgg_or_inception(self) -> Extractor:
        """VGG-16 if its weights are at hand, else Inception. A VGG file that the user named must be usable."""
        fidelity.library()
        try:
            self._read("vgg")
        except WeightsError:
            if self.files.vgg:
                raise
            return self.inception()
        return self._extractor("vgg", [fidelity.FEATURE_LAYERS[fidelity.VGG]])

    def lpips(self) -> Lpips:
        """LPIPS on VGG-16."""
        fidelity.library()
        return fidelity.make_lpips(self._read("lpips"), self._read("vgg"), self.device)

    def _extractor(self, kind: str, layers: list[str]) -> Extractor:
        fidelity.library()  # first: without the library no weights are needed
        if kind not in self._extractors:
            self._extractors[kind] = fidelity.make_extractor(kind, self._read(kind), layers, self.device)
        return self._extractors[kind]

    def _read(self, kind: str) -> Weights:
        if kind not in self._weights:
            files = self.files
            path = find_weights(kind, getattr(files, kind), folder=files.folder, download=files.download)
            self._weights[kind] = read_weights(kind, path)
        return self._weights[kind]
