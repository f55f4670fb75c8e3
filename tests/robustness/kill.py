"""Trainings and renders that are killed, stopped, short of disk and crowded: what is left is whole, and they can go on.

    python tests/robustness/kill.py --count 100        as `make kill N=100`; prints the table

Each row ends in an undisturbed run of the same thing, whose result must be that of one never disturbed, byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "conftest.py"))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import torch
from comfyui_creps.creps_core.checkpoints import load_generator
from comfyui_creps.creps_core.rendering import render_to_file
from comfyui_creps.creps_core.training import Run, load_snapshot, train
from networks import make_generator, make_ws
from tiny_run import make_pictures, resume

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "helpers" / "tiny_run.py"
RENDER = """
import runpy, sys
runpy.run_path(sys.argv[2] + "/conftest.py")
sys.path.insert(0, sys.argv[2] + "/helpers")
import torch
from comfyui_creps.creps_core.rendering import large
from networks import make_generator, make_ws
large.JOURNAL_SECONDS = 0
torch.set_num_threads(1)
generator = make_generator()
print("ready", flush=True)
large.render_to_file(generator, make_ws(generator), sys.argv[1], height=6000, width=60)
"""


def start(kind: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    """A training (`train`) in a folder, or a render (`png`, `tif`) to a file in it, in a process of its own."""
    if kind == "train":
        command = [sys.executable, str(TRAIN), str(folder)]
    else:
        command = [sys.executable, "-c", RENDER, str(folder / f"p.{kind}"), str(HERE.parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes, **options)  # type: ignore[call-overload]


def begun(kind: str, folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until it works, or has ended."""
    while process.poll() is None:
        signs = ("run.json",) if kind == "train" else (".*.partial", f"p.{kind}")
        if any(list(folder.glob(sign)) for sign in signs):
            return
        time.sleep(0.01)


def whole(kind: str, folder: Path) -> bytes:
    """What an undisturbed one makes."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "train":
        run = Run(folder, tick=4, snapshot_every=8)
        train(run, resume(run), make_pictures())
        return run.snapshots()[-1].read_bytes()
    generator = make_generator()
    render_to_file(generator, make_ws(generator), folder / f"p.{kind}", height=6000, width=60)
    return (folder / f"p.{kind}").read_bytes()


def final_files_are_whole(kind: str, folder: Path) -> bool:
    """Every file under its final name can be read."""
    if kind != "train":
        return not (folder / f"p.{kind}").exists() or (folder / f"p.{kind}").read_bytes() == _WHOLE[kind]
    for path in Run(folder).snapshots():
        load_snapshot(path)
    if (folder / "generator.safetensors").exists():
        load_generator(folder / "generator.safetensors")
    return True


_WHOLE: dict[str, bytes] = {}


def disturbed(kind: str, count: int, folder: Path, rng: random.Random, disturb: Callable[..., None]) -> str:
    """Disturb so many processes, each going on where the last one ended or beginning anew; a line of the table."""
    if kind not in _WHOLE:
        _WHOLE[kind] = whole(kind, folder / "whole")
    outcomes: Counter[str] = Counter()
    place = folder / "disturbed"
    place.mkdir(parents=True)
    for _ in range(count):
        process = start(kind, place)
        begun(kind, place, process)
        disturb(process, rng)
        _, error = process.communicate(timeout=300)
        outcomes[_ending(process.returncode, error)] += 1
        if not final_files_are_whole(kind, place):
            outcomes["BROKEN"] += 1
        if process.returncode == 0:
            outcomes["WRONG"] += _result(kind, place) != _WHOLE[kind]
            for path in [*place.glob("*"), *place.glob(".*")]:
                path.unlink() if path.is_file() else None
    process = start(kind, place)
    _, error = process.communicate(timeout=300)
    same = process.returncode == 0 and _result(kind, place) == _WHOLE[kind]
    left = [path.name for path in place.glob(".*")]
    return (
        f"{', '.join(f'{n} {name}' for name, n in sorted(outcomes.items()) if n)}; "
        f"in the end {'the same, byte by byte' if same else 'ANOTHER RESULT ' + error[-300:]}, "
        f"{'nothing' if not left else f'LEFT {left}'} left over"
    )


def _result(kind: str, folder: Path) -> bytes:
    return Run(folder).snapshots()[-1].read_bytes() if kind == "train" else (folder / f"p.{kind}").read_bytes()


def _ending(status: int, error: str) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    if status == 0:
        return "finished"
    if "KeyboardInterrupt" in error or "TrainingError" in error or "OSError" in error:
        return "said why"
    return f"RAW {error.strip().splitlines()[-1][:100] if error.strip() else status}"


def killed(process: subprocess.Popen[str], rng: random.Random) -> None:
    time.sleep(rng.random() * 1.5)
    process.send_signal(signal.SIGKILL)


def interrupted(process: subprocess.Popen[str], rng: random.Random) -> None:
    time.sleep(rng.random() * 1.5)
    process.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))


def full(process: subprocess.Popen[str], rng: random.Random) -> None:
    """No file may grow beyond a size that is drawn: the system's own error, in the midst of a write."""
    size = rng.choice([2_000, 20_000, 100_000, 300_000])
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))


def two_at_once(kind: str, folder: Path) -> str:
    """Two processes on one folder or file."""
    folder.mkdir(parents=True)
    one, other = start(kind, folder), start(kind, folder)
    errors = [process.communicate(timeout=600)[1] for process in (one, other)]
    endings = sorted(
        "told who is at work" if "another process is at work" in error else _ending(process.returncode, error)
        for process, error in zip((one, other), errors, strict=True)
    )
    same = _result(kind, folder) == _WHOLE[kind]
    return f"{' and '.join(endings)}; {'the same' if same else 'ANOTHER RESULT'}, byte by byte"


ROWS: dict[str, tuple[str, Callable[..., None]]] = {
    "training, kill -9": ("train", killed),
    "training, SIGTERM or SIGINT": ("train", interrupted),
    "training, files limited": ("train", full),
    "render to PNG, kill -9": ("png", killed),
    "render to TIFF, kill -9": ("tif", killed),
    "render to PNG, files limited": ("png", full),
    "render to TIFF, files limited": ("tif", full),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="processes of each kind")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, bad = random.Random(args.seed), False

    def say(name: str, line: str) -> None:
        nonlocal bad
        bad = bad or any(word in line for word in ("RAW", "BROKEN", "WRONG", "ANOTHER", "LEFT"))
        sys.stdout.write(f"| {name} | {line} |\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as place:
        for number, (name, (kind, disturb)) in enumerate(ROWS.items()):
            if args.only in name:
                say(name, disturbed(kind, args.count, Path(place) / str(number), rng, disturb))
        for kind in ("train", "png", "tif"):
            if args.only in "two at once":
                _WHOLE.setdefault(kind, whole(kind, Path(place) / f"whole {kind}"))
                say(f"two at once, {kind}", two_at_once(kind, Path(place) / f"two {kind}"))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
