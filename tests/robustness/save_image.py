"""What a large picture takes at the peak in a real ComfyUI, through Render CREPS and its Save Image, and to a file.

python tests/robustness/save_image.py --sides 4096 8192       see tests/host/comfy_host.py for the host; Linux
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "conftest.py"))
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("helpers", "host")]

from comfy_host import NO_HOST, ComfyClient, ComfyHost, find_comfyui
from paths import ROOT
from soak import memory, node

WAYS = ("Save Image", "Preview Image", "Render CREPS To File")


def prompt_of(way: str, side: int) -> dict[str, Any]:
    """A picture of so many pixels a side, by one of `WAYS`."""
    prompt = {
        "1": node("LoadGenerator", checkpoint="builtin: textures"),
        "2": node("SampleSeeds", model=["1", 0], seeds=str(side), truncation_psi=1.0),
    }
    size = {"model": ["1", 0], "latent": ["2", 0], "width": side, "height": side, "fit": "crop", "supersample": 1}
    if way == WAYS[2]:
        return prompt | {"3": node("RenderToFile", **size, format="png", filename_prefix="large")}
    show = {"images": ["3", 0]} | ({"filename_prefix": "large"} if way == WAYS[0] else {})
    return prompt | {"3": node("Render", **size), "4": {"class_type": way.replace(" ", ""), "inputs": show}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192], metavar="PIXELS")
    args = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.stdout.write(f"{NO_HOST}\n")
        return 1
    for side in args.sides:
        for way in WAYS:
            with (
                tempfile.TemporaryDirectory() as place,
                ComfyHost(comfyui, ROOT, Path(place) / "comfyui") as host,
                ComfyClient(host.address) as client,
            ):
                client.run(prompt_of(way, 64))
                before = memory(host._process.pid)
                status = client.run(prompt_of(way, side))["status"]["status_str"]
                grown = memory(host._process.pid, "VmHWM") - before
            sys.stdout.write(f"{side} x {side}, {way}: {status}, {grown:.0f} MB, {1e6 * grown / side**2:.1f} B/pixel\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
