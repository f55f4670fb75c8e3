"""The rules of the code base that a reader relies on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import comfyui_creps.creps_core
import pytest
from comfyui_creps.kernels import BACKENDS
from paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest

LAYERS = ("common", "kernels", "creps_core", "nodes")  # each may import itself and those before it
FOLDERS: dict[str, set[str]] = {
    # Bottom up: a folder of the core, and the folders that it may import and does import.
    "data": set(),
    "network": {"kernels"},
    "checkpoints": {"network"},
    "rendering": {"kernels", "network", "checkpoints"},
    "latents": {"network", "checkpoints", "rendering"},
    "comparison": {"network", "rendering", "latents"},
    "explorer": {"network", "rendering", "latents"},
    "serving": {"network", "checkpoints", "rendering", "latents", "explorer"},
    "training": {"kernels", "network", "checkpoints", "rendering", "latents", "comparison", "data"},
    "bench": {"kernels", "network", "checkpoints", "rendering", "latents", "training"},
    "evaluation": {"network", "checkpoints", "rendering", "latents", "comparison", "data", "training"},
    "commands": {"kernels", "network", "checkpoints", "rendering", "latents", "training"},
}
"""`common` and `kernels` lie below all of them, `cli.py` above."""
IMPORTED_BY_MODULE = {"creps_core.serving"}
"""Folders imported by module: `serving` needs aiohttp, which may be missing where its command is listed."""
HOST = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "server", "execution"}
SOURCES = [ROOT / "__init__.py", *(path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")))]


def imports(path: Path) -> list[str]:
    """Absolute names of the modules that a file imports; ours begin with a dot, from the root."""
    package = list(path.relative_to(ROOT).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += ["." + ".".join([*base, name]) for name in names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    layer = path.relative_to(ROOT).parts[0]
    allowed = set(LAYERS[: LAYERS.index(layer) + 1]) if layer in LAYERS else {"nodes"}
    for name in imports(path):
        if name.startswith("."):
            assert name.split(".")[1] in allowed, f"{path} imports {name}"
        elif layer != "nodes":
            assert name.split(".")[0] not in HOST, f"{path} imports {name} of ComfyUI"
        assert name.split(".")[0] not in {"nodes", "kernels", "creps_core", "common", "comfyui_creps"}, (
            f"{name} is not relative"
        )


def folder_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The folder that a module belongs to, whose `__init__` others import: `kernels`, `creps_core.network`..."""
    inner = parts[0] == "creps_core" and len(parts) > 1 and (ROOT / "creps_core" / parts[1]).is_dir()
    return parts[: 1 + inner]


def exported(folder: tuple[str, ...]) -> set[str]:
    """`__all__` of a folder."""
    tree = ast.parse(ROOT.joinpath(*folder, "__init__.py").read_text())
    lists = (node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node))
    return {name for found in lists for name in ast.literal_eval(found)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_folders_are_imported_through_their_init(path: Path):
    """`kernels` and the folders of the core show what others use. A function may have the name of its module."""
    package = path.relative_to(ROOT).parent.parts
    own = folder_of(package) if package else ()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = (*package[: len(package) - (node.level - 1)], *(node.module or "").split("."))
        for alias in node.names:
            name = tuple(part for part in (*base, alias.name) if part)
            folder = folder_of(name)
            if folder in {own, ("common",)} or len(name) == len(folder) or ".".join(folder) in IMPORTED_BY_MODULE:
                continue
            if path.name == "cli.py" and name[-1].endswith("_COMMAND"):
                continue  # the table of commands is made of values that each folder keeps beside its work
            inner = ROOT.joinpath(*folder, name[len(folder)])
            is_module = inner.is_dir() or inner.with_suffix(".py").exists()
            shown = len(name) == len(folder) + 1 and name[-1] in exported(folder)
            assert shown or not is_module, f"{path} imports {'.'.join(name)}, not {'.'.join(folder)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_backends_are_chosen_by_kernels_alone(path: Path):
    """No other folder asks which backend it was given: what differs is a method or a property of the backend."""
    if path.is_relative_to(ROOT / "kernels"):
        return
    texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
    assert not texts & BACKENDS.keys()


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_downwards(folder: str):
    """Folders import each other through their `__init__`, downwards, and what the table allows is used."""
    found: set[str] = set()
    for path in sorted((ROOT / "creps_core" / folder).rglob("*.py")):
        for name in (name for name in imports(path) if name.startswith(".")):
            top, *inner = name.strip(".").split(".")
            if top == "kernels":
                found.add(top)
            elif inner and inner[0] in FOLDERS and inner[0] != folder:
                found.add(inner[0])
                assert len(inner) == 1, f"{path} imports {name}, not the folder"
            else:
                assert top == "common" or not inner or inner[0] in {folder, "__version__"}, f"{path} imports {name}"
    assert found == FOLDERS[folder]


def test_every_folder_is_listed():
    folders = {path.parent.name for path in (ROOT / "creps_core").glob("*/__init__.py")}
    assert folders == set(FOLDERS)
    lower: set[str] = {"kernels"}
    for folder, allowed in FOLDERS.items():
        assert allowed <= lower, f"{folder} lies below {allowed - lower}"
        lower.add(folder)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_are_plain(path: Path):
    """ASCII (ComfyUI's users have consoles that know no more), and no code that runs other code."""
    text = path.read_bytes().decode("ascii")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec", "compile", "__import__", "print"} or (
                node.func.id == "print" and path.name == "cli.py"
            )
    assert "sys.path" not in text
    assert ".cuda(" not in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_name_no_folder_that_is_not_installed(path: Path):
    """The registry's pack and the wheel lack these folders, so product code can neither read nor mention them."""
    names = ("tests", "benchmarks", "docs")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value not in names, f"{path}: {node.value!r}"
    for name in names:
        assert not re.search(rf"(?<![\w./]){name}/", path.read_text()), f"{path} names {name}/"


def test_the_root_imports_nothing():
    """pytest and ComfyUI import it first; a failure must be logged, so it happens in the entry point."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len((ROOT / "__init__.py").read_text().splitlines()) <= 40


def test_the_core_runs_without_comfyui():
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({sorted(HOST)}))  # importing any of these fails
runpy.run_path({str(ROOT / "tests" / "conftest.py")!r})
import comfyui_creps.creps_core as core
print(core.__all__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "load_generator" in result.stdout


def test_one_version_and_one_list_of_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == comfyui_creps.creps_core.__version__
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == project["dependencies"] == []
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{project['version']}]" in changelog


def test_public_names_exist_and_are_documented():
    core = comfyui_creps.creps_core
    for name in core.__all__:
        value = getattr(core, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), name
