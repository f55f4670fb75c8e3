"""The examples of docs/api.md run, in their order, and the public interface imports little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import comfyui_creps.creps_core
import numpy as np
import pytest
from paths import ROOT, TESTS
from PIL import Image

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    assert len(EXAMPLES) >= 7
    (tmp_path / "examples.py").write_text("\n".join(EXAMPLES))
    environment = {**os.environ, "CREPS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "examples.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_examples_use_public_names_only():
    used = set(re.findall(r"from comfyui_creps.creps_core import ([^\n]+)", "\n".join(EXAMPLES)))
    names = {name.strip() for line in used for name in line.split(",")}
    assert names <= set(comfyui_creps.creps_core.__all__)
    assert not re.findall(r"comfyui_creps\.creps_core\.\w", "\n".join(EXAMPLES))


def test_training_is_imported_on_first_use():
    code = f"""
import runpy, sys
kept = runpy.run_path({str(TESTS / "conftest.py")!r})
import comfyui_creps.creps_core as core
late = [name for name in sys.modules if name.startswith(core.__name__ + ".training")]
assert not late, late
assert core.train.__module__.startswith(core.__name__ + ".training")
assert "train" in dir(core) and set(core.__all__) <= set(dir(core))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
