"""Labelled images and grids of them, for contact sheets and comparisons.

Images are arrays [H, W, 3] uint8. The font is the one in Pillow, so that a sheet looks the same on every machine; it
has the letters of Western languages.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

BACKGROUND: Color = (17, 18, 21)
TEXT: Color = (232, 233, 237)
DIM: Color = (148, 152, 162)
LABEL_SIZE = 18
_SQUARE, _BOARD = 8, (104, 152)  # checkerboard behind transparent images: side of a square, and greys


def opaque(pixels: np.ndarray) -> np.ndarray:
    """Composite an image [H, W, 3 or 4] uint8 over a checkerboard, [H, W, 3]."""
    if pixels.shape[-1] < 4:
        return pixels
    height, width = pixels.shape[:2]
    rows, columns = (np.arange(size) // _SQUARE % 2 for size in (height, width))
    board = np.where((rows[:, None] ^ columns)[..., None], *_BOARD)
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)


@functools.cache
def font(size: int = LABEL_SIZE) -> ImageFont.FreeTypeFont:
    """Pillow's own font at a size in pixels."""
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def fitting(text: str, width: float, size: int = LABEL_SIZE) -> str:
    """The text, truncated with an ellipsis if it is wider than `width` pixels."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def canvas(height: int, width: int) -> Image.Image:
    """An empty sheet."""
    return Image.new("RGB", (width, height), BACKGROUND)


def labelled(image: np.ndarray, text: str, *, size: int = LABEL_SIZE) -> np.ndarray:
    """Add a label below an image.

    Args:
        image: [H, W, 3] uint8.
        text: one or more lines; the first is bright, the others are dim. Long lines are truncated.
        size: of the font, in pixels.

    Returns:
        [H + label, W, 3] uint8; the height of the label depends on the number of lines alone.
    """
    lines, step = text.split("\n"), size * 4 // 3
    height, width = image.shape[:2]
    sheet = canvas(height + size // 2 + step * len(lines), width)
    sheet.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        color = TEXT if i == 0 else DIM
        draw.text((0, height + size // 2 + step * i), fitting(line, width, size), color, font(size))
    return np.asarray(sheet)


def grid(
    images: Sequence[np.ndarray], columns: int, labels: Sequence[str] | None = None, *, gap: int = 16
) -> np.ndarray:
    """Arrange images in rows of `columns`, left to right, with equal gaps between and around them.

    Args:
        images: [H, W, 3] uint8, or all [H, W, 4]; cells have the largest size, smaller images lie in their
            top left corner.
        columns: images per row.
        labels: a text below each image, see `labelled`.
        gap: in pixels.

    Raises:
        ValueError: there are no images, or not one label per image.
    """
    if not images or columns < 1:
        raise ValueError(f"a grid needs at least one picture and one column, not {len(images)} and {columns}")
    if labels is not None:
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} pictures have {len(labels)} labels")
        images = [labelled(image, label) for image, label in zip(images, labels, strict=True)]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = -(-len(images) // columns)
    sheet = np.zeros((gap + rows * (height + gap), gap + columns * (width + gap), images[0].shape[2]), np.uint8)
    sheet[..., :3] = BACKGROUND
    for i, image in enumerate(images):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
