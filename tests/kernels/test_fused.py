"""The Triton kernel: its errors under Triton's interpreter and on a GPU, its registers on GPUs that this machine lacks.

The interpreter is chosen for a whole process, so its tests run in one of their own, which `test_under_the_interpreter`
starts: `TRITON_INTERPRET=1 pytest tests/test_fused.py` shows them one by one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import kernel_compiler
import pytest
import torch
from comfyui_creps.kernels import TritonBackend, fused, reference, trial
from comfyui_creps.kernels.packing import example, pack
from comfyui_creps.kernels.stage import PUBLISHED, Layer, PixelBlock, PixelStage
from paths import ROOT, TESTS
from torch import Tensor

BACKEND = TritonBackend()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreter = pytest.mark.skipif(not INTERPRETED, reason="test_under_the_interpreter runs it in a process of its own")
HALF, EXACT = torch.float16, torch.float32
# Errors relative to the largest value of the image, against float64, and in 8-bit levels of an image of -1..1. Half
# precision rounds where the hardware, or the interpreter's BLAS, sums in another order: an H200 gave 5.9e-3 and 0.65
# levels at the worst of many blocks, NumPy on other processors up to 0.62; bfloat16 has eight times the error. A kernel
# that is wrong is so by far more.
RELATIVE = {HALF: 1e-2, torch.bfloat16: 8e-2, EXACT: 1e-5}
LEVELS = {HALF: 1.0, torch.bfloat16: 10, EXACT: 1e-2}


# Stages and images


def make_case(size: tuple[int, int], **shape: int) -> tuple[Tensor, Tensor, PixelStage]:
    # Two levels of 16 channels show what the interpreter can show, in a tenth of the time of a GPU's cases.
    shape = {"levels": 2, "channels": 16} | shape if INTERPRETED else shape
    columns, rows, stage = example(*size, **shape)
    return columns.double(), rows.double(), convert(stage, dtype=torch.float64)


def convert(stage: PixelStage, scale: float = 1, **to) -> PixelStage:
    def each(layer: Layer) -> Layer:
        return Layer((layer.weight * scale).to(**to), layer.bias.to(**to))

    return PixelStage(
        tuple(tuple(map(each, decoder)) for decoder in stage.decoders),
        each(stage.image),
        tuple(PixelBlock(*map(each, block)) for block in stage.blocks),
    )


def specification(columns: Tensor, rows: Tensor, stage: PixelStage, supersample: int = 1) -> Tensor:
    image = reference.entangle(columns, rows, stage)
    if supersample > 1:
        image = image.unflatten(1, (-1, supersample)).unflatten(3, (-1, supersample)).mean((2, 4))
    return image


def paint(columns, rows, stage, out: Tensor, dtype: torch.dtype, *, supersample=1, tile=None, device=None) -> list[int]:
    """Run the kernel on float32 copies; returns the pixels of each launch."""
    device = device or ("cpu" if INTERPRETED else "cuda")
    columns, rows = (line.to(device, torch.float32) for line in (columns, rows))
    prepared, painted = BACKEND.prepare(convert(stage, device=device, dtype=torch.float32), dtype), []
    BACKEND.paint(columns, rows, prepared, out, supersample=supersample, tile=tile, after_tile=painted.append)
    assert sum(painted) == out[0].numel()
    return painted


def check(image: Tensor, expected: Tensor, dtype: torch.dtype, levels: bool = True) -> None:
    error = (image.double().cpu() - expected).abs().max().item()
    print(f"relative {error / expected.abs().max().item():.1e}, {127.5 * error:.2e} levels")
    assert error <= RELATIVE[dtype] * expected.abs().max().item()
    assert not levels or 127.5 * error <= LEVELS[dtype]


def poisoned(*size, dtype: torch.dtype = torch.float32, device=None) -> Tensor:
    shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
    return torch.full(shape, torch.nan if dtype.is_floating_point else 99, dtype=dtype, device=device)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the kernel should write is NaN at first."""
    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.slow
def test_under_the_interpreter():
    pytest.importorskip("triton", reason="needs Triton")
    if INTERPRETED:
        pytest.skip("this is the process")
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-rfE", "-m", "not gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]


