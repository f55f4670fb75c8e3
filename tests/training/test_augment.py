"""Augmentation: the published numbers, probabilities, derivatives, and the rule that adapts the strength."""

from __future__ import annotations

import math

import paths
import pytest
import torch
import torch.nn.functional as F
from comfyui_creps.creps_core.training.augment import COLOUR, GEOMETRY, OPERATIONS, AdaptiveProbability, Augment
from safetensors import safe_open

with safe_open(paths.GOLDEN / "augment_debug.safetensors", "pt") as file:
    GOLDEN = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
ALL, PLANE, COLOURS = OPERATIONS, {o.name for o in GEOMETRY}, {o.name for o in COLOUR}
TOLERANCE = 5e-6  # 2.7e-6 was found


def pipeline(*operations: str, p: float = 1.0) -> Augment:
    augment = Augment(operations or OPERATIONS)
    augment.p.fill_(p)
    return augment


def pictures(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def smooth(*shape: int) -> torch.Tensor:
    """Pictures that the filters leave almost as they are."""
    coarse = pictures(*shape[:2], 4, 4)
    return F.interpolate(coarse, shape[2:], mode="bicubic", align_corners=True)


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith("out.")])
def test_published_numbers(key: str):
    operation, percentile = key.removeprefix("out.").split("_p")
    augment = Augment(OPERATIONS if operation == "all" else [operation])
    found = augment(GOLDEN["in.img"], float(percentile))
    print(f"max {(found - GOLDEN[key]).abs().max():.1e}")
    torch.testing.assert_close(found, GOLDEN[key], rtol=0, atol=TOLERANCE)


def test_the_filter_is_the_published_one():
    torch.testing.assert_close(Augment()._taps, GOLDEN["A.Hz_geom"], rtol=0, atol=1e-7)
    assert set(Augment().state_dict()) == {"p"}


def test_nothing_to_do():
    images = pictures(2, 3, 16, 16)
    assert Augment()(images) is images
    assert Augment([])(images, 0.8) is images
    assert pipeline(p=0.5)(images[:0]).shape == (0, 3, 16, 16)
    state = torch.get_rng_state()
    Augment()(images, 0.8)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("operations", "word"), [(["zoom", "xflip"], "zoom"), ("hue", "e, h, u")])
def test_unknown_operations_are_named(operations, word):
    with pytest.raises(ValueError, match=word) as error:
        Augment(operations)
    assert all(name in str(error.value) for name in OPERATIONS)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="channels, not 2"):
        pipeline()(pictures(1, 2, 8, 8))
    for percentile in (0, 1, -0.5, math.nan):
        with pytest.raises(ValueError, match="percentile"):
            pipeline()(pictures(1, 3, 8, 8), percentile)


def changed(augment: Augment, images: torch.Tensor) -> torch.Tensor:
    """Which pictures are altered by more than the filters do."""
    return ((augment(images) - images).abs().amax((1, 2, 3)) > 0.05).double()


# The share of pictures that each operation alters at p = 0.5.
SHARES = {"xflip": 0.25, "rotate90": 0.375, "lumaflip": 0.25, "rotate": 0.5, "scale": 0.5, "xfrac": 0.5, "hue": 0.5}


@pytest.mark.parametrize("name", SHARES)
def test_probabilities(name: str):
    torch.manual_seed(5)
    count = 600
    images = smooth(1, 3, 16, 16).expand(count, -1, -1, -1) * 2
    share = changed(pipeline(name, p=0.5), images).mean().item()
    wanted = SHARES[name]
    slack = 4 * math.sqrt(wanted * (1 - wanted) / count)
    missed = 0.06 if name in ("scale", "xfrac", "rotate", "hue") else 0.0  # parameters too small to be seen
    assert wanted - slack - missed < share < wanted + slack


def test_parameters_are_distributed_as_in_the_paper():
    """Means and deviations of what brightness and contrast do to two greys, and rounded shifts within 1/8."""
    torch.manual_seed(6)
    images = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(20000, 1, 1, 2)
    offset = pipeline("brightness")(images)[:, 0, 0, 0]
    gain = pipeline("contrast")(images)[:, 0, 0, 1].log2()
    for values, deviation in ((offset, 0.2), (gain, 0.5)):
        assert abs(values.mean().item()) < 5 * deviation / math.sqrt(20000)
        assert values.std().item() == pytest.approx(deviation, rel=0.03)
    ramp = torch.arange(64.0).expand(300, 1, 16, 64)
    shifts = ramp[..., 32] - pipeline("xint")(ramp)[..., 32]
    torch.testing.assert_close(shifts, shifts.round(), rtol=0, atol=2e-2)
    assert shifts.round().unique().tolist() == list(range(-8, 9))


