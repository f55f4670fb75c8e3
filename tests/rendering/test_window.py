"""Window algebra: sizes, windows, fits and positions, against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core import WHOLE_FRAME, fit_window, render, sample_positions
from comfyui_creps.creps_core.rendering import frame_size, full_size
from networks import make_generator, make_ws

GENERATOR = make_generator()
WS = make_ws(GENERATOR)


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal up to rounding: 1e-5 of the largest value, which is about 7 for these random weights."""
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_whole_frame_has_the_authors_coordinates():
    assert torch.allclose(sample_positions(0, 1, 512), torch.linspace(0, 1, 512).double(), atol=1e-7)
    assert sample_positions(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert sample_positions(0.5, 2, 1).tolist() == [0.5]
    assert sample_positions(1, 0, 3).tolist() == [1, 0.5, 0]


def test_supersampled_positions_surround_each_pixel():
    assert sample_positions(0, 1, 3, 2).tolist() == [-0.125, 0.125, 0.375, 0.625, 0.875, 1.125]
    assert sample_positions(0, 1, 1, 4).tolist() == [0.125, 0.375, 0.625, 0.875]
    pixels = sample_positions(0.2, 0.9, 7)
    assert torch.allclose(sample_positions(0.2, 0.9, 7, 5).view(7, 5).mean(1), pixels)


@pytest.mark.parametrize("n", [2, 5, 16, 33])
def test_a_picture_is_the_subsample_of_the_next_size(n: int):
    small = render(GENERATOR, WS, height=n, width=n)
    large = render(GENERATOR, WS, height=2 * n - 1, width=2 * n - 1)
    assert_same(large[..., ::2, ::2], small)


@pytest.mark.parametrize(("top", "left", "bottom", "right"), [(0, 0, 10, 10), (3, 7, 20, 31), (12, 0, 13, 32)])
def test_a_window_is_the_crop_of_the_whole(top: int, left: int, bottom: int, right: int):
    whole = render(GENERATOR, WS, height=33, width=33)
    part = render(
        GENERATOR,
        WS,
        height=bottom - top + 1,
        width=right - left + 1,
        window=(top / 32, left / 32, bottom / 32, right / 32),
    )
    assert_same(part, whole[..., top : bottom + 1, left : right + 1])


def test_a_reversed_window_mirrors():
    whole = render(GENERATOR, WS, height=17, width=21)
    assert_same(render(GENERATOR, WS, height=17, width=21, window=(0, 1, 1, 0)), whole.flip(3))
    assert_same(render(GENERATOR, WS, height=17, width=21, window=(1, 0, 0, 1)), whole.flip(2))


def test_outside_continues_the_picture():
    wide = render(GENERATOR, WS, height=16, width=31, window=(0, -0.5, 1, 1.5))
    middle = render(GENERATOR, WS, height=16, width=16, window=(0, 0, 1, 1))
    assert torch.isfinite(wide).all()
    step = 2 / 30  # the columns of the wide picture that lie in the frame: positions k * step - 0.5
    inside = [k for k in range(31) if -1e-9 <= k * step - 0.5 <= 1 + 1e-9]
    again = render(
        GENERATOR,
        WS,
        height=16,
        width=len(inside),
        window=(0, inside[0] * step - 0.5, 1, inside[-1] * step - 0.5),
    )
    assert_same(wide[..., inside], again)
    assert middle.std() > 0


@pytest.mark.parametrize(
    ("fit", "height", "width", "window", "wanted"),
    [
        ("stretch", 9, 17, (0, 0, 1, 1), (0, 0, 1, 1)),
        ("crop", 9, 17, (0, 0, 1, 1), (0.25, 0, 0.75, 1)),
        ("extend", 9, 17, (0, 0, 1, 1), (0, -0.5, 1, 1.5)),
        ("crop", 17, 9, (0, 0, 1, 1), (0, 0.25, 1, 0.75)),
        ("crop", 17, 9, (1, 0, 0, 1), (1, 0.25, 0, 0.75)),
        ("extend", 17, 9, (0, 0, 0.5, 1), (-0.75, 0, 1.25, 1)),
        ("crop", 64, 64, (0, 0, 1, 1), (0, 0, 1, 1)),
        ("crop", 1, 1, (0, 0, 1, 1), (0, 0, 1, 1)),
    ],
)
def test_fits(fit: str, height: int, width: int, window, wanted):
    assert fit_window(window, height, width, fit) == pytest.approx(wanted)


def test_square_frames_are_left_exactly_alone():
    for fit in ("crop", "extend", "stretch"):
        assert fit_window(WHOLE_FRAME, 1000, 1000, fit) == WHOLE_FRAME


@pytest.mark.parametrize(
    ("window", "fit", "message"),
    [
        ((0, 0, 0, 1), "crop", "empty"),
        ((0, 0.5, 1, 0.5), "stretch", "empty"),
        ((0, 0, float("nan"), 1), "crop", "finite"),
        ((0, 0, 1), "crop", "four"),
        ((0, 0, 1, 1), "cover", "'cover'"),
    ],
)
def test_bad_windows_are_refused(window, fit: str, message: str):
    with pytest.raises(ValueError, match=message):
        render(GENERATOR, WS, height=8, width=8, window=window, fit=fit)


def test_frames_that_are_not_square():
    """16:9: the frame is 16 units wide and 9 high, and a unit is as long along both axes of the picture."""
    wide = (16, 9)
    for fit in ("crop", "extend"):
        assert fit_window(WHOLE_FRAME, 10, 17, fit, wide) == WHOLE_FRAME
    assert fit_window(WHOLE_FRAME, 65, 65, "crop", wide) == pytest.approx((0, 0.5 - 9 / 32, 1, 0.5 + 9 / 32))
    assert fit_window(WHOLE_FRAME, 65, 65, "extend", wide) == pytest.approx((0.5 - 16 / 18, 0, 0.5 + 16 / 18, 1))
    assert fit_window(WHOLE_FRAME, 65, 65, "stretch", wide) == WHOLE_FRAME
    tall = fit_window(WHOLE_FRAME, 17, 10, "crop", (9, 16))
    assert tall == WHOLE_FRAME
    assert frame_size(1024, wide) == (576, 1024)
    assert frame_size(64, (2, 3)) == (64, 43)
    assert full_size(0, 1920, wide) == (1080, 1920)
    assert full_size(1080, 0, wide) == (1080, 1920)
    assert full_size(5, 7, wide) == (5, 7)
    for side in (2, 511, 683, 1025, 1919):  # of a film: the derived side is even, and the nearest one
        height, width = full_size(0, side, wide, even=True)
        assert width == side
        assert height % 2 == 0
        assert height == 2 or abs(height - side * 9 / 16) <= 1
    with pytest.raises(ValueError, match="both 0"):
        full_size(0, 0, wide)
