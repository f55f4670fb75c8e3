"""What an evaluation measures, and where its long work is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.progress import Progress
from ..training import Process
from .scale import LARGEST_SIZE

if TYPE_CHECKING:
    from .metrics import Metric
    from .sets import ImageSet, RealImages

TaskProgress = Callable[[str, int, int], None]
"""Called as progress(task, done, total). An exception it raises stops the work; the same call resumes it."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure.

    Attributes:
        images: `GeneratedImages`, or `RealImages` of a folder, for which only some metrics are defined.
        reals: what they are compared with; None: nothing.
        metrics: from `parse_metrics`.
        held_out: folder or zip of images for distances that the generator was not trained on; None: see
            `HeldOutComparison`.
        sides: of the images for distances; (): that of the generated ones, at most 128.
        normalise: see `sliced_wasserstein`.
        largest: size for scale consistency, in pixels.
    """

    images: ImageSet
    reals: RealImages | None
    metrics: Sequence[Metric]
    held_out: Path | None = None
    sides: tuple[int, ...] = ()
    normalise: str = "reference"
    largest: int = LARGEST_SIZE


@dataclass(frozen=True)
class Workspace:
    """Folders, processes and progress of an evaluation.

    Attributes:
        folder: for features of generated images, removed once their metrics are computed.
        cache: for features or statistics of real images, which are kept, under a hash of files and options.
        process: one of several that make the same call with the same folders.
        progress: see `TaskProgress`.
    """

    folder: Path
    cache: Path
    process: Process = field(default_factory=Process)
    progress: TaskProgress | None = None

    def task_progress(self, task: str) -> Progress | None:
        """See `task_progress`."""
        return task_progress(self.progress, task)


def task_progress(progress: TaskProgress | None, task: str) -> Progress | None:
    """A callback progress(done, total) for one task; None if there is no listener."""
    return None if progress is None else lambda done, total: progress(task, done, total)
