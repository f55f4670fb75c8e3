"""Rendering on an imaginary GPU: the same images in few operations, CUDA graphs, the precision of `auto`."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from comfyui_creps.creps_core import GeneratorConfig, load_builtin, render, sample
from comfyui_creps.creps_core.network import Generator
from comfyui_creps.creps_core.rendering import (
    View,
    allow_graphs,
    device,
    picture_graphs,
    probe_precision,
    release_renderers,
    render_bands,
    render_path,
    render_view,
)
from comfyui_creps.creps_core.rendering.precision import EXACT, HALF
from comfyui_creps.creps_core.rendering.transfer import Transfer
from einops import rearrange
from fake_graph import FakeGraph
from imaginary_gpu import Counter, EmulatedTriton, on_imaginary_gpu
from networks import make_generator, make_ws

WINDOW = (-0.2, 0.0, 1.0, 1.3)
MOST_OPERATIONS = 250
"""Most operations of an image: each costs a GPU's host 6 to 12 microseconds, more than most of them cost the GPU."""


@pytest.fixture(autouse=True)
def no_renderers():
    yield
    release_renderers()


def generator_of(**shape) -> tuple[Generator, torch.Tensor]:
    """On an imaginary GPU, with three latents."""
    generator = make_generator(biline_channels=16, **shape)
    return on_imaginary_gpu(generator), make_ws(generator, 3)


