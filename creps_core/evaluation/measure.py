"""The metrics of torch-fidelity of a set of pictures, by the protocol of the papers as nearly as the library allows.

The papers' numbers (`fid50k_full` and the like of the authors' tools) take 50,000 generated pictures, not truncated,
with labels drawn as in the data set; all real ones, and their mirror images where the training had them; both with 8
bits at the size of the data set. So does this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ...common.files import read_json, replace_file, write_json
from ..training import Process
from . import fidelity, weights
from .fidelity import Extractor
from .metrics import KINDS, Metric
from .path_length import STEP, PathLengths, path_length
from .pieces import PIECE, Step, Work, collect, forget, key_of
from .sets import Generated, PictureSet, Real

log = logging.getLogger("CREPS")

Progress = Callable[[str, int, int], None]
"""Of what is worked on, how many are done, and how many there are."""
_BATCH, _BATCH_ON_CPU = 64, 16  # pictures at a time; fewer where they take seconds and work is to stop soon
_MOST_PIXELS = 1 << 24  # of a batch
_FULL = 50_000


@dataclass(frozen=True)
class Finding:
    """A number, and what it is a number of.

    Attributes:
        metric: its name, such as fid5k.
        values: by their names; the first is that of the metric.
        facts: tool, extractor, counts, resolution, precision, seeds, labels.
        compare: what it may be compared with.
    """

    metric: str
    values: dict[str, float]
    facts: dict[str, Any]
    compare: str

    @property
    def value(self) -> float:
        """The one to choose by."""
        return next(iter(self.values.values()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"metric": self.metric, **self.values, **self.facts, "compare": self.compare}

    def __str__(self) -> str:
        numbers = "  ".join(f"{name} {value:.6g}" for name, value in self.values.items())
        return f"{numbers}\n    {described(self.facts)}.\n    {self.compare}"


@dataclass(frozen=True)
class Wanted:
    """Where weights may come from; see `weights.find`."""

    inception: Path | None = None
    vgg: Path | None = None
    lpips: Path | None = None
    folder: Path | None = None
    download: bool = False


@dataclass
class Networks:
    """The library's networks for some metrics, on a device."""

    extractors: dict[str, Extractor] = field(default_factory=dict)
    """By the kind of the metric."""
    lpips: Any = None
    lpips_label: str = ""
    lpips_published: bool = False


def ready(
    metrics: Sequence[Metric], wanted: Wanted, device: torch.device
) -> tuple[list[Metric], Networks, dict[str, str]]:
    """The metrics that can be measured, their networks, and why the others cannot be: a sentence by the metric's name.

    Args:
        metrics: those asked for; those that need no library count as measurable.
        wanted: files of weights.
        device: where the networks work.
    """
    networks, refused, usable = Networks(), {}, []
    read: dict[str, weights.Weights] = {}

    def file(kind: str) -> weights.Weights:
        if kind not in read:
            place = weights.find(kind, getattr(wanted, kind), folder=wanted.folder, download=wanted.download)
            read[kind] = weights.read(kind, place)
        return read[kind]

    def prepare(metric: Metric) -> None:
        fidelity.library()
        if metric.kind == "ppl":
            lpips, vgg = file("lpips"), file("vgg")
            networks.lpips = fidelity.make_lpips(lpips, vgg, device)
            networks.lpips_label = f"lpips-vgg16, {lpips.label} and {vgg.label}"
            networks.lpips_published = lpips.published and vgg.published
            return
        network = "inception"
        if metric.kind == "prc":  # as in the papers, where its weights are at hand
            try:
                file("vgg")
                network = "vgg"
            except weights.WeightsError:
                if wanted.vgg:
                    raise
        if network == "vgg":
            layers = [fidelity.FEATURES[fidelity.VGG]]
        else:
            layers = [fidelity.FEATURES[fidelity.INCEPTION], fidelity.LOGITS]
        same = next((e for e in networks.extractors.values() if e.layers == tuple(layers)), None)
        networks.extractors[metric.kind] = same or fidelity.make_extractor(network, file(network), layers, device)

    for metric in metrics:
        try:
            if metric.about.weights:
                prepare(metric)
            usable.append(metric)
        except (ImportError, weights.WeightsError) as error:
            refused[metric.name] = str(error)
    return usable, networks, refused


