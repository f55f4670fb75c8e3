"""Measures against their definitions and scikit-image, the choice of regions, the sheet; scale consistency."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import load_builtin, sample
from comfyui_creps.creps_core.comparison import (
    MAX_REGIONS,
    compare,
    consistency_report,
    grid,
    labelled,
    scale_consistency,
    sizes_up_to,
)
from comfyui_creps.creps_core.comparison.compare import find_regions, resized
from comfyui_creps.creps_core.comparison.measures import finest_detail, psnr, spectrum, ssim
from comfyui_creps.creps_core.comparison.sheet import BACKGROUND
from networks import make_generator, make_ws
from PIL import Image


def waves(height: int, width: int, period: float, angle: float = 0.3) -> torch.Tensor:
    """A grey picture [H, W, 3] of sine waves."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = 2 * math.pi / period * (math.cos(angle) * x + math.sin(angle) * y)
    return (0.5 + 0.4 * torch.sin(phase))[..., None].expand(-1, -1, 3)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


# Measures


def test_psnr():
    picture = noise(20, 30) * 0.5
    assert psnr(picture, picture) == math.inf
    assert psnr(picture, picture + 0.1) == pytest.approx(20, abs=1e-4)


def test_ssim_by_its_definition():
    """In the middle of an 11 x 11 picture there is one window: the formula by hand."""
    a, b = noise(11, 11, 1).double(), noise(11, 11, 2).double()
    gauss = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=torch.float64) / 1.5) ** 2)
    window = torch.outer(gauss, gauss)[..., None] / gauss.sum() ** 2
    ma, mb = ((window * p).sum((0, 1)) for p in (a, b))
    va, vb = ((window * (p - m) ** 2).sum((0, 1)) for p, m in ((a, ma), (b, mb)))
    vab = (window * (a - ma) * (b - mb)).sum((0, 1))
    wanted = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(a, b) == pytest.approx(wanted.mean().item(), abs=1e-9)


@pytest.mark.parametrize("size", [(11, 40), (75, 64), (300, 80)])
def test_ssim_is_that_of_scikit_image(size: tuple[int, int]):
    metrics = pytest.importorskip("skimage.metrics", reason="pip install -e '.[test]' brings scikit-image")
    a = noise(*size)
    for b in (a, (a * 0.8 + 0.1), noise(*size, 1), (a + 0.1 * noise(*size, 2)).clamp(0, 1)):
        wanted = metrics.structural_similarity(
            *(p.double().numpy() for p in (a, b)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
        )
        assert ssim(a, b) == pytest.approx(wanted, abs=1e-9)


def test_a_spectrum_has_its_peak_at_the_frequency_of_the_waves():
    for period in (4.0, 9.0, 20.0):
        found = spectrum(waves(128, 200, period), waves(128, 200, period))
        peak = found.frequency[found.power.argmax()].item()
        assert abs(math.log2(peak * period)) <= 1 / 6
        assert torch.allclose(found.agreement, torch.ones(()).double(), atol=1e-6)


def test_the_finest_detail_is_where_agreement_ends():
    picture, smooth = noise(128, 128), noise(128, 128)
    light = torch.fft.fft2(smooth, dim=(0, 1))
    f = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(128)[None])
    smooth = torch.fft.ifft2(light * (f < 0.125)[..., None], dim=(0, 1)).real
    smooth = (
        smooth
        + 0.5
        * torch.fft.ifft2(torch.fft.fft2(noise(128, 128, 5), dim=(0, 1)) * (f >= 0.125)[..., None], dim=(0, 1)).real
    )
    assert finest_detail(spectrum(smooth, picture)) == pytest.approx(8, rel=0.15)
    assert finest_detail(spectrum(picture, picture)) == 2
    assert finest_detail(spectrum(noise(128, 128, 1), picture)) > 16


def test_pictures_of_other_sizes_are_resized_by_pillow():
    small = noise(16, 20)
    assert resized(small, 16, 20) is small
    large = resized(small, 40, 60)
    plane = Image.fromarray(small[..., 1].contiguous().numpy()).resize((60, 40), Image.Resampling.LANCZOS)
    assert torch.equal(large[..., 1], torch.from_numpy(np.array(plane)).clamp(0, 1))


# Places


