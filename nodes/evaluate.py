"""Metrics of a generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui

from ..common.cache import cache_folder
from ..creps_core.evaluation import (
    METRICS,
    EvaluationRequest,
    Metric,
    RealImages,
    WeightFiles,
    Workspace,
    evaluate,
    evaluation_plot,
    every_metric,
    generator_set,
    parse_metrics,
    task_progress,
)
from ..creps_core.latents import MAX_SEED
from ..creps_core.rendering import memory_estimate
from . import bridge, runs
from .sockets import Model, ModelSocket

WEIGHTS_FOLDER = "creps_metrics"
"""In ComfyUI's models folder: weight files under their published names."""
_ALL = "all"
_WITHOUT_WEIGHTS = [kind.name for kind in METRICS.values() if not kind.needs_weights]
_NETWORK_BYTES = 1 << 30  # memory of torch-fidelity's networks


class EvaluateGenerator(io.ComfyNode):
    """Measures a generator, against real images if there are any; returns a report and a plot."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_EvaluateGenerator",
            display_name="Evaluate CREPS Generator",
            category="CREPS/train",
            description="Measures how close a generator's pictures are to real ones, and whether they are the same at "
            "every size. FID, KID and others need weight files, which are not downloaded; the rest need none.",
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
                ModelSocket.Input("model", tooltip="The generator to measure."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder or zip of real pictures, ideally not those that it was trained on: a path, or a "
                    "name inside ComfyUI's input folder. Empty: only metrics that need no pictures.",
                ),
                io.String.Input(
                    "metrics",
                    default=_ALL,
                    tooltip="all: every metric whose weights this machine has. Or some of "
                    f"{','.join(METRICS)}, of which {' and '.join(_WITHOUT_WEIGHTS)} need no weights.",
                ),
                io.Int.Input(
                    "count",
                    default=1000,
                    min=10,
                    max=1_000_000,
                    tooltip="Generated pictures. The papers use 50,000; values of other counts do not compare.",
                ),
                io.Boolean.Input(
                    "mirror",
                    default=False,
                    optional=True,
                    tooltip="Compare with the real pictures flipped left to right as well, for a generator that was "
                    "trained with mirrored pictures.",
                ),
                io.Int.Input(
                    "largest",
                    default=1024,
                    min=127,
                    max=8192,
                    optional=True,
                    advanced=True,
                    tooltip="For scale: compares sizes from 64 pixels per side up to this one.",
                ),
                io.Int.Input(
                    "side",
                    default=0,
                    min=0,
                    max=4096,
                    optional=True,
                    advanced=True,
                    tooltip="Size at which pictures are compared. 0: the generator's training resolution.",
                ),
                io.Combo.Input(
                    "crop",
                    options=["center", "resize"],
                    default="center",
                    optional=True,
                    advanced=True,
                    tooltip="How real pictures become square: center cuts out the middle, resize squeezes. Choose "
                    "the same as in training.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED >> 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    optional=True,
                    advanced=True,
                    tooltip="Seed of the first generated picture; the others count up from it.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The values, and what each may be compared with."),
                io.Image.Output(display_name="plot", tooltip="The values as plots."),
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
        reals = None
        if folder.strip():
            aspect = "{}:{}".format(*model.generator.aspect)
            options = {"side": size, "channels": config.img_channels, "crop": crop, "aspect": aspect, "mirror": mirror}
            path = Path(runs.source(folder, None))
            reals = RealImages(path, **options, progress=task_progress(_progress(), "opening pictures"))
        generator = bridge.on_device(model, _memory(model, asked, size, largest))
        try:
            evaluation = evaluate(
                EvaluationRequest(
                    generator_set(generator, reals, side=size, first=seed), reals, asked, largest=largest
                ),
                WeightFiles(folder=Path(folder_paths.models_dir) / WEIGHTS_FOLDER),
                model.patcher.load_device,
                Workspace(
                    Path(folder_paths.get_temp_directory()) / "creps_unfinished",
                    cache_folder() / "metrics",
                    progress=_progress(),
                ),
            )
        finally:
            if reals is not None:
                reals.close()
            mm.soft_empty_cache()
        plot = torch.from_numpy(evaluation_plot(evaluation).copy()).unsqueeze(0)
        image = plot.to(mm.intermediate_device(), mm.intermediate_dtype()) / 255
        return io.NodeOutput(str(evaluation), image, ui=ui.PreviewText(str(evaluation)))


def _memory(model: Model, metrics: Sequence[Metric], side: int, largest: int) -> int:
    """Bytes to reserve for rendering, the images and the networks of metrics."""
    config = model.generator.config
    side = max(side, largest if any(metric.kind.largest_size for metric in metrics) else 0)
    return memory_estimate(config, side, side) + 12 * config.img_channels * side**2 + _NETWORK_BYTES


def _progress() -> Callable[[str, int, int], None]:
    """Updates the node's progress bar and status text, and raises ComfyUI's interrupt when the user cancels."""
    bar, shown_task = comfy.utils.ProgressBar(1), ""

    def progress(task: str, done: int, total: int) -> None:
        nonlocal shown_task
        mm.throw_exception_if_processing_interrupted()
        if task != shown_task:
            shown_task = task
            bridge.show_status(task)
        bar.update_absolute(done, max(total, 1))

    return progress
