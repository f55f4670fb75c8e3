"""A kernel is tried in another process before it is launched; if it fails there in any way, torch renders."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfyui_creps import kernels
from comfyui_creps.kernels import fused, trial, trial_child
from comfyui_creps.kernels.packing import KernelConfig
from comfyui_creps.kernels.stage import PUBLISHED
from flawed_kernel import flawed
from paths import TESTS

CASE = trial.TrialCase(0, "torch.float16", 32, 3)
CONFIG = KernelConfig((8, 16), 4, 2, 2)
SCRIPT = str(TESTS / "helpers" / "trial_child_of_tests.py")


def child(mode: str) -> list[str]:
    """The command of a child whose kernel behaves as `mode` says."""
    return [sys.executable, SCRIPT, mode]


# The child, with kernels that fail in every way


@pytest.mark.parametrize(
    ("fault", "said", "lasting"),
    [
        ("raises", "RuntimeError: an illegal memory access", True),
        ("wrong", "it is wrong by", True),
        ("wrong at 64 rows", "it is wrong by", True),
        ("wrong now and then", "it is wrong by", True),
        ("writes nothing", "it is wrong by nan", True),
        ("misses the last row", "it is wrong by nan", True),
        ("wrong in 8 bits", "levels of 8 bits", True),
        ("blind to NaN", "it does not notice values that are not finite", True),
        ("cries wolf", "it finds an overflow", True),
        ("out of memory", "no memory left", False),
        ("busy", "busy or unavailable", False),
        ("right", None, True),
    ],
)
def test_faults(fault: str, said: str | None, lasting: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial_child, "TRIAL_IMAGES", ((1, 1, 1), (2, 11, 21), (1, 67, 9)))
    paint, cpu = flawed(fault), torch.device("cpu")
    reason, same = trial_child.examine(lambda: trial_child.find_fault(paint, "torch.float16", 16, 3, cpu))
    assert reason is None if said is None else said in (reason or "")
    assert same is lasting


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("aborts", "its check ended with status"),
        ("says nothing", "its check ended with status 0"),
        ("prints and fails", "its check ended with status 1 (Segmentation fault)"),
        ("right", None),
    ],
)
def test_ends_of_the_child(mode: str, said: str | None):
    reason, lasting = trial.try_one(CASE, CONFIG, child(mode), 120)
    assert reason is None if said is None else said in (reason or "")
    assert lasting


def test_hanging():
    reason, lasting = trial.try_one(CASE, CONFIG, child("hangs"), 0.5)
    assert reason == "its check took more than 0 s"
    assert not lasting
    assert not trial._children


def test_no_other_processes(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_, **__):
        raise PermissionError("not here")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    reason, same = trial.try_one(CASE, CONFIG)
    assert "no other process can be started here (not here)" in (reason or "")
    assert not same


def test_the_child_finds_its_way_alone():
    """The command that is really run, on a machine without a GPU: it answers that there is none."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: TestGpu in test_fused.py runs the real thing")
    reason, _ = trial.try_one(CASE, CONFIG, seconds=120)
    assert reason is not None
    assert reason == "this process sees no CUDA GPU"


