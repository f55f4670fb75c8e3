"""All metrics, one entry each: what a metric needs, how it is computed, and how its values compare.

A new metric is a new entry of `METRICS`. Metrics of torch-fidelity are computed from rows (`rows.py`); the others, from
a generator, give a section of the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ...common.errors import printable
from . import fidelity
from .held_out import DistanceReport, HeldOutComparison
from .networks import NetworkLoader
from .patch_statistics import describe
from .path_length import perceptual_path_length
from .request import task_progress
from .rows import FEATURE_ROWS, LOGITS_LAYER, PATH_ROWS, RowSource
from .scale import ScaleReport, measure_scale
from .sets import GeneratedImages, ImageSet, RealImages
from .sliced_wasserstein import sliced_wasserstein

if TYPE_CHECKING:
    from .fidelity import Extractor, Lpips
    from .real_features import RealFeatures
    from .request import EvaluationRequest, TaskProgress

MAX_METRIC_COUNT = 10_000_000  # images
_PAPERS_COUNT = 50_000
_DISTANCE_SIDE = 128  # of distances by default, at most
_BATCH = 64


@dataclass(frozen=True)
class MetricResult:
    """Values of a metric: the one to choose by, others by name, and facts for the report."""

    value: float
    others: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Section(Protocol):
    """A part of a report with more than a few numbers."""

    def json_fields(self) -> dict[str, Any]:
        """Its fields of `metrics.json`."""
        ...


@dataclass(frozen=True)
class MetricKind:
    """A metric.

    Attributes:
        name: on the command line.
        title: in full.
        count: default number of generated images; pairs of them for `ppl`, latents for `scale`.
        min_count: with fewer images the metric is undefined.
        column: name of the value to choose by; "": that of the metric with its count, such as fid5k.
        unit: of the value; "": none.
        lower_is_better: direction.
        needs_weights, needs_reals, needs_generator: inputs.
        moments_only: of the real images only mean and covariance of the features are needed.
        fixed_count: the count is not one of images, so a general `count` does not apply.
        named_with_count: whether names contain the count, such as fid5k.
        training_count: largest count for snapshots of a training run; None: no limit.
        not_in_training: why it cannot measure a training run; "": it can.
        largest_size: renders at the largest size, which needs memory.
        load: loads its network.
        rows, layer, compute: of a metric of torch-fidelity: its rows, the layer of features ("": the first one), and
            the value from rows of the generated set and the features of the real one.
        section: computes its part of the report, with the given count.
        snapshot_value: value for a snapshot of a training run, where it is not computed from rows.
        caveat: why a value of these facts is not the papers' metric; "": it is.
    """

    name: str
    title: str
    count: int = _PAPERS_COUNT
    min_count: int = 1
    column: str = ""
    unit: str = ""
    lower_is_better: bool = True
    needs_weights: bool = False
    needs_reals: bool = True
    needs_generator: bool = False
    moments_only: bool = False
    fixed_count: bool = False
    named_with_count: bool = True
    training_count: int | None = None
    not_in_training: str = ""
    largest_size: bool = False
    load: Callable[[NetworkLoader], Extractor | Lpips] | None = None
    rows: RowSource | None = None
    layer: str = ""
    compute: Callable[[Tensor, RealFeatures, str], MetricResult] | None = None
    section: Callable[[GeneratedImages, EvaluationRequest, int, TaskProgress | None], Section] | None = None
    snapshot_value: Callable[[GeneratedImages, RealImages, int], float] | None = None
    caveat: Callable[[Mapping[str, Any]], str] = lambda facts: ""


def _fid(rows: Tensor, reals: RealFeatures, column: str) -> MetricResult:
    return MetricResult(fidelity.frechet_distance(fidelity.feature_moments(rows), reals.moments(column)))


def _kid(rows: Tensor, reals: RealFeatures, column: str) -> MetricResult:
    real = reals.rows(column)
    value, deviation = fidelity.kernel_distance(rows, real)
    size = fidelity.kid_subset_size(len(rows), len(real))
    subsets = f"{fidelity.KID_SUBSETS} subsets of {size} pictures"
    return MetricResult(value, {"deviation": deviation}, {"subsets": subsets})


def _precision_recall(rows: Tensor, reals: RealFeatures, column: str) -> MetricResult:
    precision, recall = fidelity.precision_recall(rows, reals.rows(column))
    return MetricResult(precision, {"recall": recall})


def _inception_score(rows: Tensor, reals: RealFeatures, column: str) -> MetricResult:
    value, deviation = fidelity.inception_score(rows)
    return MetricResult(value, {"deviation": deviation})


def _path_length(rows: Tensor, reals: RealFeatures, column: str) -> MetricResult:
    value, deviation = perceptual_path_length(rows)
    return MetricResult(value, {"deviation": deviation})


def _not_vgg(facts: Mapping[str, Any]) -> str:
    if fidelity.INCEPTION not in facts["extractor"]:
        return ""
    return "These are Inception features, not of VGG-16 (--vgg) as in the papers: compare like with like."


def _distances(
    images: GeneratedImages, request: EvaluationRequest, count: int, progress: TaskProgress | None
) -> DistanceReport:
    reals = request.reals
    assert reals is not None
    comparison = HeldOutComparison(
        images.generator,
        reals.path,
        request.held_out,
        reals.facts["crop"],
        images.first,
        task_progress(progress, "opening pictures"),
    )
    return comparison.distances(
        request.sides or (min(images.side, _DISTANCE_SIDE),),
        count,
        normalise=request.normalise,
        progress=task_progress(progress, "generated pictures"),
    )


def _mean_distance(images: GeneratedImages, reals: RealImages, count: int) -> float:
    """Mean over the levels of the distance between as many generated as real images, at most `count`."""
    dataset = reals.dataset()
    count = min(count, len(dataset.names))
    starts = range(0, count, _BATCH)
    reference = describe(dataset.images(range(start, min(start + _BATCH, count))) for start in starts)
    generated = describe(images.native_images(start, min(start + _BATCH, count)) for start in starts)
    return sliced_wasserstein(reference, generated).mean


def _scale(
    images: GeneratedImages, request: EvaluationRequest, count: int, progress: TaskProgress | None
) -> ScaleReport:
    return measure_scale(
        images.generator,
        range(images.first, images.first + count),
        largest=request.largest,
        precision=images.precision,
        progress=None if progress is None else lambda done, total: progress("scale", 100 * done // total, 100),
    )


METRICS: dict[str, MetricKind] = {
    kind.name: kind
    for kind in (
        MetricKind(
            "fid",
            "Frechet inception distance",
            min_count=2,
            needs_weights=True,
            moments_only=True,
            load=NetworkLoader.inception,
            rows=FEATURE_ROWS,
            compute=_fid,
        ),
        MetricKind(
            "kid",
            "kernel inception distance",
            min_count=2,
            needs_weights=True,
            load=NetworkLoader.inception,
            rows=FEATURE_ROWS,
            compute=_kid,
        ),
        MetricKind(
            "prc",
            "precision and recall",
            min_count=4,
            column="precision",
            lower_is_better=False,
            needs_weights=True,
            load=NetworkLoader.vgg_or_inception,
            rows=FEATURE_ROWS,
            compute=_precision_recall,
            caveat=_not_vgg,
        ),
        MetricKind(
            "isc",
            "inception score",
            min_count=10,
            lower_is_better=False,
            needs_weights=True,
            needs_reals=False,
            load=NetworkLoader.inception,
            rows=FEATURE_ROWS,
            layer=LOGITS_LAYER,
            compute=_inception_score,
        ),
        MetricKind(
            "ppl",
            "perceptual path length",
            needs_weights=True,
            needs_reals=False,
            needs_generator=True,
            load=NetworkLoader.lpips,
            rows=PATH_ROWS,
            compute=_path_length,
        ),
        MetricKind(
            "swd",
            "sliced Wasserstein distance",
            count=4096,
            unit="x 1000",
            needs_generator=True,
            named_with_count=False,
            training_count=1024,  # 150 MB at 128 pixels
            section=_distances,
            snapshot_value=_mean_distance,
        ),
        MetricKind(
            "scale",
            "scale consistency",
            count=4,
            unit="dB",
            lower_is_better=False,
            needs_reals=False,
            needs_generator=True,
            fixed_count=True,
            named_with_count=False,
            not_in_training="scale says nothing of a training: pictures are the same at every size whatever is learnt",
            largest_size=True,
            section=_scale,
        ),
    )
}
FALLBACK = METRICS["swd"]
"""Measured where no other metric can be, for want of weights."""


@dataclass(frozen=True)
class Metric:
    """A metric with its number of images."""

    kind: MetricKind
    count: int

    @property
    def name(self) -> str:
        """Such as fid50k, as in the papers; without the count where the entry says so."""
        if not self.kind.named_with_count:
            return self.kind.name
        thousands, rest = divmod(self.count, 1000)
        return f"{self.kind.name}{self.count}" if rest else f"{self.kind.name}{thousands}k"

    @property
    def column(self) -> str:
        """The name of the value to choose by."""
        return self.kind.column or self.name

    def limited_to(self, images: ImageSet) -> Metric:
        """The metric with at most as many images as a set has."""
        available = images.count()
        return self if available is None or available >= self.count else replace(self, count=available)

    def require_count(self, count: int, what: str) -> None:
        """Raises ValueError: there are too few images."""
        if count < self.kind.min_count:
            raise ValueError(f"{self.kind.name} takes {self.kind.min_count} {what} pictures at least, not {count}")

    def comparison(self, facts: Mapping[str, Any]) -> str:
        """What a value with these facts may be compared with, in a sentence."""
        if not facts["published_weights"]:
            return f"Compare it only with {self.name} made with the same file of weights: others see other features."
        if caveat := self.kind.caveat(facts):
            return caveat
        if self.count != _PAPERS_COUNT:
            return (
                f"Compare it only with {self.name} of the same real pictures: with fewer generated ones than 50,000 "
                f"the {self.kind.title} is another number than the papers'."
            )
        same = f"{self.kind.name}50k_full" if self.kind.needs_reals else f"{self.kind.name}50k"
        return (
            f"It may be compared with the papers' ({same}) on the same data set, cut in the same way to the same size, "
            "as far as torch-fidelity's network agrees with the one of their tools."
        )


def parse_metrics(text: str, count: int | None = None) -> list[Metric]:
    """Metrics from comma-separated names, such as `fid,swd`, `fid5k`, `fid50k_full`.

    Args:
        text: the names; a count in a name takes precedence.
        count: of images, for the others; None: their defaults. Entries with `fixed_count` ignore it.

    Raises:
        ValueError: a name is unknown or repeated, or a count is outside 1 to ten million.
    """
    pattern = re.compile(rf"({'|'.join(METRICS)})(?:(\d{{1,8}})(k?))?(?:_full)?")
    metrics: dict[str, Metric] = {}
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        match = pattern.fullmatch(word)
        if match is None:
            raise ValueError(
                f"there is no metric {printable(word, 40)!r}: there are {', '.join(METRICS)}, with a number of "
                "pictures if you like, such as fid5k"
            )
        name, number, thousands = match.groups()
        metric = _with_count(METRICS[name], count)
        if number:
            metric = replace(metric, count=int(number) * (1000 if thousands else 1))
        if not 1 <= metric.count <= MAX_METRIC_COUNT:
            raise ValueError(f"{word}: a metric takes 1 to {MAX_METRIC_COUNT:,} pictures, not {metric.count:,}")
        if name in metrics:
            raise ValueError(f"{name} is asked for twice: {metrics[name].name} and {word}")
        metrics[name] = metric
    if not metrics:
        raise ValueError(f"no metric is named: there are {', '.join(METRICS)}")
    return list(metrics.values())


def every_metric(count: int) -> list[Metric]:
    """All metrics, with this number of images."""
    return [_with_count(kind, count) for kind in METRICS.values()]


def _with_count(kind: MetricKind, count: int | None) -> Metric:
    return Metric(kind, kind.count if count is None or kind.fixed_count else count)
