"""Nodes that fine-tune a generator and save it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..creps_core import save_generator
from ..creps_core.comparison import opaque
from ..creps_core.data import LABEL_SOURCES
from ..creps_core.latents import MAX_SEED
from ..creps_core.training import (
    AUGMENTS,
    OpenedRun,
    Run,
    SampleHistory,
    Status,
    Terms,
    finished_note,
    networks_of,
    open_run,
    read_stats,
    sample_grid,
    train,
)
from . import bridge, previews, runs
from .sockets import Model, ModelSocket

_PREVIEW_SIDE = 64
_TEXT_SECONDS = 2.0
LossMap = io.Custom("LOSS_MAP")


class TrainGenerator(io.ComfyNode):
    """A generator and pictures -> a generator of such pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_TrainGenerator",
            display_name="Train CREPS Generator",
            category="CREPS/train",
            description="Fine-tunes a generator on your pictures. Watch its samples while it learns; cancel at any "
            "time, and run it again under the same name to resume.",
            search_aliases=["creps training", "fine-tune", "finetune", "train gan", "learn"],
            is_experimental=True,
            is_output_node=True,
            inputs=[*_data_inputs(), *_step_inputs(), *_advanced_inputs(), *_run_inputs()],
            outputs=[
                ModelSocket.Output(display_name="model", tooltip="The moving average of the fine-tuned generator."),
                LossMap.Output(display_name="losses", tooltip="The generator's loss over time, for Plot Loss Graph."),
                io.Image.Output(display_name="samples", tooltip="Pictures of the seeds 0 to 31."),
                io.String.Output(display_name="report", tooltip="What was used, and where the run is."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, run_name: str = "", folder: str | None = "", **_: object) -> object:
        """Changes when the run or the training pictures have changed, so that the node runs again."""
        return runs.seen.state(run_name, folder or "")

    @classmethod
    def execute(cls, model: Model, **inputs: Any) -> io.NodeOutput:
        asked = runs.TrainInputs(**inputs)
        request = runs.training_request(model, asked)
        name = asked.run_name.strip() or runs.name_for(model, request, asked.images)
        run = Run(runs.run_folder(name), tick=asked.tick, snapshot_every=asked.snapshot_every)
        with _training(), run.lock:
            opened = open_run(run, request, device=mm.get_torch_device())
            finished = opened.finished
            generator = train(run, opened.trainer, opened.dataset, progress=_progress(cls.hidden.unique_id))
            side = max(opened.trainer.D.config.img_resolution, _PREVIEW_SIDE)
            samples = torch.from_numpy(opaque(sample_grid(generator, side)).copy())[None] / 255
        runs.seen.left(asked.run_name, asked.folder)
        generator.requires_grad_(False).name = name
        generator.origin = str(run.generator_file)
        report = _report(run, opened, request.terms, finished)
        return io.NodeOutput(
            bridge.to_model(generator), {"loss": _losses(run)}, samples, report, ui=ui.PreviewText(report)
        )


def _data_inputs() -> list[io.Input]:
    """What to learn from, under which name, and for how long."""
    return [
        ModelSocket.Input("model", tooltip="The generator to start from. It is not changed."),
        io.String.Input(
            "folder",
            default="",
            tooltip="Folder or zip of pictures of any sizes and formats: a path, or a name inside ComfyUI's "
            "input folder. Leave it empty when images are linked.",
        ),
        io.String.Input(
            "run_name",
            default="my run",
            tooltip="The run is kept in output/creps_runs under this name. The same name resumes it, with the "
            "same model and pictures. Empty: a name derived from these, so that each model and set of pictures "
            "has a run of its own.",
        ),
        io.Int.Input(
            "pictures",
            default=10_000,
            min=1,
            max=1_000_000_000,
            tooltip="Length of the training: training pictures shown to the discriminator, in all. Colours "
            "follow within a few thousand, subjects take a hundred thousand and more.",
        ),
        io.Int.Input(
            "resolution",
            default=0,
            min=0,
            max=4096,
            tooltip="Longer side of the training pictures: a power of two, at least 8. 0: the resolution the "
            "generator was trained at. A quarter of the side is sixteen times as fast, and teaches no fine "
            "detail.",
        ),
    ]


def _step_inputs() -> list[io.Input]:
    """The usual settings of a training step."""
    return [
        io.Int.Input("batch", default=8, min=1, max=1024, tooltip="Pictures per step."),
        io.Float.Input(
            "learning_rate",
            default=0.0005,
            min=0.0,
            max=1.0,
            step=0.0001,
            round=False,
            tooltip="Learning rate of the generator. A low one keeps more of what it knows; lower it when the "
            "samples fall apart. The authors use 0.002.",
        ),
        io.Combo.Input(
            "augment",
            options=list(AUGMENTS),
            default="ada",
            tooltip="ada: the discriminator sees altered pictures as soon as it begins to overfit; for small "
            "sets. none: for tens of thousands of pictures.",
        ),
        io.Boolean.Input(
            "mirror",
            default=True,
            advanced=True,
            tooltip="Also show every picture flipped left to right.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED >> 1,
            control_after_generate=io.ControlAfterGenerate.fixed,
            advanced=True,
            tooltip="Seed of everything random in the training.",
        ),
    ]


def _advanced_inputs() -> list[io.Input]:
    """Linked images, and settings for experts."""
    return [
        io.Image.Input("images", optional=True, tooltip="Training pictures, instead of a folder."),
        io.Float.Input(
            "r1_gamma",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            round=False,
            optional=True,
            advanced=True,
            tooltip="R1 regularisation: more is more stable, less learns faster. 0: by the authors' rule, "
            "0.5 at 128 pixels, four times as much at twice the side.",
        ),
        io.Float.Input(
            "path_length",
            default=2.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            round=False,
            optional=True,
            advanced=True,
            tooltip="Weight of path-length regularisation, which makes interpolations even. 0 is faster, and "
            "right for a generator whose interpolations need not be even.",
        ),
        io.Float.Input(
            "discriminator_rate",
            default=0.002,
            min=0.0,
            max=1.0,
            step=0.0001,
            round=False,
            optional=True,
            advanced=True,
            tooltip="Learning rate of the discriminator. A new one must learn before the generator can.",
        ),
        io.Int.Input(
            "freeze_d",
            default=0,
            min=0,
            max=64,
            optional=True,
            advanced=True,
            tooltip="Number of the discriminator's first layers that are frozen, against overfitting. Only "
            "useful when the discriminator came with the checkpoint.",
        ),
    ]


def _run_inputs() -> list[io.Input]:
    """Appended later: saved workflows restore inputs by position."""
    return [
        io.Float.Input(
            "patches",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Share of windows instead of whole pictures, for pictures larger than the resolution: "
            "teaches their detail.",
        ),
        io.Int.Input(
            "snapshot_every",
            default=5000,
            min=1,
            max=1_000_000_000,
            optional=True,
            advanced=True,
            tooltip="Pictures between snapshots. One is also written at the end and on cancel.",
        ),
        io.Boolean.Input(
            "new_data",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Resume this run on other pictures than it began with, or on the same ones mirrored or "
            "cut otherwise. Without it they are refused.",
        ),
        io.Combo.Input(
            "labels",
            options=[runs.AS_THE_MODEL, *LABEL_SOURCES],
            default=runs.AS_THE_MODEL,
            optional=True,
            advanced=True,
            tooltip="file: those of dataset.json beside the pictures. folders: the folder of a picture is its "
            "class. A generator without labels, or with others, learns them.",
        ),
        io.String.Input(
            "aspect",
            default="",
            optional=True,
            advanced=True,
            tooltip="Aspect ratio of the pictures, such as 16:9: they are cut to it, and rendered in it. "
            "Empty: that of the generator, which is square unless it was trained otherwise.",
        ),
        io.Boolean.Input(
            "alpha",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Also learn transparency. A generator without it starts opaque.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Transparency of the linked images, as Load Image gives it: 1 where they are transparent. What is "
            "transparent is laid on white, or learnt with alpha.",
        ),
    ]


class SaveGenerator(bridge.FileOutputNode):
    """A generator -> a file that the loader lists."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SaveGenerator",
            display_name="Save CREPS Generator",
            category="CREPS/train",
            description="Writes a generator to output/creps as safetensors, where Load CREPS Generator finds it.",
            search_aliases=["creps save model", "export generator", "save checkpoint"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to save."),
                io.String.Input(
                    "filename_prefix",
                    default="generator",
                    tooltip="Name of the file; a number is appended. May start with folders.",
                ),
                io.Boolean.Input(
                    "half",
                    default=True,
                    advanced=True,
                    tooltip="Store half precision: half the size, without a visible difference.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Path of the file.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Model, filename_prefix: str, half: bool) -> io.NodeOutput:
        path = bridge.new_file(bridge.CHECKPOINT_FOLDER, filename_prefix)
        # With its discriminator, so that fine-tuning from the file starts from both.
        discriminator = networks_of(model.generator).D
        save_generator(model.generator, path, half=half, discriminator=discriminator)
        return io.NodeOutput(path, ui=ui.PreviewText(path))


@contextmanager
def _training() -> Iterator[None]:
    """Within, ComfyUI is in the state that training needs: gradients enabled, other models unloaded.

    Raises:
        MemoryError: training did not fit into the device's memory; with advice.
    """
    mm.unload_all_models()
    before = mm.in_training
    mm.in_training = True
    try:
        with torch.inference_mode(False):
            yield
    except Exception as error:
        mm.raise_non_oom(error)
        raise MemoryError(
            f"CREPS ran out of memory on {mm.get_torch_device()} while training. Lower batch or resolution, or close "
            "other programs that use it, and run the node again: it resumes from the last snapshot"
        ) from error
    finally:
        mm.in_training = before


def _progress(node_id: str):
    """A callback that moves the node's bar, shows samples and status, and raises ComfyUI's interrupt on cancel."""
    bar, samples, last = comfy.utils.ProgressBar(1), SampleHistory(_PREVIEW_SIDE), 0.0

    def progress(status: Status) -> None:
        nonlocal last
        mm.throw_exception_if_processing_interrupted()
        preview = None
        if (sheet := samples.update(status.trainer.G_ema)) is not None:
            preview = ("JPEG", Image.fromarray(opaque(sheet)), previews.MAX_PREVIEW_SIDE)
        if time.monotonic() - last > _TEXT_SECONDS:
            last = time.monotonic()
            PromptServer.instance.send_progress_text(str(status), node_id)
        bar.update_absolute(min(status.num_images, status.total), status.total, preview)

    return progress


def _losses(run: Run) -> list[float]:
    """The generator's losses, for Plot Loss Graph."""
    losses = [line["loss/G"] for line in read_stats(run.folder) if "loss/G" in line] or [0.0]
    if min(losses) == max(losses):  # the node divides by the difference
        losses.append(losses[-1] + 1e-6)
    return losses


def _report(run: Run, opened: OpenedRun, terms: Terms, finished: bool) -> str:
    """What was used, and where the run is."""
    trainer = opened.trainer
    notes = [*([finished_note(run, trainer, terms)] if finished else []), *opened.notes]
    counts = f"{trainer.num_images:,} pictures shown, {trainer.skipped} steps skipped"
    return "\n".join([*notes, str(opened.dataset.report), counts, str(run.folder)])