# Results


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A GPU that is not there; trials are answered by `tried`, a list of (reason, lasting) by configuration."""
    monkeypatch.setattr(trial, "_known", {})
    monkeypatch.setattr(trial, "_running", {})
    monkeypatch.setenv("CREPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Imaginary")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = SimpleNamespace(name="Imaginary", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(fused, "missing_triton", lambda: None)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="0.0"))
    answers, tried = [], []

    def try_one(case, config, *_):
        tried.append(config)
        return answers[min(len(tried), len(answers)) - 1]

    monkeypatch.setattr(trial, "try_one", try_one)
    return SimpleNamespace(answers=answers, tried=tried, properties=properties, cache=tmp_path / "cache")


def forget() -> None:
    """As a new process."""
    trial._known.clear()


def test_the_first_right_configuration_is_used_and_kept(gpu):
    gpu.answers += [("wrong", True), (None, True)]
    found = trial.settle_trial(CASE)
    assert found.config == trial.candidate_configs(9, 32, False)[1]
    forget()
    assert trial.trial_result(CASE) == found, "no second trial"
    assert len(gpu.tried) == 2


def test_a_failure_is_kept_too(gpu):
    gpu.answers += [("it is wrong", True)]
    assert trial.settle_trial(CASE).reason == "it is wrong"
    tried = len(gpu.tried)
    assert tried == len(trial.candidate_configs(9, 32, False))
    forget()
    assert trial.settle_trial(CASE).reason == "it is wrong"
    assert len(gpu.tried) == tried


def test_a_temporary_failure_is_tried_again(gpu):
    gpu.answers += [("the GPU had no memory left", False)]
    assert "no memory" in (trial.settle_trial(CASE).reason or "")
    assert len(gpu.tried) == 1, "another configuration would not help"
    assert not list(gpu.cache.glob("*.json"))
    forget()
    gpu.answers[:] = [(None, True)]
    assert trial.settle_trial(CASE).config is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"key": 1}', b"\xff\xfe", b'{"key": {}, "config": 5}']
)
def test_a_damaged_cache_is_written_anew(gpu, content: bytes):
    gpu.answers += [(None, True)]
    trial.settle_trial(CASE)
    (file,) = gpu.cache.glob("kernel-*.json")
    file.write_bytes(content)
    forget()
    assert trial.settle_trial(CASE).config is not None
    assert len(gpu.tried) == 2
    assert json.loads(file.read_text())["config"]


def test_a_cached_configuration_must_be_a_candidate(gpu):
    gpu.answers += [(None, True)]
    trial.settle_trial(CASE)
    (file,) = gpu.cache.glob("kernel-*.json")
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "config": [[999, 999], 64, 9, 1]}))
    forget()
    assert trial.settle_trial(CASE).config in trial.candidate_configs(9, 32, False)
    assert len(gpu.tried) == 2


def test_a_cache_that_cannot_be_written(gpu, caplog: pytest.LogCaptureFixture):
    gpu.cache.write_text("a file in the way")
    gpu.answers += [(None, True)]
    with caplog.at_level("INFO", "CREPS"):
        assert trial.settle_trial(CASE).config is not None
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize("what", ["triton", "card", "torch", "source", "case"])
def test_the_key_depends_on_everything_that_matters(gpu, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    before, case = trial.trial_key(CASE), CASE
    if what == "triton":
        monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="9.9"))
    elif what == "card":
        gpu.properties.name = "Another"
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif what == "source":
        for name in trial._SOURCES:
            (tmp_path / name).write_text("other")
        monkeypatch.setattr(trial, "_FOLDER", tmp_path)
    else:
        case = CASE._replace(channels=64)
    assert trial._file(trial.trial_key(case)) != trial._file(before)


def test_torch_renders_meanwhile(gpu, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The first question starts the trial in the background; who waits gets its result."""
    begun, resume = threading.Event(), threading.Event()

    def slow(case, config):
        begun.set()
        assert resume.wait(60)
        return None, True

    monkeypatch.setattr(trial, "try_one", slow)
    device = torch.device("cuda", 0)
    with caplog.at_level("INFO", "CREPS"):
        assert kernels.choose("auto", device, torch.float16).name == "tiled"
        assert begun.wait(60)
        assert kernels.trial_running()
        assert "being checked" in (kernels.BACKENDS["triton"].refuses(device, torch.float16, PUBLISHED) or "")
        assert kernels.choose("auto", device, torch.float16).name == "tiled"
        resume.set()
        assert kernels.choose("triton", device, torch.float16).name == "triton", "who asks for it by name waits"
    assert kernels.choose("auto", device, torch.float16).name == "triton"
    assert not kernels.trial_running()
    assert caplog.text.count("checking the fast kernel") == 1


def test_the_reason_is_logged_once(gpu, caplog: pytest.LogCaptureFixture):
    gpu.answers += [("it is wrong by 5.0e-01", True)]
    device = torch.device("cuda", 0)
    with caplog.at_level("INFO", "CREPS"):
        kernels.settle_trials(device)
        for _ in range(3):
            assert kernels.choose("auto", device, torch.float16).name == "tiled"
    warnings = [r for r in caplog.records if r.levelname == "WARNING" and "float16" in r.getMessage()]
    assert len(warnings) == 1
    assert "it is wrong by 5.0e-01" in warnings[0].getMessage()
    assert "it is wrong" in (kernels.explain(device)["float16"]["triton"] or "")
