"""What a render shows while it runs: the whole picture at once, never grey."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_builtin, render, sample
from paths import ROOT
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="module")
def previews() -> ModuleType:
    """Without the rest of `nodes`, which needs ComfyUI."""
    spec = importlib.util.spec_from_file_location("previews", ROOT / "nodes" / "previews.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def levels(image: Image.Image, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    return np.asarray(image.resize(size, Image.Resampling.BOX)).astype(float)


def test_the_first_one_is_the_whole_picture(previews: ModuleType):
    """And stands behind what is painted later; that is shown as it is."""
    generator = load_builtin()
    ws = sample(generator, [3])
    sizes: list[tuple[int, int]] = []

    def draw(height: int, width: int) -> Tensor:
        sizes.append((height, width))
        return render(generator, ws, height=height, width=width, fit="crop")

    image = torch.zeros(1, 1200, 1800, 3)
    progressive = previews.ProgressivePreview(image, draw)
    drafts = list(progressive.drafts())
    assert sizes == [(64, 96), (256, 384)]
    whole = levels(Image.fromarray(((draw(300, 450)[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255)).byte().numpy()))
    for draft, most in zip(drafts, (12, 6), strict=True):
        assert draft.size == (450, 300)
        assert np.abs(levels(draft) - whole).mean() < most
    image[0, :600] = 1.0
    half = np.asarray(progressive.preview(0))
    assert (half[:150] == 255).all()
    assert (half[150:] == np.asarray(drafts[-1])[150:]).all()


def test_small_pictures_have_no_draft(previews: ModuleType):
    assert (
        list(previews.ProgressivePreview(torch.zeros(1, 300, 300, 3), lambda *_: pytest.fail("drawn")).drafts()) == []
    )


def test_a_frame_that_is_not_whole_is_not_shown(previews: ModuleType):
    """The one before it is."""
    image = torch.zeros(3, 64, 64, 1)
    progressive = previews.ProgressivePreview(image, lambda *_: pytest.fail("drawn"))
    image[0], image[1, :10] = 0.5, 1.0
    assert set(np.asarray(progressive.preview(1)).ravel()) == {191}
    image[1] = 1.0
    assert set(np.asarray(progressive.preview(1)).ravel()) == {255}


def test_pictures_that_are_copied_whole_are_shown_as_they_are(previews: ModuleType):
    image = torch.full((1, 8, 8, 3), -1.0)
    progressive = previews.ProgressivePreview(image)
    assert list(progressive.drafts()) == []
    assert not np.asarray(progressive.preview(0)).any()
