"""The unit tests of web/ in Node.js, and the table of films that they share with Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comfyui_creps.creps_core.explorer import frame_times, read_scene
from web_tools import find_node

FOLDER = Path(__file__).parent
CASES = json.loads((FOLDER / "film_cases.json").read_text())["cases"]


def test_units_in_node():
    found = find_node()
    if found is None:
        pytest.skip("no Node.js: pip install -e '.[test]'")
    tests = sorted(str(path) for path in FOLDER.glob("*.test.mjs"))
    result = subprocess.run([found[0], "--test", *tests], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("seconds", "fps", "closed", "frames"), CASES)
def test_films_have_as_many_frames(seconds: list[float], fps: float, closed: bool, frames: int):
    scene = read_scene({"keys": [{"seconds": value} for value in seconds], "fps": fps, "closed": closed})
    assert scene.film_frames == len(frame_times(scene)) == frames
