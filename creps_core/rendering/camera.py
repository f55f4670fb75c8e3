"""The camera: which part of the frame an image shows, how it is rotated, and how it moves.

The generator is a function on the plane, so a view is a map from the image to the frame. Views that keep the axes
separate (any zoom, rotation by multiples of 90 degrees, mirroring) are windows, rendered from one column and one row
line; others (any angle, warps) need a column and a row code per pixel, see `warp.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .easing import EASINGS
from .window import SQUARE, Aspect, Window, fit_window

PlaneMap = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A map of the plane: (y, x) -> (y', x'), float64 tensors of one shape."""


# Warps. Coordinates are relative to the centre of the image; a square image extends from -1 to 1.


def _swirl(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    angle = amount * math.pi * torch.exp(-2 * (y * y + x * x))
    cos, sin = angle.cos(), angle.sin()
    return cos * y - sin * x, sin * y + cos * x


def _bulge(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    scale = torch.exp2(-amount * torch.exp(-2 * (y * y + x * x)))
    return y * scale, x * scale


def _ripple(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    radius = torch.hypot(y, x)
    scale = 1 + amount * 0.04 * torch.sin(8 * math.pi * radius) / radius.clamp(min=1e-9)
    return y * scale, x * scale


def _tilt(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    depth = (1 + amount * y).clamp(min=_NEAREST)
    return y / depth, x / depth


def _turn(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    depth = (1 - amount * x).clamp(min=_NEAREST)
    return y / depth, x / depth


def _tunnel(amount: float, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    # Rings of radius 2^-k and sectors of a third of a turn, each next to its mirror image: no seams.
    depth = torch.log2(torch.hypot(y, x).clamp(min=_TUNNEL_END))
    angle = torch.atan2(y, x)
    return torch.sin(math.pi * depth - 2 * math.pi * amount), torch.sin(3 * angle)


_NEAREST = 0.1  # smallest depth of a tilted image, which so has no horizon
_TUNNEL_END = 2.0**-6

WARPS: dict[str, Callable[[float, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "swirl": _swirl,
    "bulge": _bulge,
    "ripple": _ripple,
    "tilt": _tilt,
    "turn": _turn,
    "tunnel": _tunnel,
}
"""Kinds of warps: (amount, y, x) -> (y', x'). An amount of 0 is the identity, except for the tunnel, whose image is
periodic in the amount with period 1."""
_ALWAYS_ON = {"tunnel"}


class Warp(NamedTuple):
    """A distortion of the image, like a lens; the same at every zoom."""

    kind: str
    amount: float


@dataclass(frozen=True)
class View:
    """The camera's view of the frame.

    Args:
        center_y, center_x: the point of the frame at the centre of the image; (0.5, 0.5) is the centre of the frame.
        zoom: 1 shows the frame (brought to the aspect of the image by `fit`), 2 half of its height and width.
        rotation: of the image, in degrees clockwise. Multiples of 90 are exact, and cost nothing.
        mirror: mirrors the image horizontally.
        warps: applied to the image in this order.

    Raises:
        ValueError: a number is not finite, the zoom is not positive, a warp is unknown.
    """

    center_y: float = 0.5
    center_x: float = 0.5
    zoom: float = 1.0
    rotation: float = 0.0
    mirror: bool = False
    warps: tuple[Warp, ...] = ()

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("center_y", "center_x", "zoom", "rotation")}
        numbers |= {warp.kind: warp.amount for warp in self.warps}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} of a view must be a finite number, not {value!r}")
        if self.zoom <= 0:
            raise ValueError(f"zoom must be positive, not {self.zoom!r}; below 1 it shows more than the frame")
        for warp in self.warps:
            if warp.kind not in WARPS:
                raise ValueError(f"there is no warp {warp.kind!r}; there are {list(WARPS)}")

    @property
    def upright(self) -> bool:
        """Whether rows and columns of the image are rows and columns of the frame, or vice versa."""
        return not self.warps and self.rotation % 90 == 0

    def extent(self, height: int, width: int, fit: str = "crop", aspect: Aspect = SQUARE) -> Window:
        """The window that an image of this size shows, relative to the centre and before rotation, in units of the
        longer side of the frame.

        Args:
            height, width: of the image, in pixels.
            fit: how the frame is brought to the aspect of the image, see `fit_window`.
            aspect: of the frame.
        """
        half_x, half_y = (0.5 / self.zoom * side / max(aspect) for side in aspect)
        return fit_window((-half_y, -half_x, half_y, half_x), height, width, fit)

    def placement(self, extent: Window, aspect: Aspect = SQUARE) -> tuple[Window, bool]:
        """The window of an upright view of this extent, and whether the image has to be transposed.

        A transposed image is rendered with `height` and `width` swapped into `out.transpose(2, 3)`. The window is
        reversed along an axis that runs against the frame.

        Raises:
            ValueError: the view is not upright.
        """
        if not self.upright:
            raise ValueError(f"a view rotated by {self.rotation} degrees, or warped, is not a window into the frame")
        top, left, bottom, right = extent
        cos, sin = _direction(self.rotation)
        side = -1 if self.mirror else 1
        # As in `plane_map`: y = cos * y - sin * x; x = sin * y + cos * x, with one of the two zero.
        if sin == 0:
            y, x = (cos * top, cos * bottom), (cos * side * left, cos * side * right)
            return self._moved(y, x, aspect), False
        y, x = (-sin * side * left, -sin * side * right), (sin * top, sin * bottom)
        return self._moved(y, x, aspect), True

    def plane_map(self, aspect: Aspect = SQUARE) -> PlaneMap:
        """The map from positions in `extent` to positions in the frame."""
        across, down = (max(aspect) / side for side in aspect)
        cos, sin = _direction(self.rotation)
        unit = 0.5 / self.zoom

        def apply(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            y, x = y / unit, (-x if self.mirror else x) / unit
            for warp in reversed(self.warps):
                y, x = WARPS[warp.kind](warp.amount, y, x)
            y, x = unit * (cos * y - sin * x), unit * (sin * y + cos * x)
            return self.center_y + y * down, self.center_x + x * across

        return apply

    def _moved(self, y: tuple[float, float], x: tuple[float, float], aspect: Aspect) -> Window:
        across, down = (max(aspect) / side for side in aspect)
        return (
            self.center_y + y[0] * down,
            self.center_x + x[0] * across,
            self.center_y + y[1] * down,
            self.center_x + x[1] * across,
        )


def _direction(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle, exact for multiples of 90."""
    turns = degrees % 360
    if turns % 90 == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(turns // 90)]
    return math.cos(math.radians(turns)), math.sin(math.radians(turns))


# Paths

TIMINGS = ("constant speed", "equal times")
"""How the frames of a path are distributed over its parts; see `camera_path`."""


def between(a: View, b: View, t: float) -> View:
    """Interpolate from view `a` to view `b`, at `t` in 0..1.

    The logarithm of the zoom is linear in time, which looks like a constant speed, and the centre moves so that one
    point of the image stays fixed: a straight flight towards it. Angles and amounts of warps are interpolated linearly;
    0 to 360 degrees is a full turn.

    Raises:
        ValueError: only one of the views is mirrored, or their warps differ in kind, or only one has a tunnel.
    """
    if a.mirror != b.mirror:
        raise ValueError("a camera path cannot go from a mirrored view to one that is not: use two paths")
    growth = math.log(b.zoom / a.zoom)
    # The centre moves linearly in the width of the window, 1 / zoom; at equal zoom linearly in time.
    moved = t if abs(growth) < 1e-9 else math.expm1(-growth * t) / math.expm1(-growth)
    return View(
        center_y=_mix(a.center_y, b.center_y, moved),
        center_x=_mix(a.center_x, b.center_x, moved),
        zoom=a.zoom * math.exp(growth * t),
        rotation=_mix(a.rotation, b.rotation, t),
        mirror=a.mirror,
        warps=_mix_warps(a.warps, b.warps, t),
    )


def camera_path(
    views: Sequence[View], frames: int, *, easing: str = "linear", timing: str = "constant speed", closed: bool = False
) -> list[View]:
    """A camera path through key views, one view per frame.

    Args:
        views: two or more key views. The first and last frames show the first and last of them.
        frames: number of views to return, at least 2.
        easing: of the path as a whole, a name in `EASINGS`.
        timing: `constant speed` gives each segment the time that its zoom, pan and rotation take at one speed; `equal
            times` gives all segments the same time.
        closed: return to the first view; the frames then loop, and the first one is not repeated.

    Raises:
        ValueError: there are too few views or frames, or an unknown easing or timing; see also `between`.
    """
    if len(views) < 2:
        raise ValueError(f"a camera path needs at least two views, not {len(views)}")
    if type(frames) is not int or frames < 2:
        raise ValueError(f"frames must be a whole number, at least 2, not {frames!r}")
    if easing not in EASINGS:
        raise ValueError(f"easing must be one of {list(EASINGS)}, not {easing!r}")
    if timing not in TIMINGS:
        raise ValueError(f"timing must be one of {list(TIMINGS)}, not {timing!r}")
    segments = list(pairwise([*views, views[0]] if closed else views))
    times = [_distance(a, b) if timing == "constant speed" else 1.0 for a, b in segments]
    if sum(times) == 0:
        times = [1.0] * len(segments)
    path = []
    for i in range(frames):
        time = EASINGS[easing](i / (frames if closed else frames - 1)) * sum(times)
        k = 0
        while k < len(segments) - 1 and time >= times[k]:
            time -= times[k]
            k += 1
        path.append(between(*segments[k], min(time / times[k], 1.0) if times[k] else 1.0))
    if not closed:
        path[-1] = views[-1]  # without a rounding error
    return path


def _distance(a: View, b: View) -> float:
    """Visual distance of two views: doublings of the zoom, pan in window sides, half turns and amounts of warps."""
    zoom = math.log2(b.zoom / a.zoom)
    pan = math.hypot(b.center_y - a.center_y, b.center_x - a.center_x) * math.sqrt(a.zoom * b.zoom)
    # A zoom about a point of the image also moves the centre, which must not count twice.
    pan = max(0.0, pan - abs(2**zoom - 1) / 2 / math.sqrt(2**zoom))
    bend = max((abs(w.amount) for w in _mix_warps(a.warps, b.warps, 1, difference=True)), default=0.0)
    return math.hypot(zoom, pan, (b.rotation - a.rotation) / 180, bend)


def _mix(a: float, b: float, t: float) -> float:
    return a if t <= 0 else b if t >= 1 else a + (b - a) * t


def _mix_warps(a: Sequence[Warp], b: Sequence[Warp], t: float, difference: bool = False) -> tuple[Warp, ...]:
    """Interpolated warps (or their differences), in the order of the longer list."""
    kinds = [warp.kind for warp in (a if len(a) >= len(b) else b)]
    first, second = dict(a), dict(b)
    if len(first) != len(a) or len(second) != len(b) or not {*first, *second} <= set(kinds):
        raise ValueError(
            f"a camera path needs the same warps in its views: one has {[w.kind for w in a]}, the next "
            f"{[w.kind for w in b]}; give the missing ones an amount of 0"
        )
    for kind in _ALWAYS_ON & (set(first) ^ set(second)):
        raise ValueError(f"a {kind} cannot begin within a camera path: give it to all views, or to none")
    pairs = [(kind, first.get(kind, 0.0), second.get(kind, 0.0)) for kind in kinds]
    return tuple(Warp(kind, y - x if difference else _mix(x, y, t)) for kind, x, y in pairs)


def add_warp(view: View, kind: str, amount: float) -> View:
    """The view with one more warp, applied last."""
    return replace(view, warps=(*view.warps, Warp(kind, amount)))
