"""The generator's pass for training against the plain one, in both orders of differentiation."""

from __future__ import annotations

import copy

import pytest
import torch
from comfyui_creps.creps_core.training import synthesis as training_synthesis
from comfyui_creps.creps_core.training import synthesize
from comfyui_creps.creps_core.training.patches import WHOLE, box_positions, random_box
from comfyui_creps.kernels import clamp, explicit_backward, recompute, static_shapes
from networks import make_generator, make_ws

GENERATOR = make_generator(img_resolution=16)
Y, X = torch.linspace(0, 1, 11, dtype=torch.float64), torch.linspace(-0.2, 1, 9, dtype=torch.float64)


def network(dtype: torch.dtype = torch.float64):
    return copy.deepcopy(GENERATOR.synthesis).to(dtype).requires_grad_()


def path_gradients(synthesis, image: torch.Tensor, ws: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of a path-length penalty, which differentiates the image twice."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(4)).to(image)
    (gradient,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
    penalty = (gradient.square().sum(2).mean(1).sqrt() - 1).square().mean()
    return torch.autograd.grad(penalty, list(synthesis.parameters()), allow_unused=True)


@pytest.fixture(params=["autograd", "explicit", "explicit, clamped"])
def way(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small images use autograd, larger ones the explicit backward pass."""
    if request.param != "autograd":
        monkeypatch.setattr(explicit_backward, "MIN_PIXELS", 1)
        monkeypatch.setattr(explicit_backward, "BAND_PIXELS", 30)  # some rows, and fewer in the last tile
    return request.param


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("limit", [1 << 20, 8])
def test_gradients_are_the_plain_ones(order: int, limit: int, way: str):
    synthesis, found = network(), []
    if way == "explicit, clamped":
        for layer in (synthesis.block0.fc0, synthesis.block0.tores, synthesis.block1.fc1):
            layer.bias.data.uniform_(-300, 300, generator=torch.Generator().manual_seed(6))
    for draw in (synthesis, lambda ws, y, x: synthesize(synthesis, ws, y, x, line_positions=limit)):
        ws = make_ws(GENERATOR, 2).double().requires_grad_()
        image = draw(ws, Y, X)
        if order == 1:
            gradients = torch.autograd.grad(image.square().sum(), [ws, *synthesis.parameters()])
        else:
            gradients = path_gradients(synthesis, image, ws)
        found.append((image.detach(), gradients))
    (image, wanted), (other, gradients) = found
    assert (other - image).abs().max() <= 1e-10 * max(1.0, image.abs().max())
    with torch.no_grad():
        assert (synthesize(synthesis, ws, Y, X) - image).abs().max() <= 1e-10 * max(1.0, image.abs().max())
    for gradient, value in zip(gradients, wanted, strict=True):
        # A parameter without influence has no gradient, or one of zeros.
        gradient, value = (torch.zeros(1).double() if g is None else g for g in (gradient, value))
        assert (gradient - value).abs().max() <= 1e-9 * max(1.0, value.abs().max())


@pytest.mark.usefixtures("way")
def test_single_precision():
    synthesis, found = network(torch.float32), []
    for draw in (synthesis, lambda ws, y, x: synthesize(synthesis, ws, y, x, line_positions=8)):
        image = draw(make_ws(GENERATOR, 2), Y, X)
        found.append(torch.autograd.grad(image.square().mean(), list(synthesis.parameters())))
    largest = max(value.abs().max() for value in found[0])
    for gradient, value in zip(*found, strict=True):
        assert (gradient - value).abs().max() <= 1e-5 * max(value.abs().max(), 1e-2 * largest)


def test_windows_of_their_own():
    """Each latent with lines of its own is the latent alone with them."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.75]])
    y, x = box_positions(boxes, 8, 16)
    synthesis, ws = network(), make_ws(GENERATOR, 2).double()
    with torch.no_grad():
        both = synthesize(synthesis, ws, y, x)
        for i in range(2):
            assert (both[i] - synthesis(ws[i : i + 1], y[i], x[i])[0]).abs().max() <= 1e-9


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_windows_of_their_own(order: int):
    """In chunks of 3 positions."""
    y, x = box_positions(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.75]]), 8, 16)
    synthesis = network()

    def one_by_one(ws: torch.Tensor) -> torch.Tensor:
        return torch.cat([synthesis(ws[i : i + 1], y[i], x[i]) for i in range(2)])

    found = []
    for draw in (one_by_one, lambda ws: synthesize(synthesis, ws, y, x, line_positions=6)):
        ws = make_ws(GENERATOR, 2).double().requires_grad_()
        image = draw(ws)
        if order == 1:
            found.append(torch.autograd.grad(image.square().sum(), [ws, *synthesis.parameters()]))
        else:
            found.append(path_gradients(synthesis, image, ws))
    for value, gradient in zip(*found, strict=True):
        gradient, value = (torch.zeros(1).double() if g is None else g for g in (gradient, value))
        assert (gradient - value).abs().max() <= 1e-9 * max(1.0, value.abs().max())


def test_wide_networks_are_evaluated_in_chunks(monkeypatch):
    """The wider, the shorter."""
    calls = []
    monkeypatch.setattr(training_synthesis, "recompute", lambda function, *inputs: calls.append(1) or function(*inputs))
    monkeypatch.setattr(training_synthesis, "LINE_FEATURES", 32 * 8)  # 8 positions of a network of 32 channels
    synthesis, ws = network(torch.float32), make_ws(GENERATOR, 2)
    for side, chunks in ((4, 0), (5, 2), (9, 3)):
        calls.clear()
        synthesize(synthesis, ws, torch.zeros(side).double(), torch.zeros(side).double())
        assert len(calls) == 2 * chunks


