"""What the explorer shows, as a value."""

from __future__ import annotations

import json
import math

import pytest
from comfyui_creps.creps_core.explorer import Keyframe, Scene, Shot, Viewport, Walk, read_scene
from comfyui_creps.creps_core.rendering import View

FULL = Scene(
    Shot(7, 0.6, 3, Walk("seeds", 5, (8, 9), "fine", 0.5, -1.25), View(0.25, -3.5, 1000.0, 90.0)),
    width=1920,
    height=1080,
    keyframes=(Keyframe(Shot(1)), Keyframe(Shot(2, view=View(zoom=4.0)), 0.5)),
    fps=30.0,
    easing="linear",
    closed=True,
)


def test_json_gives_the_scene_back():
    assert read_scene(json.loads(json.dumps(FULL.to_dict()))) == FULL
    assert read_scene({}) == Scene()
    assert read_scene({"unknown": [1], "walk": {"more": 2}}) == Scene()


def test_whole_numbers_of_javascript():
    scene = read_scene({"seed": 5.0, "width": 640.0, "psi": 1, "view": {"zoom": 2}})
    assert (scene.shot.seed, scene.width, scene.shot.psi, scene.shot.view.zoom) == (5, 640, 1.0, 2.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "the scene must be an object"),
        (None, "the scene must be an object"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": 2**53}, "9007199254740991"),
        ({"seed": "1"}, "not '1'"),
        ({"psi": math.nan}, "psi must be a number from -2 to 2"),
        ({"psi": math.inf}, "psi"),
        ({"width": 0}, "width must be a whole number from 1 to 131072, not 0"),
        ({"height": 131073}, "height"),
        ({"view": {"zoom": 0}}, "zoom must be a number from 0.001"),
        ({"view": {"zoom": 1e30}}, "zoom"),
        ({"view": {"x": 1e9}}, "x must be a number from -1000"),
        ({"view": "all"}, "view must be an object"),
        ({"walk": {"kind": "../../etc"}}, "kind must be one of"),
        ({"walk": {"layers": ["all"]}}, "layers must be one of"),
        ({"walk": {"seeds": [1]}}, "two seeds"),
        ({"walk": {"x": 1e6}}, "x must be a number from -20"),
        ({"easing": "bounce"}, "easing must be one of"),
        ({"closed": 1}, "closed must be true or false"),
        ({"fps": 0}, "fps"),
        ({"keys": {}}, "keys must be a list"),
        ({"keys": [{}] * 65}, "at most 64"),
        ({"keys": [{"seconds": 0}]}, "seconds"),
        ({"keys": [{"seconds": 600}] * 10, "fps": 120}, "648001 frames are too many"),
        ({"keys": [{"seconds": 600}] * 10, "fps": 120, "closed": True}, "720000 frames are too many"),
        ({"seed": "x" * 1000}, "..."),
    ],
)
def test_what_is_no_scene_says_why(value: object, words: str):
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$") as caught:
        read_scene(value)
    assert words in str(caught.value)


@pytest.mark.parametrize("side", [0, -1, 4097, 2.0, True, "256"])
def test_stages_are_bounded(side: object):
    with pytest.raises(ValueError, match="width of the stage must be"):
        Viewport(side, 256, 256)  # type: ignore


def test_the_frame_lies_in_the_middle_of_the_stage():
    """The distance of neighbouring pixels is that of a picture of the frame's size."""
    view = View(0.3, 0.7, 2.5)
    extent = Viewport(401, 301, 201).view(view).extent(301, 401)
    assert extent == pytest.approx((-0.3, -0.4, 0.3, 0.4))  # 1.5 and 2 times the frame's 0.4, about the centre
    assert Viewport(256, 256, 256).view(view) is view


def test_the_frame_of_a_generator_that_is_not_square():
    """From pixel to pixel it is as far on the stage as in a picture of the frame's size."""
    view, aspect = View(0.3, 0.7, 2.5), (16, 9)
    top, left, bottom, right = view.extent(113, 201, aspect=aspect)  # the frame: 201 of 16:9
    stage = Viewport(401, 301, 201).view(view, image=(1920, 1080), aspect=aspect).extent(301, 401, aspect=aspect)
    assert (stage[3] - stage[1]) / 400 == pytest.approx((right - left) / 200)
    assert (stage[2] - stage[0]) / 300 == pytest.approx((bottom - top) / 112)
