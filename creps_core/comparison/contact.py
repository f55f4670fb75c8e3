"""Contact sheets of latents: images with their seeds, or a table with titled rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..latents import Latents
from .sheet import DIM, LABEL_SIZE, TEXT, canvas, fitting, font, grid, opaque

_GAP = 8
_LONGEST_TITLE = 260


def contact_sheet(images: Tensor, latents: Latents, *, columns: int = 0) -> Tensor:
    """Arrange images in a grid with a label below each, or in a table with titles if the latents are one.

    Args:
        images: of the latents, [N, H, W, C] in 0..1 with C of 1, 3 or 4 (transparency shows a checkerboard).
        latents: provide the labels, or the titles of rows and columns.
        columns: images per row; 0 makes the sheet about square. Ignored for a table.

    Returns:
        [height, width, 3] float32 in 0..1.

    Raises:
        ValueError: the numbers of pictures and latents differ.
    """
    if len(images) != len(latents):
        raise ValueError(f"there are {len(images)} pictures of {len(latents)} latents")
    tiles = [_pixels(image) for image in images]
    if latents.grid is None:
        sheet = grid(tiles, columns or square_columns(len(tiles)), latents.titles(), gap=_GAP)
    else:
        sheet = titled_table(tiles, *latents.grid)
    return torch.from_numpy(sheet.astype(np.float32) / 255)


def cell_boxes(sheet: Tensor, images: Tensor, latents: Latents, *, columns: int = 0) -> list[tuple[int, int, int, int]]:
    """The position of each image on a contact sheet.

    Args:
        sheet: the result of `contact_sheet` for the other arguments.

    Returns:
        (left, top, width, height) of each image in pixels, in the order of the latents.
    """
    count, height, width = images.shape[:3]
    across = len(latents.grid[1]) if latents.grid is not None else columns or square_columns(count)
    rows = -(-count // across)
    below = height + _GAP if latents.grid is not None else (sheet.shape[0] - _GAP) // rows
    left, top = sheet.shape[1] - across * (width + _GAP), sheet.shape[0] - rows * below
    return [(left + i % across * (width + _GAP), top + i // across * below, width, height) for i in range(count)]


def titled_table(images: Sequence[np.ndarray], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Arrange images in a table, with the titles of the rows at the left and those of the columns above.

    Args:
        images: len(rows) * len(columns) of one size, row by row, [H, W, 3] uint8.
        rows, columns: titles; long ones are truncated.

    Returns:
        [height, width, 3] uint8.

    Raises:
        ValueError: the number of images is not that of the cells.
    """
    if len(images) != len(rows) * len(columns):
        raise ValueError(f"{len(images)} pictures do not fill {len(rows)} rows of {len(columns)}")
    body = grid(images, len(columns), gap=_GAP)
    left = min(_LONGEST_TITLE, max(int(font().getlength(title)) + 1 for title in rows)) + 2 * _GAP
    top = LABEL_SIZE + 2 * _GAP
    sheet = canvas(top + body.shape[0], left + body.shape[1])
    sheet.paste(Image.fromarray(body), (left, top))
    draw = ImageDraw.Draw(sheet)
    height, width = images[0].shape[:2]
    for i, title in enumerate(columns):
        centre = left + _GAP + i * (width + _GAP) + width // 2
        draw.text((centre, top), fitting(title, width), TEXT, font(), anchor="mb")
    for i, title in enumerate(rows):
        middle = top + _GAP + i * (height + _GAP) + height // 2
        draw.text((left - _GAP, middle), fitting(title, _LONGEST_TITLE), DIM, font(), anchor="rm")
    return np.asarray(sheet)


def square_columns(count: int) -> int:
    """Columns of an about square sheet of `count` images; rather wider than high."""
    return max(1, int(np.ceil(np.sqrt(count))))


def _pixels(image: Tensor) -> np.ndarray:
    pixels = (image.float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
    return np.ascontiguousarray(opaque(pixels.expand(-1, -1, max(3, pixels.shape[-1])).numpy()))
