"""Metrics of torch-fidelity of a set of images, as close to the protocol of the papers as the library allows.

The papers' numbers (`fid50k_full` and the like of StyleGAN's tools) take 50,000 generated images, not truncated, with
labels drawn as in the dataset, and all real images, with mirror images where the training had them; both with 8 bits at
the size of the dataset. So does this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import fidelity
from .chunks import collect_rows, remove_rows
from .metrics import Metric
from .networks import FeatureNetworks, NetworkLoader, WeightFiles
from .real_features import RealFeatures, identity_hash
from .request import Workspace
from .rows import RowSource
from .sets import ImageSet, RealImages
from .weights import WeightsError


@dataclass(frozen=True)
class Finding:
    """The values of a metric, with what they were computed from.

    Attributes:
        metric: its name, such as fid5k.
        values: by name, the value to choose by first.
        facts: tool, extractor, counts, resolution, precision, seeds, labels.
        compare: what the values may be compared with, in a sentence.
    """

    metric: str
    values: dict[str, float]
    facts: dict[str, Any]
    compare: str

    @property
    def value(self) -> float:
        """The value to choose by."""
        return next(iter(self.values.values()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"metric": self.metric, **self.values, **self.facts, "compare": self.compare}

    def __str__(self) -> str:
        numbers = "  ".join(f"{name} {value:.6g}" for name, value in self.values.items())
        return f"{numbers}\n    {describe_facts(self.facts)}.\n    {self.compare}"


def prepare_metrics(
    metrics: Sequence[Metric], files: WeightFiles, device: torch.device
) -> tuple[list[Metric], FeatureNetworks, dict[str, str]]:
    """Load the networks of metrics.

    Args:
        metrics: the metrics wanted; those without networks count as measurable.
        files: weight files.
        device: where the networks compute.

    Returns:
        The metrics that can be measured, their networks, and the reasons why the others cannot, by name.
    """
    loader = NetworkLoader(files, device)
    networks: dict[str, Any] = {}
    usable, refused = [], {}
    for metric in metrics:
        try:
            if metric.kind.load is not None:
                networks[metric.kind.name] = metric.kind.load(loader)
            usable.append(metric)
        except (ImportError, WeightsError) as error:
            refused[metric.name] = str(error)
    return usable, FeatureNetworks(networks), refused


def measure_metrics(
    images: ImageSet,
    reals: RealImages | None,
    metrics: Sequence[Metric],
    networks: FeatureNetworks,
    workspace: Workspace,
) -> list[Finding]:
    """Measure the metrics that are computed from rows; others are ignored.

    Args:
        images: to measure.
        reals: to compare with; may be None where no metric needs real images.
        metrics, networks: from `prepare_metrics`.
        workspace: folders, processes, progress.

    Returns:
        In the order of the metrics; nothing in processes other than the first.
    """
    chosen = [metric.limited_to(images) for metric in metrics if metric.kind.rows is not None]
    if not chosen:
        return []
    for metric in chosen:
        metric.require_count(metric.count, "generated")
    comparing = [metric for metric in chosen if metric.kind.needs_reals]
    real_features = RealFeatures(reals, comparing, networks, workspace)
    # First what all processes do together. The values, which take long, are the first one's: no process waits for them.
    rows: dict[str, Tensor] = {}
    folders: list[Path] = []
    for source, group in _by_row_source(chosen):
        rows |= _generated_rows(images, source, group, networks, workspace, folders)
        if any(metric.kind.needs_reals for metric in group):
            real_features.prepare()
            for metric in comparing:
                metric.require_count(real_features.count, "real")
    if not workspace.process.is_first:
        return []
    findings = []
    for metric in chosen:
        if workspace.progress is not None:
            workspace.progress(f"{metric.name}: computing the number", 0, 1)
        findings.append(_finding(metric, images, rows, real_features, networks))
    for folder in folders:
        remove_rows(folder)
    return findings


def _by_row_source(metrics: Sequence[Metric]) -> list[tuple[RowSource, list[Metric]]]:
    """Metrics grouped by the rows that they need; first those that compare with real images."""
    groups: dict[RowSource, list[Metric]] = {}
    for metric in sorted(metrics, key=lambda metric: metric.kind.needs_generator):
        assert metric.kind.rows is not None
        groups.setdefault(metric.kind.rows, []).append(metric)
    return list(groups.items())


def _generated_rows(
    images: ImageSet,
    source: RowSource,
    metrics: Sequence[Metric],
    networks: FeatureNetworks,
    workspace: Workspace,
    folders: list[Path],
) -> dict[str, Tensor]:
    """The rows that some metrics need; appends the folder of their chunks."""
    names = [metric.kind.name for metric in metrics]
    folders.append(workspace.folder / identity_hash(source.identity(images, names, networks)))
    columns = (source.column(metric.kind.name, networks, metric.kind.layer) for metric in metrics)
    return collect_rows(
        source.function(images, names, networks),
        max(metric.count for metric in metrics),
        folders[-1],
        tuple(dict.fromkeys(columns)),
        process=workspace.process,
        progress=workspace.task_progress(source.task),
    )


def _finding(
    metric: Metric,
    images: ImageSet,
    rows: dict[str, Tensor],
    real_features: RealFeatures,
    networks: FeatureNetworks,
) -> Finding:
    kind, source = metric.kind, metric.kind.rows
    assert source is not None
    assert kind.compute is not None
    network = networks.by_metric[kind.name]
    facts = {
        **images.facts,
        "bits": 8,
        "generated": metric.count,
        "tool": fidelity.version(),
        "extractor": network.label,
        "published_weights": network.published,
        **source.facts,
    }
    if (first := facts.pop("first_seed", None)) is not None:
        pairs = ", in pairs" if source.images_per_row == 2 else ""
        facts["seeds"] = f"{first} to {first + metric.count * source.images_per_row - 1}{pairs}"
    column = source.column(kind.name, networks, kind.layer)
    result = kind.compute(rows[column][: metric.count], real_features, column)
    facts |= {**(real_features.facts if kind.needs_reals else {}), **result.facts}
    return Finding(metric.name, {metric.column: result.value, **result.others}, facts, metric.comparison(facts))


def describe_facts(facts: dict[str, Any]) -> str:
    """The facts of a finding as text."""
    made = "pairs of generated" if "pairs" in facts.get("seeds", "") else "generated"
    made = f"{made} pictures" if "seeds" in facts else f"pictures of {facts['pictures_of']}"
    parts = [facts["tool"], facts["extractor"], f"{facts['generated']:,} {made}"]
    if "seeds" in facts:
        parts[-1] += f" (seeds {facts['seeds']})"
    if "real" in facts:
        flipped = " and their mirror images" if facts["mirrored"] else ""
        parts[-1] += f" against all {facts['real']:,} of {facts['source']}{flipped}"
    parts.append(f"{facts['resolution']} x {facts['resolution']}" + (", 8 bits" if facts["bits"] == 8 else ""))
    if "rendered_in" in facts:
        parts.append(f"rendered in {facts['rendered_in']}")
    if facts.get("labels", "none") != "none":
        parts.append(f"labels {facts['labels']}")
    if "subsets" in facts:
        parts.append(facts["subsets"])
    return "; ".join(filter(None, parts))
