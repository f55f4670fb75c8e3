"""The explorer in a real Chromium, with the server of `creps explore`: from the pointer to the pixels, and a soak.

python benchmarks/explorer.py            the table of README: drags on stages of 256, 512 and 768 pixels
python benchmarks/explorer.py --soak N   flies about for N seconds; memory must stay flat and the console silent
python benchmarks/explorer.py --session  without a browser: frames drawn and encoded, on a GPU if there is one

The first two need playwright and a Chromium; what they measure includes the browser, on the same processor.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import package  # noqa: F401  # makes comfyui_creps importable
import torch
from comfyui_creps.creps_core import load_builtin
from comfyui_creps.creps_core.explorer import FrameRequest, Session, Viewport, read_scene

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
SIZES = (256, 512, 768)
DRAG_S, RESTS = 6.0, 8
FLAGS = ["--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
WATCH = """() => {
    window.frames_ = [];
    const host = document.getElementById("explorer");
    host.addEventListener("creps-frame", ({detail}) => frames_.push([detail.now - detail.moved, detail.now,
        detail.sharp, detail.width, detail.height]));
}"""
SETTLED = "() => document.getElementById('explorer').explorer.settled"


@contextmanager
def server(builtin: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`creps explore` in a process of its own, and its address."""
    code = "import package; from comfyui_creps.creps_core.cli import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, "explore", "--no-browser", "--builtin", builtin, "--out", folder]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]),
        }
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+", process.stderr.readline())
            assert found
            yield process, found[0]
        finally:
            process.terminate()
            process.wait()


@contextmanager
def page(address: str) -> Iterator[tuple[Page, list[str]]]:
    """The page in a Chromium, and what it complains about."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        opened = browser.new_context(bypass_csp=True, viewport={"width": 900, "height": 700}).new_page()
        complaints: list[str] = []
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
        )
        opened.goto(address)
        opened.wait_for_function("() => document.getElementById('explorer')?.explorer?.requester.shown.id > 0")
        opened.evaluate(WATCH)
        yield opened, complaints
        browser.close()


def viewport_of(opened: Page, side: int) -> tuple[float, float]:
    """Make the viewport a square of `side` pixels without a frame; returns its middle."""
    opened.evaluate("""() => { const here = document.getElementById('explorer').explorer;
        Object.assign(here.scene, {width: 1024, height: 1024}); here.viewport.framed = false;
        here.onSizeChanged(); }""")
    height = side + 100
    for _ in range(3):
        opened.set_viewport_size({"width": side, "height": height})
        opened.wait_for_timeout(100)
        box = opened.locator("canvas.viewport").bounding_box()
        assert box
        height += side - round(box["height"])
    return box["x"] + side / 2, box["y"] + side / 2


def quantiles(values: list[float]) -> str:
    """Median and 95th percentile."""
    ordered = sorted(values)
    return (
        f"{statistics.median(ordered):.0f} and {ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]:.0f}"
    )


def latency(builtin: str) -> None:
    """Print the table."""
    lines = [
        "| stage | frames per second | their size | pointer to pixels, ms | to the sharp picture, ms |",
        "| - " * 5 + "|",
    ]
    with server(builtin) as (_, address), page(address) as (opened, complaints):
        for side in SIZES:
            x, y = viewport_of(opened, side)
            opened.wait_for_function(SETTLED, timeout=60000)

            def circle(seconds: float, x: float = x, y: float = y, side: int = side) -> None:
                opened.mouse.move(x, y)
                opened.mouse.down()
                start = time.monotonic()
                while (now := time.monotonic() - start) < seconds:
                    angle = 2.5 * now
                    opened.mouse.move(x + side / 5 * math.sin(angle), y + side / 5 * (1 - math.cos(angle)))
                    time.sleep(0.008)
                opened.wait_for_timeout(70)  # no glide
                opened.mouse.up()

            circle(1.5)
            opened.wait_for_function(SETTLED, timeout=60000)
            opened.evaluate("() => { frames_.length = 0 }")
            circle(DRAG_S)
            frames = [frame for frame in opened.evaluate("() => frames_") if not frame[2]]
            sharp = []
            for _ in range(RESTS):
                opened.wait_for_function(SETTLED, timeout=60000)
                opened.evaluate("() => { frames_.length = 0 }")
                circle(0.3)
                opened.wait_for_function(SETTLED, timeout=60000)
                opened.wait_for_timeout(50)
                sharp.append(next(frame[0] for frame in reversed(opened.evaluate("() => frames_")) if frame[2]))
            sizes = sorted(frame[3] for frame in frames)
            rate = len(frames) / (frames[-1][1] - frames[0][1]) * 1000
            pointer = quantiles([frame[0] for frame in frames])
            lines.append(f"| {side} | {rate:.0f} | {statistics.median(sizes):.0f} | {pointer} | {quantiles(sharp)} |")
    out(*lines, f"complaints: {complaints}")


def soak(builtin: str, seconds: float) -> None:
    """Fly about, and print the memory of both sides now and then."""
    dice = random.Random(0)
    with server(builtin) as (process, address), page(address) as (opened, complaints):
        cdp = opened.context.new_cdp_session(opened)
        start = shown = time.monotonic()
        acts = frames = 0
        while (now := time.monotonic()) - start < seconds:
            act(opened, dice)
            acts += 1
            if now - shown > seconds / 20:
                shown = now
                cdp.send("HeapProfiler.collectGarbage")
                heap = opened.evaluate("() => performance.memory.usedJSHeapSize") / 1e6
                frames += opened.evaluate("() => frames_.splice(0).length")
                gc.collect()
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore
                threads = re.search(r"Threads:\s+(\d+)", status)[1]  # type: ignore
                out(
                    f"{now - start:4.0f} s: {acts} acts, {frames} frames, server {resident:.0f} MiB, "
                    f"{threads} threads, page {heap:.1f} MB"
                )
        out(f"complaints: {complaints}")


def session(builtin: str) -> None:
    """Print the time of a frame while the view and the latent move, without page and network."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    here = Session(load_builtin(builtin).to(device))
    out(f"| {device} | draw, ms | JPEG, ms | frames per second |", "| - " * 4 + "|")
    for side in SIZES:
        here.sizer.side = lambda longest, side=side: side  # type: ignore
        draws, encodes = [], []
        for number in range(80):
            scene = read_scene({"walk": {"x": 0.01 * number}, "view": {"x": 0.5 + 0.002 * number, "y": 0.5}})
            frame = here.draw(FrameRequest(number, scene, Viewport(side, side, side)))
            start = time.perf_counter()
            frame.jpeg()
            if number >= 20:  # warm
                draws.append(1000 * frame.seconds)
                encodes.append(1000 * (time.perf_counter() - start))
        rate = 1000 / (statistics.median(draws) + statistics.median(encodes))
        draw, encode = (f"{statistics.median(values):.2f}" for values in (draws, encodes))
        out(f"| {side} | {draw} | {encode} | {rate:.0f} |")


