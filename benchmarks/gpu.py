"""`make gpu`: `bench.gpu` of this checkout, on a machine where nothing is installed but torch, Triton and pytest."""

import package  # noqa: F401
from comfyui_creps.creps_core.bench.gpu import main

if __name__ == "__main__":
    raise SystemExit(main())
