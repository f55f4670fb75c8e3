"""The folder of a run, in which a training leaves its statistics, sheets, snapshots and the generator.

run.json                        what is trained, on what, how; and what was changed since
stats.jsonl                     a line per tick
reals.png, fakes-<shown>.png    sheets
snapshot-<shown>.safetensors    the state; the last ones are kept, and the best
generator.safetensors           the moving average, for the loader; half precision
unfinished/                     features, while a snapshot is measured

<shown> is `Trainer.num_images`. Files of other names are left alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import TrainingError
from ...common.files import read_json
from .identity import Identity
from .lock import FolderLock
from .snapshot_metrics import SnapshotMetrics
from .stats import read_stats

KEPT_SNAPSHOTS = 2
DESCRIPTION = "run.json"
_SNAPSHOT = re.compile(r"snapshot-\d{10,}\.safetensors")
# Left by a run that was killed while it wrote; the last kind is of the library that writes safetensors.
_LEFTOVER = re.compile(
    r"\.(run\.json|stats\.jsonl|(reals|losses|fakes-\d{10,})\.png|(snapshot-\d{10,}|generator)\.safetensors)\..*partial"
    r"|\.tmp\w{6}"
)


@dataclass
class Run:
    """The folder of a run, and how often it is written to.

    Attributes:
        tick: images between lines of statistics.
        snapshot_every: images between snapshots.
        keep: how many snapshots are kept, besides the best.
        info: for `run.json` and the headers of snapshots.
        metrics: what is measured of the snapshots; None: nothing.
        lock: to be held while the run is worked on: `with run.lock`.
    """

    folder: Path
    tick: int = 1000
    snapshot_every: int = 20_000
    keep: int = KEPT_SNAPSHOTS
    info: dict[str, Any] = field(default_factory=dict)
    metrics: SnapshotMetrics | None = None

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.lock: FolderLock = FolderLock(self.folder)
        self.check()

    def check(self) -> None:
        """Raise ValueError if an interval is less than 1."""
        for name in ("tick", "snapshot_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def generator_file(self) -> Path:
        """The moving average, with the discriminator."""
        return self.folder / "generator.safetensors"

    @property
    def publishes_best(self) -> bool:
        """Whether `generator_file` is made of the best snapshot."""
        return self.metrics is not None and self.metrics.publish_best

    def snapshot_path(self, num_images: int) -> Path:
        """The snapshot after `num_images` images. Names sort by it."""
        return self.folder / f"snapshot-{num_images:010d}.safetensors"

    def sheet_path(self, num_images: int) -> Path:
        """The sheet of generated images after `num_images` images."""
        return self.folder / f"fakes-{num_images:010d}.png"

    def snapshots(self) -> list[Path]:
        """The snapshots that the run itself has named, oldest first."""
        found = [path for path in self.folder.glob("snapshot-*.safetensors") if _SNAPSHOT.fullmatch(path.name)]
        return sorted(found, key=num_images_of)

    def best(self) -> Path | None:
        """The best of the snapshots in the folder; None if none of them was measured."""
        existing = {num_images_of(path): path for path in self.snapshots()}
        found = self.metrics.best(read_stats(self.folder), set(existing)) if self.metrics else None
        return None if found is None else existing[found]

    @property
    def features_folder(self) -> Path:
        """For features that are computed while a snapshot is measured."""
        return self.folder / "unfinished"

    def clear_leftovers(self) -> None:
        """Remove what a killed run has left: partly written files, and features of a snapshot."""
        for path in self.folder.glob(".*"):
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.features_folder, ignore_errors=True)

    def set_aside(self, snapshot: Path) -> None:
        """Rename a damaged snapshot, so that the run can resume from an older one and nothing is lost."""
        with self.writing():
            snapshot.replace(snapshot.with_name(f"{snapshot.name}.damaged"))

    def description(self) -> tuple[dict[str, Any], str]:
        """The content of `run.json` and ""; or {} and the reason why it cannot be read, in a few words."""
        path = self.folder / DESCRIPTION
        try:
            content = read_json(path)
        except FileNotFoundError:
            return {}, f"{path} is missing"
        except (OSError, ValueError):
            return {}, f"{path} is empty or damaged"
        return content, ""

    def describe(self, identity: Identity, history: list[dict[str, Any]]) -> None:
        """Put the identity of the run, and its changes since it began, into `info`."""
        self.info |= {
            "data_source": identity.source,
            "start": identity.start,
            "identity": identity.to_dict(),
            "history": history,
        }

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within, failures to write raise TrainingError, which says what to do."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
                raise
            last = "The last snapshot is whole" if self.snapshots() else "Nothing is kept of the run"
            raise TrainingError(
                f"{self.folder.name}: cannot be written to ({error}). {last}: make room (a snapshot takes three "
                "times the size of the networks, twice over) and start the same run again to resume it"
            ) from error


def num_images_of(snapshot: Path) -> int:
    """The images shown before a snapshot, by its name."""
    return int(snapshot.name.removeprefix("snapshot-").partition(".")[0])
