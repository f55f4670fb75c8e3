"""Runs: stopped, killed, resumed, out of disk."""

from __future__ import annotations

import errno
import json
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_creps.common.errors import TrainingError
from comfyui_creps.creps_core import CheckpointError, inspect_checkpoint, load_generator
from comfyui_creps.creps_core.checkpoints import fingerprint
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.data import WindowCutter
from comfyui_creps.creps_core.training import (
    Recipe,
    Run,
    SampleHistory,
    Status,
    Trainer,
    load_networks,
    load_snapshot,
    read_stats,
    train,
)
from comfyui_creps.creps_core.training import loop as loop_module
from comfyui_creps.creps_core.training import sheets as sheets_module
from comfyui_creps.creps_core.training import writer as writer_module
from comfyui_creps.creps_core.training.curves import COLORS, loss_plot
from comfyui_creps.creps_core.training.parallel import Process
from paths import TESTS
from PIL import Image
from safetensors.torch import load_file
from tiny_run import RECIPE, make_pictures, make_trainer, resume

SCRIPT = TESTS / "helpers" / "tiny_run.py"


class Cancelled(BaseException):
    """As ComfyUI's interrupt, which is no Exception."""


def run_in(folder: Path, **fields) -> Run:
    return Run(folder, **{"tick": 4, "snapshot_every": 16, **fields})


def assert_same_state(found: Path, wanted: Path) -> None:
    found_tensors, wanted_tensors = load_file(found), load_file(wanted)
    assert found_tensors.keys() == wanted_tensors.keys()
    for name, tensor in wanted_tensors.items():
        assert torch.equal(found_tensors[name], tensor), name


# As the script of a run in a process of its own: sums are the same to the last bit for one number of threads.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run without a stop."""
    run = run_in(tmp_path_factory.mktemp("whole"))
    train(run, make_trainer(), make_pictures())
    return run


def test_what_a_run_leaves_behind(whole: Run):
    names = sorted(path.name for path in whole.folder.iterdir())
    grids = [f"fakes-{shown:010d}.png" for shown in (16, 32, 48)]
    kept = [f"snapshot-{shown:010d}.safetensors" for shown in (32, 48)]
    assert [n for n in names if "tfevents" not in n] == sorted(
        [*grids, *kept, "generator.safetensors", "losses.png", "reals.png", "run.json", "stats.jsonl"]
    )
    description = json.loads((whole.folder / "run.json").read_text())
    assert description["recipe"]["batch"] == RECIPE["batch"]
    assert description["data"]["pictures"] == 10
    lines = read_stats(whole.folder)
    assert [line["shown"] for line in lines] == list(range(4, 49, 4))
    assert all(line["images_per_second"] > 0 for line in lines)
    assert all(0 <= line["waiting"] <= 1 for line in lines)
    assert {"loss/G", "loss/D", "augment/p", "skipped"} <= lines[-1].keys()
    with Image.open(whole.folder / grids[-1]) as grid:
        assert grid.size == (8 * 16, 4 * 16)


def test_the_generator_of_a_run(whole: Run):
    trainer = load_snapshot(whole.snapshots()[-1])
    for path, bound in ((whole.folder / "generator.safetensors", 1e-3), (whole.snapshots()[-1], 0.0)):
        generator = load_generator(path)
        for name, tensor in trainer.G_ema.state_dict().items():
            assert (generator.state_dict()[name] - tensor).abs().max() <= bound * tensor.abs().max()
    current = load_generator(whole.snapshots()[-1], "G")
    assert torch.equal(current.synthesis.decoder_img.weight, trainer.G.synthesis.decoder_img.weight)
    info = inspect_checkpoint(whole.snapshots()[-1])
    assert info.networks == ["G", "D", "G_ema"]
    assert "training" in info.format
    networks = load_networks(whole.folder / "generator.safetensors")
    assert (networks.D.b4.fc.weight - trainer.D.b4.fc.weight).abs().max() <= 1e-2


