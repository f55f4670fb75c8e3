"""Where the pictures of a contact sheet lie."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core.comparison import cell_boxes, contact_sheet
from comfyui_creps.creps_core.latents import Latents


@pytest.mark.parametrize("columns", [0, 1, 3, 9])
@pytest.mark.parametrize("grid", [None, (["a", "long title of a row"], ["x", "y", "z"])])
@pytest.mark.parametrize("labels", [[], ["one\ntwo lines", *"bcdef"]])
def test_cells_hold_the_pictures(columns: int, grid, labels: list[str]):
    """Every picture has a colour of its own, and its cell shows that colour and nothing else."""
    colours = torch.arange(1, 19).reshape(6, 1, 1, 3) / 20
    pictures = colours.expand(6, 40, 56, 3)
    latents = Latents(torch.zeros(6, 2, 4), seeds=list(range(6)), labels=labels, grid=grid)
    sheet = contact_sheet(pictures, latents, columns=columns)
    found = cell_boxes(sheet, pictures, latents, columns=columns)
    assert len(found) == 6
    for (left, top, width, height), colour in zip(found, colours, strict=True):
        assert (width, height) == (56, 40)
        cell = sheet[top : top + height, left : left + width]
        assert cell.shape == (40, 56, 3)
        torch.testing.assert_close(cell, colour.expand_as(cell), atol=1 / 255, rtol=0)
