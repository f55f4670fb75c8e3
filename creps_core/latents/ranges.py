"""Parse lists of numbers: seeds ("1, 5, 10-13"), indices of a batch ("0, 2, -1, 3:7"), styles ("coarse, 8").

All of them accept two kinds of ranges: `3-6`, which includes both ends, and Python's slices, `3:7`, which exclude the
end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .sampling import MAX_SEED

MAX_COUNT = 4096
LAYER_NAMES = ("coarse", "middle", "fine", "all")

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_SLICE = re.compile(r"(-?\d*)\s*:\s*(-?\d*)(?:\s*:\s*(-?\d+))?")
_NUMBER = re.compile(r"-?\d+")


def parse_seeds(text: str) -> list[int]:
    """Parse seeds and ranges of seeds: `"1, 5, 10-13"` is [1, 5, 10, 11, 12, 13].

    Items are separated by commas, semicolons, spaces or line ends. `10-13` includes both ends, `"5-3"` counts down;
    `10:14` excludes its end, and may have a step, `0:100:10`.

    Raises:
        ValueError: an item is no number or range, a seed is above 2^64 - 1, there are more than 4096 seeds, or none;
            names the item.
    """
    seeds: list[int] = []
    for part in _parts(text):
        if found := _range(part, "seeds"):
            seeds += found
        elif match := _SLICE.fullmatch(part):
            start, stop, step = _slice(match, part)
            if stop is None or (start or 0) < 0 or stop < 0:
                raise ValueError(f"{part!r} is not a range of seeds: write 0-3, or 0:4, which excludes its end")
            seeds += _counted(range(start or 0, stop, step or 1), part, "seeds")
        elif part.isdecimal():
            seeds.append(int(part))
        else:
            raise ValueError(
                f"{part!r} is neither a seed nor a range of seeds; write for instance 1, 5, 10-13, or 10:14, "
                "which excludes its end"
            )
    return _checked(seeds, "seeds", text)


def parse_indices(text: str, length: int) -> list[int]:
    """Parse positions in a batch of `length`, each from 0 to length - 1, in the order in which they are written.

    `"0, 2, -1, 3:7"`: negative numbers count from the end; slices are Python's (the end is excluded, any part may be
    missing, `::-1` reverses); `3-6` includes both ends. A position that is written twice is returned twice.

    Raises:
        ValueError: an item is no index or range, is outside the batch, or nothing is selected; names the item.
    """
    indices: list[int] = []
    for part in _parts(text):
        if match := _SLICE.fullmatch(part):
            start, stop, step = _slice(match, part)
            indices += range(length)[start:stop:step]
            continue
        found = _range(part, "latents") or ([int(part)] if _NUMBER.fullmatch(part) else [])
        if not found:
            raise ValueError(
                f"{part!r} is neither an index nor a range; write for instance 0, 2, -1, 3-6, or 3:7, which "
                "excludes its end"
            )
        for index in found:
            if not -length <= index < length:
                raise ValueError(f"there is no {index} in a batch of {length}: it goes from 0 to {length - 1}")
            indices.append(index % length)
    return _checked(indices, "latents", text)


def parse_layers(text: str, num_ws: int) -> list[int]:
    """Parse positions of style vectors, 0 to num_ws - 1; returned sorted, each once.

    `"coarse"`, `"middle"` and `"fine"` are a third of the styles each, `"all"` is all of them. `"0-3, 6"` names
    positions: `0-3` includes both ends, `0:4` is the same as a Python slice, and negative numbers count from the end
    (-1 is the style of the pixel blocks).

    Raises:
        ValueError: an item is no name or position, the generator has no such style, or none is named; names the item.
    """
    layers: set[int] = set()
    for part in _parts(text.replace("+", ",")):
        if part.lower() in LAYER_NAMES:
            layers |= set(named_layers(part.lower(), num_ws))
            continue
        if match := _SLICE.fullmatch(part):
            start, stop, step = _slice(match, part)
            if any(bound is not None and not -num_ws <= bound <= num_ws for bound in (start, stop)):
                raise ValueError(f"{part!r} is outside the {num_ws} styles of this generator, 0 to {num_ws - 1}")
            layers |= set(range(num_ws)[start:stop:step])
            continue
        found = _range(part, "styles") or ([int(part)] if _NUMBER.fullmatch(part) else [])
        if not found:
            raise ValueError(
                f"{part!r} is not a style: write {', '.join(LAYER_NAMES)}, a number or a range, for instance 0-3, 6, "
                "or 0:4, which excludes its end"
            )
        if not all(-num_ws <= layer < num_ws for layer in found):
            raise ValueError(f"{part!r} is outside the {num_ws} styles of this generator, 0 to {num_ws - 1}")
        layers |= {layer % num_ws for layer in found}
    if not layers:
        raise ValueError("no styles are named; write for instance coarse, or 0-3, 6")
    return sorted(layers)


def named_layers(name: str, num_ws: int) -> range:
    """The styles of `coarse | middle | fine | all`: rounded thirds, none of them empty if there are three styles."""
    if name == "all":
        return range(num_ws)
    third = LAYER_NAMES.index(name)
    return range(round(num_ws * third / 3), round(num_ws * (third + 1) / 3))


def _range(part: str, what: str) -> Sequence[int]:
    """The numbers of `3-6`, or of `6-3` counting down; none if `part` is no such range."""
    match = _RANGE.fullmatch(part)
    if match is None:
        return []
    first, last = int(match[1]), int(match[2])
    step = 1 if first <= last else -1
    return _counted(range(first, last + step, step), part, what)


def _slice(match: re.Match[str], part: str) -> tuple[int | None, int | None, int | None]:
    """Start, stop and step of `3:7` or `::-1`."""
    start, stop, step = (int(value) if value else None for value in match.groups())
    if step == 0:
        raise ValueError(f"the step of {part!r} is 0")
    return start, stop, step


def _counted(numbers: range, part: str, what: str) -> range:
    if abs(numbers.stop - numbers.start) > MAX_COUNT * abs(numbers.step):
        raise ValueError(f"{part!r} is more than {MAX_COUNT} {what}")
    return numbers


def _parts(text: str) -> Iterator[str]:
    """The items of a list; a colon, and a dash between spaces, join their neighbours to one item."""
    joined = re.sub(r"\s+-\s+", "-", re.sub(r"\s*:\s*", ":", text))
    return (part for part in re.split(r"[,;\s]+", joined) if part)


def _checked(values: Sequence[int], what: str, text: str) -> list[int]:
    if not values:
        raise ValueError(f"{text!r} names no {what}")
    if len(values) > MAX_COUNT:
        raise ValueError(f"{len(values)} {what} are too many: at most {MAX_COUNT}")
    if what == "seeds" and (highest := max(values)) > MAX_SEED:
        raise ValueError(f"{highest} is not a seed: seeds go from 0 to 2^64 - 1")
    return list(values)