def test_a_whole_picture_is_sampled_where_it_was_trained():
    y, x = box_positions(torch.tensor([WHOLE]), 16, 16)
    assert torch.allclose(y[0], torch.linspace(0, 1, 16, dtype=torch.float64))
    assert torch.equal(x, y)
    # A pixel of half the side covers two pixels: its position is the mean of theirs.
    assert torch.allclose(box_positions(torch.tensor([WHOLE]), 8, 16)[0][0], y[0].view(8, 2).mean(1))


def test_windows_are_inside_and_never_enlarged():
    import numpy as np

    rng = np.random.default_rng(0)
    boxes = [random_box(rng, 64, 16, 0.75) for _ in range(2000)]
    whole = sum(box == WHOLE for box in boxes) / len(boxes)
    assert 0.2 < whole < 0.3
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 1 + 1e-12
        assert 0 <= top < bottom <= 1 + 1e-12
        assert right - left == pytest.approx(bottom - top)
        assert (right - left) * 64 >= 16 - 1e-9
    assert random_box(rng, 16, 16, 1.0) == WHOLE


def test_any_pure_function():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def function(a, b):
        return recompute(lambda a, b: (a.sin() * b).cumsum(0) ** 3, a, b)

    assert torch.autograd.gradcheck(function, (x, y))
    assert torch.autograd.gradgradcheck(function, (x, y), check_undefined_grad=False)


def test_the_backward_pass_computes_in_the_precision_of_the_forward_pass():
    seen = []

    def function(a, b):
        result = a @ b
        seen.append(result.dtype)
        return result.float()

    a, b = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    with torch.amp.autocast_mode.autocast("cpu", torch.bfloat16):
        result = recompute(function, a, b)
    result.sum().backward()
    assert set(seen) == {torch.bfloat16}
    assert len(seen) == 2


def test_what_autograd_keeps_does_not_grow_with_the_area():
    """Twice the side: twice the lines, but four times the pixels."""

    def kept(side: int) -> int:
        sizes = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        positions = torch.linspace(0, 1, side, dtype=torch.float64)
        synthesis = network(torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            synthesize(synthesis, make_ws(GENERATOR), positions, positions, line_positions=16).sum()
        return sum(sizes.values())

    small, large, larger = (kept(side) for side in (64, 128, 256))
    print(small, large, larger)
    assert larger - large <= 2.2 * (large - small)


def test_there_is_no_third_derivative():
    """It would be wrong: an error is better."""
    x = torch.randn(3, requires_grad=True)
    (first,) = torch.autograd.grad(recompute(lambda a: a.sin(), x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        second.sum().backward()


@pytest.mark.parametrize("largest", [1.0, 2.0, 2.5, float("nan")])
def test_a_clamp_is_left_out_only_where_it_does_nothing(largest: float):
    values = torch.tensor([-1.0, 0.5, largest], dtype=torch.float64)
    found, expected = (values.clone().requires_grad_() for _ in range(2))
    y, wanted = clamp(found, 2.0), expected.clamp(-2, 2)
    assert torch.equal(y.nan_to_num(9.0), wanted.nan_to_num(9.0))
    y.square().sum().backward()
    wanted.square().sum().backward()
    finite = values.isfinite()  # what is not a number has no gradient worth comparing
    assert torch.equal(found.grad[finite], expected.grad[finite])


def test_clamping_without_reading_values_has_the_derivatives_of_a_clamp():
    """As on a GPU: first and second, by the factor and by what is clamped."""
    values, factor = torch.linspace(-3, 3, 12, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)
    found = []
    for way in (lambda x: clamp(x, 2.0), lambda x: x.clamp(-2, 2)):
        x, k = values.clone().requires_grad_(), factor.clone().requires_grad_()
        with static_shapes():
            y = way(x * k) ** 3
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append((y.detach(), first.detach(), *torch.autograd.grad(first.square().sum(), (x, k))))
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-12


def test_nan_passes_through_the_explicit_backward(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explicit_backward, "MIN_PIXELS", 1)
    synthesis = network(torch.float32)
    synthesis.block0.fc0.bias.data[0] = float("nan")
    image = synthesize(synthesis, make_ws(GENERATOR, 2), Y, X)
    assert image.isnan().all()
    gradients = torch.autograd.grad(image.sum(), [synthesis.block0.fc1.weight, synthesis.decoder_img.weight])
    assert gradients[0].isnan().any()


@pytest.mark.parametrize("wanted", ["lines", "weights"])
def test_the_explicit_backward_skips_gradients_that_are_not_needed(wanted: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explicit_backward, "MIN_PIXELS", 1)
    synthesis, ws = network().requires_grad_(wanted == "weights"), make_ws(GENERATOR, 2).double()
    ws.requires_grad_(wanted == "lines")
    synthesize(synthesis, ws, Y, X).sum().backward()
    expected = network().requires_grad_(wanted == "weights")
    other = ws.detach().clone().requires_grad_(wanted == "lines")
    expected(other, Y, X).sum().backward()
    if wanted == "lines":
        assert torch.allclose(ws.grad, other.grad, rtol=1e-9)
    for found, parameter in zip(synthesis.parameters(), expected.parameters(), strict=True):
        assert (found.grad is None) == (parameter.grad is None)
        assert parameter.grad is None or torch.allclose(found.grad, parameter.grad, rtol=1e-8, atol=1e-10)
