"""The identity of a run: with which weights it began, and on which images, cut how.

It is stored in `run.json` and in every snapshot. A resumed run takes it from there; a request that contradicts it is
refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..data import ImageDataset

NEW = "new"
"""The start of a run that began with random weights."""
DATA_OPTIONS = ("crop", "mirror", "labels", "aspect", "max_pictures")
"""`ImageDataset.options`, which decide what a run learns from, as fields of `Identity`."""


@dataclass(frozen=True)
class Identity:
    """The start and the dataset of a run. Empty texts and None are unknown, as in runs of version 0.1.0."""

    start: str = ""  # what it began with: "new", a built-in, a file
    weights: str = ""  # SHA-256 of that generator's config and weights; "" for a new one, which its options describe
    source: str = ""  # folder or archive of the images
    data: str = ""  # SHA-256 of their names, contents and labels
    pictures: int | None = None
    crop: str | None = None
    mirror: bool | None = None
    labels: str | None = None
    aspect: str | None = None
    max_pictures: int | None = None
    choice: int = 0  # seed of the choice of `max_pictures`
    max_side: int | None = None  # of the images kept for windows
    bandwidth: float | None = None  # of a new generator
    preset: str | None = None  # of new networks

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Identity:
        """Inverse of `to_dict`. Unknown fields, and values of another type, are ignored."""
        if not isinstance(values, dict):
            return cls()
        kinds = {"str": str, "int": int, "bool": bool, "float": float}
        known = {}
        for field in dataclasses.fields(cls):
            value = values.get(field.name)
            if type(value) is kinds[str(field.type).partition(" ")[0]]:
                known[field.name] = value
        return cls(**known)

    def with_data(self, dataset: ImageDataset, source: str, max_side: int | None) -> Identity:
        """The same start with this dataset."""
        return dataclasses.replace(
            self,
            source=source,
            data=dataset.fingerprint,
            pictures=dataset.report.used,
            max_side=max_side,
            **dataset.options,
        )

    def same_data(self, other: Identity) -> bool:
        """Whether the images are the same, as far as is known."""
        if self.data and other.data:
            return self.data == other.data
        return self.pictures in (None, other.pictures)

    def described_data(self) -> str:
        """For messages, such as "6 pictures of /home/me/pictures"."""
        count = "some" if self.pictures is None else f"{self.pictures:,}"
        return f"{count} pictures of {self.source}" if self.source else f"{count} pictures"