def test_regions_are_where_pictures_differ_most_and_do_not_overlap():
    native = torch.full((100, 140, 3), 0.5)
    other = native.clone()
    other[60:75, 100:115] += 0.4
    other[10:20, 10:20] += 0.2
    regions = find_regions(native, [other], 3, 32)
    for (top, left, bottom, right), (y, x) in zip(regions[:2], ((60, 100), (10, 10)), strict=True):
        assert top <= y < bottom
        assert left <= x < right
    for i, a in enumerate(regions):
        assert a[2] - a[0] == a[3] - a[1] == 32
        for b in regions[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
    assert len(find_regions(native, [other], MAX_REGIONS, 90)) == 1  # no room for more


# The sheet


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (200, 40)])
def test_a_sheet_has_everything_in_it(size: tuple[int, int]):
    native = (waves(*size, 7) + 0.1 * noise(*size)).clamp(0, 1)
    small = resized(native, size[0] // 4, size[1] // 4)
    found = compare(native, {"small": small, "the same": native}, regions=2, zoom=8)
    assert found.sheet.dtype == np.uint8
    assert found.sheet.shape[2] == 3
    assert found.sheet.shape[1] >= 1200
    assert (found.sheet[:20] == BACKGROUND).all()  # margins
    assert (found.sheet[:, :20] == BACKGROUND).all()
    assert (found.sheet[:, -20:] == BACKGROUND).all()
    worse, same = found.versions
    assert same.psnr == math.inf
    assert same.ssim == pytest.approx(1)
    assert same.detail == 2
    assert worse.psnr < 40
    assert worse.detail > 4
    assert worse.given == tuple(small.shape[:2])
    assert "identical" in found.report
    assert "small" in found.report


def test_regions_by_hand():
    native = noise(64, 96)
    found = compare(native, {"a": noise(64, 96, 1)}, regions=[(0.5, 0.5), (0.0, 1.0)], zoom=32)
    side = found.regions[0][2] - found.regions[0][0]
    assert found.regions[1] == (0, 96 - side, side, 96)
    assert found.regions[0][0] == pytest.approx(32 - side / 2, abs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"others": {}}, "nothing to compare"),
        ({"native": noise(31, 64)}, "at least 32"),
        ({"zoom": 0}, "zoom"),
        ({"regions": [(0.5, 1.5)]}, "1.5"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str):
    arguments = {"native": noise(64, 64), "others": {"a": noise(64, 64, 1)}, **arguments}
    with pytest.raises(ValueError, match=message):
        compare(**arguments)


def test_grids_and_labels():
    picture = np.full((20, 30, 3), 200, np.uint8)
    below = labelled(picture, "a label that is too long for this\nand a second line")
    assert (below[:20] == picture).all()
    assert below.shape[1:] == (30, 3)
    assert (below[20:] != BACKGROUND).any()
    sheet = grid([picture] * 5, 3, gap=4)
    assert sheet.shape == (4 + 2 * 24, 4 + 3 * 34, 3)
    assert (sheet[4:24, 4:34] == 200).all()
    assert (sheet[28:, 72:] == BACKGROUND).all()
    assert grid([picture], 1, ["seed 3"]).shape[0] > 28
    with pytest.raises(ValueError, match="2 labels"):
        grid([picture], 1, ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        grid([], 1)


# The same picture at every size


@pytest.mark.parametrize("builtin", [False, True])
def test_the_same_picture_at_every_size(builtin: bool):
    """The claim, as numbers: all sizes agree to a thousandth of the step between two 8-bit levels."""
    generator = load_builtin("textures") if builtin else make_generator()
    ws = sample(generator, [3]) if builtin else make_ws(generator, 2)
    sizes = sizes_up_to(70, 5)
    assert sizes == [5, 9, 17, 33, 65]
    calls = []
    agreements = scale_consistency(generator, ws, sizes, progress=lambda *call: calls.append(call))
    assert [(a.size, a.larger) for a in agreements] == [(5, 9), (9, 17), (17, 33), (33, 65), (5, 65)]
    assert max(a.largest for a in agreements) <= (0.01 if builtin else 0.02)
    assert min(a.psnr for a in agreements) >= 110
    assert calls[-1][0] == calls[-1][1]
    assert "yes" in consistency_report(agreements)


def test_another_picture_is_noticed(monkeypatch: pytest.MonkeyPatch):
    from comfyui_creps.creps_core.comparison import consistency

    plain = consistency.render

    def shifted(*args, height: int, width: int, **kwargs):
        """As a generator whose samples lie in the middles of pixels."""
        inset = 0.5 / height
        window = (inset, inset, 1 - inset, 1 - inset)
        return plain(*args, height=height, width=width, window=window, **kwargs)

    monkeypatch.setattr(consistency, "render", shifted)
    generator = load_builtin("textures")
    agreements = scale_consistency(generator, sample(generator, [3]), [17, 33, 65])
    assert max(a.largest for a in agreements) > 10
    assert "no:" in consistency_report(agreements)


def test_sizes_must_share_their_samples():
    generator = make_generator()
    with pytest.raises(ValueError, match="2n - 1"):
        scale_consistency(generator, make_ws(generator), [16, 32])
    with pytest.raises(ValueError, match="raise largest to 31 or more, or lower smallest to 10 or less"):
        sizes_up_to(20, 16)
