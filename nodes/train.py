"""Training: fine-tuning a generator on pictures, and keeping it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as mm
import comfy.utils
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..creps_core import save_generator
from ..creps_core.checkpoints import fingerprint
from ..creps_core.comparison import opaque
from ..creps_core.data import LABEL_SOURCES
from ..creps_core.latents import MAX_SEED
from ..creps_core.training import (
    AUGMENTS,
    Preview,
    Run,
    RunRequest,
    Status,
    Terms,
    begin,
    finished_note,
    networks_of,
    read_stats,
    sample_grid,
    train,
)
from . import bridge, previews, runs
from .sockets import Model, ModelSocket

_PREVIEW_SIDE = 64
_TEXT_SECONDS = 2.0
_AS_THE_MODEL = "as the model"
_TERMS = Terms(name="run_name", new_data="new_data", total="pictures", start="the model", data="folder or images")
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
            "time, and run it again under the same name to go on.",
            search_aliases=["creps training", "fine-tune", "finetune", "train gan", "learn"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to begin with. It is left as it is."),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="Folder or zip of pictures of any sizes and formats: a path, or a name inside ComfyUI's "
                    "input folder. Leave it empty when images are linked.",
                ),
                io.String.Input(
                    "run_name",
                    default="my run",
                    tooltip="The run is kept in output/creps_runs under this name. The same name goes on where it "
                    "stopped, with the same model and pictures. Empty: a name that is made of these, so that others "
                    "begin a run of their own.",
                ),
                io.Int.Input(
                    "pictures",
                    default=10_000,
                    min=1,
                    max=1_000_000_000,
                    tooltip="How many pictures to show to the discriminator, in all. Colours follow within a few "
                    "thousand, subjects take a hundred thousand and more.",
                ),
                io.Int.Input(
                    "resolution",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Longer side of the pictures shown: a power of two, at least 8. 0: what the generator was "
                    "trained on. A quarter of the side is sixteen times as fast, and teaches no fine detail.",
                ),
                io.Int.Input("batch", default=8, min=1, max=1024, tooltip="Pictures per step."),
                io.Float.Input(
                    "learning_rate",
                    default=0.0005,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    round=False,
                    tooltip="Of the generator. Low keeps more of what it knows; lower it when the samples fall apart. "
                    "The authors' is 0.002.",
                ),
                io.Combo.Input(
                    "augment",
                    options=list(AUGMENTS),
                    default="ada",
                    tooltip="ada: the discriminator sees altered pictures, as soon as it begins to learn yours by "
                    "heart; made for small sets. none: for tens of thousands of pictures.",
                ),
                io.Boolean.Input(
                    "mirror",
                    default=True,
                    advanced=True,
                    tooltip="Show every picture flipped left to right as well.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED >> 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    advanced=True,
                    tooltip="Of everything random in the training.",
                ),
                io.Image.Input("images", optional=True, tooltip="Pictures to learn from, instead of a folder."),
                io.Float.Input(
                    "r1_gamma",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    round=False,
                    optional=True,
                    advanced=True,
                    tooltip="R1 regularisation: more is calmer, less learns faster. 0: by the rule of the authors, "
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
                    tooltip="Path-length regularisation: makes interpolations even. 0 is faster, and right for a "
                    "generator whose interpolations are not meant to be even.",
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
                    tooltip="Learning rate of the discriminator. A new one has to learn before it can teach.",
                ),
                io.Int.Input(
                    "freeze_d",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="So many of the discriminator's first layers stay as they are, against overfitting. Only "
                    "useful when it came with the checkpoint.",
                ),
                io.Float.Input(
                    "patches",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Share of windows instead of whole pictures, when yours are larger than the resolution: "
                    "teaches their detail.",
                ),
                io.Int.Input(
                    "snapshot_every",
                    default=5000,
                    min=1,
                    max=1_000_000_000,
                    optional=True,
                    advanced=True,
                    tooltip="Pictures between snapshots. One is also taken at the end and on cancel.",
                ),
                io.Boolean.Input(
                    "new_data",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Go on with this run on other pictures than it began with, or on the same ones mirrored or "
                    "cut otherwise. Without it they are refused.",
                ),
                io.Combo.Input(
                    "labels",
                    options=[_AS_THE_MODEL, *LABEL_SOURCES],
                    default=_AS_THE_MODEL,
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
                    tooltip="Width and height of the pictures, such as 16:9: they are cut to it, and rendered in it. "
                    "Empty: as the generator's, which is square unless it was trained otherwise.",
                ),
                io.Boolean.Input(
                    "alpha",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Learn transparency as well. A generator without begins opaque.",
                ),
            ],
            outputs=[
                ModelSocket.Output(display_name="model", tooltip="The fine-tuned generator: its moving average."),
                LossMap.Output(display_name="losses", tooltip="The generator's loss over time, for Plot Loss Graph."),
                io.Image.Output(display_name="samples", tooltip="Pictures of the seeds 0 to 31."),
                io.String.Output(display_name="report", tooltip="What was used, and where the run is."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, run_name: str = "", folder: str | None = "", **_: object) -> object:
        """A run that was removed is trained again, and so are pictures that were added."""
        return runs.seen.state(run_name, folder or "")

    @classmethod
    def execute(
        cls,
        model: Model,
        folder: str,
        run_name: str,
        pictures: int,
        resolution: int,
        batch: int,
        learning_rate: float,
        augment: str,
        mirror: bool,
        seed: int,
        images: Tensor | None = None,
        r1_gamma: float = 0.0,
        path_length: float = 2.0,
        discriminator_rate: float = 0.002,
        freeze_d: int = 0,
        patches: float = 0.0,
        snapshot_every: int = 5000,
        new_data: bool = False,
        labels: str = _AS_THE_MODEL,
        aspect: str = "",
        alpha: bool = False,
    ) -> io.NodeOutput:
        config = model.generator.config
        side = resolution or config.img_resolution
        recipe = {
            "batch": batch,
            "total": pictures,
            "g_lr": learning_rate,
            "d_lr": discriminator_rate,
            "pl_weight": path_length,
            "augment": augment,
            "freeze_d": freeze_d,
            "patches": patches,
            "seed": seed,
            **({"r1_gamma": r1_gamma} if r1_gamma else {}),
        }
        computed = {
            "ema_images": max(10.0 * batch, min(batch * 10_000 / 32, 0.05 * pictures)),
            "ema_rampup": 0.0,
            "ada_images": 100_000.0,
        }
        data = {"mirror": mirror, "max_side": 4 * side, "aspect": aspect.strip() or None}
        request = RunRequest(
            runs.opener(images, config.c_dim),
            source=runs.source(folder, images),
            start=model.generator.name,
            open_start=lambda: networks_of(model.generator),
            weights=lambda: fingerprint(model.generator),
            recipe=recipe,
            computed=computed,
            data={**data, "labels": None if labels == _AS_THE_MODEL else labels},
            shape={**({"resolution": resolution} if resolution else {}), **({"channels": 4} if alpha else {})},
            generator={name: v for name, v in config.to_dict().items() if name not in ("img_channels", "c_dim")},
            new_data=new_data,
            terms=_TERMS,
        )
        name = run_name.strip() or runs.name_for(model, request, images)
        run = Run(runs.run_folder(name), tick=max(batch, min(500, pictures // 20)), snapshot_every=snapshot_every)
        with _training(), run.lock:
            begun = begin(run, request, device=mm.get_torch_device())
            trainer, notes = begun.trainer, list(begun.notes)
            if begun.finished:
                notes.insert(0, finished_note(run, trainer, _TERMS))
            generator = train(run, trainer, begun.pictures, progress=_progress(cls.hidden.unique_id))
            grid = opaque(sample_grid(generator, max(side, _PREVIEW_SIDE)))
        runs.seen.left(run_name, folder)
        generator.requires_grad_(False).name = name
        generator.origin = str(run.generator_file)
        losses = [line["loss/G"] for line in read_stats(run.folder) if "loss/G" in line] or [0.0]
        if min(losses) == max(losses):  # Plot Loss Graph divides by the difference
            losses.append(losses[-1] + 1e-6)
        shown = f"{trainer.num_images:,} pictures shown, {trainer.skipped} steps skipped"
        report = "\n".join([*notes, str(begun.pictures.report), shown, str(run.folder)])
        samples = torch.from_numpy(grid.copy())[None] / 255
        return io.NodeOutput(bridge.to_model(generator), {"loss": losses}, samples, report, ui=ui.PreviewText(report))


class SaveGenerator(bridge.Prefixed):
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
                ModelSocket.Input("model", tooltip="The generator to keep."),
                io.String.Input(
                    "filename_prefix",
                    default="generator",
                    tooltip="Name of the file; a number is added. May begin with folders.",
                ),
                io.Boolean.Input(
                    "half",
                    default=True,
                    advanced=True,
                    tooltip="Store half precision: half the size, and a difference that nobody sees.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Of the file.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Model, filename_prefix: str, half: bool) -> io.NodeOutput:
        path = bridge.new_file(bridge.FOLDER, filename_prefix)
        # Its discriminator goes along: fine-tuning from the file begins with both.
        discriminator = networks_of(model.generator).D
        save_generator(model.generator, path, half=half, discriminator=discriminator)
        return io.NodeOutput(path, ui=ui.PreviewText(path))


@contextmanager
def _training() -> Iterator[None]:
    """ComfyUI in the state that training needs: gradients on, and the memory of other models free.

    Raises:
        MemoryError: it did not fit into the device's memory; with advice.
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
            "other programs that use it, and run the node again: it goes on from the last snapshot"
        ) from error
    finally:
        mm.in_training = before


def _progress(node_id: str):
    """Moves the node's bar, shows samples and figures, and raises ComfyUI's interrupt when the user cancels."""
    bar, sheet, said = comfy.utils.ProgressBar(1), Preview(_PREVIEW_SIDE), 0.0

    def progress(status: Status) -> None:
        nonlocal said
        mm.throw_exception_if_processing_interrupted()
        preview = None
        if (grid := sheet.look(status.trainer.G_ema)) is not None:
            preview = ("JPEG", Image.fromarray(opaque(grid)), previews.SIDE)
        if time.monotonic() - said > _TEXT_SECONDS:
            said = time.monotonic()
            PromptServer.instance.send_progress_text(str(status), node_id)
        bar.update_absolute(min(status.num_images, status.total), status.total, preview)

    return progress
