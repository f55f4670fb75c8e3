"""Interface to torch-fidelity (Apache-2.0, the optional extra `metrics`): its networks, and its functions of features.

No metric is computed here: images go through the library's feature extractors, and the features to the functions that
its `calculate_metrics` calls. So the values are the library's, while images need not be files, work can be stopped and
resumed, and several processes can share it.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...common.errors import printable
from ...common.float32 import float32_products
from .weights import PUBLISHED_FILES, Weights, WeightsError

if TYPE_CHECKING:
    import numpy as np

KID_SUBSET, KID_SUBSETS = 1000, 100
"""Images per subset, if there are as many; number of subsets."""
_SEED = 2020  # the library's default, for KID's subsets and the shuffle of the inception score
_SPLITS = 10  # of the inception score
_NEIGHBOURS, _ROWS = 3, 10_000  # of precision and recall; rows of the distance matrix at a time
INCEPTION, VGG = "inception-v3-compat", "vgg16"  # names in the library's registry
FEATURE_LAYERS = {INCEPTION: "2048", VGG: "fc2_relu"}
"""The layer whose features are compared, by network."""
LOGITS = "logits_unbiased"


def library(part: str = "") -> Any:
    """The module torch_fidelity, or a submodule such as ".registry".

    Raises:
        ImportError: it is not installed or cannot be imported; says what to do.
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
    except Exception as error:  # a torchvision built for another torch raises nearly anything
        raise ImportError(_no_torchvision(printable(str(error).split("\n")[0], 120))) from None


def _no_torchvision(reason: str) -> str:
    return (
        f"needs torch-fidelity, which cannot be imported: {reason}. It needs the torchvision that was made for torch "
        f"{torch.__version__}: install that one, from where this torch came from"
    )


def version() -> str:
    """Name and version of the library, for reports."""
    return f"torch-fidelity {library('.version').__version__}"


@dataclass(frozen=True)
class Extractor:
    """A network that computes features of images.

    Attributes:
        network: of the library.
        name: in the library's registry.
        layers: names of the outputs wanted.
        label: description for reports: the network and its weights.
        digest: of the weights.
        published: whether the weights are the authors'.
    """

    network: Any
    name: str
    layers: tuple[str, ...]
    label: str
    digest: str
    published: bool

    @property
    def device(self) -> torch.device:
        """Of its parameters."""
        return next(self.network.parameters()).device

    def column(self, layer: str) -> str:
        """A name for the features of a layer that identifies network and weights."""
        return f"{self.name}-{self.digest[:16]}/{layer}"

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Features of uint8 [N, 3, H, W], on any device: float32 [N, D] on the CPU, by layer."""
        with torch.no_grad(), float32_products(self.device, tf32=False):  # as the authors' metrics are computed
            found = self.network.convert_features_tuple_to_dict(self.network(images.to(self.device)))
        return {layer: features.float().cpu() for layer, features in found.items()}


@dataclass(frozen=True)
class Lpips:
    """LPIPS, a perceptual distance of images.

    Attributes:
        network: of the library; takes two batches float32 [N, 3, H, W] of 0..255 and returns N distances.
        label: description for reports.
        published: whether the weights are the authors'.
    """

    network: Any
    label: str
    published: bool

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [N] of two batches float32 [N, 3, H, W], 0..255, on the network's device."""
        with torch.no_grad(), float32_products(a.device, tf32=False):
            return self.network(a, b).flatten()


def make_extractor(kind: str, weights: Weights, layers: Sequence[str], device: torch.device) -> Extractor:
    """A feature extractor of the library with the given weights.

    Args:
        kind: "inception" or "vgg".
        weights: see `read_weights`.
        layers: names of the outputs wanted.
        device: where it computes.

    Raises:
        ImportError: see `library`.
        WeightsError: the weights are those of another network.
    """
    name = {"inception": INCEPTION, "vgg": VGG}[kind]
    make = library(".registry").FEATURE_EXTRACTORS_REGISTRY[name]
    with _weights_must_fit(kind, weights):
        network = make(name, list(layers), feature_extractor_weights_path=_as_file(weights))
    network = network.to(device).eval()
    return Extractor(network, name, tuple(layers), f"{name}, {weights.label}", weights.sha256, weights.published)


