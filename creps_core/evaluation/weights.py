"""Weight files that the metrics of torch-fidelity need: where they come from, and how they are read.

Nothing is downloaded without a request, and nothing in a file is executed: what the library would unpickle is read here
as plain tensors and passed on as such.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import printable
from ...common.files import open_file

if TYPE_CHECKING:
    from torch import Tensor

log: logging.Logger = logging.getLogger("CREPS")


class WeightsError(ValueError):
    """A weight file that is missing or cannot be used: says which one, and what to do."""


@dataclass(frozen=True)
class PublishedFile:
    """A weight file as its authors publish it."""

    name: str
    title: str
    address: str
    sha256: str
    megabytes: float


_RELEASE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"
PUBLISHED_FILES: dict[str, PublishedFile] = {
    "inception": PublishedFile(
        "weights-inception-2015-12-05-6726825d.pth",
        "Inception of 2015-12-05",
        f"{_RELEASE}/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        91,
    ),
    "vgg": PublishedFile(
        "vgg16-397923af.pth",
        "VGG-16 of ImageNet",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        528,
    ),
    "lpips": PublishedFile(
        "weights-vgg16-lpips.pth",
        "LPIPS 0.1 for VGG-16",
        f"{_RELEASE}/weights-vgg16-lpips.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        0.01,
    ),
}


@dataclass(frozen=True)
class Weights:
    """The content of a weight file.

    Attributes:
        state: tensors by name.
        sha256: of the file.
        label: description for reports.
        published: whether it is the authors' file, by its digest.
    """

    state: dict[str, Tensor]
    sha256: str
    label: str
    published: bool


def find_weights(kind: str, given: Path | None = None, *, folder: Path | None = None, download: bool = False) -> Path:
    """The path of a weight file.

    Args:
        kind: a key of PUBLISHED_FILES.
        given: the file that the user named, if any; then no other place is searched.
        folder: searched for the published name, before torch's download folder.
        download: download a missing file into torch's folder.

    Raises:
        WeightsError: it is missing or cannot be downloaded; says where it is published.
    """
    if given is not None:
        if not given.is_file():
            raise WeightsError(f"{given}: there is no such file of weights")
        return given
    import torch

    published = PUBLISHED_FILES[kind]
    kept = Path(torch.hub.get_dir()) / "checkpoints" / published.name
    for path in [*([folder / published.name] if folder else []), kept]:
        if path.is_file():
            return path
    if not download:
        what = f"put the file into {folder}" if folder else f"name the file with --{kind}, or say --download"
        raise WeightsError(
            f"needs the weights {published.name} ({published.title}, {published.megabytes:g} MB), and nothing is "
            f"downloaded without being asked for: fetch them from {published.address} and {what}"
        )
    log.info("downloading %s to %s", published.address, kept)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.address, str(kept), hash_prefix=published.sha256, progress=False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"{published.address}: cannot be downloaded ({error})") from error
    return kept


def read_weights(kind: str, path: Path) -> Weights:
    """Read a weight file: a state dict saved by `torch.save`, or .safetensors.

    Raises:
        WeightsError: it is something else.
    """
    import torch

    published = PUBLISHED_FILES[kind]
    try:
        digest = _sha256(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with warnings.catch_warnings():  # about pickles of older versions
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything
        reason = printable(str(error).split("\n")[0] or type(error).__name__, 120)
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}); give a state dict of {published.title}"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no weights by their names; give a state dict of {published.title}")
    is_published = digest == published.sha256
    label = published.name if is_published else f"{path.name}, not the published weights (sha256 {digest[:12]})"
    return Weights(dict(state), digest, label, is_published)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
