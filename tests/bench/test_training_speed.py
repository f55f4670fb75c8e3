"""`creps bench --training`: wrong steps are not timed, and what is timed comes as a table."""

from __future__ import annotations

import golden_steps
import pytest
import torch
from comfyui_creps.creps_core import GeneratorConfig
from comfyui_creps.creps_core.bench import command
from comfyui_creps.creps_core.bench.tables import training_table
from comfyui_creps.creps_core.bench.training import BenchCase, measure_case
from comfyui_creps.creps_core.cli import main
from comfyui_creps.creps_core.network import DiscriminatorConfig
from comfyui_creps.creps_core.training import Recipe
from fake_graph import FakeGraph
from networks import SMALL
from training_speed import check_steps

CPU = torch.device("cpu")
TINY = BenchCase(
    "tiny",
    GeneratorConfig(16, **SMALL),
    Recipe(batch=4, micro_batch=2, r1_interval=2, pl_interval=2),
    DiscriminatorConfig(16, channel_base=128, channel_max=8),
)


def test_a_case_is_measured_eager_and_as_a_graph():
    found = measure_case(TINY, CPU, FakeGraph)
    for way in ("eager", "graph"):
        assert set(found[way]["ms"]) == {"Gmain", "Greg", "Dmain", "Dreg", "rest"}
        assert min(found[way]["ms"].values()) > 0
        assert found[way]["images_per_second"] > 0
    assert "graph" not in measure_case(TINY, CPU)


def test_wrong_steps_are_not_timed(monkeypatch: pytest.MonkeyPatch):
    assert check_steps(CPU, FakeGraph).keys() == {"eager", "graph"}
    monkeypatch.setitem(golden_steps.LOSSES, "loss/G", "Loss/D/loss")
    monkeypatch.setattr(golden_steps.GoldenTrainer, "gradient_error", lambda self, phase: 0.5)
    with pytest.raises(ValueError, match=r"gradients by 5.0e-01: no figures of wrong steps"):
        check_steps(CPU, False)


def test_the_command_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path):
    found = {"gate": {"eager": {"float32": (1e-6, 2e-6)}}, "cases": [measure_case(TINY, CPU, FakeGraph)]}
    monkeypatch.setattr(command, "measure_training", lambda: found)
    out = tmp_path / "record.jsonl"
    assert main(["bench", "--training", "--results", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in lines if line.startswith("| tiny")] == [
        ["| tiny", "4 in micro-batches of 2", "eager"],
        ["| tiny", "4 in micro-batches of 2", "graph"],
    ]
    assert lines[-1].endswith("float32 1.0e-06, 2.0e-06.")
    assert out.read_text().count("tiny") == 1


def test_a_table_without_the_published_steps_says_so():
    table = training_table(command.machine_record(), {"gate": {}, "cases": [measure_case(TINY, CPU)]})
    assert table.endswith("whose numbers come with the repository.")


def test_what_is_measured_comes_from_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """As it is measured; what ends in time keeps what it has, what fails says why."""
    lines = 'import sys, json, time; print(json.dumps({"gate": {"eager": {}}}), flush=True); '
    ends = {"fast": 'print(json.dumps({"case": {"name": "a"}}))', "slow": "time.sleep(600)", "bad": "sys.exit('why')"}
    popen = command.subprocess.Popen
    for name, end in ends.items():

        def start(words: list[str], code: str = lines + end, **options):
            return popen([words[0], "-c", code], **options)

        monkeypatch.setattr(command.subprocess, "Popen", start)
        if name == "bad":
            with pytest.raises(ValueError, match="why"):
                command.measure_training()
        else:
            found = command.measure_training(2.0 if name == "slow" else None)
            assert found["cases"] == ([{"name": "a"}] if name == "fast" else [])
