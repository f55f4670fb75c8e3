"""Turned and warped pictures: the tables' error against direct evaluation in float64, point by point."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import torch
from comfyui_creps.creps_core import load_builtin, render, sample
from comfyui_creps.creps_core.network import COLUMNS, ROWS
from comfyui_creps.creps_core.rendering import QUALITIES, ImageSpec, View, render_view
from comfyui_creps.creps_core.rendering import warp as warp_module
from comfyui_creps.creps_core.rendering.camera import Warp
from comfyui_creps.creps_core.rendering.warp import render_mapped
from comfyui_creps.kernels import TiledWeights, entangle_at, line_table, reference, table_positions
from networks import make_generator, make_ws

GENERATOR = make_generator()
WS = make_ws(GENERATOR)
WINDOW = (0.1, 0.2, 0.2, 0.35)  # a small part of the frame, for small tables


def exactly(generator, ws: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The specification at scattered points, float64: a picture of one pixel per point. [P] each -> [C, P]."""
    synthesis, ws = generator.double().synthesis, ws.double()
    styles = synthesis.line_styles(ws)
    columns, rows = (synthesis.bilines(styles, at, line)[0] for at, line in ((y, COLUMNS), (x, ROWS)))
    one_each = (part.permute(2, 0, 1, 3).unsqueeze(3) for part in (columns, rows))  # [P, L, B, 1, rank]
    return reference.entangle(*one_each, synthesis.pixel_stage(ws).sample(0))[..., 0, 0].T


