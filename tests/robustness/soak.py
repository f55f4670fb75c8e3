"""Prompts of mixed kinds, good and bad, queued in a real ComfyUI, with its memory after each hundred.

python tests/robustness/soak.py --count 1000        as `make soak N=1000`; see tests/host/comfy_host.py for the host
python tests/robustness/soak.py --host-alone        prompts of ComfyUI's own nodes: what its memory does without us
"""

from __future__ import annotations

import argparse
import random
import runpy
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "conftest.py"))
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("helpers", "host")]

from comfy_host import NO_HOST, ComfyClient, ComfyHost, HostError, find_comfyui
from hostile import hostile_files, seeds
from paths import ROOT

Prompt = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"CREPS_{kind}", "inputs": inputs}


def prompt_of(rng: random.Random, files: list[str]) -> Prompt:
    """One of several kinds; some are refused by the host, some fail while they run."""
    seed = rng.randrange(1 << 40)
    model = node("LoadGenerator", checkpoint="builtin: textures")
    if rng.random() < 0.2:
        model = node("LoadGenerator", checkpoint=rng.choice(files))
    prompt: Prompt = {
        "1": model,
        "2": node("SampleSeeds", model=["1", 0], seeds=f"{seed},{seed + 1}", truncation_psi=0.7),
    }
    side = rng.choice([16, 64, 128])
    match rng.randrange(4):
        case 0:
            view = {"width": side, "height": side, "fit": "crop", "supersample": rng.choice([1, 2])}
            prompt["3"] = node("Render", model=["1", 0], latent=["2", 0], **view)
        case 1:
            prompt["4"] = node("SelectLatents", latent=["2", 0], indices="0", repeat=1)
            options = {"width": side, "height": 2 * side, "format": rng.choice(["png", "tiff"]), "fit": "crop"}
            options |= {"filename_prefix": "soak/large", "supersample": 1}
            prompt["3"] = node("RenderToFile", model=["1", 0], latent=["4", 0], **options)
        case 2:
            prompt["3"] = node("SaveLatents", latent=["2", 0], filename_prefix="soak/latents")
        case _:
            prompt["3"] = node("SaveGenerator", model=["1", 0], filename_prefix="soak/generator", half=True)
    if prompt["3"]["class_type"] == "CREPS_Render":
        prompt["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}}
    return prompt


def host_prompt(rng: random.Random) -> Prompt:
    """One of ComfyUI's own nodes alone."""
    side = rng.choice([16, 64, 128])
    empty = {"width": side, "height": side, "batch_size": 1, "color": rng.randrange(1 << 24)}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def memory(process: int, kind: str = "VmRSS") -> float:
    """Resident, in MB; VmHWM: at the peak."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1000
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--host-alone", action="store_true", help="no node of ours")
    args = parser.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.stdout.write(f"{NO_HOST}\n")
        return 1
    rng, outcomes = random.Random(0), Counter()
    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "comfyui"
        folder = base / "models" / "creps"
        folder.mkdir(parents=True)
        good = seeds(Path(place) / "good")
        bad = hostile_files(folder, good)
        files = [path.name for path in bad.values()]
        start = time.monotonic()
        with ComfyHost(comfyui, pack=ROOT, base=base) as host, ComfyClient(host.address) as client:
            for number in range(1, args.count + 1):
                prompt = host_prompt(rng) if args.host_alone else prompt_of(rng, files)
                try:
                    status = client.run(prompt)["status"]
                    outcomes["done" if status["status_str"] == "success" else _error(status)] += 1
                except HostError as error:
                    outcomes[f"refused by the host: {str(error)[:60]}"] += 1
                if number % 100 == 0 or number == args.count:
                    seconds, used = time.monotonic() - start, memory(host._process.pid)
                    sys.stdout.write(f"{number} prompts, {seconds:.0f} s, {used:.0f} MB\n")
                    sys.stdout.flush()
    for kind, count in outcomes.most_common():
        sys.stdout.write(f"{count} {kind}\n")
    return 0


def _error(status: dict[str, Any]) -> str:
    for kind, data in status["messages"]:
        if kind == "execution_error":
            return f"said: {data['exception_type'].rpartition('.')[2]}"
    return "ended otherwise"


if __name__ == "__main__":
    raise SystemExit(main())
