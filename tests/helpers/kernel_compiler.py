"""Compiles the Triton kernel for GPUs that this machine lacks, and reports the resources that it takes.

    python tests/helpers/kernel_compiler.py < job.json

answers a job of `benchmarks/compile_kernel.py` in a Python that has one version of Triton and no other package, so this
file imports neither torch nor this package.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "kernels" / "fused_kernel.py"


SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
"""Most shared memory of a program, by compute capability (CUDA C++ Programming Guide, technical specifications)."""
TENSOR_COLUMNS = 512
"""Most columns of tensor memory of a program, where there is any."""


class Resources(NamedTuple):
    """The resources of a compiled kernel."""

    registers: int  # per thread
    stack: int  # bytes per thread; spilled registers lie there
    shared: int  # bytes per program
    tensor: int  # columns of tensor memory per program, where a GPU has that: compute capability 10


@functools.cache
def load() -> ModuleType:
    """The kernel's source, by its path."""
    spec = importlib.util.spec_from_file_location(SOURCE.stem, SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_for(arch: int, dtype: str, stored: str, channels: int, config) -> Any:
    """Compile the kernel as `TritonBackend.launch` would on a GPU of compute capability `arch` (90 for 9.0).

    Args:
        dtype: of the products, as Triton writes it: fp16, bf16, or fp32 for the float32-grade products of float16.
        stored: dtype of the image: fp32 or u8.
        channels: of the bi-lines: 16, 32 or 64.
        config: the fields of a `packing.KernelConfig`.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = load().entangle_kernel
    tile, warps, stages, parts = config
    constants = {
        "CHANNELS": 3,
        "C": 16,
        "B": channels,
        "RANK": 8,
        "TILE_H": tile[0],
        "TILE_W": tile[1],
        "PARTS": parts,
        "EXACT": dtype == "fp32",
    }
    pointers = {
        "columns": dtype,
        "rows": dtype,
        "weights": "fp16" if dtype == "fp32" else dtype,
        "biases": "fp32",
        "scale": "fp32",
        "out": stored,
        "overflow": "i32",
    }
    numbers = dict.fromkeys(("height", "width", "levels", "lower"), "i32")
    strides = dict.fromkeys(("samples_y", "samples_x", "stride_c", "stride_y", "stride_x"), "i64")
    signature = {name: f"*{kind}" for name, kind in pointers.items()} | numbers | strides
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in pointers and name != "out"
    }
    return triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    )


def resources(kernel: Any) -> Resources:
    """The resources of a compiled kernel, read from the machine code by cuobjdump."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack = (max(map(int, re.findall(rf"{name}:(\d+)", usage))) for name in ("REG", "STACK"))
    return Resources(registers, stack, kernel.metadata.shared, getattr(kernel.metadata, "tmem_size", None) or 0)


def check(arch: int, used: Resources) -> None:
    """Raise MemoryError if a kernel compiled but could not be launched.

    Triton refuses it as well; code that it makes of a kernel that needs too much tensor memory ends in a trap.
    """
    if used.shared > SHARED_BYTES[arch]:
        raise MemoryError(f"{used.shared >> 10} KB of shared memory, of {SHARED_BYTES[arch] >> 10}")
    if used.tensor > TENSOR_COLUMNS:
        raise MemoryError(f"{used.tensor} columns of tensor memory, of {TENSOR_COLUMNS}")


def ptxas_version(arch: int) -> str:
    """Version of the assembler that Triton uses for an architecture, such as 12.8."""
    from triton.backends.nvidia.compiler import get_ptxas

    asked = [arch] if inspect.signature(get_ptxas).parameters else []  # Triton 3.4 has one for all
    return str(get_ptxas(*asked).version)


def main() -> None:
    """Read a job [arch, dtype, stored, channels, config] and answer it; both are JSON."""
    arch, *rest = json.load(sys.stdin)
    answer: dict[str, Any] = {}
    began = _seconds()
    try:
        answer["ptxas"] = ptxas_version(arch)
        used = resources(compile_for(arch, *rest))
        answer |= used._asdict()
        check(arch, used)
    except Exception as error:  # of any kind: errors of a version are the answer
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = _seconds() - began
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _seconds() -> float:
    """Processor time of this process and its children."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
