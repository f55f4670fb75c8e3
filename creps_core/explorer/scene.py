"""What the explorer shows, as a value: a place among the latents, a view, key frames, the size of the final picture.

It is what the page sends, what a workflow keeps, and what the node renders: nothing else has to be remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..latents import LAYER_NAMES, METHODS
from ..rendering import EASINGS, View

MAX_SEED = (1 << 53) - 1
"""Seeds that a browser's numbers hold."""
MAX_SIDE = 131072
MIN_ZOOM, MAX_ZOOM = 1e-3, 1e9
FARTHEST = 1000.0
"""Of the view's centre, in frames."""
MAX_REACH = 20.0
"""Of the pad, in its own units."""
MAX_KEYS = 64
MAX_FRAMES = 10000
WALKS = ("random", *METHODS, "seeds", "linked")
LAYERS = ("all", *(name for name in LAYER_NAMES if name != "all"))
_MAX_NUMBER = 1 << 31


@dataclass(frozen=True)
class Walk:
    """Where the pad and its sliders stand: up to three directions away from the latent of a seed."""

    kind: str = "random"  # of directions, one of `WALKS`
    number: int = 0  # random: the seed of the directions; SeFa, PCA, linked: which pair of them
    seeds: tuple[int, int] = (1, 2)  # kind `seeds`: what lies at x = 1 and at y = 1
    layers: str = "all"  # the styles that are moved, one of `LAYERS`
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0  # along the direction after the pair; between seeds there is none


@dataclass(frozen=True)
class Look:
    """One picture: which latent, and where the camera is."""

    seed: int = 0
    psi: float = 1.0
    label: int = -1  # class, of a generator with classes; -1 goes by the seed
    walk: Walk = field(default_factory=Walk)
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class Key:
    """A look that a film passes."""

    look: Look
    seconds: float = 2.0  # from here to the next key


@dataclass(frozen=True)
class Scene:
    """All that the explorer shows."""

    look: Look = field(default_factory=Look)
    width: int = 1024
    height: int = 1024
    keys: tuple[Key, ...] = ()
    fps: float = 24.0
    easing: str = "ease in and out"  # between two keys
    closed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `read_scene` gives the scene back."""
        return {
            **_plain(self.look),
            "width": self.width,
            "height": self.height,
            "keys": [{**_plain(key.look), "seconds": key.seconds} for key in self.keys],
            "fps": self.fps,
            "easing": self.easing,
            "closed": self.closed,
        }


def read_scene(value: object) -> Scene:
    """A scene from what JSON gives; what is missing has its default, what is unknown is ignored.

    Raises:
        ValueError: a value is not of its kind or out of range; names it.
    """
    fields = _mapping(value, "the scene")
    keys = fields.get("keys", [])
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"keys must be a list of at most {MAX_KEYS} key frames")
    scene = Scene(
        look=read_look(fields),
        width=_whole(fields, "width", 1024, 1, MAX_SIDE),
        height=_whole(fields, "height", 1024, 1, MAX_SIDE),
        keys=tuple(Key(read_look(key), _number(_mapping(key, "a key"), "seconds", 2.0, 0.02, 600.0)) for key in keys),
        fps=_number(fields, "fps", 24.0, 1.0, 120.0),
        easing=_name(fields, "easing", "ease in and out", tuple(EASINGS)),
        closed=_flag(fields, "closed"),
    )
    frames = round(sum(key.seconds for key in scene.keys) * scene.fps)
    if frames > MAX_FRAMES:
        raise ValueError(
            f"{frames} frames are too many: shorten the key frames, or lower fps; {MAX_FRAMES} are possible"
        )
    return scene


def read_look(value: object) -> Look:
    """One picture of what JSON gives; as `read_scene`."""
    fields = _mapping(value, "a look")
    walk, view = _mapping(fields.get("walk", {}), "walk"), _mapping(fields.get("view", {}), "view")
    seeds = walk.get("seeds", [1, 2])
    if not isinstance(seeds, list | tuple) or len(seeds) != 2:
        raise ValueError("seeds of the walk must be two seeds")
    pair = {"x": seeds[0], "y": seeds[1]}
    return Look(
        seed=_whole(fields, "seed", 0, 0, MAX_SEED),
        psi=_number(fields, "psi", 1.0, -2.0, 2.0),
        label=_whole(fields, "label", -1, -1, 65535),
        walk=Walk(
            kind=_name(walk, "kind", "random", WALKS),
            number=_whole(walk, "number", 0, 0, _MAX_NUMBER),
            seeds=(_whole(pair, "x", 1, 0, MAX_SEED), _whole(pair, "y", 2, 0, MAX_SEED)),
            layers=_name(walk, "layers", "all", LAYERS),
            x=_number(walk, "x", 0.0, -MAX_REACH, MAX_REACH),
            y=_number(walk, "y", 0.0, -MAX_REACH, MAX_REACH),
            z=_number(walk, "z", 0.0, -MAX_REACH, MAX_REACH),
        ),
        view=View(
            center_y=_number(view, "y", 0.5, -FARTHEST, FARTHEST),
            center_x=_number(view, "x", 0.5, -FARTHEST, FARTHEST),
            zoom=_number(view, "zoom", 1.0, MIN_ZOOM, MAX_ZOOM),
            rotation=_number(view, "rotation", 0.0, -36000.0, 36000.0),
        ),
    )


def _plain(look: Look) -> dict[str, Any]:
    view = look.view
    return {
        "seed": look.seed,
        "psi": look.psi,
        "label": look.label,
        "walk": {**asdict(look.walk), "seeds": list(look.walk.seeds)},
        "view": {"x": view.center_x, "y": view.center_y, "zoom": view.zoom, "rotation": view.rotation},
    }


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object with named values, not {type(value).__name__}")
    return value


def _number(fields: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = fields.get(name, default)
    if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, not {_shown(value)}")
    return float(value)


def _whole(fields: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = fields.get(name, default)
    if type(value) is float and math.isfinite(value) and value.is_integer():  # JSON knows one kind of numbers
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}")
    return value


def _name(fields: Mapping[str, Any], name: str, default: str, names: tuple[str, ...]) -> str:
    value = fields.get(name, default)
    if type(value) is not str or value not in names:
        raise ValueError(f"{name} must be one of {list(names)}, not {_shown(value)}")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."
