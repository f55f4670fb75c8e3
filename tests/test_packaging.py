"""What the ComfyUI registry receives: `comfy node validate` and `comfy node pack` of comfy-cli."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs comfy-cli in the repository, with a home of its own; returns what it prints."""
    program = shutil.which("comfy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("comfy-cli is missing: pip install -e '.[test]'")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, which comfy-cli packs: git clone the repository")
    home = {"HOME": str(tmp_path_factory.mktemp("home")), "DO_NOT_TRACK": "1"}

    def run(*arguments: str) -> str:
        command = [program, "--skip-prompt", *arguments]
        result = subprocess.run(command, cwd=ROOT, env=os.environ | home, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def test_validate(comfy: Callable[..., str]):
    assert "warning" not in comfy("node", "validate").lower()  # it prints nothing to a pipe when all is well


def test_pack(comfy: Callable[..., str]):
    archive = ROOT / "node.zip"
    try:
        comfy("node", "pack")
        with zipfile.ZipFile(archive) as file:
            names, size = file.namelist(), sum(info.file_size for info in file.infolist())
    finally:
        archive.unlink(missing_ok=True)
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= set(names)
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"common", "creps_core", "kernels", "nodes", "web", "workflows"}
    assert size < 20e6
