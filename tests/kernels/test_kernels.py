"""Every backend of the per-pixel stage against the specification, evaluated in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from comfyui_creps import kernels
from comfyui_creps.kernels import Layer, PixelBlock, PixelStage, onednn, reference, run_parallel, split_tiles
from comfyui_creps.kernels.tiled import ClampBounds

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
RUNNABLE = [
    (name, dtype)
    for name, backend in kernels.BACKENDS.items()
    for dtype in kernels.PRECISIONS.values()
    if backend.refuses(CPU, dtype) is None
]


def make_stage(channels: int = 32, levels: int = 3, image_channels: int = 3, scale: float = 1.0) -> PixelStage:
    """Random weights that keep the variance of features, as initialised networks do, times `scale`."""
    torch.manual_seed(channels * levels)

    def layer(inputs: int, outputs: int, gain: float = 1.0) -> Layer:
        weight = torch.randn(outputs, inputs) * (gain / inputs**0.5)
        return Layer(weight, 0.1 * torch.randn(outputs))

    widths = [channels * n for n in (1, 2, 4, 2, 1)]
    decoder = lambda: tuple(layer(a, b, scale) for a, b in pairwise(widths))  # noqa: E731
    return PixelStage(
        decoders=tuple(decoder() for _ in range(levels)),
        image=layer(channels, image_channels),
        blocks=(
            PixelBlock(layer(channels, widths[2]), layer(widths[2], widths[2]), layer(widths[2], image_channels)),
            PixelBlock(layer(widths[2], widths[1]), layer(widths[1], widths[1]), layer(widths[1], image_channels)),
        ),
    )


def make_lines(stage: PixelStage, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(height * width)
    shape = (len(stage.decoders), stage.channels)
    return torch.randn(*shape, height, 8), torch.randn(*shape, width, 8)


def exact(columns: torch.Tensor, rows: torch.Tensor, stage: PixelStage) -> torch.Tensor:
    double = lambda layer: Layer(layer.weight.double(), layer.bias.double())  # noqa: E731
    stage = PixelStage(
        tuple(tuple(map(double, decoder)) for decoder in stage.decoders),
        double(stage.image),
        tuple(PixelBlock(*map(double, block)) for block in stage.blocks),
    )
    return reference.entangle(columns.double(), rows.double(), stage)


def paint(columns, rows, stage: PixelStage, out: torch.Tensor, dtype: torch.dtype, backend: str, **options) -> None:
    prepared = kernels.prepare(stage, CPU, dtype=dtype, backend=backend)
    prepared.paint(columns, rows, out, **options)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize(("backend", "dtype"), RUNNABLE, ids=lambda value: str(value).removeprefix("torch."))
@pytest.mark.parametrize("size", [(1, 1), (1, 33), (47, 1), (13, 45), (70, 130)])
@pytest.mark.parametrize(
    "shape", [{}, {"channels": 8, "levels": 1}, {"channels": 5, "image_channels": 1}, {"levels": 7}]
)
def test_backends_match_the_specification(backend: str, dtype: torch.dtype, size: tuple[int, int], shape: dict):
    stage = make_stage(**shape)
    columns, rows = make_lines(stage, *size)
    out = torch.full((stage.image_channels, *size), torch.nan)
    paint(columns, rows, stage, out, dtype, backend)
    error = relative_error(out, exact(columns, rows, stage))
    print(f"{error:.1e}")
    assert error <= TOLERANCE[dtype]


@pytest.mark.parametrize(("backend", "dtype"), RUNNABLE, ids=lambda value: str(value).removeprefix("torch."))
def test_tiles_and_supersampling(backend: str, dtype: torch.dtype):
    stage = make_stage()
    columns, rows = make_lines(stage, 34, 66)
    wanted = exact(columns, rows, stage).unflatten(1, (17, 2)).unflatten(3, (33, 2)).mean((2, 4))
    for tile in (None, (1, 1), (16, 5), (100, 100)):
        out = torch.full((3, 17, 33), torch.nan)
        paint(columns, rows, stage, out, dtype, backend, supersample=2, tile=tile)
        assert relative_error(out, wanted) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("backend", "dtype"), RUNNABLE, ids=lambda value: str(value).removeprefix("torch."))
def test_clamps_that_have_work_to_do(backend: str, dtype: torch.dtype):
    """Features of some hundreds: the proof of idleness must fail, and the clamps act."""
    if dtype == torch.float16:
        pytest.skip("such features are beyond float16; the other precisions are checked")
    stage = make_stage(scale=2.0)
    columns, rows = make_lines(stage, 20, 30)
    wanted = exact(columns, rows, stage)
    free = reference.CLAMP
    reference.CLAMP = float("inf")
    try:
        assert relative_error(exact(columns, rows, stage), wanted) > 0.1
    finally:
        reference.CLAMP = free
    out = torch.empty(3, 20, 30)
    paint(columns, rows, stage, out, dtype, backend)
    assert relative_error(out, wanted) <= 2 * TOLERANCE[dtype]


def test_bounds_hold_and_are_of_use():
    """No feature exceeds its bound; at the scale of an initialised network most clamps are proven idle."""
    for scale in (0.5, 1.0, 3.0):
        stage = make_stage(scale=scale)
        columns, rows = make_lines(stage, 30, 30)
        feature = reference.outer_product(columns, rows).flatten(-2)[0] * scale
        x, largest = feature, []
        for block in stage.blocks:
            for layer in (block.fc0, block.fc1):
                x = reference.leaky_relu(reference.linear(x, layer))
                largest.append(x.abs().max().item())
        for peak, clamps in zip(largest, ClampBounds(stage).needed(feature.T), strict=True):
            assert clamps or peak < 256
    assert not any(ClampBounds(stage).needed(torch.full((4, 32), 0.01)))
    assert all(ClampBounds(stage).needed(torch.full((4, 32), torch.nan)))


def test_a_backend_that_cannot_run_says_why():
    with pytest.raises(ValueError, match="bfloat16, not in float32"):
        kernels.choose("onednn", CPU, torch.float32)
    with pytest.raises(ValueError, match="for the CPU"):
        kernels.choose("onednn", torch.device("meta"), torch.bfloat16)
    with pytest.raises(ValueError, match="'fast'"):
        kernels.choose("fast", CPU, torch.float32)
    assert kernels.choose("auto", CPU, torch.float32).name == "tiled"
    assert kernels.BACKENDS["tiled"].refuses(CPU, torch.bfloat16) is None


def test_without_the_private_operation_bfloat16_still_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        onednn, "fused_bfloat16_missing", lambda: "this CPU has neither AMX nor AVX-512 bfloat16 instructions"
    )
    assert kernels.choose("auto", CPU, torch.bfloat16).name == "tiled"
    x, weight, bias = torch.randn(5, 8), torch.randn(3, 8), torch.randn(3)
    found = onednn.fused_linear(*(t.bfloat16() for t in (x, weight, bias)))
    assert torch.allclose(found.float(), torch.nn.functional.leaky_relu(x @ weight.T + bias, 0.2), atol=0.2)


def test_tiles_cover_every_pixel_once():
    for size, tile in (((1, 1), (4, 4)), ((10, 7), (3, 3)), ((64, 100), (64, 1))):
        count = torch.zeros(size)
        for box in split_tiles(*size, tile):
            count[box.top : box.bottom, box.left : box.right] += 1
            assert box.pixels == (box.bottom - box.top) * (box.right - box.left)
        assert (count == 1).all()


def test_parallel_work_is_done_once_and_errors_come_through():
    done, counted = [], []
    run_parallel(lambda item: (done.append(item), item)[1], range(50), 3, counted.append)
    assert sorted(done) == list(range(50))
    assert sorted(counted) == list(range(50))

    def fail(item: int) -> int:
        if item == 5:
            raise RuntimeError("five")
        return item

    for workers in (1, 3):
        with pytest.raises(RuntimeError, match="five"):
            run_parallel(fail, range(1000), workers, lambda number: None)
