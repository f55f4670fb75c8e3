"""Training speed, phase by phase, after the steps of the published trainer have come out right.

python benchmarks/training_speed.py [--device cuda]

The published steps are repeated on the device, in every precision, eager and as graphs; if a loss or gradient exceeds
its limit, nothing is timed. Prints a line of JSON for these errors, and one for each case, as `creps bench --training`
measures it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable

import package  # noqa: F401
import torch
from comfyui_creps.creps_core.bench.training import measure_cases
from comfyui_creps.kernels import Graph
from golden_steps import LIMITS, golden_steps

log = logging.getLogger("CREPS")


def check_steps(
    device: torch.device, make_graph: Callable[[], Graph] | bool
) -> dict[str, dict[str, tuple[float, float]]]:
    """The errors of losses and of gradients of the published steps, by mode (eager, graph) and precision.

    Raises:
        ValueError: an error exceeds its limit: no speed of wrong steps is reported.
    """
    gpu = device.type == "cuda"
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for mode in ["eager", "graph"] if make_graph else ["eager"]:
        for precision in ["float32", *(["tf32"] if gpu and mode == "eager" else []), *(["auto"] if gpu else [])]:
            trainer = golden_steps(device, precision, make_graph if mode == "graph" else False)
            if trainer.graphs.refused:  # the cases report why, too
                log.warning("%s: %s", precision, trainer.graphs.refused)
                continue
            errors = trainer.errors()
            found.setdefault(mode, {})[precision] = errors
            if not all(e <= limit for e, limit in zip(errors, LIMITS[precision], strict=True)):
                raise ValueError(
                    f"{mode}, {precision}: losses of the published steps are off by {errors[0]:.1e}, gradients by "
                    f"{errors[1]:.1e}: no figures of wrong steps"
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device)
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    device = args.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    write({"gate": check_steps(device, device.type == "cuda")})
    for found in measure_cases(device):
        write(found)


def write(record: dict) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
