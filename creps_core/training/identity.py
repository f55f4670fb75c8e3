"""What a run is, and stays: with which weights it began, on which pictures, cut how.

It is kept in `run.json` and in every snapshot. Going on takes it from there; what contradicts it is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..data import ImageDataset

DATA_OPTIONS = ("crop", "mirror", "labels", "aspect", "max_pictures")
"""`ImageDataset.options`, which decide what is learnt from, as fields of `Identity`."""


@dataclass(frozen=True)
class Identity:
    """The start and the data of a run. Empty texts and None: not known, as of runs of version 0.1.0."""

    start: str = ""  # what it began with: "new", a built-in, a file
    weights: str = ""  # SHA-256 of that generator's config and weights; of a new one that is all its options
    source: str = ""  # folder or archive of the pictures
    data: str = ""  # SHA-256 of their names, contents and labels
    pictures: int | None = None
    crop: str | None = None
    mirror: bool | None = None
    labels: str | None = None
    aspect: str | None = None
    max_pictures: int | None = None
    choice: int = 0  # seed of the choice of `max_pictures`
    max_side: int | None = None  # of the pictures kept for windows
    bandwidth: float | None = None  # of a new generator

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Identity:
        """Inverse of `to_dict`. What is not a value of its field, or unknown, counts as not known."""
        if not isinstance(values, dict):
            return cls()
        kinds = {"str": str, "int": int, "bool": bool, "float": float}
        known = {}
        for field in dataclasses.fields(cls):
            value = values.get(field.name)
            if type(value) is kinds[str(field.type).partition(" ")[0]]:
                known[field.name] = value
        return cls(**known)

    def with_data(self, pictures: ImageDataset, source: str, max_side: int | None) -> Identity:
        """The same start with these pictures."""
        return dataclasses.replace(
            self,
            source=source,
            data=pictures.fingerprint,
            pictures=pictures.report.used,
            max_side=max_side,
            **pictures.options,
        )

    def same_data(self, other: Identity) -> bool:
        """Whether the pictures are the same, as far as it is known."""
        if self.data and other.data:
            return self.data == other.data
        return self.pictures in (None, other.pictures)

    def described_data(self) -> str:
        """For messages: 6 pictures of /home/me/pictures."""
        count = "some" if self.pictures is None else f"{self.pictures:,}"
        return f"{count} pictures of {self.source}" if self.source else f"{count} pictures"
