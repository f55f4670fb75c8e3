"""Data sets: pictures of a folder, an archive or an IMAGE batch, checked once and kept small."""

from __future__ import annotations

import hashlib
import math
import os
import re
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...common.errors import DatasetError, require
from .decode import EMPTY, MODES, NOT_READ, Frame, Unidentified, cut, decode, square
from .kinds import canonical, ending, endings, judge, printable
from .labels import (
    FROM_FILE,
    FROM_FOLDERS,
    LABELS,
    NO_LABELS,
    Labels,
    holds_labels,
    is_labels,
    labels_from_folders,
    read_labels,
)
from .report import Report, described_labels
from .sources import Source, Unusable, open_source

Box = tuple[float, float, float, float]
"""left, top, right, bottom as fractions of a picture's square"""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class ImageDataset:
    """Pictures as squares of 8 bits, in memory as far as `cache_bytes` reaches, otherwise decoded again when asked for.

    Comes from `open_dataset` or `from_images`. With `mirror` it is twice as long: the second half is the first one
    flipped left to right. Its methods may be called from several threads at once.
    """

    def __init__(self, frame: Frame, cache_bytes: float, mirror: bool):
        self.frame, self.mirror = frame, mirror
        self.resolution, self.channels = frame.resolution, frame.channels
        self.c_dim = 0
        self.report = Report(0, [], {})
        self.names: list[str] = []
        """Of the pictures, without the flipped ones."""
        self.fingerprint = ""
        """SHA-256 over names, contents and labels: the same pictures in another place have the same."""
        self.options: dict[str, Any] = {}
        """How they were opened: crop, mirror, labels, aspect, max_pictures."""
        self.class_names: dict[int, str] = {}
        """Of classes, as far as they have names."""
        self._sides = np.empty(0, np.int32)
        self._labels: np.ndarray | None = None  # int64 [n] or float32 [n, c_dim]
        self._source: Source | None = None
        self._cache = _Cache(cache_bytes)

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirror else 1)

    def pictures(self, indices: Sequence[int], *, boxes: Sequence[Box] | None = None) -> Tensor:
        """Pictures, or parts of them.

        Args:
            indices: N, each from 0 to len - 1.
            boxes: N parts to cut out of the stored pictures, which may be larger than the resolution; None: the whole
                pictures.

        Returns:
            uint8 [N, channels, resolution, resolution].

        Raises:
            IndexError: there is no such picture.
            ValueError: a box that is empty or reaches beyond the picture.
            DatasetError: a file changed since the data set was opened.
        """
        out = np.empty((len(indices), self.channels, self.resolution, self.resolution), np.uint8)
        if boxes is not None and len(boxes) != len(indices):
            raise ValueError(f"{len(boxes)} boxes for {len(indices)} pictures; one each is needed")
        for position, index in enumerate(indices):
            row, flipped = self._row(index)
            stored = self.stored(row)
            if flipped:
                stored = stored[:, :, ::-1]
            box = WHOLE if boxes is None else checked(boxes[position])
            out[position] = cut(stored, box, self.resolution)
        return torch.from_numpy(out)

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Labels, float32 [N, c_dim]; classes as 1 at their number. Raises IndexError: there is no such picture."""
        rows = [self._row(index)[0] for index in indices]
        out = np.zeros((len(rows), self.c_dim), np.float32)
        if self._labels is not None and rows:
            if self._labels.ndim == 1:
                out[np.arange(len(rows)), self._labels[rows]] = 1
            else:
                out[:] = self._labels[rows]
        return torch.from_numpy(out)

    def side(self, index: int) -> int:
        """The side at which a picture is stored: of the original, but from the resolution to max_side."""
        return int(self._sides[self._row(index)[0]])

    def place(self, index: int) -> tuple[int, bool, int]:
        """Of a picture: the row in which it is stored, whether it is shown flipped, and its stored side."""
        row, flipped = self._row(index)
        return row, flipped, int(self._sides[row])

    @property
    def largest_side(self) -> int:
        """Of the stored pictures."""
        return int(self._sides.max())

    @property
    def stored_bytes(self) -> int:
        """That all pictures take, flipped ones not counted."""
        return int((self._sides.astype(np.int64) ** 2).sum()) * self.channels

    @property
    def in_memory(self) -> bool:
        """Whether all pictures are there without being decoded again."""
        return self._cache.whole

    def all_labels(self) -> Tensor | None:
        """Of all pictures, flipped ones too: classes int64 [len], or float32 [len, c_dim]; None without labels."""
        if self._labels is None:
            return None
        return torch.from_numpy(np.concatenate([self._labels] * (2 if self.mirror else 1)))

    def label_counts(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The different labels, class numbers int64 [K] or float32 [K, c_dim], and how many pictures have them, [K]."""
        if self._labels is None:
            return None
        return np.unique(self._labels, axis=0, return_counts=True)

    def widen(self, c_dim: int) -> None:
        """Make room for more classes than the pictures have; nothing happens where labels are lists of numbers."""
        if self._labels is not None and self._labels.ndim == 1:
            self.c_dim = max(self.c_dim, c_dim)

    def close(self) -> None:
        """Close the archive, if one is still needed. Pictures that are not in memory are lost."""
        if self._source is not None:
            self._source.close()

    def _row(self, index: int) -> tuple[int, bool]:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"there is no picture {index}; there are {len(self)}, counted from 0")
        flipped, row = divmod(index, len(self.names))
        return row, bool(flipped)

    def stored(self, row: int) -> np.ndarray:
        """A picture as it is kept, uint8 [channels, side, side], from memory or decoded again; `row` counts those that
        are not flipped. Raises DatasetError as `pictures` does.
        """
        stored = self._cache.get(self.names[row])
        if stored is None:
            name, source = self.names[row], self._source
            assert source is not None
            try:
                stored, _ = decode(lambda: source.read(name), source.size(name), self.frame)
            except Unusable as error:
                raise DatasetError(
                    f"{source.path.name}: {printable(name)} was all right when the data set was opened, and is not "
                    f"now: {error}; leave the files alone while they are in use"
                ) from error
            if stored.shape[1] != self._sides[row]:
                raise DatasetError(
                    f"{source.path.name}: {printable(name)} is another picture than when the data set was opened; "
                    "leave the files alone while they are in use"
                )
            self._cache.put(name, stored)
        return stored


