"""Trials: a configuration of the kernel is run in a child process, once, before it is trusted.

A faulty launch can end the CUDA context of its process, hang, or write wrong values without an error. Which of these
happens depends on the versions of Triton, ptxas and the driver, on the card and on the configuration. So a child
process paints small images with one configuration after the other (`trial_child.py`), and the first one that gives the
right values is used. The result is cached in the user's cache folder under a key of everything that it depends on.
"""

from __future__ import annotations

import atexit
import hashlib
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .packing import MAX_CHANNELS, KernelConfig, padded

log = logging.getLogger("CREPS")

SECONDS = 180.0
"""Time limit of a child process."""
_FOLDER = Path(__file__).resolve().parent
_SOURCES = (
    "fused_kernel.py", "fused.py", "packing.py", "image.py", "backend.py", "trial.py", "trial_child.py",
)  # fmt: skip
_BOOT = """
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("kernels", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["kernels"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from kernels.trial_child import run_child
run_child()
"""


class TrialCase(NamedTuple):
    """What a trial decides on."""

    device: int  # index of the GPU
    dtype: str  # of the products, as torch prints it
    channels: int  # of the bi-lines
    image_channels: int


class TrialResult(NamedTuple):
    """A configuration that gives the right values, or the reason why there is none."""

    config: KernelConfig | None
    reason: str | None
    lasting: bool = True
    """Whether another trial would give the same result."""


def candidate_configs(capability: int, channels: int, exact: bool) -> list[KernelConfig]:
    """Configurations for a GPU's major compute capability, fastest first.

    The order was measured on compute capability 9.0 (Triton 3.6.0); elsewhere those that spill fewest registers come
    first. On 10, products of 64 pixels and more use tensor memory. For float32-grade products and for wide lines
    Triton 3.4 and 3.6 ask for more of it than exists, and cannot launch; tiles of 32 pixels do without.
    """
    if padded(channels) > 32:
        return _configs_for_wide_lines(capability, exact)
    config = KernelConfig
    if exact:
        small, large = config((8, 8), 4, 2, 8), config((8, 16), 8, 1, 4)
        others = [config((8, 8), 8, 1, 4), config((8, 16), 4, 1, 4), config((8, 16), 8, 1, 8)]
        if capability == 10:
            return [large, config((4, 8), 4, 2, 4), config((4, 8), 2, 2, 8), *others]
        return [small, large, *others] if capability >= 12 else [large, *others]
    if capability in (9, 10):
        return [config((8, 16), 4, 2, 2), config((8, 16), 4, 2, 4), config((8, 8), 4, 2, 4), config((8, 8), 4, 1, 4)]
    parts = 8 if capability >= 12 and padded(channels) == 32 else 4
    return [config((8, 8), 4, 2, parts), config((8, 8), 4, 1, parts), config((8, 16), 8, 1, 4)]


def _configs_for_wide_lines(capability: int, exact: bool) -> list[KernelConfig]:
    tiny = [KernelConfig((4, 8), warps, 1, 8) for warps in ((8, 4) if exact else (4, 8))] if capability == 10 else []
    large = [KernelConfig((8, 16), 8, 1, parts) for parts in (8, 4)]
    return [KernelConfig((8, 8), 4, 1, 8), *tiny, *large, KernelConfig((8, 8), 8, 1, 8)]


# Results

_known: dict[TrialCase, TrialResult] = {}
_running: dict[TrialCase, threading.Thread] = {}
_lock = threading.Lock()
_children: set[subprocess.Popen] = set()


def trial_result(case: TrialCase) -> TrialResult | None:
    """The result for a case; None while its trial runs, which the first call starts in the background."""
    with _lock:
        if case in _known:
            return _known[case]
        if case not in _running:
            if (found := _read(case)) is not None:
                _known[case] = found
                return found
            log.info("checking the fast kernel for %s (%s), once; meanwhile torch renders", *_names(case))
            thread = threading.Thread(target=_decide, args=(case,), name="creps-trial", daemon=True)
            _running[case] = thread
            thread.start()
    return None


def trial_running() -> bool:
    """Whether a trial is running in the background."""
    return bool(_running)


def settle_trial(case: TrialCase) -> TrialResult:
    """The result for a case; waits for its trial."""
    while (found := trial_result(case)) is None:
        thread = _running.get(case)
        if thread is not None:
            thread.join()
    return found


def _decide(case: TrialCase) -> None:
    try:
        found = _try_all(case)
        kept = _write(case, found) if found.lasting else "it will be tried again at the next start"
    except Exception as error:  # of any kind: torch renders
        log.debug("the trial failed", exc_info=True)
        found, kept = TrialResult(None, f"its trial failed: {type(error).__name__}: {error}", False), ""
    with _lock:
        _known[case] = found
        _running.pop(case, None)
    note = f" ({kept})" if kept else ""
    if found.config is None:
        log.warning("the fast kernel is not used on %s (%s): %s%s; torch renders", *_names(case), found.reason, note)
    else:
        log.info("the fast kernel is used on %s (%s)%s", *_names(case), note)


