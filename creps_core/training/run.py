"""A run: a folder in which a training leaves its statistics, sample grids, snapshots and the generator.

run.json                        what is trained, on what, how; and what was changed since
stats.jsonl                     a line per tick
reals.png, fakes-<shown>.png    grids
snapshot-<shown>.safetensors    the state; the last ones are kept, and the best
generator.safetensors           the moving average, for the loader; half precision
unfinished/                     features, while a snapshot is measured

Files of other names are left alone.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...common.devices import free_memory
from ...common.duration import duration
from ...common.errors import TrainingError
from ...common.files import replace_file, write_json, write_png
from ..checkpoints import read_checkpoint, save_generator
from ..data import Batches, ImageDataset, WindowCutter, can_cut_on
from ..latents import sample
from ..network import Discriminator, Generator, LabelSet
from ..rendering import frame_size, render
from .curves import loss_plot
from .identity import Identity
from .lock import FolderLock
from .patches import random_box
from .snapshot_metrics import PREFIX, Judge
from .snapshots import save_snapshot
from .trainer import Trainer

log = logging.getLogger("CREPS")

GRID = (8, 4)  # columns, rows
KEPT_SNAPSHOTS = 2
DESCRIPTION = "run.json"
_SNAPSHOT = re.compile(r"snapshot-\d{10,}\.safetensors")
# Left by a run that was killed while it wrote; the last kind is of the library that writes safetensors.
_LEFTOVER = re.compile(
    r"\.(run\.json|stats\.jsonl|(reals|losses|fakes-\d{10,})\.png|(snapshot-\d{10,}|generator)\.safetensors)\..*partial"
    r"|\.tmp\w{6}"
)
_MOST_LABELS = 1 << 21  # numbers, of labels that are lists of them, kept in a checkpoint
PICTURES_SHARE = 1 / 8  # of a GPU's free memory, for pictures to cut windows from
TICKS_OF_GUESSING = 5  # after which a discriminator that tells nothing is reported


@dataclass(frozen=True)
class Status:
    """How far a run is, after a step."""

    num_images: int  # shown to the discriminator so far
    total: int
    images_per_second: float  # over the last seconds
    seconds_left: float
    stats: dict[str, float]  # of the last tick, {} before the first
    trainer: Trainer

    def __str__(self) -> str:
        shown = [name for name in self.stats if name.startswith("loss/")]
        shown += ["augment/p"] if self.stats.get("augment/p") else []
        losses = ", ".join(f"{name} {self.stats[name]:.3g}" for name in shown)
        left = duration(self.seconds_left)
        return (
            f"{self.num_images:,} of {self.total:,} pictures, {self.images_per_second:.1f} per second, {left} left"
            + (f"; {losses}" if losses else "")
        )


@dataclass
class Run:
    """The folder of a run, and how often it is written to."""

    folder: Path
    tick: int = 1000  # pictures between lines of statistics
    snapshot_every: int = 20_000  # pictures between snapshots
    keep: int = KEPT_SNAPSHOTS
    info: dict[str, Any] = field(default_factory=dict)  # for run.json
    judge: Judge | None = None  # of the snapshots

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.lock = FolderLock(self.folder)
        """To be held while the run is worked on: `with run.lock`."""
        self.check()

    def check(self) -> None:
        """Raises ValueError: a number is less than 1."""
        for name in ("tick", "snapshot_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def generator_file(self) -> Path:
        """The moving average, with the discriminator."""
        return self.folder / "generator.safetensors"

    def snapshots(self) -> list[Path]:
        """The snapshots that the run itself has named, oldest first."""
        found = [path for path in self.folder.glob("snapshot-*.safetensors") if _SNAPSHOT.fullmatch(path.name)]
        return sorted(found, key=lambda path: shown_of(path.name))

    def best(self) -> Path | None:
        """The best of the snapshots that are there, as far as they were measured."""
        there = {shown_of(path.name): path for path in self.snapshots()}
        shown = self.judge.best(read_stats(self.folder), set(there)) if self.judge else None
        return None if shown is None else there[shown]

    @property
    def unfinished(self) -> Path:
        """A folder for what is computed while a snapshot is measured."""
        return self.folder / "unfinished"

    def put_aside(self, snapshot: Path) -> None:
        """Rename a damaged snapshot, so that the run can go on from an older one and nothing is lost."""
        with _disk(self):
            snapshot.replace(snapshot.with_name(f"{snapshot.name}.damaged"))

    def description(self) -> tuple[dict[str, Any], str]:
        """What is in `run.json`, {} if nothing can be read; and then why, in a few words."""
        path = self.folder / DESCRIPTION
        try:
            content = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}, f"{path} is missing"
        except (OSError, ValueError, RecursionError):
            return {}, f"{path} is empty or damaged"
        return (content, "") if isinstance(content, dict) else ({}, f"{path} is damaged")

    def describe(self, identity: Identity, history: list[dict[str, Any]]) -> None:
        """What `run.json` and the snapshots shall say of the run: what it is, and what was changed since it began."""
        self.info |= {
            "data_source": identity.source,
            "start": identity.start,
            "identity": identity.to_dict(),
            "history": history,
        }


def shown_of(name: str) -> int:
    """The pictures shown, by the name of a snapshot."""
    return int(name.removeprefix("snapshot-").partition(".")[0])


def train(
    run: Run,
    trainer: Trainer,
    pictures: ImageDataset,
    *,
    progress: Callable[[Status], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Generator:
    """Train until `recipe.total` pictures have been shown, or until told to stop; then, and at times, save.

    Args:
        run: where to write.
        trainer: new, or from `load_snapshot`; it goes on where it is.
        pictures: the data; its resolution is the discriminator's.
        progress: called after every step. What it raises ends the run, after a snapshot.
        stop: asked after every step whether to end, after a snapshot.

    Returns:
        The moving average of the generator, on the CPU.

    Raises:
        TrainingError: the data do not fit the networks, the training diverges, or a file cannot be written; the last
            snapshot is whole.
    """
    with run.lock if trainer.process.is_first else nullcontext():
        return _train(run, trainer, pictures, progress, stop)


def _train(
    run: Run,
    trainer: Trainer,
    pictures: ImageDataset,
    progress: Callable[[Status], None] | None,
    stop: Callable[[], bool] | None,
) -> Generator:
    recipe, process = trainer.recipe, trainer.process
    _check(trainer, pictures)
    if newer := [path.name for path in run.snapshots() if shown_of(path.name) > trainer.num_images]:
        raise TrainingError(
            f"{run.folder.name}: holds {newer[-1]}, which is beyond these {trainer.num_images} pictures: go on from "
            "there, remove it, or choose another folder"
        )
    teach(trainer, pictures)
    if (
        trainer.num_images >= recipe.total and run.snapshots()
    ):  # what is there describes what was done: leave it as it is
        if process.is_first:
            _complete(run, trainer)
        return _result(trainer)
    writer = _Writer(run, trainer, pictures) if process.is_first else None

    def window(rng: np.random.Generator, side: int) -> tuple[float, float, float, float]:
        return random_box(rng, side, pictures.resolution, recipe.patches)

    batches = Batches(
        pictures,
        recipe.batch // process.world,
        seed=recipe.seed,
        start=trainer.num_images,
        rank=process.rank,
        world=process.world,
        window=window if recipe.patches else None,
        workers=2 if trainer.device.type == "cpu" else min(8, os.cpu_count() or 1),
        pin=trainer.device.type == "cuda",
        cutter=_window_cutter(trainer, pictures),
    )
    clock = _Clock(trainer.num_images)
    saved = trainer.num_images
    whole = True  # the state is that between two steps
    try:
        with batches:
            while trainer.num_images < recipe.total:
                batch = next(batches)
                whole = False
                stats = trainer.step(batch.images, batch.labels, batch.windows)
                whole = True
                if writer:
                    writer.add(trainer, stats, clock, batches.wait_seconds)
                due = trainer.num_images // run.snapshot_every > saved // run.snapshot_every
                if due:
                    _keep(run, trainer, pictures, writer)
                saved = trainer.num_images if due else saved
                if progress and writer:
                    progress(clock.status(trainer, writer.last))
                if _any(trainer, stop() if stop else False):
                    break
    except BaseException as error:
        # Whatever it was, the pictures shown so far are not lost; unless there is no place to write.
        if writer and whole and writer.saved < trainer.num_images and not isinstance(error, TrainingError):
            writer.snapshot(trainer)
        raise
    if trainer.num_images >= recipe.total and saved < trainer.num_images:
        _keep(run, trainer, pictures, writer)
    if writer:
        if writer.saved < trainer.num_images or not run.snapshots():
            writer.snapshot(trainer)
        writer.close()
    process.wait()
    return _result(trainer)


def _keep(run: Run, trainer: Trainer, pictures: ImageDataset, writer: _Writer | None) -> None:
    """Write a snapshot, and measure it; in all processes."""
    if writer:
        writer.snapshot(trainer)
    if run.judge is not None:
        found = run.judge.measure(trainer, pictures)
        if writer:
            writer.judged(trainer, found)


def _window_cutter(trainer: Trainer, pictures: ImageDataset) -> WindowCutter | None:
    """What cuts windows where Pillow is not to; both give the same pictures."""
    if not trainer.recipe.patches or not can_cut_on(pictures, trainer.device):
        return None
    cutter = WindowCutter(pictures, trainer.device, int((free_memory(trainer.device) or 0) * PICTURES_SHARE))
    log.info("windows are cut on %s; pictures are %s", trainer.device, "there" if cutter.resident else "copied there")
    return cutter


def teach(trainer: Trainer, pictures: ImageDataset) -> None:
    """Tell the networks what they learn from: the labels to draw, and what will be kept of them with the generator."""
    trainer.inputs.labels = pictures.all_labels()  # class numbers stay numbers: vectors of them may take gigabytes
    found = pictures.label_counts()
    labels = None if found is None else LabelSet(*_at_most(*found), pictures.class_names)
    for generator in (trainer.G, trainer.G_ema):
        generator.labels, generator.aspect = labels, pictures.aspect


def _at_most(values: np.ndarray, counts: np.ndarray) -> tuple[Tensor, Tensor]:
    """The labels and their counts; of lists of numbers a random choice that a checkpoint has room for."""
    if values.ndim > 1 and values.size > _MOST_LABELS:
        chosen = np.random.default_rng(0).choice(len(values), max(1, _MOST_LABELS // values.shape[1]), replace=False)
        values, counts = values[chosen], counts[chosen]
    return torch.from_numpy(values), torch.from_numpy(counts)


def _result(trainer: Trainer) -> Generator:
    generator = copy.deepcopy(trainer.G_ema).cpu().eval()
    generator.fingerprint = ""  # that of the generator it began with
    return generator


def snapshot_name(shown: int) -> str:
    """Names whose order is that of the pictures shown."""
    return f"snapshot-{shown:010d}.safetensors"


def sample_grid(generator: Generator, side: int, columns: int = GRID[0], rows: int = GRID[1]) -> np.ndarray:
    """Pictures of the seeds 0, 1, ... as one: uint8 [rows * height, columns * width, 3 or 4 with alpha].

    The longer side of each has `side` pixels; labels are drawn as `sample` does.
    """
    height, width = frame_size(side, generator.aspect)
    with torch.no_grad():
        images = render(generator, sample(generator, range(columns * rows)), height=height, width=width)
    return tile(((images.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), columns)


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Pictures uint8 [N, C, H, W] side by side, uint8 [rows * H, columns * W, 3 or 4]; a last row may be short."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    sheet[:count] = images
    sheet = rearrange(sheet, "(row column) c h w -> (row h) (column w) c", row=rows)
    return (sheet.expand(-1, -1, 3) if channels == 1 else sheet).numpy()


def upright(images: Tensor, aspect: tuple[int, int]) -> Tensor:
    """Pictures uint8 [N, C, side, side] of a data set, stretched to a square, at the aspect that they had."""
    height, width = frame_size(images.shape[-1], aspect)
    if height == width:
        return images
    return F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True).round().to(torch.uint8)


class _Clock:
    """Pictures per second over the last half minute."""

    def __init__(self, shown: int):
        self.begin = time.monotonic()
        self._marks = [(self.begin, shown)]

    def status(self, trainer: Trainer, stats: dict[str, float]) -> Status:
        now = time.monotonic()
        self._marks.append((now, trainer.num_images))
        while len(self._marks) > 2 and now - self._marks[0][0] > 30:
            self._marks.pop(0)
        seconds, shown = now - self._marks[0][0], trainer.num_images - self._marks[0][1]
        rate = shown / max(seconds, 1e-9)
        left = (trainer.recipe.total - trainer.num_images) / max(rate, 1e-9)
        return Status(trainer.num_images, trainer.recipe.total, rate, left, stats, trainer)


class _Writer:
    """What the first process leaves in the folder."""

    def __init__(self, run: Run, trainer: Trainer, pictures: ImageDataset):
        self.run, self.last = run, {}
        self._sums: dict[str, list[Tensor]] = {}
        self._began, self._shown, self._waited = time.monotonic(), trainer.num_images, 0.0
        self._guessed = 0  # ticks in a row
        self.saved = trainer.num_images  # as of the last snapshot
        self._board = _tensorboard(run.folder)
        with _disk(run):
            run.folder.mkdir(parents=True, exist_ok=True)
            for stale in run.folder.glob(".*"):
                if _LEFTOVER.fullmatch(stale.name):
                    stale.unlink(missing_ok=True)
            shutil.rmtree(run.unfinished, ignore_errors=True)
            _forget_after(run.folder / "stats.jsonl", trainer.num_images)
            write_json(run.folder / DESCRIPTION, _description(trainer, pictures, run))
            count = min(GRID[0] * GRID[1], len(pictures))
            write_png(run.folder / "reals.png", tile(upright(pictures.images(range(count)), pictures.aspect), GRID[0]))

    def add(self, trainer: Trainer, stats: dict[str, Tensor], clock: _Clock, waited: float) -> None:
        for name, value in stats.items():
            self._sums.setdefault(name, []).append(value)
        if trainer.num_images // self.run.tick == self._shown // self.run.tick:
            return
        means = {name: _finite_mean(torch.stack(values).cpu()) for name, values in self._sums.items()}
        self.last = {name: value for name, value in means.items() if math.isfinite(value)}
        self._sums.clear()
        self._watch()
        now = time.monotonic()
        line = {
            "shown": trainer.num_images,
            "steps": trainer.steps,
            "seconds": round(now - clock.begin, 3),
            "images_per_second": round((trainer.num_images - self._shown) / max(now - self._began, 1e-9), 3),
            "skipped": trainer.skipped,
            "waiting": round((waited - self._waited) / max(now - self._began, 1e-9), 4),  # for data, of the time
            **{name: round(value, 6) for name, value in self.last.items()},
        }
        self._began, self._shown, self._waited = now, trainer.num_images, waited
        self._log(line, self.last)

    def _watch(self) -> None:
        """Warns once of a discriminator that tells nothing: losses look calm, and the generator learns nothing."""
        guesses = abs(self.last.get("loss/D", 0.0) - 2 * math.log(2)) < 0.03
        self._guessed = self._guessed + 1 if guesses else 0
        if self._guessed == TICKS_OF_GUESSING:
            log.warning(
                "for %d ticks the discriminator has not told real from generated pictures (loss/D %.3f, guessing gives "
                "1.386): the generator learns nothing from it. Lower --gamma (a tenth, say), or begin again from an "
                "earlier snapshot",
                TICKS_OF_GUESSING,
                self.last["loss/D"],
            )

    def snapshot(self, trainer: Trainer) -> None:
        """The state, then what is made of it; then snapshots beyond the last ones are removed."""
        folder = self.run.folder
        with _disk(self.run):
            save_snapshot(trainer, folder / snapshot_name(trainer.num_images), self.run.info)
            self.saved = trainer.num_images
            if not self._choosing or not self.run.generator_file.exists():
                _publish(self.run, trainer.G_ema, trainer.D, trainer.num_images)
        grid = sample_grid(trainer.G_ema, trainer.D.config.img_resolution)
        with _disk(self.run):
            write_png(folder / f"fakes-{trainer.num_images:010d}.png", grid)
            self._plot()
            best = self.run.best()
            for old in self.run.snapshots()[: -self.run.keep]:
                if old != best:
                    old.unlink(missing_ok=True)

    @property
    def _choosing(self) -> bool:
        """Whether the generator is to be that of the best snapshot."""
        return self.run.judge is not None and self.run.judge.chooses

    def _plot(self) -> None:
        if (losses := loss_plot(read_stats(self.run.folder))) is not None:
            write_png(self.run.folder / "losses.png", np.asarray(losses))

    def judged(self, trainer: Trainer, found: dict[str, float]) -> None:
        """The numbers of the snapshot that was written last; a best one gives the generator."""
        values = {PREFIX + name: value for name, value in found.items() if math.isfinite(value)}
        self._log({"shown": trainer.num_images, **values}, values)
        log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        with _disk(self.run):
            self._plot()
            best = self.run.best()
            if self._choosing and best == self.run.folder / snapshot_name(trainer.num_images):
                _publish(self.run, trainer.G_ema, trainer.D, trainer.num_images)

    def _log(self, line: dict[str, float], values: dict[str, float]) -> None:
        with _disk(self.run), (self.run.folder / "stats.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, line["shown"])

    def close(self) -> None:
        if self._board:
            self._board.close()


def _publish(run: Run, generator: Generator, discriminator: Discriminator | None, shown: int) -> None:
    """The generator for the loader."""
    details = {"trained": f"{shown} pictures", **run.info}
    # It may be given to others: where the pictures lie is not their business.
    for private in ("identity", "history", "metrics"):
        details.pop(private, None)
    if "data_source" in details:
        details["data_source"] = Path(details["data_source"]).name
    store = partial(
        save_generator,
        generator,
        run.generator_file,
        details=details,
        discriminator=discriminator,
    )
    try:
        store(half=True)
    except ValueError:  # weights that float16 cannot hold
        store()


def _complete(run: Run, trainer: Trainer) -> None:
    """The generator of a finished run, where it is missing: removed, or the run was killed before it wrote it."""
    file = run.generator_file
    best = run.best() if run.judge is not None and run.judge.chooses else None
    source = best or run.snapshots()[-1]
    if not file.exists() or file.stat().st_mtime < source.stat().st_mtime:
        with _disk(run):
            if source == run.snapshots()[-1]:
                _publish(run, trainer.G_ema, trainer.D, trainer.num_images)
            else:
                kept = read_checkpoint(source)
                _publish(run, kept.generator("G_ema"), kept.discriminator(), shown_of(source.name))


class _disk:
    """Says what to do when the disk is full or the folder cannot be written to."""

    def __init__(self, run: Run):
        self.run = run

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            last = "The last snapshot is whole" if self.run.snapshots() else "Nothing is kept of the run"
            raise TrainingError(
                f"{self.run.folder.name}: cannot be written to ({error}). {last}: make room (a snapshot takes three "
                "times the size of the networks, twice over) and start the same run again to go on"
            ) from error


def _check(trainer: Trainer, pictures: ImageDataset) -> None:
    d = trainer.D.config
    for name, theirs, ours in (
        ("resolution", pictures.resolution, d.img_resolution),
        ("channels", pictures.channels, d.img_channels),
        ("c_dim", pictures.c_dim, d.c_dim),
    ):
        if theirs != ours:
            raise TrainingError(f"the data have {name} {theirs}, the discriminator {ours}: they must agree")


def _finite_mean(values: Tensor) -> float:
    """The mean of what is finite: the losses of a step that was skipped are not. Nan when nothing is."""
    return float(values[values.isfinite()].mean())


def _any(trainer: Trainer, flag: bool) -> bool:
    """Whether any process says so."""
    if trainer.process.world == 1:
        return flag
    return bool(trainer.process.mean(torch.tensor(float(flag), device=trainer.device)) > 0)


def _description(trainer: Trainer, pictures: ImageDataset, run: Run) -> dict[str, Any]:
    from .. import __version__

    return {
        "version": __version__,
        "torch": torch.__version__,
        "device": str(trainer.device),
        "processes": trainer.process.world,
        "generator": trainer.G.config.to_dict(),
        "discriminator": trainer.D.config.to_dict(),
        "recipe": trainer.recipe.to_dict(),
        "data": {
            "pictures": pictures.report.used,
            "mirror": pictures.mirror,
            "fingerprint": pictures.fingerprint,
            "skipped": pictures.report.skipped[:1000],
            "notes": pictures.report.notes,
        },
        "intervals": {name: getattr(run, name) for name in ("tick", "snapshot_every", "keep")},
        **run.info,
    }


def read_stats(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The lines of a run's `stats.jsonl`; a torn last one is left out."""
    return list(_lines(Path(folder) / "stats.jsonl"))


def _lines(path: Path) -> Iterator[dict[str, float]]:
    if not path.is_file():
        return
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("shown"), int):
            yield line


def _forget_after(path: Path, shown: int) -> None:
    """Drop the statistics of steps that a killed run took after its last snapshot: they will be taken again."""
    if path.is_file():
        text = "".join(json.dumps(line) + "\n" for line in _lines(path) if line["shown"] <= shown)
        replace_file(path, lambda file: file.write(text.encode()))


def _tensorboard(folder: Path):
    """A writer of TensorBoard's, when it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
