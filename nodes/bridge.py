"""Adapters between ComfyUI and the core: model folders, devices and memory, images, progress, cancelling."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from comfy.patcher_extension import CallbacksMP
from comfy_api.latest import io
from server import PromptServer
from torch import Tensor

from ..common.errors import printable, require
from ..common.files import cannot_write
from ..common.progress import Progress
from ..creps_core import Generator
from ..creps_core.rendering import allow_graphs, release_renderers
from ..kernels import trial_running
from . import previews
from .sockets import Model

log = logging.getLogger("CREPS")

T = TypeVar("T")

CHECKPOINT_FOLDER, LATENTS_FOLDER, DIRECTIONS_FOLDER = "creps", "creps_latents", "creps_directions"
FOLDERS = {
    CHECKPOINT_FOLDER: {".pkl", ".safetensors"},
    LATENTS_FOLDER: {".safetensors"},
    DIRECTIONS_FOLDER: {".safetensors"},
}
"""Model folders and the extensions of their files."""
_PREVIEW_SECONDS = 0.5
_PREFIX_LIMIT = 200  # bytes; a file name may have 255, including what ComfyUI appends


def register_model_folder() -> None:
    """Register `models/creps` and `output/creps` as folders for checkpoints, in addition to those the user configured;
    likewise for latents and directions. A folder that cannot be created is treated as empty: the built-in generators
    need none."""
    for folder, extensions in FOLDERS.items():
        models = os.path.join(folder_paths.models_dir, folder)
        try:
            os.makedirs(models, exist_ok=True)
        except OSError as error:  # read-only, as in Docker or on a NAS; a dangling link, or a file of that name
            log.warning("%s cannot be made (%s): no files are looked for there", models, error.strerror or error)
        folder_paths.add_model_folder_path(folder, models)
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.get_output_directory(), folder))
        paths, _ = folder_paths.folder_names_and_paths[folder]
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


def new_file(folder: str, prefix: str) -> str:
    """The path of a new file in an output folder: prefix, number, .safetensors.

    Raises:
        ValueError: the prefix does not name a file in that folder.
    """
    target, name, counter = next_output(os.path.join(folder, checked_prefix(prefix)))
    return os.path.join(target, f"{name}_{counter:05}_.safetensors")


def next_output(prefix: str, width: int = 0, height: int = 0) -> tuple[str, str, int]:
    """Folder, name and number of the next file with this prefix in the output folder; %tokens% are expanded.

    Raises:
        OSError: its folder cannot be created.
    """
    try:
        return folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), width, height)[:3]
    except OSError as error:
        raise cannot_write(prefix, error) from error


def prefix_problem(prefix: str | None) -> str:
    """What is wrong with a filename_prefix, and what to write instead; empty if it is valid, or unknown (None)."""
    if prefix is None:
        return ""
    parts = prefix.replace("\\", "/").split("/")
    problem = ""
    if not parts[-1].strip(" ."):
        problem = "names no file"
    elif ".." in parts or os.path.isabs(prefix) or prefix[:1] == "~" or prefix.lower().startswith("file:"):
        problem = "leads out of the output folder"
    elif "\0" in prefix or max(len(os.fsencode(part)) for part in parts) > _PREFIX_LIMIT:
        problem = f"has a name of more than {_PREFIX_LIMIT} bytes in it"
    advice = "write a name such as mine, or holiday/mine for a folder, in filename_prefix"
    return f"{advice}: {printable(repr(prefix), 60)} {problem}" if problem else ""


def checked_prefix(prefix: str) -> str:
    """A valid filename_prefix. Raises ValueError otherwise."""
    require(not (problem := prefix_problem(prefix)), problem)
    return prefix


class FileOutputNode(io.ComfyNode):
    """Base of nodes that write a file: an invalid `filename_prefix` is refused before the prompt runs."""

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """True, or an error message."""
        return prefix_problem(filename_prefix) or True


def file_state(folder: str, name: str) -> tuple[str, int, int]:
    """A value for `fingerprint_inputs` that changes when a file is overwritten."""
    stat = os.stat(folder_paths.get_full_path_or_raise(folder, name))
    return name, stat.st_mtime_ns, stat.st_size


def to_model(generator: Generator) -> Model:
    """Hand a generator to ComfyUI's memory management."""
    if getattr(args, "disable_cuda_graphs", False):
        allow_graphs(False)
    patcher = comfy.model_patcher.CoreModelPatcher(
        generator, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )
    # GPU layouts and graphs are released with the weights when ComfyUI needs the memory.
    patcher.add_callback(CallbacksMP.ON_DETACH, lambda patcher, unpatch_all: release_renderers(patcher.model))
    return Model(patcher)


