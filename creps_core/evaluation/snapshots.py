"""`creps train --metrics`: metrics of a run's snapshots."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import TrainingError
from ..training import SnapshotMetrics

if TYPE_CHECKING:
    import torch

    from ..data import ImageDataset
    from ..training import Run, Trainer
    from .metrics import Metric
    from .networks import FeatureNetworks
    from .sets import RealImages

NO_METRICS = "none"
_WEIGHT_FILES = ("inception", "vgg", "lpips")


def snapshot_metrics_of(args: argparse.Namespace, run: Run, device: torch.device) -> SnapshotMetrics | None:
    """The metrics of a run's snapshots, from the arguments of `creps train`, else as in the run so far; None: none.

    The options are stored in `run.info`, for `run.json`.

    Raises:
        TrainingError: a metric cannot be measured here; says why.
        ValueError: there is no such metric.
    """
    names = ("metrics", "held_out", *_WEIGHT_FILES)
    arguments = {name: getattr(args, name) for name in names}
    given = {
        name: str(value) if name == "metrics" else str(value.absolute()) for name, value in arguments.items() if value
    }
    before = run.description()[0].get("metrics")
    stored = before if isinstance(before, dict) else {}
    options = {name: value for name, value in stored.items() if name in names and isinstance(value, str)} | given
    if options.get("metrics", NO_METRICS) == NO_METRICS:
        if "held_out" in given and "metrics" not in options:
            raise ValueError("--held-out is for --metrics: say what to measure, such as --metrics swd")
        return None
    run.info["metrics"] = options
    return make_snapshot_metrics(options, run, device, download=args.download)


def make_snapshot_metrics(
    options: dict[str, str], run: Run, device: torch.device, *, download: bool = False
) -> SnapshotMetrics:
    """The metrics of options "metrics", "held_out", and weight files by kind. Raises as `snapshot_metrics_of`."""
    from .measure import prepare_metrics
    from .metrics import parse_metrics
    from .networks import WeightFiles

    metrics = []
    for metric in parse_metrics(options["metrics"]):
        if metric.kind.not_in_training:
            raise ValueError(metric.kind.not_in_training)
        limit = metric.kind.training_count
        metrics.append(metric if limit is None else replace(metric, count=min(metric.count, limit)))
    held_out = Path(options["held_out"]) if "held_out" in options else None
    if held_out is not None and not held_out.exists():
        raise ValueError(f"--held-out: there is no {held_out}")
    files = {kind: Path(options[kind]) for kind in _WEIGHT_FILES if kind in options}
    usable, networks, refused = prepare_metrics(metrics, WeightFiles(**files, download=download), device)
    if refused:
        raise TrainingError("; ".join(f"{name} {reason}" for name, reason in refused.items()))
    measurement = _SnapshotMeasurement(usable, networks, run, held_out)
    return SnapshotMetrics(
        metrics[0].column, metrics[0].kind.lower_is_better, held_out is not None, measurement.measure
    )


@dataclass(eq=False)
class _SnapshotMeasurement:
    """Measures a trainer's moving average against held-out or training images."""

    metrics: Sequence[Metric]
    networks: FeatureNetworks
    run: Run
    held_out: Path | None
    _reals: RealImages | None = None

    def measure(self, trainer: Trainer, dataset: ImageDataset) -> dict[str, float]:
        """Values by name; {} in processes other than the first."""
        from ...common.cache import cache_folder
        from .measure import measure_metrics
        from .request import Workspace
        from .sets import GeneratedImages

        generator = copy.deepcopy(trainer.G_ema).eval().requires_grad_(False)
        images = GeneratedImages(generator, side=dataset.resolution, name=f"snapshot {trainer.num_images}")
        if self._reals is None:
            self._reals = self._open_reals(dataset)
        workspace = Workspace(self.run.features_folder, cache_folder() / "metrics", trainer.process)
        values: dict[str, float] = {}
        for finding in measure_metrics(images, self._reals, self.metrics, self.networks, workspace):
            values |= {name: value for name, value in finding.values.items() if name != "deviation"}
        for metric in self.metrics:
            if metric.kind.snapshot_value is not None and trainer.process.is_first:
                values[metric.column] = metric.kind.snapshot_value(images, self._reals, metric.count)
        trainer.process.wait()
        names = [metric.column for metric in self.metrics if metric.column in values]
        return {name: values[name] for name in dict.fromkeys([*names, *values])}

    def _open_reals(self, dataset: ImageDataset) -> RealImages:
        from .sets import RealImages

        options = {name: dataset.options[name] for name in ("crop", "aspect", "mirror")}
        options |= {"side": dataset.resolution, "channels": dataset.channels}
        if self.held_out is not None:
            return RealImages(self.held_out, **options)
        return RealImages(Path(self.run.info.get("data_source", "")), **options, opened=dataset)
