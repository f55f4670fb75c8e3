"""The discriminator against the numbers of the published one."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from comfyui_creps.creps_core.network import Discriminator, DiscriminatorConfig
from comfyui_creps.creps_core.network import discriminator as discriminator_module
from comfyui_creps.creps_core.network.discriminator import Convolution, minibatch_std
from comfyui_creps.creps_core.training import load_networks
from comfyui_creps.creps_core.training.discriminator_transfer import transfer_to_larger
from paths import GOLDEN
from safetensors import safe_open
from safetensors.torch import load_file

FILES = sorted(path.stem for path in GOLDEN.glob("d*.safetensors"))


def load(name: str, dtype: torch.dtype) -> tuple[Discriminator, dict[str, torch.Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["creps"])
        tensors = {key: file.get_tensor(key).to(dtype) for key in file.keys()}  # noqa: SIM118
    meta["config"].pop("epilogue_kwargs")
    config = DiscriminatorConfig(mbstd_group_size=meta["mbstd_group_size"], **meta["config"])
    discriminator = Discriminator(config)
    weights = {key[2:]: value for key, value in tensors.items() if key.startswith("D.")}
    discriminator.load_state_dict({k: v for k, v in weights.items() if not k.endswith("resample_filter")})
    return discriminator.to(dtype), tensors


@pytest.fixture(params=["smoothing folded", "smoothing apart"])
def either_way(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to smooth before halving."""
    devices = {"cpu"} if request.param == "smoothing folded" else set()
    monkeypatch.setattr(discriminator_module, "FOLDED_SMOOTHING", devices)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_logits_and_r1(name: str, dtype: torch.dtype):
    discriminator, golden = load(name, dtype)
    images = golden["in.img"].requires_grad_()
    logits = discriminator(images, golden.get("in.c"))
    assert (logits - golden["out.logits"]).abs().max() <= 1e-5
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    assert (gradient - golden["out.r1_grad"]).abs().max() <= 1e-5 * golden["out.r1_grad"].abs().max()
    penalty = gradient.square().sum((1, 2, 3))
    assert (penalty / golden["out.r1_penalty"] - 1).abs().max() <= 5e-6
    loss = penalty.mean() * 8.2 / 2
    assert (loss / golden["out.r1_loss_mean_gamma8.2"] - 1).abs().max() <= 5e-6
    loss.backward()
    wanted = {key[len("out.r1_loss_grad.") :]: value for key, value in golden.items() if "r1_loss_grad" in key}
    largest = max(value.abs().max() for value in wanted.values())
    for key, value in wanted.items():
        # The published float32 loses up to 2e-3 of the largest gradient to cancellation in the biases.
        assert (discriminator.get_parameter(key).grad - value).abs().max() <= 2e-3 * largest, key


def test_the_discriminator_of_an_official_snapshot():
    discriminator = load_networks(GOLDEN / "official_layout.pkl").D
    golden = load_file(GOLDEN / "official_layout_outputs.safetensors")
    with torch.no_grad():
        logits = discriminator(golden["in.d_img"])
    assert (logits - golden["out.d_logits"]).abs().max() <= 1e-5


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("size", [1, 3])
def test_halving_is_a_convolution_of_the_smoothed_picture(size: int):
    """As torch's own operations do it, in all derivatives that R1 needs."""
    torch.manual_seed(2)
    layer = Convolution(3, 5, size, down=True, activate=False).double()
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    fir = torch.outer(taps, taps).expand(3, 1, 4, 4)

    def plain(x: torch.Tensor) -> torch.Tensor:
        smoothed = F.conv2d(x, fir, padding=1 + size // 2, groups=3)
        return F.conv2d(smoothed, layer.weight * layer.weight_gain, stride=2)

    results = []
    for function in (layer, plain):
        y = function(x)
        (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        results.append((y, first, *torch.autograd.grad(first.square().sum(), [x, layer.weight])))
    for found, wanted in zip(*results, strict=True):
        assert (found - wanted).abs().max() <= 1e-14 * max(1.0, wanted.abs().max())


def test_pictures_of_a_group_are_compared_with_each_other():
    """Groups of 2 among 4: image i belongs to group i mod 2. The spread of (0, 2) is 1, of (0, 6) is 3."""
    x = torch.tensor([0.0, 0.0, 2.0, 6.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    spread = minibatch_std(x, 2)
    assert spread.shape == (4, 1, 2, 2)
    assert torch.allclose(spread[:, 0, 0, 0], torch.tensor([1.0, 3.0, 1.0, 3.0]), atol=1e-4)
    assert minibatch_std(x[:3], 2).abs().max() < 1e-3  # 3 is not divisible by 2: each image is alone


def test_layers_are_counted_from_the_picture():
    discriminator = Discriminator(DiscriminatorConfig(16, channel_base=256, channel_max=8))
    names = {id(module): name for name, module in discriminator.named_modules()}
    found = [names[id(layer)] for layer in discriminator.layers()]
    assert found == ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0", "b8.conv1", "b8.skip"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"img_resolution": 4}, "at least 8"),
        ({"img_resolution": 48}, "power of two"),
        ({"img_resolution": 64, "channel_base": 32}, "channel_base"),
        ({"img_resolution": 64, "mbstd_group_size": 0}, "mbstd_group_size"),
    ],
)
def test_bad_shapes_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DiscriminatorConfig(**fields)


def test_a_config_is_stored_as_plain_numbers():
    config = DiscriminatorConfig(64, c_dim=3)
    assert DiscriminatorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="depth"):
        DiscriminatorConfig.from_dict({"img_resolution": 64, "depth": 3})


@pytest.mark.parametrize("doublings", [1, 2])
@pytest.mark.parametrize(("base", "most"), [(512, 64), (2048, 16)])  # narrower at the image than within; as wide
def test_a_larger_discriminator_starts_with_the_logits_of_the_reduced_image(base: int, most: int, doublings: int):
    torch.manual_seed(5)
    small = Discriminator(DiscriminatorConfig(16, channel_base=base, channel_max=most))
    grown = Discriminator(DiscriminatorConfig(16 << doublings, channel_base=base, channel_max=most))
    for parameter in small.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases too
    transfer_to_larger(small, grown)
    # Smooth images, which all sizes show alike.
    waves = torch.randn(64, 3, 4, 4).clamp(-1, 1)
    images = [F.interpolate(waves, size=(side, side), mode="bilinear") for side in (16, 16 << doublings)]
    with torch.no_grad():
        wanted, found = small(images[0]).flatten(), grown(images[1]).flatten()
    assert torch.corrcoef(torch.stack([wanted, found]))[0, 1] > 0.9
    assert (wanted - found).abs().mean() < 0.4 * (wanted - wanted.mean()).abs().mean()
    # The new branches train from the first step.
    grown(images[1]).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in grown.b32.conv1.parameters())
