"""Makes the repository importable as `comfyui_creps` without installing it; import this first."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("comfyui_creps") is None:
    spec = importlib.util.spec_from_file_location(
        "comfyui_creps", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    sys.modules["comfyui_creps"] = importlib.util.module_from_spec(spec)
    # Its children find it by a link of that name.
    links = tempfile.TemporaryDirectory(prefix="creps-")
    (Path(links.name) / "comfyui_creps").symlink_to(ROOT, target_is_directory=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([links.name, *filter(None, [os.environ.get("PYTHONPATH")])])
