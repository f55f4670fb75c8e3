"""Makes the repository importable as `comfyui_creps` without installing it; import this first."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec("comfyui_creps") is None:
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "comfyui_creps", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None
    sys.modules["comfyui_creps"] = importlib.util.module_from_spec(spec)
    # Its children find it by a link of that name.
    links = tempfile.TemporaryDirectory(prefix="creps-")
    (Path(links.name) / "comfyui_creps").symlink_to(root, target_is_directory=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([links.name, *filter(None, [os.environ.get("PYTHONPATH")])])