@pytest.mark.parametrize("stop_at", [4, 12, 28])
def test_a_stopped_run_resumes_bit_for_bit(whole: Run, tmp_path: Path, stop_at: int):
    run = run_in(tmp_path)
    trainer = make_trainer()
    train(run, trainer, make_pictures(), stop=lambda: trainer.num_images >= stop_at)
    assert run.snapshots()[-1].name == f"snapshot-{stop_at:010d}.safetensors"
    train(run, resume(run), make_pictures())
    assert_same_state(run.snapshots()[-1], whole.snapshots()[-1])
    assert [line["shown"] for line in read_stats(tmp_path)] == list(range(4, 49, 4))


@pytest.mark.parametrize("room", [0.0, 1.0], ids=["copied", "resident"])
def test_it_makes_no_difference_who_cuts_the_windows(whole: Run, tmp_path: Path, monkeypatch, room: float):
    """On a GPU the GPU cuts: a run that is resumed there, or comes back from there, sees the same images."""
    run = run_in(tmp_path)
    trainer = make_trainer()
    train(run, trainer, make_pictures(), stop=lambda: trainer.num_images >= 16)
    made, plan = [], WindowCutter.plan
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "can_cut_on", lambda dataset, device: True)
        patch.setattr(loop_module, "DATASET_SHARE", room)
        patch.setattr(WindowCutter, "plan", lambda self, *item: made.append(self) or plan(self, *item))
        middle = resume(run)
        train(run, middle, make_pictures(), stop=lambda: middle.num_images >= 32)
    assert {windows.resident for windows in made} == {bool(room)}
    train(run, resume(run), make_pictures())
    assert_same_state(run.snapshots()[-1], whole.snapshots()[-1])


def test_a_cancelled_run_keeps_its_state(tmp_path: Path):
    run = run_in(tmp_path)

    def progress(status: Status) -> None:
        assert "of 48 pictures" in str(status)
        if status.num_images == 12:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(run, make_trainer(), make_pictures(), progress=progress)
    assert load_snapshot(run.snapshots()[-1]).num_images == 12


@pytest.mark.slow
def test_a_killed_run_loses_nothing_older_than_its_last_snapshot(whole: Run, tmp_path: Path):
    run, shown = run_in(tmp_path), 0
    for seconds in (0.5, 0.9, 1.4):
        process = subprocess.Popen([sys.executable, str(SCRIPT), str(tmp_path)])
        while process.poll() is None and len(run.snapshots()) + len(read_stats(tmp_path)) == 0:
            time.sleep(0.05)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = [load_snapshot(path).num_images for path in run.snapshots()]  # each of them is whole
        assert max(found, default=0) >= shown  # older ones are kept beside it
        shown = max(found, default=0)
    train(run, resume(run), make_pictures())
    assert_same_state(run.snapshots()[-1], whole.snapshots()[-1])
    found = [line["shown"] for line in read_stats(tmp_path)]
    assert found == sorted(set(found))


def test_a_full_disk_leaves_the_last_snapshot_whole(tmp_path: Path, monkeypatch):
    run, save = run_in(tmp_path), writer_module.save_snapshot

    def full(trainer, path, details=None):
        if trainer.num_images > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(trainer, path, details)

    monkeypatch.setattr(writer_module, "save_snapshot", full)
    with pytest.raises(TrainingError, match="make room"):
        train(run, make_trainer(), make_pictures())
    assert load_snapshot(run.snapshots()[-1]).num_images == 16