def _try_all(case: TrialCase) -> TrialResult:
    """Try one configuration after the other; the first that gives the right values is the result."""
    reasons, lasting = [], True
    if case.channels > MAX_CHANNELS:
        return TrialResult(None, f"it takes up to {MAX_CHANNELS} biline_channels, not {case.channels}")
    capability = torch.cuda.get_device_capability(case.device)[0]
    for config in candidate_configs(capability, case.channels, case.dtype == str(torch.float32)):
        reason, same = try_one(case, config)
        if reason is None:
            return TrialResult(config, None)
        log.info("configuration %s: %s", tuple(config), reason)
        reasons.append(reason)
        lasting = lasting and same
        if not same:
            break  # the fault is not the configuration's
    return TrialResult(None, "; ".join(dict.fromkeys(reasons)), lasting)


def try_one(
    case: TrialCase, config: KernelConfig, command: Sequence[str] = (), seconds: float | None = None
) -> tuple[str | None, bool]:
    """Try a configuration in a child process.

    Args:
        case: the kernel's device, dtype and shape.
        config: its configuration.
        command: of the child; default: Python with `trial_child.py`.
        seconds: time limit; default `SECONDS`.

    Returns:
        Why it cannot be used, or None; and whether another trial would give the same answer.
    """
    command = command or [sys.executable, "-c", _BOOT, str(_FOLDER)]
    seconds = SECONDS if seconds is None else seconds
    job = json.dumps({**case._asdict(), "config": config, "seconds": seconds})
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    environment.pop("TRITON_INTERPRET", None)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=_FOLDER.parent,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, ValueError) as error:
        return f"it cannot be checked, since no other process can be started here ({error})", False
    _children.add(child)
    try:
        printed, _ = child.communicate(job, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"its check took more than {seconds:.0f} s", False
    finally:
        child.kill()
        child.wait()
        _children.discard(child)
    answer = _answer(printed)
    if answer is None:
        last = printed.strip().splitlines()[-1:] or ["it said nothing"]
        return f"its check ended with status {child.returncode} ({last[0][:200]})", True
    return answer.get("reason"), bool(answer.get("lasting", True))


def _answer(printed: str) -> dict[str, Any] | None:
    """The last line that a child printed, if it is an answer."""
    with suppress(ValueError, IndexError):
        answer = json.loads(printed.strip().splitlines()[-1])
        if isinstance(answer, dict) and answer.get("checked") is True:
            return answer
    return None


@atexit.register
def _end_children() -> None:
    for child in list(_children):
        child.kill()


def _names(case: TrialCase) -> tuple[str, str]:
    return torch.cuda.get_device_name(case.device), f"{case.dtype.removeprefix('torch.')}, {case.channels} channels"


# On disk


def trial_key(case: TrialCase) -> dict[str, Any]:
    """Everything that the result of a trial depends on."""
    import triton  # pyright: ignore[reportMissingImports]

    sources = hashlib.sha256()
    for name in _SOURCES:
        sources.update((_FOLDER / name).read_bytes())
    properties = torch.cuda.get_device_properties(case.device)
    return {
        "triton": triton.__version__,
        "ptxas": _ptxas(),
        "torch": torch.__version__,
        "driver": driver_version(),
        "card": properties.name,
        "capability": [properties.major, properties.minor],
        "source": sources.hexdigest(),
        "case": list(case[1:]),
    }


def _ptxas() -> str:
    with suppress(Exception):
        from triton.backends.nvidia import compiler  # pyright: ignore[reportMissingImports]

        takes_arch = inspect.signature(compiler.get_ptxas_version).parameters  # Triton 3.4 has one ptxas for all
        return str(compiler.get_ptxas_version(*([torch.cuda.get_device_capability()[0] * 10] if takes_arch else [])))
    return os.environ.get("TRITON_PTXAS_PATH", "")


def driver_version() -> str:
    """Version of the NVIDIA driver; empty if it cannot be found out."""
    with suppress(OSError):
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    with suppress(Exception):
        return str(torch._C._cuda_getDriverVersion())  # pyright: ignore[reportAttributeAccessIssue]
    return ""


def _file(identity: dict[str, Any]) -> Path:
    from ..common.cache import cache_folder  # not at the top: the child process has this folder alone

    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"kernel-{name[:32]}.json"


def _read(case: TrialCase) -> TrialResult | None:
    """The result of an earlier process; None if there is none, or it cannot be trusted."""
    try:
        identity = trial_key(case)
        stored = json.loads(_file(identity).read_text())
        if stored["key"] != identity:
            return None
        if stored["config"] is None:
            return TrialResult(None, str(stored["reason"]))
        config = KernelConfig(tuple(stored["config"][0]), *stored["config"][1:])
        capability = identity["capability"][0]
        allowed = candidate_configs(capability, case.channels, case.dtype == str(torch.float32))
        return TrialResult(config, None) if config in allowed else None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, ImportError):
        return None


def _write(case: TrialCase, found: TrialResult) -> str:
    """Cache a result; returns a note for the log."""
    from ..common.files import write_json  # not at the top: the child process has this folder only

    try:
        identity = trial_key(case)
        path = _file(identity)
        write_json(path, {"key": identity, "config": found.config, "reason": found.reason})
    except (OSError, RuntimeError) as error:
        return f"the result could not be kept: {error}; it will be tried again at the next start"
    return f"kept in {path}" if found.config is None else ""
