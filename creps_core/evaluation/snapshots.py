"""`creps train --metrics`: what is measured of a run's snapshots."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.errors import TrainingError
from ..training import Judge

if TYPE_CHECKING:
    import torch

    from ..data import ImageDataset
    from ..training import Run, Trainer
    from .measure import Networks
    from .metrics import Metric

NONE = "none"
_MOST = 1024  # pictures of sliced Wasserstein distances: 150 MB at 128 pixels
_FILES = ("inception", "vgg", "lpips")


def judge_of_run(args: argparse.Namespace, run: Run, device: torch.device) -> Judge | None:
    """What measures the snapshots of a run, from the arguments of `creps train`, else as before; None: nothing does.

    What is asked for is noted in `run.info`, for `run.json`.

    Raises:
        TrainingError: a metric cannot be measured here; says why.
        ValueError: there is no such metric.
    """
    asked = {name: getattr(args, name) for name in ("metrics", "held_out", *_FILES)}
    given = {name: str(value) if name == "metrics" else str(value.absolute()) for name, value in asked.items() if value}
    before = run.description()[0].get("metrics")
    known = {name: value for name, value in before.items() if name in asked and isinstance(value, str)} if isinstance(
        before, dict
    ) else {}  # fmt: skip
    wish = {**known, **given}
    if wish.get("metrics", NONE) == NONE:
        if "held_out" in given and "metrics" not in wish:
            raise ValueError("--held-out is for --metrics: say what to measure, such as --metrics swd")
        return None
    run.info["metrics"] = wish
    return make_judge(wish, run, device, download=args.download)


def make_judge(wish: dict[str, str], run: Run, device: torch.device, *, download: bool = False) -> Judge:
    """A judge that measures what the wish says: metrics, held_out, and files of weights by their kinds."""
    from .measure import Wanted, ready
    from .metrics import parse_metrics

    metrics = [
        replace(metric, count=min(metric.count, _MOST)) if metric.kind == "swd" else metric
        for metric in parse_metrics(wish["metrics"])
    ]
    if any(metric.kind == "scale" for metric in metrics):
        raise ValueError("scale says nothing of a training: pictures are the same at every size whatever is learnt")
    held_out = Path(wish["held_out"]) if "held_out" in wish else None
    if held_out is not None and not held_out.exists():
        raise ValueError(f"--held-out: there is no {held_out}")
    files = {kind: Path(wish[kind]) for kind in _FILES if kind in wish}
    usable, networks, refused = ready(metrics, Wanted(**files, download=download), device)
    if refused:
        raise TrainingError("; ".join(f"{name} {reason}" for name, reason in refused.items()))
    judge = _SnapshotJudge(usable, networks, run, held_out)
    first = metrics[0]
    name = {"prc": "precision"}.get(first.kind, first.name)
    return Judge(name, first.about.lower, held_out is not None, judge.measure)


class _SnapshotJudge:
    """Measures a trainer's moving average against held-out or training pictures."""

    def __init__(self, metrics: Sequence[Metric], networks: Networks, run: Run, held_out: Path | None):
        self.metrics, self.networks, self.run, self.held_out = metrics, networks, run, held_out
        self._real: Any = None

    def measure(self, trainer: Trainer, pictures: ImageDataset) -> dict[str, float]:
        """Of all metrics: their numbers by name, {} in processes but the first."""
        from ...kernels import cache_folder
        from .measure import measure
        from .sets import Generated, Real

        generator = copy.deepcopy(trainer.G_ema).eval().requires_grad_(False)
        side = pictures.resolution
        if self._real is None:
            options = {name: pictures.options[name] for name in ("crop", "aspect", "mirror")}
            if self.held_out is not None:
                self._real = Real(self.held_out, side=side, channels=pictures.channels, **options)
            else:
                source = Path(self.run.info.get("data_source", ""))
                self._real = Real(source, side=side, channels=pictures.channels, **options, opened=pictures)
        judged = Generated(generator, side=side, name=f"snapshot {trainer.num_images}")
        findings = measure(
            judged,
            self._real,
            self.metrics,
            self.networks,
            folder=self.run.unfinished,
            cache=cache_folder() / "metrics",
            process=trainer.process,
        )
        values: dict[str, float] = {}
        for finding in findings:
            values |= {name: value for name, value in finding.values.items() if name != "deviation"}
        for metric in self.metrics:
            if metric.kind == "swd" and trainer.process.is_first:
                values[metric.name] = self._distance(judged, metric.count)
        trainer.process.wait()
        ordered = [name for metric in self.metrics for name in values if name == metric.name]
        return {name: values[name] for name in [*ordered, *(name for name in values if name not in ordered)]}

    def _distance(self, judged: Any, most: int) -> float:
        """The mean sliced Wasserstein distance over the levels, of as many pictures as there are real ones."""
        from .distance import describe, sliced_wasserstein

        real = self._real.opened()
        count = min(most, len(real.names))
        reference = describe(real.images(range(start, min(start + 64, count))) for start in range(0, count, 64))
        made = describe(judged.raw(start, min(start + 64, count)) for start in range(0, count, 64))
        return sliced_wasserstein(reference, made).mean
