"""What a session draws."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core.explorer import Cancelled, FrameRequest, Session, Viewport, read_scene
from comfyui_creps.creps_core.explorer.frame_sizer import FrameSizer
from comfyui_creps.creps_core.latents import sample
from comfyui_creps.creps_core.rendering import View, render, render_view
from networks import make_generator
from PIL import Image


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def levels(picture: torch.Tensor) -> torch.Tensor:
    """[H, W, 3] uint8 of [1, 3, H, W]."""
    return (picture[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same but for the rounding of an 8-bit level."""
    return bool(((a.int() - b.int()).abs() <= 1).all() and (a == b).float().mean() > 0.99)


def test_a_sharp_frame_is_the_rendered_picture(generator):
    scene = read_scene({"seed": 3, "psi": 0.8, "view": {"x": 0.4, "y": 0.6, "zoom": 3}})
    frame = Session(generator).draw(FrameRequest(1, scene, Viewport(60, 40, 60), sharp=True))
    half = 1 / 6
    window = (0.6 - half, 0.4 - half, 0.6 + half, 0.4 + half)
    ws = sample(generator, [3], truncation_psi=0.8)
    assert close(frame.pixels, levels(render(generator, ws, height=40, width=60, window=window, fit="crop")))


@pytest.mark.parametrize("rotation", [0.0, 90.0, 180.0, 33.0])
def test_around_the_frame_the_picture_goes_on(generator, rotation: float):
    scene = read_scene({"seed": 3, "view": {"zoom": 2, "rotation": rotation}})
    frame = Session(generator).draw(FrameRequest(1, scene, Viewport(71, 61, 41), sharp=True))
    ws, view = sample(generator, [3]), View(zoom=2.0, rotation=rotation)
    inner = levels(render_view(generator, ws, view, height=41, width=41))
    found = frame.pixels[10:51, 15:56]
    error = (found.int() - inner.int()).abs().max().item()
    assert error <= (1 if rotation % 90 == 0 else 2)


def test_a_draft_covers_the_same_area(generator):
    """A draft is a small picture of the whole stage: a pixel of it lies in the middle of those that it stands for."""
    session, scene = Session(generator), read_scene({"seed": 3, "view": {"zoom": 8}})
    session.sizer.side = lambda longest: 30  # type: ignore
    draft = session.draw(FrameRequest(1, scene, Viewport(90, 60, 90)))
    sharp = session.draw(FrameRequest(2, scene, Viewport(90, 60, 90), sharp=True))
    assert draft.pixels.shape == (20, 30, 3)
    middles = sharp.pixels[1::3, 1::3]  # 3 x 3 pixels each
    assert (draft.pixels.int() - middles.int()).abs().max() <= 1


def test_nearly_sharp(generator):
    frame = Session(generator).draw(FrameRequest(1, read_scene({}), Viewport(90, 60, 90), sharp=True, side=45))
    assert frame.pixels.shape == (30, 45, 3)
    assert frame.sharp


def test_a_moment_of_the_film(generator):
    keys = [{"seed": 1, "seconds": 1}, {"seed": 2, "view": {"zoom": 2}}]
    scene = read_scene({"seed": 9, "keys": keys})
    frame = Session(generator).draw(FrameRequest(1, scene, Viewport(32, 32, 32), sharp=True, time=1.0))
    wanted = render_view(generator, sample(generator, [2]), View(zoom=2.0), height=32, width=32)
    assert close(frame.pixels, levels(wanted))
    assert frame.view.zoom == 2.0


def test_drawing_again_is_the_same(generator):
    """What is kept for the next frame never shows."""
    session = Session(generator)
    for scene in ({"view": {"x": 0.6}}, {"view": {"x": 0.7}}, {"seed": 1, "view": {"x": 0.7}}, {"view": {"x": 0.6}}):
        request = FrameRequest(1, read_scene(scene), Viewport(48, 40, 44), sharp=True)
        assert torch.equal(session.draw(request).pixels, Session(generator).draw(request).pixels)


def test_a_drawing_ends_between_tiles(generator):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    session = Session(generator)
    with pytest.raises(Cancelled):
        session.draw(FrameRequest(1, read_scene({}), Viewport(1024, 1024, 1024), sharp=True), check)
    assert len(calls) == 3
    assert session.draw(FrameRequest(2, read_scene({}), Viewport(16, 16, 16), sharp=True)).pixels.shape == (16, 16, 3)


def test_grey_generators_and_jpeg():
    frame = Session(make_generator(img_channels=1)).draw(
        FrameRequest(1, read_scene({}), Viewport(64, 48, 64), sharp=True)
    )
    assert (frame.pixels[..., 0] == frame.pixels[..., 2]).all()
    with Image.open(io.BytesIO(frame.jpeg())) as image:
        assert image.size == (64, 48)
        assert np.abs(np.asarray(image).astype(int) - frame.pixels.numpy()).mean() < 4


def test_transparency_lies_over_checks():
    generator = make_generator(img_channels=4)
    frame = Session(generator).draw(FrameRequest(1, read_scene({"seed": 3}), Viewport(48, 48, 48), sharp=True))
    picture = levels(render(generator, sample(generator, [3]), height=48, width=48)).float()
    alpha = picture[..., 3:] / 255
    for check, place in ((150, (slice(0, 12), slice(0, 12))), (104, (slice(0, 12), slice(12, 24)))):
        wanted = picture[..., :3] * alpha + check * (1 - alpha)
        assert (frame.pixels[place].float() - wanted[place]).abs().max() <= 1.01
    assert frame.jpeg()[:2] == b"\xff\xd8"


def test_a_generator_that_is_not_square():
    generator = make_generator()
    generator.aspect = (16, 9)
    scene = read_scene({"seed": 3, "view": {"zoom": 2}, "width": 1600, "height": 900})
    frame = Session(generator).draw(FrameRequest(1, scene, Viewport(84, 65, 64), sharp=True))
    inner = levels(render_view(generator, sample(generator, [3]), View(zoom=2.0), height=36, width=64))
    found = frame.pixels[14:50, 10:74]
    assert found.shape == inner.shape
    assert (found.float() - inner.float()).abs().mean() < 6  # half a row of pixels apart at most


def test_the_sizer_finds_the_size_that_there_is_time_for():
    """A machine that paints 10 megapixels a second: 0.05 s are 500,000 pixels, 707 squared."""
    sizer = FrameSizer(0.05)

    def settle(longest: int, pace: float = 1e-7) -> int:
        for _ in range(200):
            side = sizer.side(longest)
            sizer.record(side * side * pace, side)
        return sizer.side(longest)

    assert 512 <= settle(2048) <= 707
    assert settle(300) == 300
    assert 512 <= settle(2048) <= 707
    assert 180 <= settle(2048, pace=1e-6) <= 224
    sizer.record(0.06, sizer.side(2048))  # one late frame is an accident
    assert sizer.side(2048) >= 180
