"""Stop by signals, and what a run is said to take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_creps.common.duration import duration
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.training import load_snapshot
from comfyui_creps.creps_core.training.snapshots import save_snapshot
from comfyui_creps.creps_core.training.trial_phase import estimate_step_seconds, time_note
from paths import TESTS
from PIL import Image
from tiny_run import make_trainer

# A step that Python cannot interrupt: one long operation in C, as a backward pass of wide networks.
WAIT = """
import runpy, sys, logging
runpy.run_path({conftest!r})
import torch
from comfyui_creps.creps_core.training.stopping import StopSignals
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
torch.set_num_threads(1)
with StopSignals() as stop:
    stop.step_seconds = 40.0
    x = torch.ones(6000, 6000)
    print("ready", flush=True)
    x @ x
    print("asked", stop(), flush=True)
"""


@pytest.fixture
def child():
    script = WAIT.format(conftest=str(TESTS / "conftest.py"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_answered_at_once_and_obeyed_after_the_step(child, number: int):
    child.send_signal(number)
    line = child.stderr.readline()
    assert line.startswith("stopping after this step (about 0 min ")
    assert child.communicate()[0] == "asked True\n"
    assert child.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_second_signal_ends_the_process_within_an_operation(child):
    child.send_signal(signal.SIGINT)
    assert child.stderr.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert "stopped at once" in err


def test_a_trial_changes_nothing(tmp_path: Path):
    tried, plain = make_trainer(), make_trainer()
    assert 0 < estimate_step_seconds(tried) < 600
    reals = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    for name, trainer in (("tried", tried), ("plain", plain)):
        trainer.step(reals)
        save_snapshot(trainer, tmp_path / name)
    a, b = (load_snapshot(tmp_path / name) for name in ("tried", "plain"))
    for network in ("G", "D", "G_ema"):
        values = getattr(b, network).state_dict()
        assert all(torch.equal(t, values[n]) for n, t in getattr(a, network).state_dict().items())


def test_the_time_of_a_run_is_said_in_words():
    trainer = make_trainer(total=4_000_000)
    assert time_note(trainer, 40.0).startswith("4,000,000 pictures will take about 463 days")
    assert "a step of 4 takes about 0 min 40 s. --preset small" in time_note(trainer, 40.0)
    assert [duration(3600.0 * h) for h in (71, 24 * 12, 107_013)] == [
        "71 h 00 min", "12 days", "12.2 years",
    ]  # fmt: skip


def test_no_thread_to_be_had_is_a_line(tmp_path: Path, monkeypatch, caplog):
    def start(self):
        raise RuntimeError("can't start new thread")

    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    monkeypatch.setattr("threading.Thread.start", start)
    command = ["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--resolution=8", "--device=cpu"]
    assert main([*command, "--images=8"]) == 1
    assert "close other programs, or raise the limit of processes" in caplog.text
