"""`make test-matrix`: runs the tests under conditions on which numbers could depend, and prints a table of the results.

    python tests/matrix.py [--quick] [--only WORD] [PYTEST ARGUMENTS]

By default the whole suite runs once per row; `--quick` runs the folders whose numbers depend on a BLAS or threads.
Rows that cannot run on this machine (another Python, another user) say what is missing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BLAS = ("Haswell", "SkylakeX", "Zen", "Prescott")
NUMERIC = [f"tests/{name}" for name in ("kernels", "network", "rendering", "latents", "checkpoints", "comparison")]


class Row(NamedTuple):
    """Conditions to run the tests under."""

    command: list[str]
    changes: dict[str, str | None] = {}  # noqa: RUF012  # of the environment; None: unset
    missing: str = ""  # why it cannot run here


def rows() -> dict[str, Row]:
    """All of them by name."""
    python = [sys.executable, "-m", "pytest"]
    found = {"OPENBLAS_CORETYPE unset": Row(python, {"OPENBLAS_CORETYPE": None})}
    for name, values in (
        ("OPENBLAS_CORETYPE", BLAS),
        ("ATEN_CPU_CAPABILITY", ("default", "avx2")),
        ("OMP_NUM_THREADS", ("1", "2")),
    ):
        found |= {f"{name}={value}": Row(python, {name: value}) for value in values}
    for version in ("3.10", "3.13"):
        other = ROOT / f".venv-{version}" / "bin" / "python"
        make = f"make .venv-{version}/test.stamp VENV=.venv-{version} PYTHON=python{version}"
        found[f"Python {version}"] = Row(
            [str(other), "-m", "pytest"], {}, "" if other.exists() else f"not here: {make}"
        )
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    missing = "" if root and shutil.which("setpriv") else "needs root and setpriv, to become another user"
    found["not root"] = Row([*drop, *python, "-p", "no:cacheprovider"], {"HOME": "/nonexistent"}, missing)
    return found


def main() -> int:
    """Returns 0 if every row that could run is green."""
    parser = argparse.ArgumentParser(description="Runs the tests under other circumstances.")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(NUMERIC)}")
    parser.add_argument("--only", default="", metavar="WORD", help="rows whose name holds it")
    args, more = parser.parse_known_args()
    arguments = ["-q", "-n", "auto", *(NUMERIC if args.quick else ()), *more]
    print("| circumstances | passed | failed | skipped | seconds |\n| - | - | - | - | - |", flush=True)
    green = True
    for name, row in rows().items():
        if args.only not in name:
            continue
        if row.missing:
            print(f"| {name} | {row.missing} | | | |", flush=True)
            continue
        environment = {key: value for key, value in {**os.environ, **row.changes}.items() if value is not None}
        start = time.monotonic()
        result = subprocess.run(
            [*row.command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", result.stdout)}
        failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
        cells = (name, counts.get("passed", 0), failed, counts.get("skipped", 0), f"{time.monotonic() - start:.0f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        if result.returncode:
            green = False
            print("\n".join(line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))))
            if not counts:
                print(result.stdout[-1000:] + result.stderr[-1000:])
    return 0 if green else 1


if __name__ == "__main__":
    raise SystemExit(main())