def measure(
    generated: PictureSet,
    real: Real | None,
    metrics: Sequence[Metric],
    networks: Networks,
    *,
    folder: Path,
    cache: Path,
    process: Process | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Measure what `ready` found measurable; metrics without weights are passed over.

    Args:
        generated: the pictures to judge.
        real: what they are compared with; may be None where no metric needs real pictures.
        metrics, networks: of `ready`.
        folder: for features of generated pictures, until they are all there and used.
        cache: for features or statistics of real pictures, which stay, under a hash of files and options.
        process: one of several that call this at once with the same folders.
        progress: called with what is worked on; what it raises stops the work, which goes on when it is called again.

    Returns:
        In the order of the metrics; nothing in processes but the first.
    """
    process = process or Process()
    chosen = [_limited(metric, generated) for metric in metrics if metric.about.weights]
    if not chosen:
        return []
    for metric in chosen:
        _enough(metric, metric.count, "generated")
    by_features = [metric for metric in chosen if metric.kind != "ppl"]
    # First what all processes do together. The numbers, which take long, are the first one's: nobody waits for them.
    places = {}
    rows: dict[str, Tensor] = {}
    if by_features:
        count = max(metric.count for metric in by_features)
        place = places["features"] = folder / _key(generated.identity)
        columns = tuple(dict.fromkeys(_column(networks, metric) for metric in by_features))
        work = _features(generated, [networks.extractors[metric.kind] for metric in by_features])
        rows = collect(work, count, place, columns, process=process, progress=_named(progress, "generated pictures"))
    reals = _Reals(real, cache, networks, by_features, process, _named(progress, "real pictures"))
    if any(metric.about.reals for metric in by_features):
        reals.prepare()
    for metric in chosen:
        if metric.about.reals:
            _enough(metric, reals.count, "real")
        if metric.kind == "ppl":
            assert isinstance(generated, Generated)
            place = places["paths"] = folder / _key({"paths": generated.identity, "lpips": networks.lpips_label})
            work = PathLengths(generated, networks.lpips).rows
            rows |= collect(
                work, metric.count, place, (STEP,), process=process, progress=_named(progress, "pairs of w")
            )
    if not process.is_first:
        return []
    findings = []
    for metric in chosen:
        if progress is not None:
            progress(f"{metric.name}: computing the number", 0, 1)
        facts = {**_facts(generated, metric, networks), **(reals.facts if metric.about.reals else {})}
        values = _values(metric, networks, rows, reals, facts)
        findings.append(Finding(metric.name, values, facts, comparable(metric, facts)))
    for place in places.values():
        forget(place)
    return findings


def _key(identity: dict[str, Any]) -> str:
    return key_of({"set": identity, "tool": fidelity.version(), "piece": PIECE})


def _values(
    metric: Metric, networks: Networks, rows: dict[str, Tensor], reals: _Reals, facts: dict[str, Any]
) -> dict[str, float]:
    """The numbers of a metric; adds to the facts what is to be said of them."""
    name = metric.name
    if metric.kind == "ppl":
        value, deviation = path_length(rows[STEP])
        return {name: value, "deviation": deviation}
    column = _column(networks, metric)
    features = rows[column][: metric.count]
    if metric.kind == "fid":
        return {name: fidelity.frechet(fidelity.moments(features), reals.moments())}
    if metric.kind == "kid":
        real = reals.rows(column)
        value, deviation = fidelity.kernel(features, real)
        size = fidelity.subset(len(features), len(real))
        facts["subsets"] = f"{fidelity.SUBSETS} subsets of {size} pictures"
        return {name: value, "deviation": deviation}
    if metric.kind == "isc":
        value, deviation = fidelity.inception_score(features)
        return {name: value, "deviation": deviation}
    precision, recall = fidelity.precision_recall(features, reals.rows(column))
    return {"precision": precision, "recall": recall}


class _Reals:
    """Features or statistics of real pictures, taken from the cache or made for it when they are first needed."""

    def __init__(
        self,
        real: Real | None,
        cache: Path,
        networks: Networks,
        metrics: Sequence[Metric],
        process: Process,
        progress: Callable[[int, int], None] | None,
    ):
        self.facts: dict[str, Any] = {}
        self.count = 0
        """Of the pictures, with mirrored ones."""
        self._real, self._process, self._progress = real, process, progress
        needing = [metric for metric in metrics if metric.about.reals]
        self._extractors = list({id(e): e for e in (networks.extractors[m.kind] for m in needing)}.values())
        self._columns = tuple(dict.fromkeys(_column(networks, m) for m in needing))
        self._only_moments = bool(needing) and all(metric.kind == "fid" for metric in needing)
        self._fid = next((_column(networks, m) for m in needing if m.kind == "fid"), "")
        self._rows: dict[str, Tensor] = {}
        self._moments: dict[str, Any] | None = None
        self._ready = False
        if real is not None:
            self._folder = cache / _key(real.identity)

    def prepare(self) -> None:
        """Have all there is to know of them. Called in all processes at once."""
        if self._ready:
            return
        if self._real is None:
            raise ValueError("there are no real pictures to compare with: give --data")
        self._ready = True
        kept = self._folder / f"moments-{key_of({'column': self._fid})}.safetensors"
        self.count = count = self._count()
        if self._only_moments and kept.is_file():
            self._moments = {name: value.numpy() for name, value in load_file(kept).items()}
            log.info("statistics of the real pictures: from %s", self._folder)
        else:
            work = _features(self._real, self._extractors)
            self._rows = collect(
                work, count, self._folder, self._columns, process=self._process, progress=self._progress
            )
            if self._fid and self._process.is_first:
                self._moments = fidelity.moments(self._rows[self._fid])
                tensors = {name: torch.from_numpy(value).contiguous() for name, value in self._moments.items()}
                replace_file(kept, lambda file: file.write(save(tensors)))
                if self._only_moments:  # 33 MB instead of 8 KB for each picture
                    for rows in self._folder.glob("rows-*"):
                        rows.unlink(missing_ok=True)
        mirrored = self._real.mirror
        self.facts = {
            "real": count // 2 if mirrored else count,
            "mirrored": mirrored,
            "source": self._real.path.name,
            "crop": self._real.facts["crop"],
        }

    def _count(self) -> int:
        assert self._real is not None
        known = self._folder / "set.json"
        if known.is_file():
            return int(read_json(known)["count"])
        count = self._real.count()
        self._process.wait()
        if self._process.is_first:
            write_json(known, {"count": count, **self._real.facts, "of": self._real.identity})
        self._process.wait()
        return count

    def moments(self) -> dict[str, Any]:
        """For FID."""
        assert self._moments is not None
        return self._moments

    def rows(self, column: str) -> Tensor:
        """Features [N, D]."""
        return self._rows[column]


def _features(pictures: PictureSet, extractors: Sequence[Extractor]) -> Work:
    different = list({id(extractor): extractor for extractor in extractors}.values())
    side = pictures.facts["resolution"]
    on_cpu = all(extractor.device.type == "cpu" for extractor in different)
    batch = max(1, min(_BATCH_ON_CPU if on_cpu else _BATCH, _MOST_PIXELS // side**2))

    def work(start: int, stop: int, step: Step) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for first in range(start, stop, batch):
            some = pictures.pictures(first, min(first + batch, stop))
            for extractor in different:
                for layer, features in extractor(some).items():
                    parts.setdefault(extractor.column(layer), []).append(features)
            step(first + len(some) - start)
        return {column: torch.cat(rows) for column, rows in parts.items()}

    return work


def _column(networks: Networks, metric: Metric) -> str:
    extractor = networks.extractors[metric.kind]
    return extractor.column(fidelity.LOGITS if metric.kind == "isc" else extractor.layers[0])


def _limited(metric: Metric, generated: PictureSet) -> Metric:
    """The metric with as many pictures as there are, which is then its name."""
    there = generated.count()
    return metric if there is None or there >= metric.count else replace(metric, count=there)


def _enough(metric: Metric, count: int, what: str) -> None:
    if count < metric.about.least:
        raise ValueError(f"{metric.kind} takes {metric.about.least} {what} pictures at least, not {count}")


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _facts(generated: PictureSet, metric: Metric, networks: Networks) -> dict[str, Any]:
    """What is to be said of a number, but for the real pictures."""
    facts = {**generated.facts, "bits": 8, "generated": metric.count, "tool": fidelity.version()}
    pictures = metric.count
    if metric.kind == "ppl":
        pictures *= 2
        facts |= {"extractor": networks.lpips_label, "published_weights": networks.lpips_published}
        facts |= {"rendered_in": "float32", "bits": 32}
    else:
        extractor = networks.extractors[metric.kind]
        facts |= {"extractor": extractor.label, "published_weights": extractor.published}
    if (first := facts.pop("first_seed", None)) is not None:
        facts["seeds"] = f"{first} to {first + pictures - 1}" + (", in pairs" if metric.kind == "ppl" else "")
    return facts


def described(facts: dict[str, Any]) -> str:
    """Facts of a finding, for people."""
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


def comparable(metric: Metric, facts: dict[str, Any]) -> str:
    """What a number may be compared with, in a sentence."""
    title = KINDS[metric.kind].title
    if not facts["published_weights"]:
        return f"Compare it only with {metric.name} made with the same file of weights: others see other features."
    if metric.kind == "prc" and fidelity.INCEPTION in facts["extractor"]:
        return "These are Inception features, not of VGG-16 (--vgg) as in the papers: compare like with like."
    if metric.count != _FULL:
        return (
            f"Compare it only with {metric.name} of the same real pictures: with fewer generated ones than 50,000 the "
            f"{title} is another number than the papers'."
        )
    same = f"{metric.kind}50k_full" if metric.about.reals else f"{metric.kind}50k"
    return (
        f"It may be compared with the papers' ({same}) on the same data set, cut in the same way to the same size, as "
        "far as torch-fidelity's network agrees with the one of their tools."
    )
