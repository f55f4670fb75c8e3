"""The camera: what part of the frame a picture shows, how it is turned, and how it moves.

A picture is a function on the plane, so a view is a map from the picture to the frame. Views that keep the axes apart
(any zoom, turns by 90 degrees, mirrors) are a window and need no more than the two lines of the picture; others (any
angle, warps) need a column and a row code per pixel, see `warp.py`.
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


# Warps. Coordinates are relative to the middle of the picture; a square picture reaches from -1 to 1.


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
    # Rings of radius 2^-k and sectors of a third of a turn, each beside its mirror image: no seam anywhere.
    depth = torch.log2(torch.hypot(y, x).clamp(min=_TUNNEL_END))
    angle = torch.atan2(y, x)
    return torch.sin(math.pi * depth - 2 * math.pi * amount), torch.sin(3 * angle)


_NEAREST = 0.1  # the smallest depth of a tilted picture: it has no horizon
_TUNNEL_END = 2.0**-6

WARPS: dict[str, Callable[[float, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "swirl": _swirl,
    "bulge": _bulge,
    "ripple": _ripple,
    "tilt": _tilt,
    "turn": _turn,
    "tunnel": _tunnel,
}
"""Kinds of warps. An amount of 0 is none, except for the tunnel, where whole numbers look the same."""
_ALWAYS_ON = {"tunnel"}


class Warp(NamedTuple):
    """A bend of the picture, like a lens: the same at every zoom."""

    kind: str
    amount: float


@dataclass(frozen=True)
class View:
    """Where the camera looks.

    Args:
        center_y, center_x: the point of the frame in the middle of the picture; (0.5, 0.5) is the frame's middle.
        zoom: 1 shows the frame (as `fit` brings it to the shape of the picture), 2 half of each side.
        rotation: of the picture, in degrees clockwise. Multiples of 90 are exact, and as fast as none.
        mirror: swaps left and right of the picture.
        warps: applied one after the other to what the camera sees without them.

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
        """Whether rows and columns of the picture are rows and columns of the frame, in one order or the other."""
        return not self.warps and self.rotation % 90 == 0

    def extent(self, height: int, width: int, fit: str = "crop", aspect: Aspect = SQUARE) -> Window:
        """What a picture of this size shows, relative to the centre and before any turn; in longer sides of the frame.

        Args:
            height, width: of the picture, in pixels.
            fit: how the frame is brought to its shape.
            aspect: of the frame.
        """
        half_x, half_y = (0.5 / self.zoom * side / max(aspect) for side in aspect)
        return fit_window((-half_y, -half_x, half_y, half_x), height, width, fit)

    def placement(self, extent: Window, aspect: Aspect = SQUARE) -> tuple[Window, bool]:
        """The window of an upright view of this extent, and whether the picture is to be transposed.

        A transposed picture is rendered with `height` and `width` swapped into `out.transpose(2, 3)`. The window is
        reversed where the picture runs against the frame.

        Raises:
            ValueError: the view is not upright.
        """
        if not self.upright:
            raise ValueError(f"a view turned by {self.rotation} degrees, or warped, is not a window into the frame")
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
    """Cosine and sine, exact for multiples of 90."""
    turns = degrees % 360
    if turns % 90 == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(turns // 90)]
    return math.cos(math.radians(turns)), math.sin(math.radians(turns))


# Paths

TIMINGS = ("constant speed", "equal times")
"""How the frames of a path are distributed over its parts; see `camera_path`."""


def between(a: View, b: View, t: float) -> View:
    """The view at `t` (0..1) on the way from `a` to `b`.

    The zoom grows by the same factor in the same time, which looks like a constant speed, and the centre moves with
    it so that one point of the picture stays where it is: a straight flight towards it. Angles and the amounts of
    warps run evenly; 0 to 360 degrees is a whole turn.

    Raises:
        ValueError: only one of them is mirrored, or warped in a way that cannot come from nothing.
    """
    if a.mirror != b.mirror:
        raise ValueError("a camera path cannot go from a mirrored view to one that is not: use two paths")
    growth = math.log(b.zoom / a.zoom)
    # How far the centre has come: evenly in the width of the window, 1 / zoom; at equal zoom evenly in time.
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
    """Views along a way through key views, one per frame.

    Args:
        views: two or more. The first and last frames show the first and last of them.
        frames: how many views to return, at least 2.
        easing: of the path as a whole, a name in `EASINGS`.
        timing: `constant speed` gives each part of the way the time that its zoom, pan and turn take at one speed;
            `equal times` the same time to each.
        closed: leads back to the first view; the frames then loop without a repeated one.

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
    parts = list(pairwise([*views, views[0]] if closed else views))
    times = [_distance(a, b) if timing == "constant speed" else 1.0 for a, b in parts]
    if sum(times) == 0:
        times = [1.0] * len(parts)
    path = []
    for i in range(frames):
        place = EASINGS[easing](i / (frames if closed else frames - 1)) * sum(times)
        part = 0
        while part < len(parts) - 1 and place >= times[part]:
            place -= times[part]
            part += 1
        path.append(between(*parts[part], min(place / times[part], 1.0) if times[part] else 1.0))
    if not closed:
        path[-1] = views[-1]  # not to a rounding error
    return path


def _distance(a: View, b: View) -> float:
    """How much there is to see on the way: doublings of the zoom, sides of a window passed, half turns."""
    zoom = math.log2(b.zoom / a.zoom)
    pan = math.hypot(b.center_y - a.center_y, b.center_x - a.center_x) * math.sqrt(a.zoom * b.zoom)
    # A zoom about a point of the picture moves the centre as well; that is no way of its own.
    pan = max(0.0, pan - abs(2**zoom - 1) / 2 / math.sqrt(2**zoom))
    bend = max((abs(w.amount) for w in _mix_warps(a.warps, b.warps, 1, difference=True)), default=0.0)
    return math.hypot(zoom, pan, (b.rotation - a.rotation) / 180, bend)


def _mix(a: float, b: float, t: float) -> float:
    return a if t <= 0 else b if t >= 1 else a + (b - a) * t


def _mix_warps(a: Sequence[Warp], b: Sequence[Warp], t: float, difference: bool = False) -> tuple[Warp, ...]:
    """Warps of both, in the order of the longer list."""
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
    """The view with one more warp in front of it."""
    return replace(view, warps=(*view.warps, Warp(kind, amount)))
