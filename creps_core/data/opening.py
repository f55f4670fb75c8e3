"""Opening a dataset from a folder, an archive or an IMAGE batch: every image is validated once."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...common.class_names import equal_names
from ...common.errors import DatasetError, require
from ...common.progress import Progress
from .aspect import format_aspect, parse_aspect
from .colour import MODES
from .crop import CropSpec, crop_to_square
from .dataset import ImageDataset
from .file_types import classify_file, image_suffixes, mask_unprintable, normalize_name, suffix
from .labels import (
    FROM_FILE,
    FROM_FOLDERS,
    LABEL_SOURCES,
    NO_LABELS,
    Labels,
    has_labels_file,
    is_labels_file,
    labels_from_folders,
    read_labels,
)
from .report import DatasetReport, describe_labels
from .scan import ScannedFile, content_digest, file_decoder, scan_files, shuffle_names
from .sources import FileFilter, ImageSource, UnusableFile, open_source


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
    exclude: Sequence[str] = (),
    seed: int = 0,
    cache_bytes: int = 2 << 30,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageDataset:
    """Open a dataset: decode every image once, and keep what fits into `cache_bytes`.

    Files that are not images by name or first bytes are ignored. Images that cannot be used are skipped; the report of
    the result lists them with reasons.

    Args:
        source: a folder, including subfolders, or a zip file.
        resolution, channels, crop, max_side: see `CropSpec`.
        mirror: add every image flipped left to right.
        use_labels: True or "file": from `dataset.json`, {"labels": [[name, class number or list of numbers], ...]};
            "folders": an image's folder is its class; False or "none". Images without a label are skipped.
        aspect: of the crop, width:height.
        max_pictures: use at most this many images, chosen at random; None: all.
        exclude: shell patterns, such as "*_nm*", of names or paths to leave out; they are reported.
        seed: of that choice, 0 or more.
        cache_bytes: memory for images, in bytes.
        workers: threads; None: one per processor, up to 8.
        progress: called as progress(done, total) in the calling thread; an exception it raises stops the work.

    Raises:
        DatasetError: there is no such source, it has no usable image, or the labels do not fit.
        ValueError: an argument is outside its range.
    """
    spec = CropSpec(resolution, channels, crop, max_side, parse_aspect(aspect))
    labels = {True: FROM_FILE, False: NO_LABELS}.get(use_labels, use_labels)  # type: ignore[call-overload]
    require(labels in LABEL_SOURCES, f"use_labels must be one of {list(LABEL_SOURCES)}, not {use_labels!r}")
    require(max_pictures is None or max_pictures >= 1, f"max_pictures must be 1 or more, not {max_pictures}")
    require(seed >= 0, f"seed must be 0 or more, not {seed}")
    require(cache_bytes >= 0, f"cache_bytes must be 0 or more, not {cache_bytes}")
    require(workers is None or workers >= 1, f"workers must be 1 or more, not {workers}")
    dataset = _empty_dataset(spec, cache_bytes, mirror, labels, max_pictures)
    files = open_source(Path(source), _file_filter(exclude))
    try:
        _fill_from_files(dataset, files, seed, workers or min(8, os.cpu_count() or 1), progress)
    except BaseException:
        files.close()
        raise
    if dataset.in_memory:
        files.close()
    else:
        dataset._source = files
    return dataset


def _file_filter(exclude: Sequence[str]) -> FileFilter:
    """Decide by name and first bytes which files to read; the patterns leave files out."""
    suffixes = image_suffixes()

    def choose(name: str, head: Callable[[], bytes]) -> bool | str:
        if is_labels_file(name):
            return True
        if any(fnmatchcase(part, pattern) for pattern in exclude for part in (name, name.rpartition("/")[2])):
            return "excluded"
        return classify_file(name, head, suffixes)

    return choose


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
    """A dataset of images in memory, such as an IMAGE of ComfyUI. The same images as from files of these pixels.

    Args:
        images: float [N, H, W, C], 0..1; 1, 3 or 4 channels. What is transparent is laid on white, unless
            `channels` is 4.
        resolution, channels, crop, max_side: see `CropSpec`.
        mirror, aspect: see `open_dataset`.

    Raises:
        DatasetError: there is no image, or none that can be used.
        ValueError: an argument is outside its range.
    """
    spec = CropSpec(resolution, channels, crop, max_side, parse_aspect(aspect))
    if images.ndim != 4 or images.shape[3] not in MODES or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point [N, H, W, C] with {list(MODES)} channels, "
            f"not {images.dtype} {list(images.shape)}"
        )
    if 0 in images.shape:
        raise DatasetError(f"no pictures: the batch has the shape {list(images.shape)}")
    dataset = _empty_dataset(spec, math.inf, mirror, NO_LABELS, None)
    results = {f"image {number}": _scan_tensor(dataset, number, image) for number, image in enumerate(images)}
    usable = [name for name, result in results.items() if result.error is None]
    skipped = [(name, str(result.error)) for name, result in results.items() if result.error is not None]
    if not usable:
        raise DatasetError(f"no usable picture in the batch: {'; '.join(_first_reasons(skipped, 1))}")
    _set_contents(dataset, usable, results, skipped)
    return dataset


def with_mask(images: Tensor | None, mask: Tensor) -> Tensor:
    """Images with alpha, [N, H, W, 4]: 1 - mask, as Load Image and Render CREPS mean it.

    Args:
        images: [N, H, W, 3 or more]; their own alpha is replaced.
        mask: [N or 1, H, W] or [H, W], 1 where an image is transparent. An empty one of any size changes nothing: Load
            Image gives 64 x 64 zeros for an image without alpha.

    Raises:
        ValueError: there are no images, or the mask has another size or number.
    """
    if images is None:
        raise ValueError("link images as well, or unlink mask: a folder's pictures bring their own transparency")
    mask = mask.reshape(-1, *mask.shape[-2:])
    if not mask.any():
        return images
    if mask.shape[1:] != images.shape[1:3] or len(mask) not in (1, len(images)):
        raise ValueError(
            f"link the mask of these images: it is {list(mask.shape)}, and they are {list(images.shape[:3])}"
        )
    if images.shape[3] < 3:
        images = images[..., :1].expand(*images.shape[:3], 3)
    alpha = (1 - mask.to(images)).expand(images.shape[:3])[..., None]
    return torch.cat([images[..., :3], alpha], dim=3)


def _empty_dataset(
    spec: CropSpec, cache_bytes: float, mirror: bool, labels: str, max_pictures: int | None
) -> ImageDataset:
    dataset = ImageDataset(spec, cache_bytes, mirror)
    dataset.options = {
        "crop": spec.crop,
        "mirror": mirror,
        "labels": labels,
        "aspect": format_aspect(spec.aspect),
        "max_pictures": max_pictures,
    }
    return dataset


def _scan_tensor(dataset: ImageDataset, number: int, image: Tensor) -> ScannedFile:
    """Store one image of a batch, float [H, W, C], in the cache."""
    values = np.nan_to_num(image.detach().float().cpu().numpy()).clip(0, 1)
    levels = np.rint(values * 255).astype(np.uint8)
    notes: list[str] = []
    try:
        pixels = Image.fromarray(levels if levels.shape[2] > 1 else levels[..., 0])
        stored = crop_to_square(pixels, dataset.crop_spec, notes)
    except UnusableFile as error:
        return ScannedFile(error=error)
    dataset._cache.put(f"image {number}", stored)
    return ScannedFile(stored.shape[1], notes, content_digest(levels.tobytes()))


def _fill_from_files(
    dataset: ImageDataset, files: ImageSource, seed: int, workers: int, progress: Progress | None
) -> None:
    """Scan the files and set the contents of the dataset; its options say how."""
    label_source, limit = dataset.options["labels"], dataset.options["max_pictures"]
    names = [name for name in files.names if not is_labels_file(name)]
    skipped = list(files.skipped)
    labels = _labels_of(files, names, label_source)
    if labels is not None:
        # A file without a suffix may be no image at all, such as a README.
        skipped += [(name, "no label") for name in names if name not in labels.rows and suffix(name)]
        names = [name for name in names if name in labels.rows]
    count = len(names)
    if limit is not None and limit < len(names):
        count, names = limit, shuffle_names(names, seed)
    decode = file_decoder(files, dataset.crop_spec, dataset._cache)
    usable, results = scan_files(names, count, decode, workers=workers, progress=progress)
    for name in [name for name, result in results.items() if result.is_no_image(name)]:
        files.others[""] += 1
        del results[name]
    skipped += [(name, str(result.error)) for name, result in results.items() if result.error is not None]
    if not usable:
        raise DatasetError(_nothing_usable(files, skipped))
    usable.sort(key=lambda name: (normalize_name(name), name))
    hints = []
    if label_source == NO_LABELS and has_labels_file(files):
        hints.append("there are labels in dataset.json, which are not used: they have to be asked for")
    if labels is not None:
        hints += _equal_class_names(labels)
    _set_contents(dataset, usable, results, sorted(skipped), labels, hints)


def _labels_of(files: ImageSource, names: Sequence[str], label_source: str) -> Labels | None:
    if label_source == FROM_FILE:
        return read_labels(files, names)
    return labels_from_folders(files, names) if label_source == FROM_FOLDERS else None


def _equal_class_names(labels: Labels) -> list[str]:
    """A sentence about each group of classes that a user can hardly tell apart by name, for at most three groups."""
    groups = equal_names(labels.names)
    hints = []
    for group in groups[:3]:
        named = ", ".join(f"{number} ({mask_unprintable(labels.names[number])[:60]!r})" for number in group[:4])
        more = f" and {len(group) - 4} more" if len(group) > 4 else ""
        hints.append(
            f"the classes {named}{more} have names that are equal but for case or the form of accents; merge them if "
            "they mean the same, or choose them by number"
        )
    return hints + ([f"{len(groups) - 3} more groups of classes have equal names"] if len(groups) > 3 else [])


def _set_contents(
    dataset: ImageDataset,
    names: list[str],
    results: Mapping[str, ScannedFile],
    skipped: Sequence[tuple[str, str]],
    labels: Labels | None = None,
    hints: Sequence[str] = (),
) -> None:
    dataset.names = names
    dataset._sides = np.array([results[name].side for name in names], np.int32)
    classes = ""
    if labels is not None:
        dataset.c_dim, dataset.class_names = labels.c_dim, labels.names
        dataset._labels = labels.values[[labels.rows[name] for name in names]]
        classes = describe_labels(dataset._labels, labels.c_dim, labels.names)
    digest = hashlib.sha256()
    by_content: dict[bytes, list[str]] = {}
    for row, name in enumerate(names):
        by_content.setdefault(results[name].digest, []).append(mask_unprintable(name))
        label = b"" if dataset._labels is None else dataset._labels[row].tobytes()
        digest.update(repr((normalize_name(name), results[name].digest, label)).encode())
    dataset.fingerprint = digest.hexdigest()
    notes = Counter(note for name in names for note in results[name].notes)
    dataset.report = DatasetReport(
        len(names),
        [(mask_unprintable(name), mask_unprintable(reason)) for name, reason in skipped],
        dict(sorted(notes.items())),
        [group for group in by_content.values() if len(group) > 1],
        classes,
        list(hints),
    )


def _nothing_usable(files: ImageSource, skipped: Sequence[tuple[str, str]]) -> str:
    if skipped:
        reasons = "; ".join(_first_reasons(skipped, 3))
        return f"{files.path.name}: none of {len(skipped)} pictures can be used: {reasons}"
    others = ", ".join(f"{count} {end or 'without ending'}" for end, count in files.others.most_common(5) if count)
    return f"{files.path.name}: there are no pictures in it" + (f", only other files ({others})" if others else "")


def _first_reasons(skipped: Sequence[tuple[str, str]], count: int) -> list[str]:
    lines = [f"{mask_unprintable(name)}: {mask_unprintable(reason)}" for name, reason in skipped[:count]]
    return lines + ([f"and {len(skipped) - count} more"] if len(skipped) > count else [])
