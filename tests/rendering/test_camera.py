"""Views against flips, turns and crops of a picture; paths against arithmetic; films against single pictures."""

from __future__ import annotations

import pytest
import torch
from comfyui_creps.creps_core import WHOLE_FRAME, render, sample_positions
from comfyui_creps.creps_core.network import COLUMNS, ROWS
from comfyui_creps.creps_core.rendering import EASINGS, WARPS, View, add_warp, camera_path, render_path, render_view
from comfyui_creps.creps_core.rendering.camera import Warp, between
from comfyui_creps.creps_core.rendering.render import LineEvaluator
from comfyui_creps.creps_core.rendering.window import same_area_window
from networks import make_generator, make_ws

GENERATOR = make_generator()
WS = make_ws(GENERATOR)


def picture_of(view: View, height: int, width: int, **arguments) -> torch.Tensor:
    return render_view(GENERATOR, WS, view, height=height, width=width, **arguments)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4, -1])
@pytest.mark.parametrize("size", [(17, 17), (12, 19)])
def test_quarter_turns_and_mirrors_are_those_of_the_picture(size: tuple[int, int], quarters: int, mirror: bool):
    height, width = size
    turned = (width, height) if quarters % 2 else (height, width)
    upright = picture_of(View(zoom=1.7, center_y=0.4), *turned)
    wanted = upright.rot90(-quarters, (2, 3))  # rot90 turns counterclockwise
    picture = picture_of(View(zoom=1.7, center_y=0.4, rotation=90 * quarters, mirror=mirror), height, width)
    assert (picture - (wanted.flip(3) if mirror else wanted)).abs().max() <= 1e-5


@pytest.mark.parametrize("fit", ["crop", "extend", "stretch"])
def test_the_plain_view_is_the_plain_picture(fit: str):
    assert torch.equal(
        picture_of(View(), 13, 21, fit=fit), render(GENERATOR, WS, height=13, width=21, window=WHOLE_FRAME, fit=fit)
    )


def test_centre_and_zoom_are_a_window():
    picture = picture_of(View(center_y=0.25, center_x=0.75, zoom=4), 16, 16)
    window = (0.125, 0.625, 0.375, 0.875)
    assert (picture - render(GENERATOR, WS, height=16, width=16, window=window)).abs().max() <= 1e-5


def test_deep_zooms_stay_exact():
    """At a zoom of 10^5 neighbouring pixels differ by 10^-7 of the frame."""
    view = View(center_y=0.3, center_x=0.6, zoom=1e5)
    window = view.placement(view.extent(24, 24))[0]
    y, x = (sample_positions(window[axis], window[axis + 2], 24) for axis in (0, 1))
    exact = make_generator().double().synthesis(WS.double(), y, x)
    assert exact.std(dim=(2, 3)).max() > 0
    assert (picture_of(view, 24, 24) - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zoom": 0}, "zoom"),
        ({"zoom": -1.0}, "zoom"),
        ({"rotation": float("nan")}, "rotation"),
        ({"warps": (Warp("melt", 1),)}, "melt"),
        ({"warps": (Warp("swirl", float("inf")),)}, "swirl"),
    ],
)
def test_bad_views_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        View(**fields)


def test_only_upright_views_have_a_window():
    with pytest.raises(ValueError, match="45"):
        View(rotation=45).placement(WHOLE_FRAME)
    assert not add_warp(View(), "swirl", 0.5).upright


def test_warps_keep_the_middle_and_amount_zero_keeps_all():
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, 9, dtype=torch.float64)], indexing="ij")
    for kind in set(WARPS) - {"tunnel"}:
        same = WARPS[kind](0.0, y, x)
        assert torch.allclose(same[0], y) and torch.allclose(same[1], x)  # noqa: PT018
        bent = WARPS[kind](0.7, y, x)
        assert bent[0][4, 4] == bent[1][4, 4] == 0
        assert (bent[0] - y).abs().max() > 0.01
    for here, there in zip(WARPS["tunnel"](0.0, y, x), WARPS["tunnel"](1.0, y, x), strict=True):
        assert torch.allclose(here, there)


# Paths


def test_a_zoom_grows_by_equal_factors_and_keeps_a_point():
    a, b = View(zoom=1), View(center_y=0.3, center_x=0.8, zoom=64)
    path = camera_path([a, b], 7)
    assert [v.zoom for v in path] == pytest.approx([1, 2, 4, 8, 16, 32, 64])
    # The point that lies at the same place of both pictures does so in all.
    place = (b.center_x - a.center_x) / (1 / a.zoom - 1 / b.zoom)
    assert [v.center_x + place / v.zoom for v in path] == pytest.approx([0.5 + place] * 7)
    assert path[0] == a
    assert path[-1] == b


def test_pans_and_turns_run_evenly():
    path = camera_path([View(center_x=0, rotation=0), View(center_x=2, rotation=360)], 5)
    assert [v.center_x for v in path] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert [v.rotation for v in path] == pytest.approx([0, 90, 180, 270, 360])
    assert between(View(zoom=3), View(zoom=3 + 1e-12, center_x=1), 0.5).center_x == pytest.approx(0.75)


def test_constant_speed_shares_the_frames_by_distance():
    views = [View(zoom=1), View(zoom=2), View(zoom=16)]
    assert camera_path(views, 5)[1].zoom == pytest.approx(2)
    assert camera_path(views, 5, timing="equal times")[2].zoom == pytest.approx(2)
    still = camera_path([View(), View()], 3)
    assert still == [View()] * 3


def test_closed_paths_loop_without_a_repeated_frame():
    views = [View(center_x=0), View(center_x=1)]
    assert [v.center_x for v in camera_path(views, 8, closed=True)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    )


