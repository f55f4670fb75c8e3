"""Compiles the kernel by several versions of Triton for GPUs that this machine lacks.

    python benchmarks/compile_kernel.py
    python benchmarks/compile_kernel.py --triton 3.6.0 --arch 90 --channels 32 --configs 2 --folder /tmp/triton

Each version gets an environment of its own from PyPI (about 700 MB), in which `tests/helpers/kernel_compiler.py`
compiles the first candidates of `kernels/trial.py`, each in a process. Prints a Markdown table: registers and bytes of
stack per thread (spilled registers lie on the stack), shared and tensor memory per program, and processor time: 2 to
20 s, about 200 times. Exits with status 1 if something does not compile or exceeds the resources of a program.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import package
from comfyui_creps.kernels.trial import candidate_configs

COMPILER = package.ROOT / "tests" / "helpers" / "kernel_compiler.py"
TRITONS = ("3.4.0", "3.6.0", "3.8.0", "3.9.0")
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
DTYPES = ("fp16", "bf16", "fp32")
COLUMNS = ("Triton", "ptxas", "sm", "dtype", "channels", "tile, warps, stages, parts")
COLUMNS += ("registers", "stack", "shared KB", "tensor columns", "seconds")


def environment(version: str, folder: Path) -> Path:
    """A Python with this version of Triton, created if it does not exist."""
    home = folder / f"triton-{version}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(home)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", f"triton=={version}"]
    subprocess.run(command, check=True)
    return python


def jobs(architectures: Iterable[int], dtypes: Iterable[str], channels: Iterable[int], configs: int) -> list[list]:
    """Jobs for `kernel_compiler`; for more than 32 channels the first candidate only."""
    return [
        [arch, dtype, "fp32", count, config]
        for count, arch, dtype in itertools.product(channels, architectures, dtypes)
        for config in candidate_configs(arch // 10, count, dtype == "fp32")[: configs if count <= 32 else 1]
    ]


def compiled(python: Path, job: list) -> dict[str, Any]:
    """The answer to a job; holds an `error` if the compiler raised or died."""
    with tempfile.TemporaryDirectory() as cache:
        result = subprocess.run(
            [str(python), str(COMPILER)],
            input=json.dumps(job),
            env={**os.environ, "TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
        )
    try:
        return json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = result.stderr.strip().splitlines()[-1:] or [""]
        return {"error": f"ended with status {result.returncode}: {last[0]}"}


def row(version: str, job: list, answer: dict[str, Any]) -> str:
    arch, dtype, _, channels, ((height, width), *numbers) = job
    config = ", ".join(map(str, [f"{height}x{width}", *numbers]))
    cells = [version, answer.get("ptxas", ""), arch, dtype, channels, config]
    if "error" in answer:
        return line([*cells, answer["error"].splitlines()[0].replace("|", "/")[:120]])
    cells += [answer["registers"], answer["stack"], f"{answer['shared'] / 1024:.0f}", answer["tensor"]]
    return line([*cells, f"{answer['seconds']:.1f}"])


def line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", nargs="+", default=TRITONS, help="versions")
    parser.add_argument("--arch", nargs="+", type=int, default=ARCHITECTURES, help="compute capabilities times 10")
    parser.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--channels", nargs="+", type=int, default=[32, 64], choices=[16, 32, 64])
    parser.add_argument("--configs", type=int, default=2, help="how many candidates")
    parser.add_argument("--folder", type=Path, help="for the environments; default: one that is removed at the end")
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        print(line(COLUMNS), line(["---"] * len(COLUMNS)), sep="\n", flush=True)
        for version in args.triton:
            python = environment(version, args.folder or Path(temporary))
            for job in jobs(args.arch, args.dtype, args.channels, args.configs):
                answer = compiled(python, job)
                failed += "error" in answer
                print(row(version, job, answer), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
