"""All metrics of a generator in one call, for the command line and for the node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ..network import Generator
from .measure import Finding, measure_metrics, prepare_metrics
from .metrics import FALLBACK, METRICS, Metric, Section
from .networks import WeightFiles
from .request import EvaluationRequest, Workspace
from .sets import GeneratedImages, RealImages


@dataclass
class Evaluation:
    """The results of an evaluation.

    Attributes:
        findings: values of torch-fidelity's metrics.
        sections: results of the other metrics, by name.
        refused: why the remaining metrics were not measured, by name.
    """

    findings: list[Finding] = field(default_factory=list)
    sections: dict[str, Section] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [str(finding) for finding in self.findings]
        for reason in dict.fromkeys(self.refused.values()):
            names = ", ".join(name for name, why in self.refused.items() if why == reason)
            parts.append(f"{names}: not measured: {reason}")
        return "\n\n".join([*parts, *map(str, self.sections.values())])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields: dict[str, Any] = {  # all of which are always there
            "metrics": [finding.to_dict() for finding in self.findings],
            "distances": [],
            "scale": None,
            "not_measured": self.refused,
        }
        for section in self.sections.values():
            fields |= section.json_fields()
        return fields


def evaluate(
    request: EvaluationRequest, weights: WeightFiles, device: torch.device, workspace: Workspace
) -> Evaluation:
    """Measure all metrics of a request that can be measured here.

    If none of those that need weights can be, sliced Wasserstein distances, which need none, take their place.

    Args:
        request: what to measure.
        weights: weight files.
        device: for the networks of metrics.
        workspace: folders, processes, progress. With several processes the first one alone measures what is not
            computed from rows.
    """
    images, reals = request.images, request.reals
    usable, networks, refused = prepare_metrics(request.metrics, weights, device)
    metrics = []
    for metric in usable:
        if metric.kind.needs_generator and not isinstance(images, GeneratedImages):
            refused[metric.name] = "is measured of a generator, not of pictures"
        elif metric.kind.needs_reals and reals is None:
            refused[metric.name] = "compares with real pictures, and there are none"
        else:
            metrics.append(metric)
    result = Evaluation(refused=refused)
    result.findings = measure_metrics(images, reals, metrics, networks, workspace)
    if not isinstance(images, GeneratedImages) or not workspace.process.is_first:
        return result
    if refused and not result.findings and reals is not None and all(m.kind is not FALLBACK for m in metrics):
        counts = [metric.count for metric in request.metrics if metric.kind.needs_weights]
        metrics.append(Metric(FALLBACK, min([*counts, FALLBACK.count])))
    order = list(METRICS.values())
    for metric in sorted(metrics, key=lambda metric: order.index(metric.kind)):
        if metric.kind.section is not None:
            result.sections[metric.kind.name] = metric.kind.section(images, request, metric.count, workspace.progress)
    return result


def generator_set(
    generator: Generator,
    reals: RealImages | None,
    *,
    side: int | None = None,
    first: int = 0,
    precision: str = "auto",
) -> GeneratedImages:
    """The images of a generator. Where it does not know the frequencies of its labels, those of the real images apply.

    Args:
        generator, first, precision: see `GeneratedImages`.
        reals: what the images will be compared with.
        side: of the images; None: the generator's training resolution.
    """
    labels = reals.labels() if generator.config.c_dim and generator.labels is None and reals is not None else None
    side = side or generator.config.img_resolution
    return GeneratedImages(generator, side=side, first=first, precision=precision, labels=labels)
