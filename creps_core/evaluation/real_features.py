"""Features of real images, or their moments, from the cache or computed for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ...common.files import read_json, replace_file, write_json
from . import fidelity
from .chunks import CHUNK_ROWS, collect_rows, hash_of
from .metrics import Metric
from .networks import FeatureNetworks
from .request import Workspace
from .rows import FEATURE_ROWS, feature_function
from .sets import RealImages

log: logging.Logger = logging.getLogger("CREPS")


class RealFeatures:
    """Features of real images for some metrics. `prepare` loads or computes them.

    Args:
        reals: the images; None: there are none.
        metrics: those that compare with real images.
        networks: their feature extractors.
        workspace: cache folder, processes, progress.
    """

    def __init__(
        self, reals: RealImages | None, metrics: Sequence[Metric], networks: FeatureNetworks, workspace: Workspace
    ):
        self.facts: dict[str, Any] = {}
        """What a report says of the real images."""
        self.count = 0
        """Number of images, including mirrored ones."""
        self._reals, self._workspace = reals, workspace
        names = [metric.kind.name for metric in metrics]
        self._extractors = [networks.extractor(name) for name in names]
        columns = {m.kind.name: FEATURE_ROWS.column(m.kind.name, networks, m.kind.layer) for m in metrics}
        self._columns = tuple(dict.fromkeys(columns.values()))
        self._moments_only = all(metric.kind.moments_only for metric in metrics)
        self._moment_columns = tuple(
            dict.fromkeys(columns[metric.kind.name] for metric in metrics if metric.kind.moments_only)
        )
        self._rows: dict[str, Tensor] = {}
        self._moments: dict[str, dict[str, np.ndarray]] = {}
        if reals is not None:
            self._folder = workspace.cache / identity_hash(reals.identity)

    def prepare(self) -> None:
        """Load or compute features. Must be called in all processes at once.

        Raises:
            ValueError: there are no real images.
        """
        if self._reals is None:
            raise ValueError("there are no real pictures to compare with: give --data")
        self.count: int = self._count_images(self._reals)
        files = {c: self._folder / f"moments-{hash_of({'column': c})}.safetensors" for c in self._moment_columns}
        if self._moments_only and all(file.is_file() for file in files.values()):
            for column, file in files.items():
                self._moments[column] = {name: value.numpy() for name, value in load_file(file).items()}
            log.info("statistics of the real pictures: from %s", self._folder)
        else:
            self._rows = collect_rows(
                feature_function(self._reals, self._extractors),
                self.count,
                self._folder,
                self._columns,
                process=self._workspace.process,
                progress=self._workspace.task_progress("real pictures"),
            )
            if self._workspace.process.is_first:
                for column, file in files.items():
                    self._moments[column] = found = fidelity.feature_moments(self._rows[column])
                    tensors = {name: torch.from_numpy(value).contiguous() for name, value in found.items()}
                    replace_file(file, lambda target, tensors=tensors: target.write(save(tensors)))
                if self._moments_only:  # 33 MB instead of 8 KB per image
                    for rows in self._folder.glob("rows-*"):
                        rows.unlink(missing_ok=True)
        mirrored = self._reals.mirror
        self.facts = {
            "real": self.count // 2 if mirrored else self.count,
            "mirrored": mirrored,
            "source": self._reals.path.name,
            "crop": self._reals.facts["crop"],
        }

    def moments(self, column: str) -> dict[str, np.ndarray]:
        """Moments of a column; see `fidelity.feature_moments`."""
        return self._moments[column]

    def rows(self, column: str) -> Tensor:
        """Features of a column, [N, D]."""
        return self._rows[column]

    def _count_images(self, reals: RealImages) -> int:
        """The number of images, from the cache where it is known."""
        known = self._folder / "set.json"
        if known.is_file():
            return int(read_json(known)["count"])
        count = reals.count()
        process = self._workspace.process
        process.wait()
        if process.is_first:
            write_json(known, {"count": count, **reals.facts, "of": reals.identity})
        process.wait()
        return count


def identity_hash(identity: dict[str, Any]) -> str:
    """A folder name for rows that depend on `identity` and on the library's version."""
    return hash_of({"set": identity, "tool": fidelity.version(), "piece": CHUNK_ROWS})
