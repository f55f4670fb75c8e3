"""The metrics by name, how many pictures each takes, and what their numbers may be compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...common.errors import printable

MOST = 10_000_000  # pictures


@dataclass(frozen=True)
class Kind:
    """What there is to know of a metric without a number.

    Attributes:
        title: what it is called.
        count: generated pictures that it takes by custom; pairs of them for `ppl`, latents for `scale`.
        least: fewer pictures have no such number.
        lower: whether less is better.
        weights: files of weights that it needs, by the names in `weights.FILES`.
        reals: whether it needs real pictures.
    """

    title: str
    count: int
    least: int = 1
    lower: bool = True
    weights: tuple[str, ...] = ()
    reals: bool = True


KINDS: dict[str, Kind] = {
    "fid": Kind("Frechet inception distance", 50_000, 2, weights=("inception",)),
    "kid": Kind("kernel inception distance", 50_000, 2, weights=("inception",)),
    "prc": Kind("precision and recall", 50_000, 4, lower=False, weights=("inception",)),
    "isc": Kind("inception score", 50_000, 10, lower=False, weights=("inception",), reals=False),
    "ppl": Kind("perceptual path length", 50_000, weights=("lpips", "vgg"), reals=False),
    "swd": Kind("sliced Wasserstein distance", 4096),
    "scale": Kind("scale consistency", 4, lower=False, reals=False),
}
_NAME = re.compile(rf"({'|'.join(KINDS)})(?:(\d{{1,8}})(k?))?(?:_full)?")


@dataclass(frozen=True)
class Metric:
    """A metric with its number of pictures."""

    kind: str
    count: int

    @property
    def name(self) -> str:
        """Such as fid50k, as the papers write it; of the two that need no weights just the kind."""
        if self.kind in ("swd", "scale"):
            return self.kind
        thousands, rest = divmod(self.count, 1000)
        return f"{self.kind}{self.count}" if rest else f"{self.kind}{thousands}k"

    @property
    def about(self) -> Kind:
        """What there is to know of its kind."""
        return KINDS[self.kind]


def parse_metrics(text: str, count: int | None = None) -> list[Metric]:
    """Metrics by their names, separated by commas: `fid,swd`, `fid5k`, `fid50k_full`.

    Args:
        text: the names; one that says a number keeps it.
        count: of pictures, for the others; None: what is custom. `scale` keeps its own.

    Raises:
        ValueError: a name is unknown, is said twice, or its number is outside 1 to ten million.
    """
    found: dict[str, Metric] = {}
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        match = _NAME.fullmatch(word)
        if match is None:
            raise ValueError(
                f"there is no metric {printable(word, 40)!r}: there are {', '.join(KINDS)}, with a number of pictures "
                "if you like, such as fid5k"
            )
        kind, number, thousands = match.groups()
        wanted = count if count is not None and kind != "scale" else KINDS[kind].count
        if number:
            wanted = int(number) * (1000 if thousands else 1)
        if not 1 <= wanted <= MOST:
            raise ValueError(f"{word}: a metric takes 1 to {MOST:,} pictures, not {wanted:,}")
        if kind in found:
            raise ValueError(f"{kind} is asked for twice: {found[kind].name} and {word}")
        found[kind] = Metric(kind, wanted)
    if not found:
        raise ValueError(f"no metric is named: there are {', '.join(KINDS)}")
    return list(found.values())
