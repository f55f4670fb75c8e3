"""How good a generator is, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..creps_core.evaluation import (
    Real,
    Wanted,
    evaluate,
    evaluation_plot,
    every_metric,
    generator_set,
    parse_metrics,
)
from ..creps_core.latents import MAX_SEED
from ..creps_core.rendering import memory_estimate
from ..kernels import cache_folder
from . import bridge, runs
from .sockets import Model, ModelSocket

WEIGHTS_FOLDER = "creps_metrics"
"""In ComfyUI's models: files of weights under their published names."""
_ALL = "all"
_NETWORKS = 1 << 30  # bytes, of the library's networks at work


class EvaluateGenerator(io.ComfyNode):
    """A generator and pictures -> numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_EvaluateGenerator",
            display_name="Evaluate CREPS Generator",
            category="CREPS/train",
            description="Measures how near a generator's pictures are to real ones, and how much they are the same at "
            "every size. FID, KID and others need files of weights, which are not downloaded; the rest needs none.",
            search_aliases=[
                "creps metrics",
                "fid",
                "kid",
                "inception score",
                "precision recall",
                "quality",
                "distance",
            ],
            is_output_node=True,
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to judge."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder or zip of real pictures, best of such as it was not trained on: a path, or a name "
                    "inside ComfyUI's input folder. Empty: only what needs none.",
                ),
                io.String.Input(
                    "metrics",
                    default=_ALL,
                    tooltip="all: whatever this machine has the weights for. Or some of fid,kid,prc,isc,ppl,swd,scale, "
                    "of which the last two need none.",
                ),
                io.Int.Input(
                    "count",
                    default=1000,
                    min=10,
                    max=1_000_000,
                    tooltip="Generated pictures. The papers take 50,000; numbers of other counts do not compare.",
                ),
                io.Boolean.Input(
                    "mirror",
                    default=False,
                    optional=True,
                    tooltip="Compare with the real pictures flipped left to right as well: of a generator that was "
                    "trained so.",
                ),
                io.Int.Input(
                    "largest",
                    default=1024,
                    min=127,
                    max=8192,
                    optional=True,
                    advanced=True,
                    tooltip="For scale: sizes from 64 pixels per side up to this one are compared.",
                ),
                io.Int.Input(
                    "side",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    advanced=True,
                    tooltip="Size at which pictures are compared. 0: what the generator was trained at.",
                ),
                io.Combo.Input(
                    "crop",
                    options=["center", "resize"],
                    default="center",
                    optional=True,
                    advanced=True,
                    tooltip="How real pictures become square: cut out of the middle, or squeezed; as in the training.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED >> 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    optional=True,
                    advanced=True,
                    tooltip="Of the first generated picture; the others follow.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The numbers, and what each may be compared with."),
                io.Image.Output(display_name="plot", tooltip="The numbers as a picture."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        folder: str,
        metrics: str,
        count: int,
        mirror: bool = False,
        largest: int = 1024,
        side: int = 0,
        crop: str = "center",
        seed: int = 0,
    ) -> io.NodeOutput:
        asked = every_metric(count) if metrics.strip().lower() == _ALL else parse_metrics(metrics, count)
        config = model.generator.config
        size = side or config.img_resolution
        real = None
        if folder.strip():
            aspect = "{}:{}".format(*model.generator.aspect)
            options = {"side": size, "channels": config.img_channels, "crop": crop, "aspect": aspect, "mirror": mirror}
            progress = _progress()
            path = Path(runs.source(folder, None))
            real = Real(path, **options, progress=lambda done, total: progress("opening pictures", done, total))
        biggest = max(size, largest if any(metric.kind == "scale" for metric in asked) else 0)
        memory = memory_estimate(config, biggest, biggest) + 12 * config.img_channels * biggest**2 + _NETWORKS
        generator = bridge.on_device(model, memory)
        try:
            found = evaluate(
                generator_set(generator, real, side=size, first=seed),
                real,
                asked,
                wanted=Wanted(folder=Path(folder_paths.models_dir) / WEIGHTS_FOLDER),
                device=model.patcher.load_device,
                folder=Path(folder_paths.get_temp_directory()) / "creps_unfinished",
                cache=cache_folder() / "metrics",
                largest=largest,
                progress=_progress(),
            )
        finally:
            if real is not None:
                real.close()
            mm.soft_empty_cache()
        plot = torch.from_numpy(evaluation_plot(found).copy()).unsqueeze(0)
        image = plot.to(mm.intermediate_device(), mm.intermediate_dtype()) / 255
        return io.NodeOutput(str(found), image, ui=ui.PreviewText(str(found)))


def _progress() -> Callable[[str, int, int], None]:
    """Moves the node's bar, says what is worked on, and raises ComfyUI's interrupt when the user cancels."""
    bar, spoken = comfy.utils.ProgressBar(1), ""

    def progress(what: str, done: int, total: int) -> None:
        nonlocal spoken
        mm.throw_exception_if_processing_interrupted()
        if what != spoken:
            spoken = what
            bridge.say(what)
        bar.update_absolute(done, max(total, 1))

    return progress
