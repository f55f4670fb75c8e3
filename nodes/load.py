"""Loading generators."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import io

from ..creps_core import BUILTINS, load_builtin, load_generator
from . import bridge
from .sockets import Model, ModelSocket

BUILTIN = "builtin: "


def checkpoint_names() -> list[str]:
    """Names for the loader: the built-in generators, and the files in models/creps."""
    return [BUILTIN + name for name in BUILTINS] + folder_paths.get_filename_list(bridge.CHECKPOINT_FOLDER)


def load_model(checkpoint: str, weights: str) -> Model:
    """Load a generator by a name from `checkpoint_names`, managed by ComfyUI."""
    if checkpoint.startswith(BUILTIN):
        return bridge.to_model(load_builtin(checkpoint.removeprefix(BUILTIN)))
    path = folder_paths.get_full_path_or_raise(bridge.CHECKPOINT_FOLDER, checkpoint)
    return bridge.to_model(load_generator(path, weights))


class LoadGenerator(io.ComfyNode):
    """Load a built-in generator, or a checkpoint from models/creps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_LoadGenerator",
            display_name="Load CREPS Generator",
            category="CREPS",
            description="Loads a generator: one of the built-in ones, or a checkpoint from models/creps "
            "(official creps-*.pkl, read without executing anything in it, or our .safetensors).",
            search_aliases=["creps", "gan", "checkpoint", "load gan", "stylegan", "landscape", "face", "portrait"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=checkpoint_names(),
                    tooltip="A built-in generator needs no file. Put checkpoints into models/creps and press R to "
                    "refresh the list.",
                ),
                io.Combo.Input(
                    "weights",
                    options=["G_ema", "G"],
                    default="G_ema",
                    optional=True,
                    advanced=True,
                    tooltip="Of an official snapshot: G_ema, the moving average, makes the better pictures; G is "
                    "the network as the last training step left it. Other files ignore this.",
                ),
            ],
            outputs=[ModelSocket.Output(display_name="model", tooltip="The generator.")],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, weights: str = "G_ema") -> object:
        """An overwritten file is loaded again."""
        if checkpoint.startswith(BUILTIN):
            return checkpoint
        stat = os.stat(folder_paths.get_full_path_or_raise(bridge.CHECKPOINT_FOLDER, checkpoint))
        return checkpoint, weights, stat.st_mtime_ns, stat.st_size

    @classmethod
    def execute(cls, checkpoint: str, weights: str = "G_ema") -> io.NodeOutput:
        return io.NodeOutput(load_model(checkpoint, weights))
