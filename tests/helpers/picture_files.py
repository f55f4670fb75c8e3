"""Image files, and datasets made of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from comfyui_creps.creps_core.data import ImageDataset, open_dataset
from PIL import Image

SIDE = 16


def colours(seed: int, height: int = SIDE, width: int = SIDE, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    """Red grows to the right and green downwards: survives resizing and JPEG."""
    out = np.zeros((height, width, 3), np.uint8)
    out[..., 0] = np.linspace(0, 255, width)
    out[..., 1] = np.linspace(0, 255, height)[:, None]
    return out


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def numbered(count: int, side: int = SIDE) -> dict[str, bytes]:
    return {f"{number // 4:05}/img{number:03}.png": encoded(colours(number, side, side)) for number in range(count)}


def array(dataset: ImageDataset, index: int = 0) -> np.ndarray:
    return dataset.images([index])[0].permute(1, 2, 0).numpy()


def opened(tmp_path: Path, data: bytes, name: str = "x.png", **options: object) -> ImageDataset:
    """The dataset of one image file."""
    return open_dataset(write(tmp_path / "one", {name: data}), **{"resolution": SIDE, **options})  # type: ignore


def reason(tmp_path: Path, data: bytes, name: str = "x.png") -> str:
    """Why an image, beside a good one, is skipped."""
    dataset = open_dataset(write(tmp_path, {"good.png": encoded(colours(0)), name: data}), resolution=SIDE)
    assert dataset.names == ["good.png"]
    ((skipped, why),) = dataset.report.skipped
    assert skipped == name
    return why
