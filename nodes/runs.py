"""Runs of the training node: their folders and names, their datasets, and what the inputs ask of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
from torch import Tensor

from ..common.files import path_of
from ..common.links import DOCS
from ..creps_core.checkpoints import fingerprint
from ..creps_core.data import ImageDataset, from_images, open_dataset, with_mask
from ..creps_core.training import FINE_TUNING, RunRequest, Terms, networks_of
from .sockets import Model

RUNS_FOLDER = "creps_runs"
AS_THE_MODEL = "as the model"
_TERMS = Terms(name="run_name", new_data="new_data", total="pictures", start="the model", data="folder or images")


@dataclass(frozen=True)
class TrainInputs:
    """The inputs of the training node beside the model; see its schema."""

    folder: str
    run_name: str
    pictures: int
    resolution: int
    batch: int
    learning_rate: float
    augment: str
    mirror: bool
    seed: int
    images: Tensor | None = None
    r1_gamma: float = 0.0
    path_length: float = 2.0
    discriminator_rate: float = 0.002
    freeze_d: int = 0
    patches: float = 0.0
    snapshot_every: int = 5000
    new_data: bool = False
    labels: str = AS_THE_MODEL
    aspect: str = ""
    alpha: bool = False
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is not None:
            object.__setattr__(self, "images", with_mask(self.images, self.mask))

    @property
    def tick(self) -> int:
        """Images between lines of statistics."""
        return max(self.batch, min(500, self.pictures // 20))


def training_request(model: Model, inputs: TrainInputs) -> RunRequest:
    """What the inputs ask of a run that starts from the model.

    Raises:
        ValueError: the inputs name no images, or two sources of them.
    """
    config, asked = model.generator.config, inputs
    return RunRequest(
        opener(asked.images, config.c_dim),
        source=source(asked.folder, asked.images),
        start=model.generator.name,
        open_start=lambda: networks_of(model.generator),
        weights=lambda: fingerprint(model.generator),
        recipe={
            "batch": asked.batch,
            "total": asked.pictures,
            "g_lr": asked.learning_rate,
            "d_lr": asked.discriminator_rate,
            "pl_weight": asked.path_length,
            "augment": asked.augment,
            "freeze_d": asked.freeze_d,
            "patches": asked.patches,
            "seed": asked.seed,
            **({"r1_gamma": asked.r1_gamma} if asked.r1_gamma else {}),
        },
        computed=dict(FINE_TUNING),
        data={
            "mirror": asked.mirror,
            "max_side": 4 * (asked.resolution or config.img_resolution),
            "aspect": asked.aspect.strip() or None,
            "labels": None if asked.labels == AS_THE_MODEL else asked.labels,
        },
        shape={
            **({"resolution": asked.resolution} if asked.resolution else {}),
            **({"channels": 4} if asked.alpha else {}),
        },
        generator={name: v for name, v in config.to_dict().items() if name not in ("img_channels", "c_dim")},
        new_data=asked.new_data,
        terms=_TERMS,
    )


def run_folder(name: str) -> str:
    """The folder of a run.

    Raises:
        ValueError: the name cannot be that of a folder.
    """
    name = name.strip()
    if not name or name.startswith(".") or any(character in name for character in '/\\:*?"<>|\0'):
        raise ValueError(f'run_name must be the name of a folder, without / \\ : * ? " < > | in it, not {name!r}')
    return os.path.join(folder_paths.get_output_directory(), RUNS_FOLDER, name)


def source(folder: str, images: Tensor | None) -> str:
    """A name for the training images: the path of their folder or archive, or "<N> linked images".

    Raises:
        ValueError: no images are given, or two sources of them.
    """
    given = bool(folder.strip().strip("\"'"))
    if given == (images is not None):
        problem = "give a folder or link images, not both" if given else "give a folder of pictures, or link images"
        raise ValueError(f"Train CREPS Generator has no one source of pictures: {problem}")
    if images is not None:
        return f"{len(images)} linked images"
    path = _path_of(folder)
    if not os.path.exists(path):
        place = folder_paths.get_input_directory()
        raise ValueError(f"give a whole path, or a name inside {place}: there is no folder or zip {path!r}")
    return path


def _path_of(folder: str) -> str:
    """The path, which may be relative to ComfyUI's input folder."""
    return str(path_of(folder, folder_paths.get_input_directory()))


def opener(images: Tensor | None, c_dim: int) -> Callable[..., ImageDataset]:
    """A function that opens the dataset of a folder, a zip or an IMAGE batch, for `RunRequest.open_data`."""

    def show_progress(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    def open_data(source: str, labels: str | None = None, **options: Any) -> ImageDataset:
        labels = labels or ("file" if c_dim else "none")
        if images is None:
            return open_dataset(source, use_labels=labels, progress=show_progress, **options)
        if labels != "none":
            raise ValueError(
                f"labels from {labels} are wanted, and linked images have none: give a folder or zip with a "
                f"dataset.json, as {DOCS}/training.md explains, or choose none"
            )
        for name in ("seed", "max_pictures"):
            options.pop(name, None)
        return from_images(images.clone()[..., :4], **options)

    bar = comfy.utils.ProgressBar(1)
    return open_data


def name_for(model: Model, request: RunRequest, images: Tensor | None) -> str:
    """A name for a run, which differs between models, training images and the ways to cut them."""
    if images is not None:
        content = hashlib.blake2b(images.cpu().contiguous().numpy().tobytes()).hexdigest()
    else:
        content = _data_state(request.source)
    parts = (
        fingerprint(model.generator),
        content,
        sorted(request.shape.items()),
        sorted(request.data.items(), key=str),
    )
    title = f"{model.generator.name} on {Path(request.source).stem}"
    title = re.sub(r'[/\\:*?"<>|\0]+', " ", title).strip(". ")[:80]
    return f"{title} {hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"


def _data_state(path: str) -> str:
    """A digest that changes when files of a folder or archive are added, removed or written."""
    state = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            state.update(repr((folder, name, _file_state(os.path.join(folder, name)))).encode(errors="replace"))
    state.update(repr(_file_state(path) if os.path.isfile(path) else os.path.isdir(path)).encode())
    return state.hexdigest()


def _run_state(name: str) -> str:
    """A text that changes when a run is resumed, changed or removed. An empty name stands for all runs."""
    place = os.path.join(folder_paths.get_output_directory(), RUNS_FOLDER)
    place = os.path.join(place, name.strip()) if name.strip() else place
    found = sorted(Path(place).glob("run.json" if name.strip() else "*/run.json"))
    found += sorted(Path(place).glob("*.safetensors" if name.strip() else "*/*.safetensors"))
    return repr([(str(path), _file_state(path)) for path in found])


def _file_state(path: str | Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


class _Seen:
    """Counts changes of runs and their data that the node did not make itself: removed, added to, trained on.

    The node's own changes do not count, or the same prompt would always run again.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], str] = {}
        self._changes: dict[tuple[str, str], int] = {}

    def state(self, run_name: str, folder: str) -> int:
        """A number that changes whenever there was such a change."""
        key, now = (run_name, folder), _state(run_name, folder)
        if self._last.get(key) != now:
            self._last[key], self._changes[key] = now, self._changes.get(key, 0) + 1
        return self._changes[key]

    def left(self, run_name: str, folder: str) -> None:
        """Record the state after the node has run."""
        self._last[run_name, folder] = _state(run_name, folder)


seen = _Seen()


def _state(run_name: str, folder: str) -> str:
    data = _data_state(_path_of(folder)) if folder.strip() else ""
    return hashlib.sha256(f"{_run_state(run_name)} {data}".encode()).hexdigest()
