"""The synthesis as few large operations against the plain one."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core.network import COLUMNS, ROWS, FusedSynthesis
from comfyui_creps.kernels import trial
from comfyui_creps.kernels.packing import PackedStage, pack
from einops import rearrange
from emulated_kernel import unpack
from networks import make_generator, make_ws

CPU = torch.device("cpu")
SHAPES = [
    {"img_resolution": 32, "biline_channels": 16},
    {"img_resolution": 64, "biline_channels": 24, "img_channels": 4},
    {"img_resolution": 4},  # one level, whose bi-line starts from the Fourier features
    {"img_resolution": 8, "img_channels": 1},
    {"img_resolution": 16, "channel_base": 256, "channel_max": 48},  # widths that differ
]
Y, X = torch.linspace(-3, 2, 37, dtype=torch.float64), torch.linspace(1, 0, 55, dtype=torch.float64)


def reference_lines(generator, ws):
    """Both lines in float64, [L, B, n, rank] each."""
    synthesis = generator.double().synthesis
    styles = synthesis.line_styles(ws.double())
    found = [synthesis.bilines(styles, positions, line)[0] for positions, line in ((Y, COLUMNS), (X, ROWS))]
    generator.float()
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 5e-6), (torch.float16, 5e-3)], ids=str)
@pytest.mark.parametrize("layer_bytes", [1 << 26, 4000])
def test_lines(shape: dict, dtype: torch.dtype, limit: float, layer_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """Whole and in chunks, of one latent after another; padding channels stay unchanged."""
    monkeypatch.setattr("comfyui_creps.creps_core.network.fused_lines.LAYER_BYTES", layer_bytes)
    monkeypatch.setattr("comfyui_creps.creps_core.network.fused_lines._FOURIER_POSITIONS", 16)
    generator = make_generator(**shape)
    fused = FusedSynthesis(generator.synthesis, CPU)
    for ws in make_ws(generator, 2).split(1):
        columns, rows = reference_lines(generator, ws)
        levels, channels = columns.shape[:2]
        out = torch.full((levels, len(Y) + len(X), 8, channels + 2), 7.0)
        fused = (
            fused if fused.current else FusedSynthesis(generator.synthesis, CPU)
        )  # `float` puts the weights elsewhere
        with fused.latent(ws[0]) as applied:
            applied.lines(Y, X, out, dtype)
        assert (out[..., channels:] == 7).all()
        found = rearrange(out[..., :channels], "l n rank b -> l b n rank").double()
        size = max(columns.abs().max(), rows.abs().max())
        assert (2 * found[:, :, : len(Y)] - columns).abs().max() <= limit * size
        assert (found[:, :, len(Y) :] - rows).abs().max() <= limit * size


def test_one_line_alone():
    generator = make_generator()
    ws = make_ws(generator)
    fused = FusedSynthesis(generator.synthesis, CPU)
    both, columns, rows = (torch.zeros(3, n, 8, 8) for n in (len(Y) + len(X), len(Y), len(X)))
    with fused.latent(ws[0]) as applied:
        applied.lines(Y, X, both, torch.float32)
        applied.lines(Y, X[:0], columns, torch.float32)
        applied.lines(Y[:0], X, rows, torch.float32)
    assert torch.allclose(torch.cat([columns, rows], 1), both, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_stage_of_a_latent(dtype: torch.dtype):
    """The packed weights are those of the stage that is made without packing."""
    generator = make_generator(biline_channels=16, img_channels=4)
    ws = make_ws(generator)
    fused = FusedSynthesis(generator.synthesis, CPU)
    stage = PackedStage(fused.raw_stage(), dtype, trial.candidate_configs(9, 16, dtype == torch.float32)[0])
    with fused.latent(ws[0]) as applied:
        stage.apply(applied.block_scales)
    expected = generator.synthesis.pixel_stage(ws).sample(0)
    levels = len(generator.config.biline_levels)
    limit = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for packed in (stage.weights, pack(expected, dtype, stage.weights.config)):
        found = unpack(packed, levels, 16, 4)
        for a, b in zip(flat(found), flat(expected), strict=True):
            assert (a - b).abs().max() <= limit * b.abs().max() + 1e-7


def flat(stage):
    layers = [layer for decoder in stage.decoders for layer in decoder]
    layers += [stage.image, *(layer for block in stage.blocks for layer in block)]
    return [part for layer in layers for part in layer]


def test_changed_weights_are_noticed():
    generator = make_generator()
    fused = FusedSynthesis(generator.synthesis, CPU)
    assert fused.current
    generator.mapping.w_avg.add_(1)
    assert fused.current, "that is no weight of the synthesis"
    generator.synthesis.decoder_img.bias.add_(1)
    assert not fused.current
    fused = FusedSynthesis(generator.synthesis, CPU)
    generator.synthesis.block0.fc0.weight = torch.nn.Parameter(generator.synthesis.block0.fc0.weight.clone())
    assert not fused.current
    fused = FusedSynthesis(generator.synthesis, CPU)
    generator.double()
    assert not fused.current


@pytest.mark.parametrize("made_in_inference_mode", [True, False])
@pytest.mark.parametrize("used_in_inference_mode", [True, False])
def test_inference_mode_makes_no_difference(made_in_inference_mode: bool, used_in_inference_mode: bool):
    """ComfyUI renders in inference mode, a thread of the explorer's page may not. Against the layers in float64."""
    generator = make_generator(biline_channels=16)
    ws, out = make_ws(generator), torch.zeros(3, len(Y) + len(X), 8, 16)
    columns, rows = reference_lines(generator, ws)
    expected = generator.synthesis.pixel_stage(ws).sample(0)
    with torch.inference_mode(made_in_inference_mode):
        fused = FusedSynthesis(generator.synthesis, CPU)
        with torch.inference_mode(False):
            packed = PackedStage(fused.raw_stage(), torch.float32, trial.candidate_configs(9, 16, True)[0])
    for _ in range(2):  # the first use allocates
        with torch.inference_mode(used_in_inference_mode), fused.latent(ws[0]) as applied:
            applied.lines(Y, X, out, torch.float32)
            packed.apply(applied.block_scales)
    found = rearrange(out, "l n rank b -> l b n rank").double()
    size = max(columns.abs().max(), rows.abs().max())
    assert (2 * found[:, :, : len(Y)] - columns).abs().max() <= 5e-6 * size
    assert (found[:, :, len(Y) :] - rows).abs().max() <= 5e-6 * size
    for a, b in zip(flat(unpack(packed.weights, 3, 16, 3)), flat(expected), strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max() + 1e-7
