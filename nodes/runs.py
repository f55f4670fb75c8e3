"""Runs of the training node: where they are kept, what they are called, what they learn from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
from torch import Tensor

from ..common.files import path_of
from ..creps_core.checkpoints import fingerprint
from ..creps_core.data import ImageDataset, from_images, open_dataset
from ..creps_core.training import RunRequest
from .sockets import Model

RUNS_FOLDER = "creps_runs"


def run_folder(name: str) -> str:
    """The folder of a run.

    Raises:
        ValueError: a name that is none of a folder.
    """
    name = name.strip()
    if not name or name.startswith(".") or any(character in name for character in '/\\:*?"<>|\0'):
        raise ValueError(f'run_name must be the name of a folder, without / \\ : * ? " < > | in it, not {name!r}')
    return os.path.join(folder_paths.get_output_directory(), RUNS_FOLDER, name)


def source(folder: str, images: Tensor | None) -> str:
    """What the pictures are called: the path of their folder or archive, or so many linked ones.

    Raises:
        ValueError: there are none, or two sources.
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
    """A whole path, or one inside ComfyUI's input."""
    return str(path_of(folder, folder_paths.get_input_directory()))


def opener(images: Tensor | None, c_dim: int) -> Callable[..., ImageDataset]:
    """What opens the data set of a folder, a zip or an IMAGE batch, for `RunRequest.open_data`."""

    def opened(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    def open_data(source: str, labels: str | None = None, **options: Any) -> ImageDataset:
        labels = labels or ("file" if c_dim else "none")
        if images is None:
            return open_dataset(source, use_labels=labels, progress=opened, **options)
        if labels != "none":
            raise ValueError(
                f"labels from {labels} are wanted, and linked images have none: give a folder or zip with a "
                "dataset.json, as docs/training.md explains, or choose none"
            )
        for name in ("seed", "max_pictures"):
            options.pop(name, None)
        return from_images(images.clone()[..., : options["channels"] if options["channels"] > 3 else 3], **options)

    bar = comfy.utils.ProgressBar(1)
    return open_data


def name_for(model: Model, request: RunRequest, images: Tensor | None) -> str:
    """A name for a run with this model on these pictures, cut so: others get another."""
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
    """Changes when files of a folder or archive are added, removed or written."""
    state = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            state.update(repr((folder, name, _file_state(os.path.join(folder, name)))).encode(errors="replace"))
    state.update(repr(_file_state(path) if os.path.isfile(path) else os.path.isdir(path)).encode())
    return state.hexdigest()


def _run_state(name: str) -> str:
    """Changes when a run goes on, is changed or removed. An empty name stands for all runs."""
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
    """Whether a run or its data were changed since the node ran last, by anybody else: removed, added to, trained on.

    What the node itself changed by running counts as nothing, or the same prompt would always be run again.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], str] = {}
        self._changes: dict[tuple[str, str], int] = {}

    def state(self, run_name: str, folder: str) -> int:
        """Another number whenever there was such a change."""
        key, now = (run_name, folder), _state(run_name, folder)
        if self._last.get(key) != now:
            self._last[key], self._changes[key] = now, self._changes.get(key, 0) + 1
        return self._changes[key]

    def left(self, run_name: str, folder: str) -> None:
        """The node has run."""
        self._last[run_name, folder] = _state(run_name, folder)


seen = _Seen()


def _state(run_name: str, folder: str) -> str:
    data = _data_state(_path_of(folder)) if folder.strip() else ""
    return hashlib.sha256(f"{_run_state(run_name)} {data}".encode()).hexdigest()