def open_dataset(
    source: str | os.PathLike[str],
    *,
    resolution: int,
    channels: int = 3,
    crop: str = "center",
    mirror: bool = False,
    use_labels: bool | str = False,
    aspect: str = "1:1",
    max_side: int | None = None,
    max_pictures: int | None = None,
    seed: int = 0,
    cache_bytes: int = 2 << 30,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageDataset:
    """Open a data set: look at every picture once, and keep what fits into `cache_bytes`.

    What is no picture by its name nor by its first bytes is passed over. Pictures that cannot be used are skipped; the
    report of the result says which, and why.

    Args:
        source: a folder, with all folders in it, or a zip file.
        resolution, channels, crop, max_side: as of `Frame`.
        mirror: every picture also flipped left to right.
        use_labels: True or "file": those of `dataset.json`, {"labels": [[name, class number or list of numbers], ...]};
            "folders": the folder of a picture is its class; False or "none". Pictures without a label are skipped.
        aspect: of the part that is cut out of each picture, width:height.
        max_pictures: take that many at random; None: all.
        seed: of that choice, 0 or more.
        cache_bytes: memory for pictures, in bytes.
        workers: threads; None: one per processor, up to 8.
        progress: called as progress(done, total) in the calling thread; what it raises stops the work.

    Raises:
        DatasetError: there is no such thing, it holds no usable picture, or the labels do not fit.
        ValueError: an argument is outside its range.
    """
    frame = Frame(resolution, channels, crop, max_side, parse_aspect(aspect))
    wanted = {True: FROM_FILE, False: NO_LABELS}.get(use_labels, use_labels)  # type: ignore[call-overload]
    require(wanted in LABELS, f"use_labels must be one of {list(LABELS)}, not {use_labels!r}")
    require(max_pictures is None or max_pictures >= 1, f"max_pictures must be 1 or more, not {max_pictures}")
    require(seed >= 0, f"seed must be 0 or more, not {seed}")
    require(cache_bytes >= 0, f"cache_bytes must be 0 or more, not {cache_bytes}")
    require(workers is None or workers >= 1, f"workers must be 1 or more, not {workers}")
    pictures = ImageDataset(frame, cache_bytes, mirror)
    pictures.options = {
        "crop": crop,
        "mirror": mirror,
        "labels": wanted,
        "aspect": written_aspect(frame.aspect),
        "max_pictures": max_pictures,
    }
    known = endings()
    files = open_source(Path(source), lambda name, head: is_labels(name) or judge(name, head, known))
    try:
        _fill(pictures, files, wanted, max_pictures, seed, workers or min(8, os.cpu_count() or 1), progress)
    except BaseException:
        files.close()
        raise
    if pictures._cache.whole:
        files.close()
    else:
        pictures._source = files
    return pictures


def from_images(
    images: Tensor,
    *,
    resolution: int,
    channels: int = 3,
    crop: str = "center",
    mirror: bool = False,
    aspect: str = "1:1",
    max_side: int | None = None,
) -> ImageDataset:
    """A data set of pictures in memory, such as an IMAGE of ComfyUI.

    Args:
        images: float [N, H, W, C] of 0..1; 1, 3 or 4 channels.
        resolution, channels, crop, max_side: as of `Frame`.
        mirror: every picture also flipped left to right.
        aspect: as of `open_dataset`.

    Raises:
        DatasetError: there is no picture, or none that can be used.
        ValueError: an argument is outside its range.
    """
    frame = Frame(resolution, channels, crop, max_side, parse_aspect(aspect))
    if images.ndim != 4 or images.shape[3] not in MODES or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point [N, H, W, C] with {list(MODES)} channels, "
            f"not {images.dtype} {list(images.shape)}"
        )
    if 0 in images.shape:
        raise DatasetError(f"no pictures: the batch has the shape {list(images.shape)}")
    pictures = ImageDataset(frame, math.inf, mirror)
    pictures.options = {
        "crop": crop,
        "mirror": mirror,
        "labels": NO_LABELS,
        "aspect": written_aspect(frame.aspect),
        "max_pictures": None,
    }
    found: dict[str, _Found] = {}
    for number, image in enumerate(images):
        values = np.nan_to_num(image.detach().float().cpu().numpy()).clip(0, 1)
        levels = np.rint(values * 255).astype(np.uint8)
        notes: list[str] = []
        name = f"image {number}"
        try:
            stored = square(Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0]), frame, notes)
        except Unusable as error:
            found[name] = _Found(error=error)
            continue
        pictures._cache.put(name, stored)
        found[name] = _Found(stored.shape[1], notes, _digest(levels.tobytes()))
    skipped = [(name, str(each.error)) for name, each in found.items() if each.error]
    if len(skipped) == len(found):
        raise DatasetError(f"no usable picture in the batch: {'; '.join(_some(skipped, 1))}")
    _enter(pictures, [name for name, each in found.items() if not each.error], found, skipped)
    return pictures


