"""Metrics of a run's snapshots; the best snapshot is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import fidelity_library
import pytest
import torch
from comfyui_creps.creps_core import load_generator
from comfyui_creps.creps_core.checkpoints import inspect_checkpoint
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.training import Run, SnapshotMetrics, load_snapshot, read_stats, train
from PIL import Image
from scenes import scenes, write
from tiny_run import make_pictures, make_trainer, resume

SCRIPT = {8: 5.0, 16: 3.0, 24: 4.0, 32: 2.0, 40: 6.0, 48: 7.0}


def metrics(publish_best: bool = True, **changes: object) -> SnapshotMetrics:
    def measure(trainer, pictures) -> dict[str, float]:
        assert len(pictures) == 20
        return {"fid5k": SCRIPT[trainer.num_images], "swd": 100 - trainer.num_images}

    fields = {"metric": "fid5k", "lower_is_better": True, "publish_best": publish_best, "measure": measure}
    return SnapshotMetrics(**{**fields, **changes})


def run_in(folder: Path, **options: object) -> Run:
    return Run(folder, tick=4, snapshot_every=8, metrics=metrics(**options))


def shown(run: Run) -> list[int]:
    return [int(path.name[9:19]) for path in run.snapshots()]


def test_the_best_snapshot_is_kept_and_gives_the_generator(tmp_path: Path):
    run = run_in(tmp_path)
    train(run, make_trainer(), make_pictures())
    assert shown(run) == [32, 40, 48]
    lines = [line for line in read_stats(tmp_path) if "metric/fid5k" in line]
    assert {line["shown"]: line["metric/fid5k"] for line in lines} == SCRIPT
    assert lines[0]["metric/swd"] == 92
    best = load_snapshot(tmp_path / "snapshot-0000000032.safetensors").G_ema
    for name, tensor in load_generator(tmp_path / "generator.safetensors").state_dict().items():
        assert (best.state_dict()[name] - tensor).abs().max() <= 1e-3 * tensor.abs().max()
    assert inspect_checkpoint(tmp_path / "generator.safetensors").details["trained"] == "32 pictures"
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.size == (720, 3 * 360)
    (tmp_path / "generator.safetensors").unlink()  # a finished run writes it again, from the same snapshot
    train(run, resume(run), make_pictures())
    assert inspect_checkpoint(tmp_path / "generator.safetensors").details["trained"] == "32 pictures"


def test_without_held_out_images_the_last_snapshot_gives_the_generator(tmp_path: Path):
    run = run_in(tmp_path, publish_best=False, lower_is_better=False, metric="swd")
    train(run, make_trainer(), make_pictures())
    assert shown(run) == [8, 40, 48]
    assert inspect_checkpoint(tmp_path / "generator.safetensors").details["trained"] == "48 pictures"


def test_a_resumed_run_knows_its_best_snapshot(tmp_path: Path):
    run = run_in(tmp_path)
    trainer = make_trainer()
    train(run, trainer, make_pictures(), stop=lambda: trainer.num_images >= 36)
    assert shown(run) == [24, 32, 36] or shown(run) == [32, 36]
    assert "metric/fid5k" not in read_stats(tmp_path)[-1]  # stopping does not wait for metrics
    run = run_in(tmp_path)
    train(run, resume(run), make_pictures())
    assert shown(run) == [32, 40, 48]
    assert inspect_checkpoint(tmp_path / "generator.safetensors").details["trained"] == "32 pictures"


def test_nan_is_never_the_best(tmp_path: Path):
    run = run_in(tmp_path, measure=lambda *_: {"fid5k": math.nan})
    train(run, make_trainer(total=16), make_pictures())
    assert shown(run) == [8, 16]
    assert run.best() is None
    assert all("metric/fid5k" not in line for line in read_stats(tmp_path))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fidelity_library.need()
    monkeypatch.setenv("CREPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", scenes(24, 0))
    write(tmp_path / "held-out", scenes(20, 1))
    fidelity_library.small_extractor(monkeypatch, tmp_path / "small.pth")
    return tmp_path


COMMAND = [
    *("train", "--data", "data", "--out", "run", "--resolution", "16", "--batch", "4", "--device", "cpu"),
    *("--channel-base", "512", "--channel-max", "16", "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "2"),
    *("--tick", "4", "--snapshot", "8", "--path-length", "0"),
]


def test_the_command(work: Path, caplog):
    metrics = ["--metrics", "fid12,swd,prc12", "--held-out", "held-out", "--inception", "small.pth"]
    assert main([*COMMAND, "--images", "16", *metrics]) == 0
    assert main([*COMMAND, "--images", "24"]) == 0  # which keeps its metrics
    lines = [line for line in read_stats(work / "run") if "metric/fid12" in line]
    assert [line["shown"] for line in lines] == [8, 16, 24]
    assert all({"metric/swd", "metric/precision", "metric/recall"} <= line.keys() for line in lines)
    best = min(lines, key=lambda line: line["metric/fid12"])["shown"]
    details = inspect_checkpoint(work / "run" / "generator.safetensors").details
    assert details["trained"] == f"{best} pictures"
    assert "held-out" not in json.dumps(details)  # it may be given to others
    assert (work / "run" / f"snapshot-{best:010d}.safetensors").exists()
    assert not list((work / "run").glob("unfinished/*"))
    # The same value as by `creps evaluate`.
    command = [
        "evaluate",
        "--checkpoint",
        f"run/snapshot-{best:010d}.safetensors",
        "--data",
        "held-out",
        "--out",
        "out",
    ]
    assert main([*command, "--metrics", "fid12", "--inception", "small.pth", "--side", "16", "--device", "cpu"]) == 0
    found = json.loads((work / "out" / "metrics.json").read_text())["metrics"][0]["fid12"]
    assert found == pytest.approx(min(line["metric/fid12"] for line in lines), rel=1e-4)
    assert main([*COMMAND, "--images", "32", "--metrics", "none"]) == 0
    assert "metric/fid12" not in read_stats(work / "run")[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "fid5k"], "needs the weights weights-inception"),
        (["--metrics", "fad"], "there is no metric 'fad'"),
        (["--metrics", "scale"], "scale says nothing of a training"),
        (["--metrics", "swd", "--held-out", "nowhere"], "--held-out: there is no"),
        (["--held-out", "held-out"], "say what to measure"),
    ],
)
def test_what_is_refused_before_anything_is_trained(work: Path, words: list[str], message: str, caplog):
    assert main([*COMMAND, "--images", "8", *words]) == 1
    assert message in caplog.text
    assert not list((work / "run").glob("*.safetensors"))
