"""The door to torch-fidelity (Apache-2.0, the optional extra `metrics`): its networks, and what it makes of features.

No metric is computed here: pictures go into the library's feature extractors, and features into the functions with
which its own `calculate_metrics` makes numbers of them. So the numbers are the library's, while pictures need not lie
on a disk, work can be stopped, and several processes share it.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...common.errors import printable
from ...common.float32 import float32_products
from .weights import FILES, Weights, WeightsError

if TYPE_CHECKING:
    import numpy as np

SUBSET, SUBSETS = 1000, 100
"""Of KID: pictures in a subset, or fewer where there are fewer; subsets."""
SEED = 2020  # the library's own, of KID's subsets and of the order of the inception score
_SPLITS = 10  # of the inception score
_NEIGHBOURS, _ROWS = 3, 10_000  # of precision and recall; rows of distances at a time
INCEPTION, VGG = "inception-v3-compat", "vgg16"  # in the library's register
FEATURES = {INCEPTION: "2048", VGG: "fc2_relu"}
"""The layer that distances are taken of."""
LOGITS = "logits_unbiased"


def library(part: str = "") -> Any:
    """The module torch_fidelity, or one inside it.

    Raises:
        ImportError: it is not installed, or cannot be imported; says what to do.
    """
    try:
        return importlib.import_module(f"torch_fidelity{part}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("torch_fidelity", "tqdm"):
            command = "pip install --no-deps torch-fidelity tqdm"
            raise ImportError(
                f"needs torch-fidelity, and {missing.replace('_', '-')} is not installed: {command} (so that pip "
                f"leaves torch {torch.__version__} alone)"
            ) from None
        raise ImportError(_no_torchvision(f"{missing} is missing")) from None
    except Exception as error:  # a torchvision that was built for another torch fails with whatever it comes across
        raise ImportError(_no_torchvision(printable(str(error).split("\n")[0], 120))) from None


def _no_torchvision(reason: str) -> str:
    return (
        f"needs torch-fidelity, which cannot be imported: {reason}. It needs the torchvision that was made for torch "
        f"{torch.__version__}: install that one, from where this torch came from"
    )


def version() -> str:
    """For reports."""
    return f"torch-fidelity {library('.version').__version__}"


@dataclass(frozen=True)
class Extractor:
    """A network that makes features of pictures.

    Attributes:
        name: in the library's register.
        layers: those wanted.
        label: for people: the network and its weights.
        digest: of the weights.
        published: whether they are the authors'.
    """

    network: Any
    name: str
    layers: tuple[str, ...]
    label: str
    digest: str
    published: bool

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return next(self.network.parameters()).device

    def column(self, layer: str) -> str:
        """A name for the features of a layer, which says whose they are."""
        return f"{self.name}-{self.digest[:16]}/{layer}"

    def __call__(self, pictures: Tensor) -> dict[str, Tensor]:
        """Features of uint8 [N, 3, H, W], on any device: by layer, float32 [N, D] on the CPU."""
        with torch.no_grad(), float32_products(self.device, tf32=False):
            found = self.network.convert_features_tuple_to_dict(self.network(pictures.to(self.device)))
        return {layer: features.float().cpu() for layer, features in found.items()}


def make_extractor(kind: str, weights: Weights, layers: Sequence[str], device: torch.device) -> Extractor:
    """An extractor of the library with the given weights.

    Args:
        kind: "inception" or "vgg".
        weights: of `weights.read`.
        layers: of those that it has.
        device: where it works.

    Raises:
        ImportError: see `library`.
        WeightsError: they are those of another network.
    """
    name = {"inception": INCEPTION, "vgg": VGG}[kind]
    make = library(".registry").FEATURE_EXTRACTORS_REGISTRY[name]
    with _fits(kind, weights):
        network = make(name, list(layers), feature_extractor_weights_path=_as_file(weights))
    return Extractor(network.to(device).eval(), name, tuple(layers), f"{name}, {weights.label}", weights.sha256,
                     weights.published)  # fmt: skip


def make_lpips(lpips: Weights, vgg: Weights, device: torch.device) -> Any:
    """The library's LPIPS: a module that takes two batches float32 [N, 3, H, W] of 0..255 and gives [N, 1, 1] or so.

    Args:
        lpips, vgg: the weights.
        device: where it works.
    """
    module: ModuleType = library(".sample_similarity_lpips")

    def network(**_: Any) -> Any:
        with torch.device("meta"):  # its classifier, most of it, is not used
            made = importlib.import_module("torchvision").models.vgg16()
        head = "features."
        state = {name[len(head) :]: value for name, value in vgg.state.items() if name.startswith(head)}
        made.features.load_state_dict(state, assign=True)
        return made

    # The library knows only how to download these two. Here it is given what has been read.
    given = {"load_state_dict_from_url": lambda *_, **__: lpips.state, "torchvision_load_pretrained_vgg16": network}
    before = {name: getattr(module, name) for name in given}
    try:
        for name, value in given.items():
            setattr(module, name, value)
        with _fits("vgg and lpips", lpips):
            made = module.SampleSimilarityLPIPS(
                "lpips-vgg16", sample_similarity_resize=None, sample_similarity_dtype="float32"
            )
    finally:
        for name, value in before.items():
            setattr(module, name, value)
    return made.to(device).eval()


def _as_file(weights: Weights) -> io.BytesIO:
    """What the library unpickles: written here, of nothing but tensors."""
    file = io.BytesIO()
    torch.save(weights.state, file)
    file.seek(0)
    return file


@contextmanager
def _fits(kind: str, weights: Weights):
    try:
        yield
    except (RuntimeError, KeyError, AttributeError) as error:
        title = FILES[kind].title if kind in FILES else "VGG-16 and LPIPS"
        line = printable(" ".join(str(error).split()), 120)
        raise WeightsError(f"{weights.label}: these are not the weights of {title} ({line})") from None


# What the library makes of features: [N, D] on the CPU, generated ones first


def moments(features: Tensor) -> dict[str, np.ndarray]:
    """Mean `mu` [D] and covariance `sigma` [D, D] of features: what FID knows of a set."""
    found = library(".metric_fid").fid_features_to_statistics(features)
    return {name: value.astype("float64") for name, value in found.items()}


def frechet(generated: dict[str, np.ndarray], real: dict[str, np.ndarray]) -> float:
    """FID of two sets' moments."""
    found = library(".metric_fid").fid_statistics_to_metric(generated, real, False)
    return float(found["frechet_inception_distance"])


def kernel(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """KID of two sets, and its standard deviation over the subsets."""
    found = library(".metric_kid").kid_features_to_metric(
        generated,
        real,
        kid_subset_size=subset(len(generated), len(real)),
        kid_subsets=SUBSETS,
        rng_seed=SEED,
        verbose=False,
    )
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def subset(generated: int, real: int) -> int:
    """Pictures in a subset of KID."""
    return min(SUBSET, generated, real)


def inception_score(logits: Tensor) -> tuple[float, float]:
    """The score of a set, and its standard deviation over ten parts."""
    found = library(".metric_isc").isc_features_to_metric(logits, _SPLITS, True, SEED)
    return found["inception_score_mean"], found["inception_score_std"]


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Precision and recall of a set, by three nearest neighbours. Distances are computed in parts."""
    found = library(".metric_prc").prc_features_to_metric(
        generated, real, prc_neighborhood=_NEIGHBOURS, prc_batch_size=_ROWS, save_cpu_ram=True, verbose=False
    )
    return found["precision"], found["recall"]
