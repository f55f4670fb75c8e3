"""`creps bench`: its counts and ratios, that wrong images are not timed, and the record in docs/figures.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfyui_creps.creps_core.bench import command, speed
from comfyui_creps.creps_core.bench.command import HEAP_KEPT, _child
from comfyui_creps.creps_core.bench.networks import random_generator, random_latent
from comfyui_creps.creps_core.bench.tables import record_table
from comfyui_creps.creps_core.bench.unfused import unfused_image
from comfyui_creps.creps_core.cli import main
from paths import ROOT
from torch.utils.flop_counter import FlopCounterMode

TINY = "4096/64"
CPU = torch.device("cpu")
FIGURES = ROOT / "docs" / "figures.md"
RESULTS = ROOT / "benchmarks" / "results.jsonl"


def newest_of_cpu() -> dict:
    """The newest record of `creps bench`; those of `make gpu` lie between them."""
    return [record for line in RESULTS.read_text().splitlines() if "cpu" in (record := json.loads(line))][-1]


def test_the_opponent_paints_the_same_picture():
    generator = random_generator(TINY)
    ws = random_latent(generator)
    positions = torch.linspace(0, 1, 24, dtype=torch.float64)
    exact = generator.double().synthesis(ws.double(), positions, positions)
    found = unfused_image(generator.float(), ws, 24)
    assert speed.image_error(found, exact)[0] <= 1e-4  # its phases are of float32, as published


def test_operations_are_counted_as_torch_counts_them():
    generator = random_generator(TINY)
    ws = random_latent(generator)
    with FlopCounterMode(display=False) as counter:
        unfused_image(generator, ws, 64)
    styles = sum(m.affine.weight.numel() for m in generator.synthesis.modules() if hasattr(m, "affine"))
    counted = counter.get_total_flops() - 2 * styles
    assert counted == pytest.approx(speed.pixel_flops(generator, 64) + speed.line_flops(generator, 64), rel=0.01)


def test_medians_and_spreads():
    seconds = {"gemm": [1.0, 2.0, 1.0], "unfused": [8.0, 6.0, 9.0], "float32": [2.0, 1.0, 3.0]}
    found = speed.speed_summary(seconds, 4 * 2 * 2048**3)
    assert found["float32"] == {
        "seconds": 2.0,
        "seconds_range": [1.0, 3.0],
        "ratio": 4.0,
        "ratio_range": [3.0, 6.0],
        "of_gemm": 2.0,
    }


def test_wrong_pictures_are_not_timed(monkeypatch: pytest.MonkeyPatch):
    picture = speed.render
    monkeypatch.setattr(speed, "render", lambda *args, **options: picture(*args, **options) * 1.001)
    monkeypatch.setattr(speed, "time_in_turns", None)
    with pytest.raises(ValueError, match="no figures of wrong pictures"):
        speed.measure_speed((TINY,), 32, 1, CPU)


def test_a_precision_beyond_its_limit_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "untimed_reasons", lambda device: {"float32": None, "bfloat16": None})
    monkeypatch.setitem(speed.ERROR_LIMITS, "bfloat16", (1e-9, 1.0))
    found = speed.measure_speed((TINY,), 32, 1, CPU)
    assert set(found[TINY]) == {"gemm_gflops", "unfused", "float32"}
    assert "its error is" in found["refused"]["bfloat16"]


@pytest.mark.slow
def test_children_print_json_and_their_errors_come_through():
    arguments = ("--side", "32", "--widths", TINY)
    assert _child("speed", *arguments, "--runs", "1", environment=HEAP_KEPT)["pixels"]["float32"]["seconds"] > 0
    assert _child("speed", *arguments, "--film", "2")["frames"] == 2
    with pytest.raises(ValueError, match="unrecognized arguments"):
        _child("speed", "--no-such-option")


def test_the_command_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    newest = newest_of_cpu()
    asked = []
    monkeypatch.setattr(command, "measure_machine", lambda *arguments: asked.append(arguments) or newest)
    out = tmp_path / "results.jsonl"
    for _ in range(2):
        assert main(["bench", "--quick", "--frames", "7", "--results", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [newest, newest]
    assert asked[0] == (3, 7, (512, 1024))
    assert record_table(newest) in capsys.readouterr().out
    before = RESULTS.read_text()
    assert main(["bench", "--quick"]) == 0
    assert main(["bench", "--runs", "0"]) == 1
    assert RESULTS.read_text() == before


def test_the_figures_show_the_newest_record():
    newest = newest_of_cpu()
    assert record_table(newest) in FIGURES.read_text()
