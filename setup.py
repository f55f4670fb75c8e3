"""The root of the repository is the package `comfyui_creps`, so that it is also a ComfyUI custom node folder."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("common", "creps_core", "kernels", "nodes", "web", "workflows")
found = find_namespace_packages(include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])

setup(
    package_dir={"comfyui_creps": "."},
    packages=["comfyui_creps", *(f"comfyui_creps.{name}" for name in found)],
)
