"""CREPS: column-row entangled pixel synthesis. One latent, any size; runs without ComfyUI.

generator = load_generator("creps-ffhq-512x512.pkl")
images = render(generator, sample(generator, [2]), height=1080, width=1920)

`__all__` is the public interface; the documentation has examples. Comparison, datasets, evaluation and
training are imported on first use, since they import much more of torch.
"""

__version__ = "0.2.0"

import importlib
from typing import TYPE_CHECKING, Any

from ..common.errors import CheckpointError, DatasetError, LatentsError, TrainingError
from .checkpoints import BUILTINS, blend_weights, inspect_checkpoint, load_builtin, load_generator, save_generator
from .latents import (
    Directions,
    Latents,
    edit,
    find_directions,
    interpolate,
    load_directions,
    load_latents,
    mix_grid,
    mix_pairs,
    project,
    random_walk,
    sample,
    sample_latents,
    save_directions,
    save_latents,
    seed_to_z,
)
from .network import Generator, GeneratorConfig, truncate
from .rendering import (
    FITS,
    WHOLE_FRAME,
    View,
    Window,
    camera_path,
    fit_window,
    render,
    render_path,
    render_to_file,
    render_view,
    sample_positions,
)

if TYPE_CHECKING:
    from .comparison import compare, contact_sheet, scale_consistency
    from .data import ImageDataset, from_images, open_dataset
    from .evaluation import (
        EvaluationRequest,
        RealImages,
        WeightFiles,
        Workspace,
        evaluate,
        generator_set,
        parse_metrics,
    )
    from .training import Recipe, Run, RunRequest, Trainer, load_networks, open_run, train

__all__ = [
    "BUILTINS",
    "FITS",
    "WHOLE_FRAME",
    "CheckpointError",
    "DatasetError",
    "Directions",
    "EvaluationRequest",
    "Generator",
    "GeneratorConfig",
    "ImageDataset",
    "Latents",
    "LatentsError",
    "RealImages",
    "Recipe",
    "Run",
    "RunRequest",
    "Trainer",
    "TrainingError",
    "View",
    "WeightFiles",
    "Window",
    "Workspace",
    "blend_weights",
    "camera_path",
    "compare",
    "contact_sheet",
    "edit",
    "evaluate",
    "find_directions",
    "fit_window",
    "from_images",
    "generator_set",
    "inspect_checkpoint",
    "interpolate",
    "load_builtin",
    "load_directions",
    "load_generator",
    "load_latents",
    "load_networks",
    "mix_grid",
    "mix_pairs",
    "open_dataset",
    "open_run",
    "parse_metrics",
    "project",
    "random_walk",
    "render",
    "render_path",
    "render_to_file",
    "render_view",
    "sample",
    "sample_latents",
    "sample_positions",
    "save_directions",
    "save_generator",
    "save_latents",
    "scale_consistency",
    "seed_to_z",
    "train",
    "truncate",
]

_ON_FIRST_USE = {
    ".comparison": ("compare", "contact_sheet", "scale_consistency"),
    ".data": ("ImageDataset", "from_images", "open_dataset"),
    ".evaluation": (
        "EvaluationRequest",
        "RealImages",
        "WeightFiles",
        "Workspace",
        "evaluate",
        "generator_set",
        "parse_metrics",
    ),
    ".training": ("Recipe", "Run", "RunRequest", "Trainer", "load_networks", "open_run", "train"),
}


def __getattr__(name: str) -> Any:
    """Import what `_ON_FIRST_USE` lists."""
    for module, names in _ON_FIRST_USE.items():
        if name in names:
            value = getattr(importlib.import_module(module, __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
