"""What the explorer shows, as a value: a shot, the size of the final image, and keyframes of a film.

The page sends it, a workflow stores it, and the node renders it. `LIMITS` and the defaults hold for the page as well:
`recipes/page_constants.py` writes them to `web/explorer/constants.mjs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...common.errors import quoted
from ..latents import DIRECTION_METHODS, LAYER_NAMES
from ..rendering import EASINGS, MAX_SIDE, View

LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, (1 << 53) - 1),  # JavaScript's largest safe integer
    "psi": (-2.0, 2.0),
    "label": (-1, 65535),
    "number": (0, 1 << 31),
    "offset": (-20.0, 20.0),  # of the pad, in steps
    "center": (-1000.0, 1000.0),  # in frames of the generator
    "zoom": (1e-3, 1e9),
    "rotation": (-36000.0, 36000.0),  # degrees
    "side": (1, MAX_SIDE),  # pixels
    "seconds": (0.02, 600.0),
    "fps": (1.0, 120.0),
}
"""Smallest and largest value of each kind of number, both allowed."""
MAX_KEYFRAMES = 64
MAX_FRAMES = 10000
"""Frames of a film."""
WALKS = ("random", *DIRECTION_METHODS, "seeds", "linked")
LAYERS = ("all", *(name for name in LAYER_NAMES if name != "all"))


@dataclass(frozen=True)
class Walk:
    """Position of the pad and its sliders: an offset along up to three directions from the latent of a seed."""

    kind: str = "random"  # of directions, one of `WALKS`
    number: int = 0  # random: seed of the directions; SeFa, PCA, Named, linked: index of the pair
    seeds: tuple[int, int] = (1, 2)  # kind `seeds`: the latents at x = 1 and at y = 1
    layers: str = "all"  # styles that move, one of `LAYERS`
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0  # along the direction after the pair; kind `seeds` has none


@dataclass(frozen=True)
class Shot:
    """One image: a latent and a view."""

    seed: int = 0
    psi: float = 1.0
    label: int = -1  # class, for a generator with classes; -1: the class of the seed
    walk: Walk = field(default_factory=Walk)
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class Keyframe:
    """A shot that a film passes through."""

    shot: Shot
    seconds: float = 2.0  # until the next keyframe


@dataclass(frozen=True)
class Scene:
    """The complete state of the explorer."""

    shot: Shot = field(default_factory=Shot)
    width: int = 1024
    height: int = 1024
    keyframes: tuple[Keyframe, ...] = ()
    fps: float = 24.0
    easing: str = "ease in and out"  # between two keyframes
    closed: bool = False  # the film returns to its first keyframe

    @property
    def legs(self) -> tuple[Keyframe, ...]:
        """Keyframes that lead to another one; none without a film, which takes two keyframes."""
        if len(self.keyframes) < 2:
            return ()
        return self.keyframes if self.closed else self.keyframes[:-1]

    @property
    def film_seconds(self) -> float:
        """Duration of the film in seconds; 0 without a film."""
        return sum((key.seconds for key in self.legs), 0.0)

    @property
    def film_frames(self) -> int:
        """Number of frames of the film; 1 without a film. Halves round to even; an open film shows its last keyframe.

        `filmFrames` in `web/explorer/scene.mjs` is the same formula.
        """
        if not self.legs:
            return 1
        return max(1, round(self.film_seconds * self.fps)) + (not self.closed)

    def to_dict(self) -> dict[str, Any]:
        """The scene as JSON; inverse of `read_scene`."""
        return {
            **_shot_fields(self.shot),
            "width": self.width,
            "height": self.height,
            "keys": [{**_shot_fields(key.shot), "seconds": key.seconds} for key in self.keyframes],
            "fps": self.fps,
            "easing": self.easing,
            "closed": self.closed,
        }


def read_scene(value: object) -> Scene:
    """Validate a scene from JSON. Missing fields get their default, unknown ones are ignored.

    Raises:
        ValueError: a value has the wrong type or is out of range; the message names it.
    """
    fields = _mapping(value, "the scene")
    keys = fields.get("keys", [])
    if not isinstance(keys, list) or len(keys) > MAX_KEYFRAMES:
        raise ValueError(f"keys must be a list of at most {MAX_KEYFRAMES} keyframes")
    scene = Scene(
        shot=read_shot(fields),
        width=_integer(fields, "width", Scene.width, "side"),
        height=_integer(fields, "height", Scene.height, "side"),
        keyframes=tuple(
            Keyframe(read_shot(key), _number(_mapping(key, "a keyframe"), "seconds", Keyframe.seconds)) for key in keys
        ),
        fps=_number(fields, "fps", Scene.fps),
        easing=_name(fields, "easing", Scene.easing, tuple(EASINGS)),
        closed=_flag(fields, "closed"),
    )
    if scene.film_frames > MAX_FRAMES:
        raise ValueError(
            f"{scene.film_frames} frames are too many: shorten the keyframes, or lower fps; "
            f"at most {MAX_FRAMES} are possible"
        )
    return scene


def read_shot(value: object) -> Shot:
    """Validate one shot from JSON; see `read_scene`."""
    fields = _mapping(value, "a shot")
    walk, view = _mapping(fields.get("walk", {}), "walk"), _mapping(fields.get("view", {}), "view")
    seeds = walk.get("seeds", list(Walk.seeds))
    if not isinstance(seeds, list | tuple) or len(seeds) != 2:
        raise ValueError("seeds of the walk must be two seeds")
    pair = {"x": seeds[0], "y": seeds[1]}
    return Shot(
        seed=_integer(fields, "seed", Shot.seed),
        psi=_number(fields, "psi", Shot.psi),
        label=_integer(fields, "label", Shot.label),
        walk=Walk(
            kind=_name(walk, "kind", Walk.kind, WALKS),
            number=_integer(walk, "number", Walk.number),
            seeds=(_integer(pair, "x", Walk.seeds[0], "seed"), _integer(pair, "y", Walk.seeds[1], "seed")),
            layers=_name(walk, "layers", Walk.layers, LAYERS),
            x=_number(walk, "x", Walk.x, "offset"),
            y=_number(walk, "y", Walk.y, "offset"),
            z=_number(walk, "z", Walk.z, "offset"),
        ),
        view=View(
            center_y=_number(view, "y", View.center_y, "center"),
            center_x=_number(view, "x", View.center_x, "center"),
            zoom=_number(view, "zoom", View.zoom),
            rotation=_number(view, "rotation", View.rotation),
        ),
    )


def _shot_fields(shot: Shot) -> dict[str, Any]:
    view = shot.view
    return {
        "seed": shot.seed,
        "psi": shot.psi,
        "label": shot.label,
        "walk": {**asdict(shot.walk), "seeds": list(shot.walk.seeds)},
        "view": {"x": view.center_x, "y": view.center_y, "zoom": view.zoom, "rotation": view.rotation},
    }


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object with named values, not {type(value).__name__}")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float, limits: str = "") -> float:
    value, (low, high) = fields.get(name, default), LIMITS[limits or name]
    if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {quoted(value)}")
    return float(value)


def _integer(fields: Mapping[str, Any], name: str, default: int, limits: str = "") -> int:
    value, (low, high) = fields.get(name, default), LIMITS[limits or name]
    if type(value) is float and math.isfinite(value) and value.is_integer():  # JSON has one type of numbers
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {quoted(value)}")
    return value


def _name(fields: Mapping[str, Any], name: str, default: str, names: tuple[str, ...]) -> str:
    value = fields.get(name, default)
    if type(value) is not str or value not in names:
        raise ValueError(f"{name} must be one of {list(names)}, not {quoted(value)}")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, not {quoted(value)}")
    return value
