"""The public surface is typed: a programmer's type checker sees what the docstrings say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links a folder")
def test_the_public_surface_is_typed(tmp_path: Path):
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is missing: pip install -e '.[test]'")
    (tmp_path / "comfyui_creps").symlink_to(ROOT, target_is_directory=True)  # pyright runs no import hooks
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    command += ["--verifytypes", "comfyui_creps.creps_core", "--ignoreexternal"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    report = json.loads(result.stdout[result.stdout.index("{") :])["typeCompleteness"]
    unknown = [symbol["name"] for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert report["completenessScore"] >= 0.95, unknown[:50]