@pytest.mark.slow
def test_a_file_limit_of_the_system_leaves_the_last_snapshot_whole(whole: Run, tmp_path: Path):
    """The real thing: the system refuses to write beyond 100 kB, in the middle of a snapshot."""
    code = f"""
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.argv = [{str(SCRIPT)!r}, {str(tmp_path)!r}]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "TrainingError" in result.stderr
    assert not list(tmp_path.glob("snapshot-*")) + list(tmp_path.glob("*.partial"))


def test_damaged_snapshots_are_refused(whole: Run, tmp_path: Path):
    data = bytearray(whole.snapshots()[-1].read_bytes())
    damaged = tmp_path / "snapshot.safetensors"
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="not a whole"):
        load_snapshot(damaged)
    data[-100] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        load_snapshot(damaged)
    with pytest.raises(CheckpointError, match="not the state of a training"):
        load_snapshot(whole.folder / "generator.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        load_snapshot(tmp_path / "none.safetensors")


def test_data_must_fit():
    trainer = make_trainer()
    pictures = make_pictures()
    pictures.resolution = 32
    with pytest.raises(TrainingError, match="resolution"):
        train(run_in(Path("unused")), trainer, pictures)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        Image.new("RGB", (20, 18), (40 * i, 255 - 40 * i, 100)).save(tmp_path / f"{i}.png")
    return tmp_path


NEW = [
    "--z-dim",
    "8",
    "--w-dim",
    "8",
    "--mapping-layers",
    "2",
    "--channel-base",
    "256",
    "--channel-max",
    "16",
    "--biline-channels",
    "8",
]
SMALL = [
    "--batch",
    "4",
    "--tick",
    "4",
    "--snapshot",
    "8",
    "--d-channel-base",
    "128",
    "--d-channel-max",
    "8",
    "--device",
    "cpu",
]


def test_the_command_trains_resumes_and_fine_tunes(folder: Path, tmp_path: Path, caplog):
    out = tmp_path / "run"
    command = ["train", "--data", str(folder), "--out", str(out), "--resolution", "16", *NEW, *SMALL]
    assert main([*command, "--images", "8"]) == 0
    assert main([*command, "--images", "16"]) == 0
    assert [line["shown"] for line in read_stats(out)] == [4, 8, 12, 16]
    assert json.loads((out / "run.json").read_text())["recipe"]["r1_gamma"] == pytest.approx(0.5 / 64)
    tuned = tmp_path / "tuned"
    start = ["--start", str(out / "generator.safetensors")]
    assert main(["train", "--data", str(folder), "--out", str(tuned), *start, *SMALL, "--images", "4"]) == 0
    assert load_generator(tuned / "generator.safetensors").config.img_resolution == 16
    assert json.loads((tuned / "run.json").read_text())["recipe"]["ema_rampup"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--resolution is needed"),
        (["--resolution", "24"], "power of two"),
        (["--resolution", "16", "--start", "missing.pkl"], "no such file"),
        (["--resolution", "16", "--start", "alpin"], "a built-in (alpenglow, alpine, textures)"),
        (["--data", "nosuch"], "--data names a folder or a zip of pictures; there is no"),
        (["--resolution", "16", "--batch", "0"], "batch"),
        (["--resolution", "16", "--memory", "8G", "--micro-batch", "4"], "give one of them"),
        (["--resolution", "16", "--memory", "1M"], "one picture at a time takes about 0.6 GB"),
    ],
)
def test_bad_arguments_are_explained(folder: Path, tmp_path: Path, caplog, arguments: list[str], message: str):
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run"), *NEW, *SMALL, *arguments]) == 1
    assert message in caplog.text


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path):
    """Their groups of the minibatch standard deviation are those of the whole batch, which is twice as large.

    In the last of four steps their phases are graphs, with gradients averaged outside.
    """
    alone, together = run_in(tmp_path / "alone"), tmp_path / "together"
    trainer = make_trainer(Process(), total=32, batch=8)
    train(alone, trainer, make_pictures())
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    subprocess.run([*launch, str(SCRIPT), str(together), "--graphs"], check=True, capture_output=True)
    found, wanted = (load_file(run.snapshots()[-1]) for run in (run_in(together), alone))
    # The first moment is the gradient of the last phase, for beta is 0; the second one knows those before it. Some
    # gradients are nothing but what others leave when they cancel: what counts is the largest of a network.
    moments = [(f"adam.{network}.", moment) for network in "GD" for moment in ("exp_avg", "exp_avg_sq")]
    for begins, ends in (*moments, ("G.", "w_avg"), ("state.", "pl_mean")):
        names = [name for name in wanted if name.startswith(begins) and name.endswith(f".{ends}")]
        largest = max(wanted[name].abs().max() for name in names)
        for name in names:
            assert (found[name] - wanted[name]).abs().max() <= 5e-4 * largest, name


def test_a_damaged_header_is_noticed(whole: Run, tmp_path: Path):
    """A counter or a rate that has changed looks like any other."""
    data, damaged = whole.snapshots()[-1].read_bytes(), tmp_path / "snapshot.safetensors"
    for old, new in ((rb"\"shown\": 48", rb"\"shown\": 40"), (rb"\"g_lr\": 0.002", rb"\"g_lr\": 0.202")):
        assert data.count(old) == 1
        damaged.write_bytes(data.replace(old, new))
        with pytest.raises(CheckpointError, match="header does not match its checksum"):
            load_snapshot(damaged)


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path):
    run = run_in(tmp_path, snapshot_every=4)
    leftovers = tmp_path / ".snapshot-0000000008.safetensors.1.partial", tmp_path / ".run.json.1.partial"
    trainer = make_trainer(total=4, r1_interval=0, pl_interval=0)
    train(run, trainer, make_pictures())
    for path in leftovers:
        path.write_bytes(b"half")
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"shown": 8, "steps": 2}\n{"shown": 12, "st')
    train(run, resume(run, total=12, r1_interval=0, pl_interval=0), make_pictures())
    assert not any(path.exists() for path in leftovers)
    assert [json.loads(line)["shown"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == [4, 8, 12]


def test_what_comes_out_is_another_generator(tmp_path: Path):
    """Its latents and directions are not those of the generator that it began with."""
    begun = make_trainer()
    before = fingerprint(begun.G)
    trainer = Trainer(begun.G, begun.D, Recipe(batch=4, total=4, r1_interval=0, pl_interval=0))
    generator = train(run_in(tmp_path), trainer, make_pictures())
    assert generator is not trainer.G_ema
    assert fingerprint(generator) == fingerprint(load_generator(Run(tmp_path).snapshots()[-1])) != before


def test_a_new_run_does_not_mix_with_another(whole: Run):
    """Its snapshots would come before those of the other, and be removed as the oldest."""
    before = sorted(path.name for path in whole.folder.iterdir())
    with pytest.raises(TrainingError, match="beyond these 0 pictures"):
        train(whole, make_trainer(), make_pictures())
    assert sorted(path.name for path in whole.folder.iterdir()) == before


def test_statistics_leave_out_what_is_not_finite(tmp_path: Path, monkeypatch):
    trainer = make_trainer(total=16, r1_interval=0, pl_interval=0)
    losses = iter(torch.tensor([1.0, float("nan"), float("inf"), float("nan")]))
    monkeypatch.setattr(trainer, "step", lambda *data: {**Trainer.step(trainer, *data), "loss": next(losses)})
    train(run_in(tmp_path, tick=8), trainer, make_pictures())
    lines = (tmp_path / "stats.jsonl").read_text().splitlines()
    first, second = (json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines)
    assert first["loss"] == 1
    assert "loss" not in second


def test_time_left_counts_hours_beyond_a_day():
    status = Status(61_888, 800_000, 8.3, 88_952.0, {"loss/G": 1.47, "loss/D": 0.965, "augment/p": 0.0}, make_trainer())
    assert str(status) == "61,888 of 800,000 pictures, 8.3 per second, 24 h 42 min left; loss/G 1.47, loss/D 0.965"


def test_what_is_shown_of_a_run():
    stats = {"loss/G": 1.234, "loss/D": 0.5, "augment/p": 0.125, "scores/real": 1.0}
    text = str(Status(1000, 5000, 12.5, 320.0, stats, None))  # type: ignore[arg-type]
    assert text.startswith("1,000 of 5,000 pictures, 12.5 per second, 5 min 20 s left; loss/G 1.23, loss/D 0.5")
    assert text.endswith("augment/p 0.125")


def test_a_sample_history_grows_and_takes_little_of_the_time(monkeypatch):
    """A sheet that takes a second to draw is drawn every 50 seconds: 2 % of the time."""
    now, drawn = [0.0], []
    generator = make_trainer().G_ema

    def draw(generator, side, columns, rows):
        drawn.append(now[0])
        now[0] += 1.0
        return np.full((rows * side, columns * side, 3), len(drawn), np.uint8)

    monkeypatch.setattr(sheets_module, "sample_grid", draw)
    history, heights = SampleHistory(16, lambda: now[0]), []
    while now[0] < 1000:
        now[0] += 0.25
        if (sheet := history.update(generator)) is not None:
            heights.append(sheet.shape[0] // 16)
            assert sheet.shape[1] == 8 * 16
            assert sheet[-1, 0, 0] == len(drawn)
    assert len(drawn) <= 20
    assert heights[:10] == [1, 2, 3, 4, 5, 6, 7, 8, 5, 6]
    monkeypatch.undo()
    assert SampleHistory(8).update(generator).shape == (8, 64, 3)


def test_the_plot_of_losses_shows_where_they_stand():
    """Lines at 1 and 2 of an axis that ends at 2.1 are found by their colours, that far apart."""
    stats = [{"shown": k, "loss/G": 2.0, "loss/D": 1.0} for k in range(0, 101, 10)] + [{"shown": 110}]
    picture = np.asarray(loss_plot(stats)).astype(int)
    assert picture.shape == (360, 720, 3)
    column = picture[60:, 300]
    rows = {name: np.abs(column - color).sum(-1).argmin() for name, color in COLORS.items()}
    height = picture.shape[0] - 2 * 12 - 36 - 52  # of the axis
    assert rows["loss/D"] - rows["loss/G"] == pytest.approx(height / 2.1, abs=2)
    assert loss_plot([]) is None
    assert loss_plot(stats[:1]) is None


def test_tensorboard_receives_the_statistics(whole: Run):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    board = accumulator.EventAccumulator(str(whole.folder))
    board.Reload()
    lines = read_stats(whole.folder)
    for name in ("loss/G", "loss/D", "path_length"):
        wanted = [(line["shown"], line[name]) for line in lines if name in line]
        assert [(event.step, pytest.approx(event.value, abs=1e-5)) for event in board.Scalars(name)] == wanted


@pytest.mark.parametrize(("loss", "warnings"), [(1.39, 1), (1.2, 0)])
def test_a_discriminator_that_tells_nothing_is_reported(
    tmp_path: Path, monkeypatch, caplog, loss: float, warnings: int
):
    trainer = make_trainer(total=32, r1_interval=0, pl_interval=0)
    monkeypatch.setattr(trainer, "step", lambda *data: {**Trainer.step(trainer, *data), "loss/D": torch.tensor(loss)})
    train(run_in(tmp_path), trainer, make_pictures())
    assert caplog.text.count("Lower --gamma") == warnings


@pytest.mark.parametrize(("start", "said"), [("textures", True), ("alpine", False)])
def test_a_start_without_a_discriminator_is_reported(folder: Path, tmp_path: Path, caplog, start: str, said: bool):
    place = ["--data", str(folder), "--out", str(tmp_path / "run")]
    assert main(["train", *place, "--start", start, *SMALL, "--resolution", "16", "--images", "4"]) == 0
    assert ("alpine has one and is meant for fine-tuning" in caplog.text) == said


def test_the_command_fine_tunes_what_is_built_in(folder: Path, tmp_path: Path):
    """The same command again finds that there is nothing left to do."""
    out = tmp_path / "run"
    command = ["train", "--data", str(folder), "--out", str(out), "--start", "textures", "--resolution", "16", *SMALL]
    for _ in range(2):
        assert main([*command, "--images", "4"]) == 0
        assert [path.name for path in Run(out).snapshots()] == ["snapshot-0000000004.safetensors"]
    assert load_generator(out / "generator.safetensors").config.img_resolution == 128
    assert json.loads((out / "run.json").read_text())["recipe"]["ada_images"] == 100_000


def test_arguments_of_no_meaning_are_refused(folder: Path, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", str(folder), "--out", str(tmp_path / "run"), "--images", "many"])
    assert stopped.value.code == 2
    assert "300000, 300k or 25M" in capsys.readouterr().err


def test_memory_is_kept_where_the_library_can():
    """In a process of its own, for it lasts."""
    code = "from comfyui_creps.creps_core.training.allocator import keep_freed_memory; print(keep_freed_memory())"
    script = f"import runpy; runpy.run_path({str(TESTS / 'conftest.py')!r}); {code}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