@dataclass(frozen=True)
class _Found:
    """A file that was looked at: the stored side and what was done to it, or why it cannot be used."""

    side: int = 0
    notes: list[str] = field(default_factory=list)
    digest: bytes = b""
    error: Unusable | None = None


def _fill(
    pictures: ImageDataset,
    files: Source,
    use_labels: str,
    max_pictures: int | None,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    names = [name for name in files.names if not is_labels(name)]
    skipped = list(files.skipped)
    labels = None
    if use_labels == FROM_FILE:
        labels = read_labels(files, names)
    elif use_labels == FROM_FOLDERS:
        labels = labels_from_folders(files, names)
    if labels is not None:
        # Without an ending it may be no picture at all, such as a README.
        skipped += [(name, "no label") for name in names if name not in labels.rows and ending(name)]
        names = [name for name in names if name in labels.rows]
    wanted, queue = len(names), names
    if max_pictures is not None and max_pictures < len(names):
        wanted, queue = max_pictures, [names[i] for i in np.random.default_rng(seed).permutation(len(names))]

    def look(name: str) -> _Found:
        digest = b""

        def read() -> bytes:
            nonlocal digest
            data = files.read(name)
            digest = _digest(data)
            return data

        try:
            stored, notes = decode(read, files.size(name), pictures.frame)
        except Unusable as error:
            return _Found(error=error)
        pictures._cache.put(name, stored)
        return _Found(stored.shape[1], notes, digest)

    found: dict[str, _Found] = {}
    used: list[str] = []
    rest = iter(queue)
    # Another round replaces what could not be used, as long as there is more to choose from.
    while len(used) < wanted and (chosen := list(islice(rest, wanted - len(used)))):
        with closing(_each(look, chosen, workers)) as results:
            for name, result in results:
                found[name] = result
                if result.error is None:
                    used.append(name)
                if progress is not None:
                    progress(*(len(used), wanted) if len(queue) > wanted else (len(found), len(queue)))
    # A name without an ending gives no promise: if it turns out not to be a picture, nothing is missing.
    quiet = [name for name, result in found.items() if _is_nothing(result.error) and not ending(name)]
    files.others[""] += len(quiet)
    for name in quiet:
        del found[name]
    skipped += [(name, str(result.error)) for name, result in found.items() if result.error is not None]
    if not used:
        raise DatasetError(_nothing(files, skipped))
    used.sort(key=lambda name: (canonical(name), name))
    hints = []
    if use_labels == NO_LABELS and holds_labels(files):
        hints.append("there are labels in dataset.json, which are not used: they have to be asked for")
    _enter(pictures, used, found, sorted(skipped), labels, hints)


def _is_nothing(error: Unusable | None) -> bool:
    """Whether a file is no picture, as far as can be seen."""
    return str(error) == EMPTY or (isinstance(error, Unidentified) and str(error) == NOT_READ)


def _enter(
    pictures: ImageDataset,
    used: list[str],
    found: dict[str, _Found],
    skipped: list[tuple[str, str]],
    labels: Labels | None = None,
    hints: Sequence[str] = (),
) -> None:
    pictures.names = used
    pictures._sides = np.array([found[name].side for name in used], np.int32)
    classes = ""
    if labels is not None:
        pictures.c_dim, pictures.class_names = labels.c_dim, labels.names
        pictures._labels = labels.values[[labels.rows[name] for name in used]]
        classes = described_labels(pictures._labels, labels.c_dim, labels.names)
    digest = hashlib.sha256()
    same: dict[bytes, list[str]] = {}
    for number, name in enumerate(used):
        same.setdefault(found[name].digest, []).append(printable(name))
        label = b"" if pictures._labels is None else pictures._labels[number].tobytes()
        digest.update(repr((canonical(name), found[name].digest, label)).encode())
    pictures.fingerprint = digest.hexdigest()
    notes = Counter(note for name in used for note in found[name].notes)
    shown = [(printable(name), printable(reason)) for name, reason in skipped]
    duplicates = [names for names in same.values() if len(names) > 1]
    pictures.report = Report(len(used), shown, dict(sorted(notes.items())), duplicates, classes, list(hints))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def parse_aspect(text: str) -> tuple[int, int]:
    """Width and height as the least whole numbers: "16:9", "32:18" and "1.7778" give such.

    Raises:
        ValueError: it is neither.
    """
    match = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*(?:[:x/]\s*(\d{1,5}(?:\.\d{1,6})?))?\s*", text)
    if match is None or not all(float(part or 1) for part in match.groups()):
        raise ValueError(f"{text!r} is no aspect: give width:height, such as 16:9")
    ratio = (Fraction(match[1]) / Fraction(match[2] or 1)).limit_denominator(10_000)
    return ratio.numerator, ratio.denominator


def same_aspect(text: str) -> str:
    """An aspect as `ImageDataset.options` have it: "32:18" is "16:9"."""
    return written_aspect(parse_aspect(text))


def written_aspect(aspect: tuple[int, int]) -> str:
    """Inverse of `parse_aspect`."""
    return f"{aspect[0]}:{aspect[1]}"


def _each(
    look: Callable[[str], _Found], names: Sequence[str], workers: int, piece: int = 8
) -> Generator[tuple[str, _Found]]:
    """Names with what `look` gives for them, in order, found by threads. Nothing goes on once the caller stops."""
    pieces = iter([names[start : start + piece] for start in range(0, len(names), piece)])
    with ThreadPoolExecutor(workers, "creps-open") as pool:
        waiting: deque[tuple[Sequence[str], Future[list[_Found]]]] = deque()
        try:
            while True:
                for part in islice(pieces, 4 * workers - len(waiting)):
                    waiting.append((part, pool.submit(lambda part: [look(name) for name in part], part)))
                if not waiting:
                    return
                part, future = waiting.popleft()
                yield from zip(part, future.result(), strict=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _nothing(files: Source, skipped: list[tuple[str, str]]) -> str:
    if skipped:
        return f"{files.path.name}: none of {len(skipped)} pictures can be used: {'; '.join(_some(skipped, 3))}"
    others = ", ".join(f"{count} {kind or 'without ending'}" for kind, count in files.others.most_common(5) if count)
    return f"{files.path.name}: there are no pictures in it" + (f", only other files ({others})" if others else "")


def _some(skipped: Sequence[tuple[str, str]], count: int) -> list[str]:
    lines = [f"{printable(name)}: {printable(reason)}" for name, reason in skipped[:count]]
    return lines + ([f"and {len(skipped) - count} more"] if len(skipped) > count else [])


def checked(box: Box) -> Box:
    """The box as floats. Raises ValueError: it is empty or reaches beyond the picture."""
    left, top, right, bottom = (float(edge) for edge in box)
    require(
        0 <= left < right <= 1 and 0 <= top < bottom <= 1,
        f"a box must be left, top, right, bottom from 0 to 1, left < right and top < bottom, not {tuple(box)}",
    )
    return left, top, right, bottom


class _Cache:
    """The pictures used last, as many as go into `limit` bytes."""

    def __init__(self, limit: float):
        self.limit, self.bytes = limit, 0
        self.whole = True
        """Nothing was ever left out."""
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> np.ndarray | None:
        with self._lock:
            array = self._arrays.get(name)
            if array is not None and not self.whole:
                self._arrays.move_to_end(name)
            return array

    def put(self, name: str, array: np.ndarray) -> None:
        with self._lock:
            if name in self._arrays:  # another thread was faster
                return
            self._arrays[name] = array
            self.bytes += array.nbytes
            while self.bytes > self.limit:
                self.whole = False
                _, oldest = self._arrays.popitem(last=False)
                self.bytes -= oldest.nbytes