def test_samples_differ_and_seeds_repeat():
    images = pictures(1, 3, 16, 16).expand(4, -1, -1, -1)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = pipeline()(images)
    assert len({tuple(sample.flatten().tolist()) for sample in first}) == 4
    assert not torch.equal(pipeline()(images), first)
    torch.set_rng_state(state)
    assert torch.equal(pipeline()(images), first)


def test_numbers_do_not_depend_on_the_other_operations():
    images = pictures(4, 3, 16, 16)
    alone, both = [], []
    for results, operations in ((alone, ["hue"]), (both, ["hue", "xflip"])):
        torch.manual_seed(4)
        pipeline(*operations)(images)
        results.append(torch.get_rng_state())
    assert torch.equal(alone[0], both[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_derivatives_of_first_and_second_order(channels: int):
    """R1 differentiates the gradient that passes through."""
    images = pictures(2, channels, 6, 5, dtype=torch.float64).requires_grad_()

    def augment(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        return pipeline()(images)

    assert augment(images).dtype == torch.float64
    assert torch.autograd.gradcheck(augment, images, fast_mode=True)
    # Squared: of a linear map alone the second derivative is 0.
    assert torch.autograd.gradgradcheck(lambda x: augment(x).square(), images, fast_mode=True)


def test_r1_in_single_precision():
    images = pictures(4, 3, 32, 32).requires_grad_()
    weight = torch.nn.Parameter(torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(8)
    logits = F.conv2d(pipeline()(images), weight).square().mean((1, 2, 3))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("value", [-0.75, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (65, 96), (64, 48)])
def test_a_plain_picture_stays_plain(size: tuple[int, int], value: float):
    """The filters' gain is 1, and the margin is as wide as the geometry asks for."""
    images = torch.full((1, 3, *size), value)
    for percentile in (0.05, 0.3, 0.5, 0.7):
        for operations in [*([name] for name in OPERATIONS if name in PLANE), sorted(PLANE)]:
            torch.testing.assert_close(Augment(operations)(images, percentile), images, rtol=0, atol=2e-6)
    torch.manual_seed(9)
    images = images.expand(8, -1, -1, -1)
    torch.testing.assert_close(pipeline(*PLANE, p=0.3)(images), images, rtol=0, atol=5e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (17, 16), (40, 23)])
def test_any_size(size: tuple[int, int], channels: int):
    images = pictures(3, channels, *size)
    found = pipeline()(images)
    assert found.shape == images.shape
    assert found.isfinite().all()


def test_flips_and_quarter_turns_of_oblong_pictures():
    """Axes and directions are the same for both sides of a picture."""
    images = smooth(2, 3, 27, 40)
    # The filter is not symmetric: mirrored pictures are as close as it allows.
    flipped = Augment(["xflip"])(images, 0.8)
    assert (flipped - images.flip(3)).abs().mean() < 0.02
    half = Augment(["rotate90"])(images, 0.6)
    assert (half - images.flip(2, 3)).abs().mean() < 0.02
    square = smooth(2, 3, 32, 32)
    assert (Augment(["rotate90"])(square, 0.3) - square.rot90(1, (2, 3))).abs().mean() < 0.02
    assert (Augment(["rotate90"])(square, 0.8) - square.rot90(-1, (2, 3))).abs().mean() < 0.02
    shifted = Augment(["xint"])(images, 0.9)  # by 0.8 * 0.125 of each side: 4 columns, 3 rows
    assert (shifted[..., 3:, 4:] - images[..., :-3, :-4]).abs().mean() < 0.02


def test_grey_pictures_are_treated_as_equal_channels():
    grey = pictures(4, 1, 20, 20)
    for operations in (OPERATIONS, *([name] for name in OPERATIONS)):
        for percentile in (0.2, 0.8):
            colour = Augment(operations)(grey.expand(-1, 3, -1, -1), percentile)
            found = Augment(operations)(grey, percentile)
            torch.testing.assert_close(found, colour.mean(1, keepdim=True), rtol=0, atol=3e-6)


def test_alpha_moves_and_keeps_its_value():
    images = pictures(3, 4, 20, 24)
    found = Augment()(images, 0.8)
    torch.testing.assert_close(found[:, :3], Augment()(images[:, :3], 0.8))
    torch.testing.assert_close(found[:, 3:], Augment(sorted(PLANE))(images[:, 3:], 0.8))
    assert torch.equal(Augment(sorted(COLOURS))(images, 0.8)[:, 3], images[:, 3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_are_computed_in_single(dtype: torch.dtype):
    images = pictures(2, 3, 24, 24).to(dtype)
    wanted = Augment()(images.float(), 0.8)
    found = Augment()(images, 0.8)
    assert found.dtype == dtype
    assert torch.equal(found, wanted.to(dtype))
    source = images.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = Augment()(source, 0.8)
        (gradient,) = torch.autograd.grad(found.square().sum(), source)
    assert torch.equal(found, wanted)
    (exact,) = torch.autograd.grad(Augment()(source, 0.8).square().sum(), source)
    torch.testing.assert_close(gradient, exact)


def test_double_precision_agrees_with_single():
    images = pictures(3, 3, 48, 48)
    torch.manual_seed(11)
    single = pipeline()(images)
    torch.manual_seed(11)
    torch.testing.assert_close(pipeline()(images.double()).float(), single, rtol=0, atol=5e-5)


def test_the_rule():
    """Appendix: at batch 64 and 500 thousand pictures a step is 64 * 4 / 500000, up or down, and p stays >= 0."""
    rule, p = AdaptiveProbability(), torch.zeros(())
    step = 64 * 4 / 500_000
    certain = torch.cat((torch.ones(60), -torch.ones(4)))  # mean sign 0.875
    doubtful = torch.cat((torch.ones(40), -torch.ones(24)))  # 0.25
    wanted = 0.0
    for iteration in range(40):
        rule.observe(certain if iteration < 24 else doubtful)
        rule.update(p, iteration, 64)
        if iteration % 4 == 3:
            wanted = max(wanted + (step if iteration < 24 else -step), 0.0)
        assert p.item() == pytest.approx(wanted, abs=1e-7), iteration
    assert wanted == pytest.approx(2 * step)
    for iteration in range(40, 60):
        rule.observe(doubtful)
        rule.update(p, iteration, 64)
    assert p.item() == 0


def test_the_rule_looks_at_all_pictures_since_the_last_change():
    rule, p = AdaptiveProbability(target=0, kimg=100, interval=2), torch.tensor(0.5)
    for iteration, logits in enumerate((torch.full((3, 1), 2.0), torch.full((4, 1), -0.1))):
        rule.observe(logits)
        rule.update(p, iteration, 4)
    assert p.item() == pytest.approx(0.5 - 8 / 100_000, abs=1e-7)
    assert rule.signs.tolist() == [0, 0]
    rule.update(p, 3, 4)  # nothing was observed
    assert p.item() == pytest.approx(0.5 - 8 / 100_000, abs=1e-7)
    rule.observe(torch.tensor([1.0, -1.0]))  # on target
    rule.update(p, 5, 4)
    assert p.item() == pytest.approx(0.5 - 8 / 100_000, abs=1e-7)
    resumed = AdaptiveProbability(interval=2)
    rule.observe(torch.ones(5))
    resumed.load_state_dict(rule.state_dict())
    assert resumed.signs.tolist() == [5, 5]


def test_the_module_follows_p_beyond_one():
    torch.manual_seed(12)
    images = pictures(4, 3, 16, 16)
    found = pipeline(p=1.3)(images)
    torch.manual_seed(12)
    assert torch.equal(found, pipeline(p=1.0)(images))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_agrees():
    images = GOLDEN["in.img"].cuda()
    for key in (key for key in GOLDEN if key.startswith("out.all")):
        found = Augment().cuda()(images, float(key.split("_p")[1]))
        torch.testing.assert_close(found.cpu(), GOLDEN[key], rtol=0, atol=1e-5)
    augment = pipeline().cuda()
    source = images[:1, :, :6, :5].double().requires_grad_()

    def fixed(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        return augment(images)

    assert torch.autograd.gradgradcheck(lambda x: fixed(x).square(), source, nondet_tol=1e-9)
