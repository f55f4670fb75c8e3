"""Calls in a child process, with limits of time and memory for each: what crashes or hangs is counted, not suffered.

Linux only: children are forked, so that torch is imported once, and memory is read from /proc.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from comfyui_creps.common.errors import CheckpointError, DatasetError, LatentsError, TrainingError

DOCUMENTED = (CheckpointError, DatasetError, LatentsError, TrainingError)
SAID = (ValueError, OSError, OverflowError)
MESSAGE_LIMIT = 300
BAD = ("raw", "crashed", "hung")
AVAILABLE = sys.platform == "linux"
_RUNAWAY = 4 << 30  # address space beyond what the process has; MemoryError ends what asks for more


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    name: str
    kind: str
    """loaded, refused (a documented error), said (a plain ValueError, OSError or OverflowError), raw, crashed, hung."""
    seconds: float = 0.0
    """Of the processor."""
    megabytes: float = 0.0
    """That the process grew at the peak."""
    message: str = ""


def isolated(
    cases: Sequence[tuple[str, Callable[[], object]]],
    *,
    seconds: float = 20.0,
    documented: tuple[type[Exception], ...] = DOCUMENTED,
) -> list[Outcome]:
    """Make each call in a child; the result of a call is dropped."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        rest = cases[len(outcomes) :]
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(source)
            _work(rest, sink, documented)
        os.close(sink)
        outcomes += _collect(rest, source, child, seconds)
        os.close(source)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Counts by kind, and the worst of each."""
    counts = Counter(outcome.kind for outcome in outcomes)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    longest = max(outcomes, key=lambda outcome: len(outcome.message))
    return (
        f"{len(outcomes)} calls: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}; "
        f"slowest {slowest.seconds:.2f} s ({slowest.name}), largest {largest.megabytes:.0f} MB ({largest.name}), "
        f"longest message {len(longest.message)} characters ({longest.name})"
    )


def _work(cases: Sequence[tuple[str, Callable[[], object]]], sink: int, documented: tuple[type[Exception], ...]):
    """The child: one line per call; never returns."""
    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _RUNAWAY, size + _RUNAWAY))
    for _, call in cases:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start, message = _status("VmRSS"), time.process_time(), ""
        try:
            call()
            kind = "loaded"
        except documented as error:
            kind, message = "refused", str(error)
        except SAID as error:
            kind, message = "said" if type(error) in SAID else "raw", f"{type(error).__name__}: {error}"
        except BaseException as error:
            kind, message = "raw", f"{type(error).__name__}: {error}"
        took, grown = time.process_time() - start, _status("VmHWM") - before
        line = json.dumps([kind, took, grown / 1000, message]) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(sink, data) :]
    os._exit(0)


def _collect(
    cases: Sequence[tuple[str, Callable[[], object]]], source: int, child: int, seconds: float
) -> list[Outcome]:
    """The outcomes of the calls that the child made; of the one that ended it, too."""
    outcomes: list[Outcome] = []
    buffer = b""
    while len(outcomes) < len(cases):
        ready, _, _ = select.select([source], [], [], seconds)
        data = os.read(source, 1 << 16) if ready else b""
        if not data:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            name = cases[len(outcomes)][0]
            if ready:
                outcomes.append(Outcome(name, "crashed", message=f"signal {os.WTERMSIG(status)}"))
            else:
                outcomes.append(Outcome(name, "hung", seconds=seconds))
            return outcomes
        *lines, buffer = (buffer + data).split(b"\n")
        outcomes += [Outcome(cases[len(outcomes) + i][0], *json.loads(line)) for i, line in enumerate(lines)]
    os.waitpid(child, 0)
    return outcomes


def _status(name: str) -> int:
    """A field of /proc/self/status, in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)