def on_device(model: Model, memory: int = 0) -> Generator:
    """The generator with its weights on the compute device, and `memory` bytes free there for rendering."""
    mm.load_models_gpu([model.patcher], memory_required=memory, force_full_load=True)
    if trial_running():
        show_status("checking the fast kernel for this GPU, once")
    return model.generator


def show_status(text: str) -> None:
    """Show text on the running node."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.last_node_id is not None:
        server.send_progress_text(text, server.last_node_id, server.client_id)


def new_image(batch: int, height: int, width: int, channels: int) -> Tensor:
    """Allocate an IMAGE [batch, height, width, channels], zeroed.

    Raises:
        MemoryError: it does not fit into the free memory; says how much is free.
    """
    device, dtype = mm.intermediate_device(), mm.intermediate_dtype()
    needed = batch * height * width * channels * dtype.itemsize
    free = mm.get_free_memory(device)
    if needed > free:
        raise MemoryError(
            f"CREPS: {batch} picture(s) of {width} x {height} take {_gigabytes(needed)} of memory as IMAGE, and "
            f"{_gigabytes(free)} are free. Lower width, height or the number of latents"
        )
    return torch.zeros((batch, height, width, channels), device=device, dtype=dtype)


def to_image(image: Tensor) -> Tensor:
    """Convert [N, H, W, C] in -1..1 to an IMAGE in 0..1; one channel becomes three. In place where possible."""
    image.add_(1).mul_(0.5).clamp_(0, 1)
    return image.repeat(1, 1, 1, 3) if image.shape[-1] == 1 else image


def split_alpha(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split the result of `to_image` into an IMAGE of three channels and a MASK [N, H, W], 1 where transparent.

    Images without alpha get the same 64 x 64 zero mask as from Load Image.
    """
    if image.shape[-1] < 4:
        return image, image.new_zeros((len(image), 64, 64))
    return image[..., :3].contiguous(), 1 - image[..., 3]


def progress_of(image: Tensor, draw: previews.DrawDraft | None = None, longest: int = 0) -> Progress:
    """A progress callback that moves the node's progress bar, shows a preview of the image so far, and raises ComfyUI's
    interrupt when the user cancels.

    Args:
        image: [N, H, W, C] in -1..1, filled one image after the other while the callback is called.
        draw, longest: a small render of the first image is shown at once; see `previews.ProgressivePreview`.
    """
    bar, growing, shown = comfy.utils.ProgressBar(1), previews.ProgressivePreview(image, draw, longest), 0.0
    for draft in growing.drafts():
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(0, 1, ("JPEG", draft, previews.MAX_PREVIEW_SIDE))
        shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        mm.throw_exception_if_processing_interrupted()
        preview = None
        if done == total or time.monotonic() - shown > _PREVIEW_SECONDS:
            current = min(done * len(image) // total, len(image) - 1)
            preview = ("JPEG", growing.preview(current), previews.MAX_PREVIEW_SIDE)
            shown = time.monotonic()
        bar.update_absolute(done, total, preview)

    return progress


def progress_bar() -> Progress:
    """A progress callback without preview: moves the node's progress bar, and raises ComfyUI's interrupt."""
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return progress


def back_off(work: Callable[[int | None], T], *, smallest: int, advice: str) -> T:
    """Call `work(tile)` with smaller and smaller tiles until it fits into the device's memory; returns its result.

    The first call leaves the tile size to the core (None); then it is 256, 128... pixels down to `smallest`.

    Raises:
        MemoryError: even `smallest` does not fit; the message ends with `advice`.
    """
    tile: int | None = None
    while True:
        try:
            return work(tile)
        except Exception as error:
            mm.raise_non_oom(error)
            if tile is not None and tile <= smallest:
                raise MemoryError(f"CREPS ran out of memory on {mm.get_torch_device()}. {advice}") from error
            tile = 256 if tile is None else tile // 2
            release_renderers()  # with their graphs, which hold memory
            log.warning("out of memory: trying again with tiles of %d pixels", tile)
        mm.soft_empty_cache()


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