def exact(generator: Generator, ws: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The specification in float64."""
    y = torch.linspace(WINDOW[0], WINDOW[2], height, dtype=torch.float64)
    x = torch.linspace(WINDOW[1], WINDOW[3], width, dtype=torch.float64)
    image = generator.double().synthesis(ws.double(), y, x)
    generator.float()
    return image


def close(found: torch.Tensor, expected: torch.Tensor, limit: float) -> bool:
    return ((found.double() - expected).abs().max() <= limit * expected.abs().max()).item()


@pytest.mark.parametrize("backend", ["auto", "tiled"])
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 1e-2)])
@pytest.mark.parametrize("shape", [{}, {"img_channels": 4, "img_resolution": 8}, {"img_channels": 1}], ids=str)
def test_pictures(shape: dict, precision: str, limit: float, backend: str):
    """Eager at first, replayed the third time; the latents of a batch one after the other."""
    generator, ws = generator_of(**shape)
    expected = exact(generator, ws, 13, 17)
    for _ in range(2):
        found = render(generator, ws, height=13, width=17, window=WINDOW, precision=precision, backend=backend)
        assert close(found, expected, limit)
    assert len(device.renderer_of(generator).graphs) == (backend == "auto")


@pytest.mark.parametrize("supersample", [2, 3])
def test_supersampling(supersample: int, monkeypatch: pytest.MonkeyPatch):
    """As on the CPU, up to rounding; also in small launches."""
    generator, ws = generator_of()
    options = {"height": 9, "width": 14, "window": WINDOW, "supersample": supersample, "precision": "float32"}
    found = render(generator, ws, **options)
    monkeypatch.setattr("comfyui_creps.kernels.fused.LAUNCH_PIXELS", 60)
    release_renderers()
    blocks = render(generator, ws, **options)
    assert close(blocks, found.double(), 1e-6)
    on_cpu = make_generator(biline_channels=16)
    assert close(found, render(on_cpu, ws, **options).double(), 1e-5)


def test_memory_of_any_kind():
    """NHWC, 8 bits, a slice of a larger tensor, of which the rest stays unchanged."""
    generator, ws = generator_of()
    expected = exact(generator, ws, 13, 17)
    for _ in range(3):
        image = rearrange(torch.zeros(3, 13, 17, 3), "n h w c -> n c h w")
        render(generator, ws, height=13, width=17, window=WINDOW, precision="float32", out=image)
        assert close(image, expected, 1e-5)
        frame = torch.full((3, 3, 15, 20), 9, dtype=torch.uint8)
        render(generator, ws, height=13, width=17, window=WINDOW, precision="float32", out=frame[:, :, 1:14, 2:19])
        levels = (expected * 127.5 + 128).clamp(0, 255)
        assert (frame[:, :, 1:14, 2:19] + 0.5 - levels).abs().max() <= 0.51
        assert (frame == 9).sum() >= frame.numel() - 3 * 3 * 13 * 17


def test_bands_and_long_lines(monkeypatch: pytest.MonkeyPatch):
    generator, ws = generator_of()
    expected, found, rows = exact(generator, ws[:1], 13, 17), [], 0
    options = {"height": 13, "width": 17, "window": WINDOW, "precision": "float32"}
    seen = []
    for top, pixels in render_bands(
        generator,
        ws[:1],
        band=4,
        dtype=torch.float32,
        progress=lambda done, total: seen.append((done, total)),
        **options,
    ):
        assert top == rows
        rows += pixels.shape[1]
        found.append(pixels.clone())
    assert close(torch.cat(found, 1)[None], expected, 1e-5)
    assert seen[-1][0] == seen[-1][1]
    monkeypatch.setattr(device, "BAND_SAMPLES", 5)
    assert close(render(generator, ws[:1], **options), expected, 1e-5)


def test_progress_and_cancelling():
    generator, ws = generator_of()
    seen: list[tuple[int, int]] = []
    for _ in range(3):
        seen.clear()
        render(generator, ws, height=13, width=17, precision="float32", progress=lambda *now: seen.append(now))
        assert [total for _, total in seen] == [seen[0][1]] * len(seen)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert seen[-1][0] == seen[-1][1]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(generator, ws, height=13, width=17, progress=cancel)
    assert close(render(generator, ws, height=13, width=17, window=WINDOW, precision="float32"),
                 exact(generator, ws, 13, 17), 1e-5)  # fmt: skip


# Operations


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_few_operations(precision: str):
    """Of the 512 model of the published depth; widths do not change their number. 2,346 in version 0.1.0."""
    config = GeneratorConfig(512, z_dim=16, w_dim=16, channel_base=2048, channel_max=32)
    generator = Generator(config).eval().requires_grad_(False)
    ws = make_ws(generator)

    class NoLaunch(EmulatedTriton):
        def launch(self, *_) -> None:
            pass

    on_imaginary_gpu(generator, triton=NoLaunch(), make_graph=None)
    out = torch.empty(1, 3, 1024, 1024)
    render(generator, ws, height=1024, width=1024, precision=precision, out=out)
    with Counter() as counter:
        render(generator, ws, height=1024, width=1024, precision=precision, out=out)
    print(f"{counter.count} operations in {precision}")
    assert counter.count <= MOST_OPERATIONS


def test_a_replayed_picture_takes_a_handful(monkeypatch: pytest.MonkeyPatch):
    generator, ws = generator_of()
    out = torch.empty(1, 3, 16, 16)
    for _ in range(3):
        render(generator, ws[:1], height=16, width=16, precision="float16", out=out)

    for replay in device.renderer_of(generator).graphs._replays.values():
        index = replay.__code__.co_freevars.index("replay")
        monkeypatch.setattr(replay.__closure__[index], "cell_contents", lambda: None)
    with Counter() as counter:
        render(generator, ws[:1], height=16, width=16, precision="float16", out=out)
    print(f"{counter.count} operations around a replay")
    assert counter.count <= 30


# Captured images


def test_graphs_are_few_and_follow_the_weights():
    generator, ws = generator_of()
    for size in range(4, 12):
        for _ in range(2):
            render(generator, ws[:1], height=size, width=5, precision="float32")
    renderer = device.renderer_of(generator)
    assert len(renderer.graphs) == picture_graphs.MAX_GRAPHS
    generator.synthesis.decoder_img.bias.add_(1.0)
    expected = exact(generator, ws[:1], 11, 5)
    found = render(generator, ws[:1], height=11, width=5, window=WINDOW, precision="float32")
    assert device.renderer_of(generator) is not renderer
    assert close(found, expected, 1e-5)


def test_memory_is_released():
    generator, ws = generator_of()
    for _ in range(3):
        render(generator, ws, height=9, width=9, precision="float32")
    release_renderers(generator)
    assert not device._renderers
    render(generator, ws, height=9, width=9, precision="float32")
    del generator
    gc.collect()
    assert not device._renderers


def test_what_cannot_be_captured_is_rendered_as_usual(caplog: pytest.LogCaptureFixture):
    class Refuses:
        def __init__(self, *_: object):
            pass

        def capture(self, work):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    generator, ws = generator_of()
    on_imaginary_gpu(generator, make_graph=Refuses)
    expected = exact(generator, ws, 13, 17)
    for _ in range(4):
        assert close(render(generator, ws, height=13, width=17, window=WINDOW, precision="float32"), expected, 1e-5)
    assert caplog.text.count("not replayed as CUDA graphs: operation not permitted") == 1
    assert "and more" not in caplog.text


def test_out_of_memory_while_capturing():
    full = True

    class Full(FakeGraph):
        def capture(self, function):
            if full:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return super().capture(function)

    generator, ws = generator_of()
    on_imaginary_gpu(generator, make_graph=Full)
    expected = exact(generator, ws[:1], 13, 17)
    options = {"height": 13, "width": 17, "window": WINDOW, "precision": "float32"}
    for _ in range(3):
        assert close(render(generator, ws[:1], **options), expected, 1e-5)
    full = False
    for _ in range(3):
        render(generator, ws[:1], **options)
    assert len(device.renderer_of(generator).graphs) == 1, "another time there may be memory"


@pytest.mark.parametrize("how", ["for the process", "for the generator"])
def test_graphs_can_be_switched_off(how: str):
    generator, ws = generator_of()
    if how == "for the generator":
        on_imaginary_gpu(generator, make_graph=None)
    before = picture_graphs.graphs_allowed()
    allow_graphs(how != "for the process")
    try:
        for _ in range(3):
            render(generator, ws, height=9, width=9, precision="float32")
    finally:
        allow_graphs(before)
    assert not len(device.renderer_of(generator).graphs)


def test_overflow_is_noticed_and_forgotten():
    """Also in a replay, and not in the image after it."""
    generator, ws = generator_of()
    huge = ws * 1e18
    for _ in range(3):
        render(generator, ws[:1], height=9, width=9, precision="float16")
        with pytest.raises(OverflowError, match="precision float32"):
            render(generator, huge[:1] * float("inf"), height=9, width=9, precision="float16")
    assert len(device.renderer_of(generator).graphs) == 1


def test_threads_do_not_mix_their_latents():
    generator, ws = generator_of()
    expected = exact(generator, ws, 11, 12)
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            found = render(generator, ws[i : i + 1], height=11, width=12, window=WINDOW, precision="float32")
            if not close(found, expected[i : i + 1], 1e-5):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Films


def test_films_and_turned_views():
    generator, ws = generator_of()
    views = [View(), View(zoom=2.0), View(rotation=90.0), View(rotation=10.0)]
    film = render_path(generator, ws[:1], views, height=16, width=12, precision="float32")
    for frame, view in zip(film, views, strict=True):
        one = render_view(generator, ws[:1], view, height=16, width=12, precision="float32")
        assert close(frame[None], one.double(), 1e-5)


def test_a_transfer_keeps_the_order_of_pictures(monkeypatch: pytest.MonkeyPatch):
    """With copies under way in emulated pinned memory: overwriting the source does not change them."""

    class Event:
        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    strided = torch.empty_strided
    monkeypatch.setattr(torch, "empty_strided", lambda *a, pin_memory, **k: strided(*a, **k))
    monkeypatch.setattr(Transfer, "send", on_another_device(Transfer.send))
    transfer = Transfer(torch.device("cpu"), 2)
    source, film = torch.empty(3, 4, 5), torch.zeros(7, 3, 4, 5)
    for i in range(7):
        source.fill_(i)
        transfer.send(source, film[i])
    assert not torch.equal(film[:, 0, 0, 0], torch.arange(7.0)), "the last ones are under way"
    transfer.finish()
    assert torch.equal(film[:, 0, 0, 0], torch.arange(7.0))
    assert len(transfer._pinned) == 2


def on_another_device(send):
    """`Transfer.send` of an image that seems to lie on another device."""

    class Away(torch.Tensor):
        device = torch.device("meta")

    return lambda self, image, out: send(self, image, out.as_subclass(Away))


# Precision


def test_precision_is_decided_by_a_probe():
    alpine, textures = (on_imaginary_gpu(load_builtin(name)) for name in ("alpine", "textures"))
    found = probe_precision(alpine)
    assert found.precision == HALF
    assert found.share > 0.999
    found = probe_precision(textures)
    assert found.precision.pixels == torch.float32
    assert found.share < 0.9


def test_auto_is_the_probed_precision(monkeypatch: pytest.MonkeyPatch):
    generator, ws = generator_of()
    half = render(generator, ws, height=9, width=9, precision="float16")
    assert torch.equal(render(generator, ws, height=9, width=9), half)
    release_renderers()
    monkeypatch.setattr("comfyui_creps.creps_core.rendering.precision.GOOD_ENOUGH", 1.1)
    assert probe_precision(generator).precision == EXACT
    full = render(generator, ws, height=9, width=9, precision="float32")
    assert torch.allclose(render(generator, ws, height=9, width=9), full, atol=1e-6)


def test_a_generator_with_classes_is_probed():
    generator = on_imaginary_gpu(make_generator(biline_channels=16, c_dim=3))
    assert probe_precision(generator).share > 0.9
    ws = sample(generator, [1], label=2)
    assert render(generator, ws, height=8, width=8).isfinite().all()
