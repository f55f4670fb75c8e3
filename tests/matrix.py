"""`make test-matrix`: the tests where their numbers could depend on the machine, and a table of what came of it.

    python tests/matrix.py [--quick] [--only WORD] [PYTEST ARGUMENTS]

By default the whole suite runs once per row. `--quick` takes the folders whose numbers come from a BLAS or from threads.
Rows that this machine cannot run (another Python, another user) say what is missing.
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

ROOT = Path(__file__).resolve().parent.parent
BLAS = ("Haswell", "SkylakeX", "Zen", "Prescott")
NUMERIC = (
    "tests/kernels",
    "tests/network",
    "tests/rendering",
    "tests/latents",
    "tests/checkpoints",
    "tests/comparison",
)


def rows() -> dict[str, tuple[list[str], dict[str, str | None], str]]:
    """Name -> (command before pytest's arguments, environment (None: unset), why it cannot run or "")."""
    python = [sys.executable, "-m", "pytest"]
    found: dict[str, tuple[list[str], dict[str, str | None], str]] = {
        "OPENBLAS_CORETYPE unset": (python, {"OPENBLAS_CORETYPE": None}, "")
    }
    found |= {f"OPENBLAS_CORETYPE={kind}": (python, {"OPENBLAS_CORETYPE": kind}, "") for kind in BLAS}
    for kind in ("default", "avx2"):
        found[f"ATEN_CPU_CAPABILITY={kind}"] = (python, {"ATEN_CPU_CAPABILITY": kind}, "")
    for threads in ("1", "2"):
        found[f"OMP_NUM_THREADS={threads}"] = (python, {"OMP_NUM_THREADS": threads}, "")
    for version in ("3.10", "3.13"):
        other = shutil.which(f"python{version}")
        missing = "" if other else f"no python{version} on this machine"
        found[f"Python {version}"] = ([other or "", "-m", "pytest"], {}, missing)
    user = "nobody"
    missing = (
        "" if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("setpriv") else "needs root and setpriv"
    )
    drop = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups"]
    found["not root"] = ([*drop, *python, "-p", "no:cacheprovider"], {"HOME": "/nonexistent"}, missing)
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
    for name, (command, changes, missing) in rows().items():
        if args.only not in name:
            continue
        if missing:
            print(f"| {name} | {missing} | | | |", flush=True)
            continue
        environment = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
        start = time.monotonic()
        result = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", result.stdout)}
        failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
        seconds = time.monotonic() - start
        print(
            f"| {name} | {counts.get('passed', 0)} | {failed} | {counts.get('skipped', 0)} | {seconds:.0f} |",
            flush=True,
        )
        if result.returncode:
            green = False
            print("\n".join(line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))))
            if not counts:
                print(result.stdout[-1000:] + result.stderr[-1000:])
    return 0 if green else 1


if __name__ == "__main__":
    raise SystemExit(main())