def act(opened: Page, dice: random.Random) -> None:
    """One thing that a hand might do."""
    box = opened.locator("canvas.viewport").bounding_box()
    pad = opened.locator(".pad-field").bounding_box()
    assert box
    assert pad

    def place(area: dict[str, float]) -> tuple[float, float]:
        return (
            area["x"] + area["width"] * dice.uniform(0.3, 0.9),
            area["y"] + area["height"] * dice.uniform(0.1, 0.5),
        )

    kind = dice.random()
    if kind < 0.3:
        opened.mouse.move(*place(box))  # type: ignore
        opened.mouse.down()
        opened.mouse.move(*place(box), steps=dice.randint(3, 20))  # type: ignore
        opened.mouse.up()
    elif kind < 0.5:
        opened.mouse.move(*place(box))  # type: ignore
        opened.mouse.wheel(0, dice.uniform(-500, 450))
    elif kind < 0.7:
        opened.mouse.move(*place(pad))  # type: ignore
        opened.mouse.down()
        opened.mouse.move(*place(pad), steps=dice.randint(3, 12))  # type: ignore
        opened.mouse.up()
    elif kind < 0.95:
        opened.locator("canvas.viewport").focus()
        opened.keyboard.press(dice.choice(["n", "p", "x", "g", "k", "r", "0", " ", "d", "f", "ArrowLeft", "+", "-"]))
    elif opened.locator(".tile").count() > 6:
        opened.locator(".thumb").first.focus()
        opened.keyboard.press("Delete")
    opened.wait_for_timeout(dice.choice([0, 30, 150, 600]))


def out(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--builtin", default="alpine")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--session", action="store_true", help="without a browser")
    args = parser.parse_args()
    if args.session:
        session(args.builtin)
    elif args.soak:
        soak(args.builtin, args.soak)
    else:
        latency(args.builtin)