def test_easings_begin_and_end_with_the_path():
    for easing, ease in EASINGS.items():
        assert ease(0) == 0
        assert ease(1) == pytest.approx(1)
        values = [v.center_x for v in camera_path([View(center_x=0), View(center_x=1)], 11, easing=easing)]
        assert values == sorted(values)


def test_warps_are_interpolated():
    middle = between(View(), add_warp(View(), "swirl", 1.0), 0.5)
    assert middle.warps == (Warp("swirl", 0.5),)
    with pytest.raises(ValueError, match="tunnel"):
        between(View(), add_warp(View(), "tunnel", 1.0), 0.5)
    with pytest.raises(ValueError, match="same warps"):
        between(add_warp(View(), "bulge", 1.0), add_warp(View(), "swirl", 1.0), 0.5)


@pytest.mark.parametrize(
    ("views", "arguments", "message"),
    [
        ([View()], {}, "two views"),
        ([View(), View()], {"frames": 1}, "frames"),
        ([View(), View()], {"easing": "bounce"}, "bounce"),
        ([View(), View()], {"timing": "late"}, "late"),
        ([View(), View(mirror=True)], {}, "mirrored"),
    ],
)
def test_bad_paths_are_refused(views: list[View], arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        camera_path(views, **{"frames": 4, **arguments})


# Films


def test_a_film_is_its_pictures():
    views = camera_path([View(zoom=9), View(zoom=12, rotation=90), View(zoom=12, rotation=90, center_x=0.51)], 5)
    calls = []
    film = render_path(GENERATOR, WS, views, height=80, width=70, progress=lambda *call: calls.append(call))
    for frame, view in zip(film, views, strict=True):
        # Tables of one frame serve the next ones: within twice the bound of the quality.
        assert (frame - picture_of(view, 80, 70)[0]).abs().max() * 127.5 <= (1e-2 if view.upright else 0.5)
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_film_takes_a_latent_per_frame():
    ws, views = make_ws(GENERATOR, 3), camera_path([View(), View(zoom=2)], 3)
    film = render_path(GENERATOR, ws, views, height=9, width=9)
    assert torch.equal(film[1:2], render_view(GENERATOR, ws[1:2], views[1], height=9, width=9))
    with pytest.raises(ValueError, match="not 2"):
        render_path(GENERATOR, ws[:2], views, height=9, width=9)
    with pytest.raises(ValueError, match="out must"):
        render_path(GENERATOR, ws, views, height=9, width=9, out=torch.empty(3, 3, 9, 8))


def test_a_small_picture_for_upscaling_covers_the_same_area():
    """The mean of 4 x 4 large pixels lies where the small pixel does: their positions agree."""
    window = same_area_window(WHOLE_FRAME, 64, 48, 16, 12)
    y, x = sample_positions(window[0], window[2], 16), sample_positions(window[1], window[3], 12)
    assert torch.allclose(y, sample_positions(0, 1, 64).view(16, 4).mean(1))
    assert torch.allclose(x, sample_positions(0, 1, 48).view(12, 4).mean(1))
    # And supersampling takes the very samples of the large picture.
    assert torch.allclose(sample_positions(window[0], window[2], 16, 4), sample_positions(0, 1, 64))
    view = View(zoom=2, rotation=90)
    large = picture_of(view, 64, 48).unflatten(2, (16, 4)).unflatten(4, (12, 4)).mean((3, 5))
    assert (picture_of(view, 16, 12, of=(64, 48), supersample=4) - large).abs().max() <= 1e-5


def test_a_film_computes_what_its_pictures_share_once(monkeypatch):
    """A pan leaves the positions along the height alone: one column line, and a row line per frame."""
    evaluated, evaluate = [], LineEvaluator.evaluate

    def counting(self, styles, positions, line):
        evaluated.append((line, len(positions)))
        return evaluate(self, styles, positions, line)

    monkeypatch.setattr(LineEvaluator, "evaluate", counting)
    views = camera_path([View(zoom=2, center_x=0.3), View(zoom=2, center_x=0.7)], frames=4)
    steps = []
    film = render_path(GENERATOR, WS, views, height=12, width=16, progress=lambda done, of: steps.append(done / of))
    assert sorted(evaluated) == [(COLUMNS, 12)] + [(ROWS, 16)] * 4
    assert steps[-1] == 1
    assert steps == sorted(steps)
    for view, frame in zip(views, film, strict=True):
        assert torch.equal(frame, picture_of(view, 12, 16)[0])


def test_a_film_of_other_latents_shares_nothing():
    latents = make_ws(GENERATOR, 2)
    film = render_path(GENERATOR, latents[[0, 1, 1]], [View()] * 3, height=9, width=9)
    for i, frame in zip((0, 1, 1), film, strict=True):
        assert torch.equal(frame, render_view(GENERATOR, latents[i : i + 1], View(), height=9, width=9)[0])


def test_the_camera_of_a_frame_that_is_not_square():
    """Half a turn shows it upside down, and any turn keeps lengths: a unit is 16 across and 9 down."""
    generator = make_generator()
    generator.aspect = (16, 9)
    ws = make_ws(generator)
    flat = render(generator, ws, height=10, width=17)
    for degrees, wanted in ((0, flat), (180, flat.flip(2, 3))):
        seen = render_view(generator, ws, View(rotation=degrees), height=10, width=17)
        assert (seen - wanted).abs().max() < 1e-4
    y = torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64)
    x = torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64)
    for degrees in (0.0, 30.0, 90.0):
        down, across = View(rotation=degrees, zoom=2.0).plane_map((16, 9))(y, x)
        long = torch.hypot((down[1:] - down[0]) * 9, (across[1:] - across[0]) * 16)
        assert torch.allclose(long, torch.full((2,), 1.6, dtype=torch.float64))