def make_lpips(lpips: Weights, vgg: Weights, device: torch.device) -> Lpips:
    """The library's LPIPS with the given weights.

    Args:
        lpips: of its linear layers.
        vgg: of VGG-16.
        device: where it computes.

    Raises:
        ImportError: see `library`.
        WeightsError: the weights are those of other networks.
    """
    module: ModuleType = library(".sample_similarity_lpips")

    def network(**_: Any) -> Any:
        with torch.device("meta"):  # without allocating the classifier, most of it, which is not used
            made = importlib.import_module("torchvision").models.vgg16()
        head = "features."
        state = {name[len(head) :]: value for name, value in vgg.state.items() if name.startswith(head)}
        made.features.load_state_dict(state, assign=True)
        return made

    # The library can only download these two: replace its downloads by what has been read.
    replacements = {
        "load_state_dict_from_url": lambda *_, **__: lpips.state,
        "torchvision_load_pretrained_vgg16": network,
    }
    before = {name: getattr(module, name) for name in replacements}
    try:
        for name, value in replacements.items():
            setattr(module, name, value)
        with _weights_must_fit("vgg and lpips", lpips):
            made = module.SampleSimilarityLPIPS(
                "lpips-vgg16", sample_similarity_resize=None, sample_similarity_dtype="float32"
            )
    finally:
        for name, value in before.items():
            setattr(module, name, value)
    label = f"lpips-vgg16, {lpips.label} and {vgg.label}"
    return Lpips(made.to(device).eval(), label, lpips.published and vgg.published)


def _as_file(weights: Weights) -> io.BytesIO:
    """A file for the library to unpickle, written here from nothing but tensors."""
    file = io.BytesIO()
    torch.save(weights.state, file)
    file.seek(0)
    return file


@contextmanager
def _weights_must_fit(kind: str, weights: Weights) -> Iterator[None]:
    """Turns errors of loading a state dict into WeightsError."""
    try:
        yield
    except (RuntimeError, KeyError, AttributeError) as error:
        title = PUBLISHED_FILES[kind].title if kind in PUBLISHED_FILES else "VGG-16 and LPIPS"
        line = printable(" ".join(str(error).split()), 120)
        raise WeightsError(f"{weights.label}: these are not the weights of {title} ({line})") from None


# Metrics of features [N, D] on the CPU; the first argument is the generated set.


def feature_moments(features: Tensor) -> dict[str, np.ndarray]:
    """Mean `mu` [D] and covariance `sigma` [D, D] of features, float64: all that FID uses of a set."""
    found = library(".metric_fid").fid_features_to_statistics(features)
    return {name: value.astype("float64") for name, value in found.items()}


def frechet_distance(generated: dict[str, np.ndarray], real: dict[str, np.ndarray]) -> float:
    """FID, from the moments of two sets."""
    found = library(".metric_fid").fid_statistics_to_metric(generated, real, False)
    return float(found["frechet_inception_distance"])


def kernel_distance(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """KID and its standard deviation over the subsets."""
    found = library(".metric_kid").kid_features_to_metric(
        generated,
        real,
        kid_subset_size=kid_subset_size(len(generated), len(real)),
        kid_subsets=KID_SUBSETS,
        rng_seed=_SEED,
        verbose=False,
    )
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def kid_subset_size(generated: int, real: int) -> int:
    """Images per subset of KID."""
    return min(KID_SUBSET, generated, real)


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Inception score and its standard deviation over ten splits."""
    found = library(".metric_isc").isc_features_to_metric(logits, _SPLITS, True, _SEED)
    return found["inception_score_mean"], found["inception_score_std"]


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Precision and recall by three nearest neighbours (arXiv 1904.06991). Computes the distance matrix in blocks."""
    found = library(".metric_prc").prc_features_to_metric(
        generated, real, prc_neighborhood=_NEIGHBOURS, prc_batch_size=_ROWS, save_cpu_ram=True, verbose=False
    )
    return found["precision"], found["recall"]
