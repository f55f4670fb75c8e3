"""Tiles, batches, supersampling, precision, progress, cancelling, memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from comfyui_creps.creps_core import render, sample_positions
from networks import make_generator, make_ws
from paths import TESTS

MEMORY = f"""
import runpy
runpy.run_path({str(TESTS / "conftest.py")!r})
runpy.run_module("comfyui_creps.creps_core.bench.memory", run_name="__main__")
"""
GENERATOR = make_generator()
WS = make_ws(GENERATOR, 2)


def untiled(ws: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The specification, whole feature maps at once, in float64."""
    generator = make_generator().double()
    return generator.synthesis(ws.double(), sample_positions(0, 1, height), sample_positions(0, 1, width))


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (3, 5), (31, 47), (64, 64), (300, 129)])
@pytest.mark.parametrize("tile", [None, 1, 7, (16, 64), (64, 3), 4096])
def test_tiled_equals_untiled(size: tuple[int, int], tile):
    if tile == 1 and size[0] * size[1] > 500:
        tile = 5  # a tile per pixel is slow, and was checked on the smaller sizes
    picture = render(GENERATOR, WS, height=size[0], width=size[1], tile=tile)
    exact = untiled(WS, *size)
    assert picture.dtype == torch.float32
    assert (picture - exact).abs().max() <= 1e-5 * max(1, exact.abs().max().item())


def test_a_batch_is_its_pictures():
    both = render(GENERATOR, WS, height=20, width=30)
    for i in range(2):
        assert torch.equal(both[i : i + 1], render(GENERATOR, WS[i : i + 1], height=20, width=30))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_supersampling_is_the_mean_of_the_samples(k: int):
    picture = render(GENERATOR, WS[:1], height=40, width=23, supersample=k, tile=(16, 8))
    y, x = sample_positions(0, 1, 40, k), sample_positions(0, 1, 23, k)
    samples = make_generator().double().synthesis(WS[:1].double(), y, x)
    mean = samples.unflatten(2, (40, k)).unflatten(4, (23, k)).mean((3, 5))
    assert (picture - mean).abs().max() <= 1e-5 * mean.abs().max()


def test_out_takes_strides_and_dtypes():
    wanted = render(GENERATOR, WS, height=33, width=18)
    image = torch.zeros(2, 33, 18, 3)
    assert render(GENERATOR, WS, height=33, width=18, out=image.permute(0, 3, 1, 2)) is not None
    assert torch.equal(image.permute(0, 3, 1, 2), wanted)
    pixels = torch.zeros(2, 3, 33, 18, dtype=torch.uint8)
    render(GENERATOR, WS, height=33, width=18, out=pixels)
    assert torch.equal(pixels, (wanted * 127.5 + 128).clamp(0, 255).to(torch.uint8))


def test_float16_overflow_is_an_error_not_a_black_picture():
    generator = make_generator()
    for parameter in generator.synthesis.decoder_32.parameters():
        parameter.mul_(100)
    with pytest.raises(OverflowError, match="float32"):
        render(generator, WS, height=16, width=16, precision="float16")
    assert torch.isfinite(render(generator, WS, height=16, width=16)).all()


def test_progress_adds_up():
    calls = []
    render(GENERATOR, WS, height=50, width=70, tile=16, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] >= 7000
    assert len({total for _, total in calls}) == 1
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) >= 2 * 4 * 5  # a call per tile


class Cancelled(BaseException):
    """Like ComfyUI's interrupt: not an Exception."""


def test_cancelling_ends_within_one_tile():
    image, threads = torch.full((1, 3, 400, 64), torch.nan), torch.get_num_threads()

    def cancel(done: int, total: int) -> None:
        if image.isfinite().any():  # a tile is done
            raise Cancelled

    with pytest.raises(Cancelled):
        render(GENERATOR, WS[:1], height=400, width=64, tile=(8, 64), progress=cancel, out=image)
    painted = image[0, 0, ::8, 0].isfinite().sum().item()
    assert 1 <= painted <= 4 * threads  # of 50
    assert torch.get_num_threads() == threads


def test_inference_mode_of_the_caller_is_kept():
    """ComfyUI runs nodes in inference mode: the picture is then an inference tensor that worker threads fill."""
    with torch.inference_mode():
        generator = make_generator()
        picture = render(generator, make_ws(generator), height=64, width=64, tile=8)
    assert torch.isfinite(picture).all()
    assert render(GENERATOR, WS.requires_grad_(False), height=8, width=8).requires_grad is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "height"),
        ({"width": 2.5}, "width"),
        ({"supersample": 0}, "supersample"),
        ({"supersample": 17}, "supersample"),
        ({"precision": "int8"}, "int8"),
        ({"backend": "metal"}, "metal"),
        ({"tile": 0}, "tile"),
        ({"ws": torch.zeros(1, 3, 16)}, "ws must have the shape"),
        ({"out": torch.zeros(1, 3, 4, 4)}, "out must have the shape"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str):
    arguments = {"ws": WS, "height": 8, "width": 8, **arguments}
    with pytest.raises(ValueError, match=message):
        render(GENERATOR, **arguments)


def test_memory_does_not_grow_with_the_picture():
    """Peak memory beyond picture and lines, of a process that renders, at two sizes (bands of 16 to 1)."""
    growth = []
    for side in (512, 2048):
        command = [sys.executable, "-c", MEMORY, "--small", "--side", str(side)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        growth.append(json.loads(result.stdout)["growth"])
    print(growth)
    assert max(growth) <= 64
