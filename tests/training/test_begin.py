"""Begin and resume runs, on the same data and on other data; refuse others; one process at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_creps.common.errors import CheckpointError, DatasetError, TrainingError
from comfyui_creps.creps_core import inspect_checkpoint, load_generator
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.training import Run, load_snapshot, read_stats, train
from comfyui_creps.creps_core.training import publish as publish_module
from comfyui_creps.creps_core.training import resume as resume_module
from comfyui_creps.creps_core.training.lock import LOCK_FILE, FolderLock
from comfyui_creps.creps_core.training.request import unused_name
from comfyui_creps.creps_core.training.snapshots import save_snapshot
from paths import TESTS
from picture_files import colours, encoded, write
from tiny_run import make_pictures, make_trainer

NEW = "--z-dim=8 --w-dim=8 --mapping-layers=2 --channel-base=256 --channel-max=16 --biline-channels=8"
SMALL = "--device=cpu --batch=4 --tick=4 --snapshot=8 --d-channel-base=128 --d-channel-max=8"
QUICK = [*SMALL.split(), "--path-length", "0"]


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    return write(folder, {f"{k}.png": encoded(colours(first + k)) for k in range(count)})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pictures(tmp_path / "pics", 6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    data = pictures(folder / "pics", 6)
    assert main(["train", "--data", str(data), "--out", str(folder / "run"), *new(8)]) == 0
    return folder / "run"


@pytest.fixture
def out(tmp_path: Path, data: Path, trained: Path) -> Path:
    """A run of 8 pictures, finished."""
    return shutil.copytree(trained, tmp_path / "run")


def new(images: int) -> list[str]:
    return ["--resolution", "16", "--images", str(images), *NEW.split(), *QUICK]


def described(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_says_that_there_is_nothing_to_do(out: Path, data: Path, caplog):
    before = state(out)
    with caplog.at_level("INFO"):
        assert main(["train", "--data", str(data), "--out", str(out), *new(8)]) == 0
        assert main(["train", "--out", str(out)]) == 0
    assert (
        caplog.text.count("nothing to do: 8 of 8 pictures shown; ask for more, or choose another name (--images, --out")
        == 2
    )
    assert state(out) == before


@pytest.mark.parametrize("images", [8, 16])
def test_other_pictures_are_refused_with_what_to_do(out: Path, tmp_path: Path, caplog, images: int):
    """Also those of a finished run, which would give the old result as if it had learnt these."""
    before, others = state(out), pictures(tmp_path / "dogs", 7, 100)
    command = ["train", "--data", str(others), "--out", str(out), *new(images)]
    assert main(command) == 1
    assert f'--out "{out} 2"' in caplog.text
    assert "--new-data" in caplog.text
    assert "6 pictures of" in caplog.text
    assert "7 pictures of" in caplog.text
    assert state(out) == before
    assert main([*command, "--new-data"]) == 0
    if images > 8:
        (entry,) = described(out)["history"]
        assert entry["shown"] == 8
        assert entry["data"].startswith("7 pictures")
        assert described(out)["data"]["pictures"] == 7
        assert main(["train", "--data", str(others), "--out", str(out), "--images", "20", *QUICK]) == 0


def test_the_same_pictures_elsewhere_resume(out: Path, tmp_path: Path):
    assert main(["train", "--data", str(pictures(tmp_path / "moved", 6)), "--out", str(out), *new(12)]) == 0
    assert described(out)["history"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "alpine"], "it began with new networks, not with alpine"),
        (["--resolution", "32"], "resolution 16, not 32"),
        (["--gray"], "channels 3, not 1"),
        (["--alpha"], "channels 3, not 4"),
        (["--z-dim", "16"], "the generator's z_dim is 8, not 16"),
        (["--d-channel-max", "16"], "the discriminator's channel_max is 8, not 16"),
        (["--tell-place"], "the discriminator's places is 0, not 1"),
        (["--mirror"], "mirror False, not True"),
        (["--crop", "resize"], "crop center, not resize"),
        (["--aspect", "16:9"], "aspect 1:1, not 16:9"),
        (["--max-pictures", "3"], None),
    ],
)
def test_what_contradicts_the_run_is_refused(out: Path, data: Path, caplog, options: list[str], message: str | None):
    before = state(out)
    assert main(["train", "--data", str(data), "--out", str(out), "--images", "12", *options]) == 1
    assert (message or "these are other pictures: 3 pictures") in caplog.text
    assert "another name" in caplog.text
    assert state(out) == before


@pytest.mark.parametrize(
    ("memory", "part", "said"), [("100G", 0, "the whole batch fits into 100 GB"), ("629.9M", 2, "2 pictures at a time")]
)
def test_memory_decides_the_parts(out: Path, data: Path, caplog, memory: str, part: int, said: str):
    """Also of a resumed run; the choice is kept with the run. On a CPU 600 MiB are reserved for other things."""
    assert main(["train", "--out", str(out), "--images", "12", "--device=cpu", "--memory", memory]) == 0
    assert said in caplog.text
    assert load_snapshot(sorted(out.glob("snapshot-*"))[-1]).recipe.micro_batch == part


def test_what_agrees_with_the_run_is_fine(out: Path, data: Path):
    agreeing = ["--no-mirror", "--crop", "center", "--aspect", "2:2", "--labels", "none", "--seed", "0"]
    assert main(["train", "--data", str(data), "--out", str(out), *new(12), *agreeing]) == 0
    assert described(out)["history"] == []


def test_options_that_are_not_given_keep_the_values_of_the_run(tmp_path: Path, data: Path, caplog):
    start, tuned = tmp_path / "start", tmp_path / "tuned"
    assert main(["train", "--data", str(data), "--out", str(start), *new(4)]) == 0
    options = ["--mirror", "--gamma", "0.3", "--freeze-d", "1", "--augment-p", "0.1", "--g-lr", "0.001", "--seed", "5"]
    command = ["train", "--out", str(tuned), "--images", "8"]
    begin = ["--data", str(data), "--start", str(start / "generator.safetensors"), *QUICK, *options]
    assert main([*command, *begin]) == 0
    recipe = described(tuned)["recipe"]
    assert (recipe["ema_rampup"], recipe["ema_least"]) == (0.1, 10 * recipe["batch"])
    assert recipe["ada_images"] == 100_000
    assert main([*command[:-1], "12", "--device", "cpu"]) == 0
    assert described(tuned)["recipe"] == {**recipe, "total": 12}
    assert described(tuned)["data"]["mirror"] is True
    assert described(tuned)["intervals"] == {"tick": 4, "snapshot_every": 8, "keep": 2}
    assert described(tuned)["history"] == []
    caplog.clear()
    assert main([*command[:-1], "16", "--gamma", "0.6", "--g-lr", "0.001", "--device", "cpu"]) == 0
    assert "from 12 pictures on with r1_gamma 0.6 instead of 0.3" in caplog.text
    assert described(tuned)["history"] == [{"shown": 12, "recipe": {"r1_gamma": [0.3, 0.6]}}]
    # What it began with may be gone, or have changed.
    (start / "generator.safetensors").unlink()
    assert main([*command[:-1], "20", "--start", str(start / "generator.safetensors"), "--device", "cpu"]) == 0
    assert [line["shown"] for line in read_stats(tuned)] == [4, 8, 12, 16, 20]


def test_another_start_of_the_same_shape_is_refused(tmp_path: Path, data: Path, caplog):
    for name, seed in (("a", "1"), ("b", "2")):
        assert main(["train", "--data", str(data), "--out", str(tmp_path / name), *new(4), "--seed", seed]) == 0
    out = tmp_path / "tuned"

    def tune(name: str, images: int) -> int:
        start = ["--start", str(tmp_path / name / "generator.safetensors")]
        return main(["train", "--data", str(data), "--out", str(out), *start, *QUICK, "--images", str(images)])

    assert tune("a", 4) == 0
    assert tune("b", 4) == tune("b", 8) == 1
    assert "generator.safetensors, not with " in caplog.text
    assert tune("a", 8) == 0
    assert described(out)["start"].endswith("a/generator.safetensors")


def test_files_that_the_run_has_not_named_are_left_alone(out: Path, data: Path):
    snapshot = out / "snapshot-0000000008.safetensors"
    kept = [
        "snapshot-0000000008-good.safetensors",
        "snapshot-0000000008 (copy).safetensors",
        "snapshot-best.safetensors",
        "my snapshot-0000000004.safetensors",
        "snapshot-0000000004.safetensors.bak",
        ".mine.partial",
    ]
    for name in kept:
        (out / name).write_bytes(snapshot.read_bytes())
    assert main(["train", "--data", str(data), "--out", str(out), *new(24)]) == 0
    names = {path.name for path in out.iterdir()}
    assert set(kept) <= names
    assert [path.name for path in Run(out).snapshots()] == [f"snapshot-{n:010d}.safetensors" for n in (16, 24)]
    assert [line["shown"] for line in read_stats(out)] == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize("harm", ["cut", "empty", "changed"])
def test_a_damaged_newest_snapshot_falls_back_to_the_whole_one(out: Path, data: Path, caplog, harm: str):
    assert main(["train", "--data", str(data), "--out", str(out), *new(16)]) == 0
    newest = out / "snapshot-0000000016.safetensors"
    content = newest.read_bytes()
    middle = len(content) // 2
    harmed = {"cut": content[:middle], "empty": b"", "changed": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]}
    newest.write_bytes(harmed[harm])
    caplog.clear()
    assert main(["train", "--data", str(data), "--out", str(out), *new(20)]) == 0
    assert "the run resumes from snapshot-0000000008.safetensors" in caplog.text
    assert (out / "snapshot-0000000016.safetensors.damaged").read_bytes() == harmed[harm]
    assert [line["shown"] for line in read_stats(out)] == [4, 8, 12, 16, 20]
    assert load_snapshot(newest).num_images == 16


def test_when_no_snapshot_is_whole(out: Path, data: Path, caplog):
    (out / "snapshot-0000000008.safetensors").write_bytes(b"")
    assert main(["train", "--data", str(data), "--out", str(out), *new(16)]) == 1
    assert "none of its snapshots can be used" in caplog.text
    assert "generator.safetensors if that is whole" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_run_without_its_description_goes_on(out: Path, data: Path, caplog, content: bytes | None):
    before = described(out)
    (out / "run.json").unlink()
    if content is not None:
        (out / "run.json").write_bytes(content)
    assert main(["train", "--out", str(out), "--images", "12", "--device", "cpu"]) == 0
    assert ("run.json is missing" if content is None else "run.json is") in caplog.text
    assert described(out)["identity"] == before["identity"]
    assert main(["train", "--data", str(pictures(data.parent / "dogs", 7, 50)), "--out", str(out)]) == 1


def test_half_of_a_run(out: Path, data: Path, caplog):
    for path in Run(out).snapshots():
        path.unlink()
    assert main(["train", "--data", str(data), "--out", str(out), *new(16)]) == 1
    assert "holds generator.safetensors but no snapshot to resume from" in caplog.text
    assert f"--start {out / 'generator.safetensors'}" in caplog.text
    (out / "generator.safetensors").unlink()
    assert main(["train", "--data", str(data), "--out", str(out), *new(8)]) == 0


def test_the_generator_of_a_finished_run_is_made_again(out: Path, data: Path):
    before = load_generator(out / "generator.safetensors").state_dict()
    (out / "generator.safetensors").unlink()
    assert main(["train", "--data", str(data), "--out", str(out), *new(8)]) == 0
    for name, tensor in load_generator(out / "generator.safetensors").state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("images", [8, 16])
def test_what_a_killed_run_did_not_come_to_make_is_made(out: Path, data: Path, tmp_path: Path, images: int):
    """Killed behind its last snapshot, with the clock set back since: the folder is that of an undisturbed run."""
    command = ["train", "--data", str(data), *new(images), "--keep", "1", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    killed = shutil.copytree(out, tmp_path / "killed")
    newest = killed / "snapshot-0000000008.safetensors"
    first = load_snapshot(newest)
    first.num_images = 4
    save_snapshot(first, killed / "snapshot-0000000004.safetensors", {})
    publish_module.publish_generator(Run(killed), first.G_ema, first.D, 4)
    os.utime(killed / "generator.safetensors", (2e9, 2e9))
    (killed / "fakes-0000000008.png").unlink()
    shutil.copy(killed / "reals.png", killed / "losses.png")
    assert main([*command, str(killed)]) == 0
    found, wanted = state(killed), state(tmp_path / "whole")
    assert {n for n in found if "tfevents" not in n} == {n for n in wanted if "tfevents" not in n}
    assert all(found[name] == content for name, content in wanted.items() if name.startswith("fakes-"))
    assert found["losses.png"] != found["reals.png"]
    trained = inspect_checkpoint(killed / "generator.safetensors").details["trained"]
    assert trained == f"{images} pictures"


def test_runs_of_the_first_version_resume(out: Path, data: Path, tmp_path: Path, caplog, monkeypatch):
    """They kept less: the recipe in the snapshot, the number of pictures and the name of the start in run.json."""
    trainer = load_snapshot(out / "snapshot-0000000008.safetensors")
    old = {"data_source": str(data), "start": "new"}
    save_snapshot(trainer, out / "snapshot-0000000008.safetensors", old)
    known = described(out)
    first = {name: known[name] for name in ("version", "torch", "generator", "discriminator", "recipe")}
    (out / "run.json").write_text(json.dumps({**first, "data": {"pictures": 6, "mirror": False}, **old}))
    for options, message in (
        (["--data", str(pictures(tmp_path / "dogs", 7, 100))], "these are other pictures: 7"),
        (["--start", "textures"], "it began with new networks, not with textures"),
        (["--mirror"], "mirror False, not True"),
    ):
        assert main(["train", "--out", str(out), "--images", "12", *options]) == 1
        assert message in caplog.text
    assert main(["train", "--out", str(out), "--images", "12", "--device", "cpu"]) == 0
    assert described(out)["identity"]["pictures"] == 6


def test_a_snapshot_of_a_later_version_is_no_damage(out: Path, caplog):
    newest = out / "snapshot-0000000008.safetensors"
    data = newest.read_bytes()
    assert data.count(rb"\"version\": 1") == 1
    newest.write_bytes(data.replace(rb"\"version\": 1", rb"\"version\": 9"))
    assert main(["train", "--out", str(out), "--images", "12"]) == 1
    assert "written in version 9 of the format" in caplog.text
    assert newest.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, data: Path, caplog):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "locked" / "run"), *new(8)]) == 1
    assert "cannot be written to (Permission denied): choose another place" in caplog.text


def test_a_file_in_place_of_the_folder(tmp_path: Path, data: Path, caplog):
    (tmp_path / "run").write_text("mine")
    assert main(["train", "--data", str(data), "--out", str(tmp_path / "run"), *new(8)]) == 1
    assert "cannot be written to" in caplog.text
    assert (tmp_path / "run").read_text() == "mine"


# --- One process at a time

HOLD = """
import runpy, sys, time
runpy.run_path(sys.argv[1])
from pathlib import Path
from comfyui_creps.creps_core.training.lock import FolderLock
with FolderLock(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_process_is_told_who_holds_the_run(out: Path, data: Path, caplog):
    command = [sys.executable, "-c", HOLD, str(TESTS / "conftest.py"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            before = state(out)
            assert main(["train", "--data", str(data), "--out", str(out), *new(16)]) == 1
            assert f"another process is at work on this run (process {holder.pid} on " in caplog.text
            assert state(out) == before
        finally:
            holder.kill()
    # A dead process holds nothing, though its file is still there.
    assert (out / LOCK_FILE).exists()
    assert main(["train", "--data", str(data), "--out", str(out), *new(16)]) == 0
    assert not (out / LOCK_FILE).exists()


def test_a_lock_is_taken_again_by_who_has_it_and_by_nobody_else(tmp_path: Path):
    mine, other = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    with mine:
        with mine, pytest.raises(TrainingError, match=f"process {os.getpid()} on"), other:
            pass
        with pytest.raises(TrainingError), other:
            pass
    with other:
        pass
    assert not (tmp_path / "run").exists()  # nothing was left in it


# --- What is not lost


def test_an_error_of_the_data_keeps_the_pictures_shown_so_far(tmp_path: Path, monkeypatch):
    trainer, data = make_trainer(r1_interval=0, pl_interval=0), make_pictures()
    plain = type(data).images

    def fails(self, indices, **options):
        if trainer.num_images >= 8:
            raise DatasetError("the folder is gone")
        return plain(self, indices, **options)

    monkeypatch.setattr(type(data), "images", fails)
    with pytest.raises(DatasetError, match="the folder is gone"):
        train(Run(tmp_path, tick=4, snapshot_every=1000), trainer, data)
    (snapshot,) = Run(tmp_path).snapshots()
    assert load_snapshot(snapshot).num_images == trainer.num_images >= 8


def test_the_state_is_saved_before_anything_is_drawn(tmp_path: Path, monkeypatch):
    def fails(*_args, **_options):
        raise RuntimeError("no font")

    monkeypatch.setattr(publish_module, "sample_grid", fails)
    trainer = make_trainer(total=8, r1_interval=0, pl_interval=0)
    with pytest.raises(RuntimeError, match="no font"):
        train(Run(tmp_path, tick=4, snapshot_every=4), trainer, make_pictures())
    assert load_snapshot(Run(tmp_path).snapshots()[-1]).num_images == 4
    assert inspect_checkpoint(tmp_path / "generator.safetensors").details["trained"] == "4 pictures"


def test_fresh_names(tmp_path: Path):
    assert unused_name(tmp_path / "my run") == "my run 2"
    (tmp_path / "my run 2").mkdir()
    assert unused_name(tmp_path / "my run") == unused_name(tmp_path / "my run 2") == "my run 3"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe{",
        b'{"shown": true, "loss/G": 1}', b'{"shown": 4, "loss/G": "a", "metric/swd": [1]}', b"[" * 100_000,
        b'{"shown": 1e400}', b'{"shown": 4, "loss/G": ' + b"9" * 400 + b"}", b'{"shown": -1}', b"\0" * 99,
    ],
)  # fmt: skip
def test_a_bad_line_of_statistics_is_skipped(out: Path, line: bytes):
    before = read_stats(out)
    stats = out / "stats.jsonl"
    stats.write_bytes(line + b"\n" + stats.read_bytes() + line)
    kept = [found for found in read_stats(out) if set(found) != {"shown"}]
    assert kept == before
    assert main(["train", "--out", str(out), "--images", "12", "--device", "cpu"]) == 0
    assert [found["shown"] for found in read_stats(out)][-1] == 12


@pytest.mark.skipif(os.name == "nt", reason="needs pipes with names")
def test_a_pipe_in_place_of_the_description_does_not_hang(out: Path, caplog):
    (out / "run.json").unlink()
    os.mkfifo(out / "run.json")
    assert Run(out).description()[1].endswith("run.json is empty or damaged")
    (out / "stats.jsonl").unlink()
    os.mkfifo(out / "stats.jsonl")
    with pytest.raises(OSError, match="not a file"):
        read_stats(out)


def test_a_read_error_of_the_newest_snapshot_is_not_damage(out: Path, caplog, monkeypatch):
    def fail(path, **options):
        error = CheckpointError("cannot be read")
        error.__cause__ = OSError(errno.EIO, "Input/output error")
        raise error

    before = state(out)
    monkeypatch.setattr(resume_module, "load_state", fail)
    assert main(["train", "--out", str(out), "--images", "12", "--device", "cpu"]) == 1
    assert "cannot be read (Input/output error)" in caplog.text
    assert "check the disk" in caplog.text
    assert state(out).keys() == before.keys()