@interpreter
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [HALF, EXACT], ids=str)
class TestInterpreted:
    """bfloat16 is missing: the interpreter computes garbage with it."""

    @pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 45), (1, 33), (17, 2)], ids=str)
    def test_sizes(self, size: tuple[int, int], dtype: torch.dtype):
        case = make_case(size)
        out = poisoned(3, *size)
        paint(*case, out, dtype)
        check(out, specification(*case), dtype)

    @pytest.mark.parametrize(
        ("channels", "image_channels", "levels"),
        [(8, 1, 2), (16, 4, 3), (64, 3, 2), (24, 20, 2), (33, 17, 1), (32, 3, 7)],
    )
    def test_shapes(self, channels: int, image_channels: int, levels: int, dtype: torch.dtype):
        case = make_case((9, 19), channels=channels, image_channels=image_channels, levels=levels)
        out = poisoned(image_channels, 9, 19)
        paint(*case, out, dtype)
        check(out, specification(*case), dtype)

    def test_every_configuration(self, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
        """Whatever a GPU may be given. The number of warps and stages means nothing to the interpreter."""
        found = {config for major in (8, 9, 10, 12) for config in trial.candidate_configs(major, 32, dtype == EXACT)}
        case = make_case((9, 5), channels=32, levels=1)
        for config in sorted({config._replace(warps=4, stages=1) for config in found}):
            monkeypatch.setattr(trial, "candidate_configs", lambda *_, config=config: [config])
            out = poisoned(3, 9, 5)
            paint(*case, out, dtype)
            check(out, specification(*case), dtype)

    @pytest.mark.parametrize("supersample", [2, 3])
    def test_supersampling(self, supersample: int, dtype: torch.dtype):
        case = make_case((5 * supersample, 11 * supersample))
        out = poisoned(3, 5, 11)
        paint(*case, out, dtype, supersample=supersample)
        check(out, specification(*case, supersample), dtype)

    @pytest.mark.parametrize("stored", [torch.uint8, torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_stored_as(self, stored: torch.dtype, dtype: torch.dtype):
        case = make_case((13, 20))
        out = poisoned(3, 13, 20, dtype=stored)
        paint(*case, out, dtype)
        expected = specification(*case)
        if stored == torch.uint8:
            exact = (expected * 127.5 + 128).clamp(0, 255)
            low, high = ((exact + sign * LEVELS[dtype]).clamp(0, 255).to(torch.uint8) for sign in (-1, 1))
            assert ((out >= low) & (out <= high)).all()
        else:
            check(out, expected, torch.bfloat16 if stored == torch.bfloat16 else HALF)

    def test_blocks_and_strides(self, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
        """Tiles, and launches of few pixels, add up to one image; nothing outside is written."""
        case = make_case((9, 21))
        whole = poisoned(3, 9, 21)
        assert paint(*case, whole, dtype) == [9 * 21]
        frame = torch.zeros(10, 22, 5).permute(2, 0, 1)
        paint(*case, frame[1:4, 1:, :-1], dtype, tile=(5, 16))
        check(frame[1:4, 1:, :-1], whole.double(), dtype)
        assert frame.count_nonzero() == whole.numel()
        monkeypatch.setattr(fused, "LAUNCH_PIXELS", 100)
        blocks = poisoned(3, 9, 21)
        assert len(paint(*case, blocks, dtype)) > 1
        check(blocks, whole.double(), dtype)

    def test_beyond_2_to_31(self, dtype: torch.dtype):
        """A row, and a channel, that lie further than 32 bits count."""
        case = make_case((2, 3), image_channels=2)
        far = (1 << 31) + 11
        memory = torch.tensor([], dtype=torch.uint8)
        memory.set_(torch.UntypedStorage(2 * far + 100))  # pages that are not touched take no memory
        whole = poisoned(2, 2, 3, dtype=torch.uint8)
        paint(*case, whole, dtype)
        for strides in ((10, far, 1), (far, 10, 1), (10, 1, far)):
            out = memory.as_strided((2, 2, 3), strides)
            paint(*case, out, dtype)
            assert (out.int() - whole.int()).abs().max() <= 1

    def test_large_weights(self, dtype: torch.dtype):
        """Values far outside float16: an error for float16, and not for float32."""
        columns, rows, stage = make_case((9, 17))
        stage = convert(stage, 30)
        out = poisoned(3, 9, 17)
        expected = specification(columns, rows, stage)
        assert expected.abs().max() > 1e9
        if dtype == EXACT:
            paint(columns, rows, stage, out, dtype)
            check(out, expected, dtype, levels=False)
        else:
            for stored in (torch.float32, torch.uint8):
                with pytest.raises(OverflowError, match="precision float32"):
                    paint(columns, rows, stage, out.to(stored), dtype)

    @pytest.mark.parametrize(("scale", "block_scale"), [(1e-4, 1e-4), (1, 6)])
    def test_scales(self, scale: float, block_scale: float, dtype: torch.dtype):
        """Small weights and features keep their relative precision in float32; the clamps of the blocks hold."""
        columns, rows, stage = make_case((9, 17))
        stage = dataclasses.replace(convert(stage, scale), blocks=convert(stage, block_scale).blocks)
        expected = specification(columns, rows, stage)
        assert block_scale < 1 or expected.abs().max() > 256
        out = poisoned(3, 9, 17)
        paint(columns, rows, stage, out, dtype)
        assert (out - expected).abs().max() <= 3 * RELATIVE[dtype] * expected.abs().max()  # such blocks amplify errors

    def test_a_nan_is_noticed(self, dtype: torch.dtype):
        columns, rows, stage = make_case((9, 17))
        rows[1, 3, 16, 2] = torch.nan
        with pytest.raises(OverflowError):
            paint(columns, rows, stage, poisoned(3, 9, 17, dtype=torch.uint8), dtype)

    def test_cancelling(self, dtype: torch.dtype):
        columns, rows, stage = make_case((9, 17))

        def cancel(pixels: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            BACKEND.paint(
                columns.float(),
                rows.float(),
                BACKEND.prepare(convert(stage, dtype=torch.float32), dtype),
                poisoned(3, 9, 17),
                supersample=1,
                tile=(4, 4),
                after_tile=cancel,
            )


# Who may use it


def test_too_wide():
    with pytest.raises(ValueError, match="up to 64 biline_channels, not 65"):
        pack(make_case((2, 2), channels=65)[2], EXACT, trial.candidate_configs(9, 64, True)[0])


def test_refuses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "not cpu" in BACKEND.refuses(torch.device("cpu"), HALF, PUBLISHED)
    assert "not mps" in BACKEND.refuses(torch.device("mps"), HALF, PUBLISHED)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "bfloat16" in BACKEND.refuses(torch.device("cpu"), torch.bfloat16, PUBLISHED)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)
    assert "not 7.5" in BACKEND.refuses(torch.device("cuda", 0), HALF, PUBLISHED)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "ROCm" in BACKEND.refuses(torch.device("cuda", 0), HALF, PUBLISHED)


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_refuses_without_triton(platform: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "triton.language", None)
    monkeypatch.setattr(sys, "platform", platform)
    fused.missing_triton.cache_clear()
    try:
        reason = fused.missing_triton()
    finally:
        fused.missing_triton.cache_clear()
    assert reason.startswith("triton-windows" if platform == "win32" else "triton ")


def test_importing_it_does_not_import_triton():
    code = "import sys, conftest, comfyui_creps.kernels; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=TESTS, check=True)


# On GPUs that this machine lacks

STACK_LIMITS = {80: 64, 90: 256, 100: 0, 120: 64}  # on an H200 what spills 232 bytes is the fastest
SHARED_LIMIT = 96 << 10
COMPILED = [(arch, dtype, "fp32") for arch in STACK_LIMITS for dtype in ("fp16", "fp32")]
COMPILED += [(90, "bf16", "fp32"), (90, "fp16", "u8")]  # dtype of the products, of the image


@pytest.mark.skipif(INTERPRETED, reason="compiles nothing")
@pytest.mark.parametrize(("arch", "dtype", "stored"), COMPILED)
def test_compiled(arch: int, dtype: str, stored: str):
    pytest.importorskip("triton.backends.nvidia", reason="needs Triton")
    config = trial.candidate_configs(arch // 10, 32, dtype == "fp32")[0]
    used = kernel_compiler.resources(kernel_compiler.compile_for(arch, dtype, stored, 32, config))
    print(f"sm_{arch} {dtype} -> {stored}: {used}")
    kernel_compiler.check(arch, used)
    assert used.stack <= STACK_LIMITS[arch]
    assert used.shared <= SHARED_LIMIT


@pytest.mark.skipif(INTERPRETED, reason="compiles nothing")
@pytest.mark.parametrize(("stored", "found"), [("fp32", "registers"), ("nonsense", "error")])
def test_the_compiler_answers_jobs(stored: str, found: str):
    """As `benchmarks/compile_kernel.py` asks it."""
    pytest.importorskip("triton.backends.nvidia", reason="needs Triton")
    job = json.dumps([80, "fp16", stored, 16, [[8, 8], 4, 1, 4]])
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, kernel_compiler.__file__]
    result = subprocess.run(command, input=job, env=environment, capture_output=True, text=True, check=True)
    assert found in json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(("shared", "tensor"), [(100 << 10, 0), (0, 513)])
def test_a_kernel_that_could_not_be_launched_is_an_error(shared: int, tensor: int):
    with pytest.raises(MemoryError):
        kernel_compiler.check(89, kernel_compiler.Resources(255, 0, shared, tensor))


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [HALF, torch.bfloat16, EXACT], ids=str)
class TestGpu:
    def test_accepts(self, dtype: torch.dtype):
        assert BACKEND.refuses(torch.device("cuda"), dtype, PUBLISHED, wait=True) is None

    @pytest.mark.parametrize("size", [(1, 1), (13, 45), (257, 515), (1024, 1024), (8192, 8192)], ids=str)
    def test_sizes(self, size: tuple[int, int], dtype: torch.dtype):
        """Blocks of the image, its corners among them, against the specification; in both dtypes, on both devices."""
        columns, rows, stage = make_case(size, levels=7)
        expected = {}
        for stored, target in (
            (torch.float32, "cuda"),
            (torch.uint8, "cuda"),
            (torch.float32, "cpu"),
            (torch.uint8, "cpu"),
        ):
            out = poisoned(3, *size, dtype=stored, device=target)
            paint(columns, rows, stage, out, dtype)
            assert not stored.is_floating_point or torch.isfinite(out).all()
            for top in sorted({0, size[0] // 3, max(0, size[0] - 24)}):
                for left in sorted({0, size[1] // 2, max(0, size[1] - 24)}):
                    block = slice(top, top + 24), slice(left, left + 24)
                    if (top, left) not in expected:
                        lines = columns[:, :, block[0]], rows[:, :, block[1]]
                        expected[top, left] = specification(*lines, stage)
                    exact, image = expected[top, left], out[:, block[0], block[1]].cpu()
                    if stored == torch.uint8:
                        exact = (exact * 127.5 + 128).clamp(0, 255)
                        slack = RELATIVE[dtype] * 127.5 * 8
                        assert (image.double() + 0.5 - exact).abs().max() <= 0.5 + slack
                    else:
                        check(image, exact, dtype, levels=False)

    def test_shapes(self, dtype: torch.dtype):
        for channels, image_channels in ((8, 1), (16, 4), (24, 20), (64, 3)):
            case = make_case((40, 70), channels=channels, image_channels=image_channels)
            out = poisoned(image_channels, 40, 70, device="cuda")
            paint(*case, out, dtype)
            check(out, specification(*case), dtype, levels=False)

    def test_supersampling(self, dtype: torch.dtype):
        case = make_case((60, 99))
        out = poisoned(3, 20, 33, device="cuda")
        paint(*case, out, dtype, supersample=3)
        check(out, specification(*case, 3), dtype, levels=False)

    def test_large_weights(self, dtype: torch.dtype):
        columns, rows, stage = make_case((9, 17))
        stage = convert(stage, 30)
        out = poisoned(3, 9, 17, device="cuda")
        if dtype == HALF:
            with pytest.raises(OverflowError):
                paint(columns, rows, stage, out, dtype)
        else:
            paint(columns, rows, stage, out, dtype)
            check(out, specification(columns, rows, stage), dtype, levels=False)