def pixels(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return tuple(torch.randint(n, (count,), generator=random) for n in (height, width))  # type: ignore[return-value]


def test_points_on_a_table_are_those_of_the_specification():
    at = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).sort().values
    stage = TiledWeights(GENERATOR.synthesis.pixel_stage(WS).sample(0), torch.float32)
    styles = GENERATOR.synthesis.line_styles(WS)
    lines = [line_table(GENERATOR.synthesis.bilines(styles, at, line)[0]) for line in (COLUMNS, ROWS)]
    y, x = pixels(1500, 100, 100)
    y_at, x_at = (table_positions(v.double(), 100, torch.device("cpu")) for v in (y, x))
    exact = exactly(make_generator(), WS, at[y], at[x])
    assert (entangle_at(*lines, y_at, x_at, stage) - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize(
    ("quality", "warps"),
    [
        ("draft", ()),
        ("good", ()),
        ("best", ()),
        ("exact", ()),
        ("good", (Warp("swirl", 1.0),)),
        ("good", (Warp("tilt", 0.6), Warp("bulge", 0.5))),
    ],
)
def test_tables_keep_their_bound(quality: str, warps: tuple[Warp, ...]):
    size = 24 if quality == "exact" else 66
    generator, view = load_builtin("textures"), View(rotation=30, zoom=5, warps=warps)
    ws, extent = sample(generator, [3]), view.extent(size, size)
    spec = ImageSpec(size, size, extent, quality=quality)
    picture = render_mapped(generator, ws, view.plane_map(), spec, tables=[])
    i, j = pixels(150, size, size)
    where = torch.linspace(extent[0], extent[2], size, dtype=torch.float64)
    exact = exactly(load_builtin("textures"), ws, *view.plane_map()(where[i], where[j]))
    error = (picture[0, :, i, j] - exact).abs().max().item() * 127.5
    assert error <= max(QUALITIES[quality], 0.01)


def test_the_error_falls_as_tables_grow():
    """Linear interpolation of smooth lines: at least as the inverse of the number of nodes."""
    generator = load_builtin("textures")
    ws = sample(generator, [3])
    styles = generator.synthesis.line_styles(ws)
    stage = TiledWeights(generator.synthesis.pixel_stage(ws).sample(0), torch.float32)
    at = torch.rand(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact, errors = exactly(load_builtin("textures"), ws, *at), []
    for nodes in (129, 257, 513):
        positions = torch.linspace(0, 1, nodes, dtype=torch.float64)
        lines = [line_table(generator.synthesis.bilines(styles, positions, line)[0]) for line in (COLUMNS, ROWS)]
        y, x = (table_positions(v * (nodes - 1), nodes, torch.device("cpu")) for v in at)
        errors.append((entangle_at(*lines, y, x, stage) - exact).abs().max().item() * 127.5)
    assert all(fine <= 0.6 * coarse for coarse, fine in pairwise(errors))
    assert errors[-1] <= 0.5


def test_the_identity_is_the_plain_picture():
    plain = render(GENERATOR, WS, height=70, width=90, window=WINDOW, supersample=2)
    spec = ImageSpec(70, 90, WINDOW, supersample=2, quality="best")
    mapped = render_mapped(GENERATOR, WS, lambda y, x: (y, x), spec)
    assert (mapped - plain).abs().max() * 127.5 <= QUALITIES["best"]


def test_a_quarter_turn_by_tables_is_the_exact_one():
    view = View(rotation=90, zoom=8)
    mapped = render_mapped(GENERATOR, WS, view.plane_map(), ImageSpec(70, 80, view.extent(70, 80), quality="good"))
    window, transposed = view.placement(view.extent(70, 80))
    assert transposed
    exact = render(GENERATOR, WS, height=80, width=70, window=window).transpose(2, 3)
    assert (mapped - exact).abs().max() * 127.5 <= QUALITIES["good"]


def test_tables_are_shared_where_they_fit(monkeypatch: pytest.MonkeyPatch):
    made = []
    make = warp_module.make_tables
    monkeypatch.setattr(warp_module, "make_tables", lambda *a: made.append(make(*a)) or made[-1])
    tables = []
    for zoom in (12.0, 13.0, 40.0, 9.0):
        view = View(rotation=20, zoom=zoom)
        render_mapped(GENERATOR, WS, view.plane_map(), ImageSpec(70, 70, view.extent(70, 70)), tables=tables)
    assert len(made) == 2  # for the first, and for the last, which is larger
    assert tables == made[1:]


def test_out_progress_and_batches():
    ws, out, calls = make_ws(GENERATOR, 2), torch.zeros(2, 70, 66, 3, dtype=torch.uint8), []
    view = View(rotation=45, zoom=10)
    spec = ImageSpec(70, 66, view.extent(70, 66), quality="draft")
    picture = render_mapped(GENERATOR, ws, view.plane_map(), spec)
    render_mapped(
        GENERATOR,
        ws,
        view.plane_map(),
        spec,
        out=out.permute(0, 3, 1, 2),
        progress=lambda *call: calls.append(call),
    )
    wanted = (picture * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(out, wanted)
    assert calls[-1] == (2 * 70 * 66, 2 * 70 * 66)


class Cancelled(BaseException):
    """Like ComfyUI's interrupt: not an Exception."""


def test_cancelling():
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        render_mapped(GENERATOR, WS, lambda y, x: (y, x), ImageSpec(300, 300), progress=cancel)


def test_a_bound_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(warp_module, "MOST_NODES", 512)
    with caplog.at_level(logging.WARNING):
        render_mapped(GENERATOR, WS, lambda y, x: (y, x), ImageSpec(66, 66, (0, 0, 3, 3), quality="best"))
    assert "512 nodes" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plane_map": lambda y, x: (y / 0, x)}, "finite"),
        ({"out": torch.zeros(1, 3, 8, 9)}, "out must"),
        ({"ws": WS[:, 1:]}, "ws must"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str):
    arguments = {"ws": WS, "plane_map": lambda y, x: (y, x), "spec": ImageSpec(8, 8), **arguments}
    with pytest.raises(ValueError, match=message):
        render_mapped(GENERATOR, **arguments)


@pytest.mark.parametrize(("arguments", "message"), [({"quality": "superb"}, "superb"), ({"height": 0}, "height")])
def test_bad_views_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        render_view(GENERATOR, WS, View(rotation=30), **{"height": 8, "width": 8, **arguments})
