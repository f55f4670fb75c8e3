"""Every number of the published model's generators is reproduced, intermediate values included."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from comfyui_creps.creps_core import GeneratorConfig, render, seed_to_z
from comfyui_creps.creps_core.checkpoints import build_generator
from comfyui_creps.creps_core.network import COLUMNS, ROWS
from comfyui_creps.kernels import reference
from paths import GOLDEN
from safetensors import safe_open

FILES = sorted(path.stem for path in GOLDEN.glob("g*.safetensors"))


class Golden:
    """One file: its numbers by key, and the generator with its weights."""

    def __init__(self, name: str):
        self.name = name
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.meta = json.loads(file.metadata()["creps"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        values = {k: v for k, v in self.meta["config"].items() if k not in ("rank", "bandwidth", "num_ws")}
        self.config = GeneratorConfig(mapping_layers=values.pop("map_layers"), **values)
        assert self.config.num_ws == self.meta["config"]["num_ws"]
        weights = {key[2:]: value for key, value in self.tensors.items() if key.startswith("G.")}
        self.generator = build_generator(self.config, weights)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.tensors if key.startswith(prefix)]

    @property
    def z(self) -> torch.Tensor:
        return self.tensors.get("in.z", torch.zeros(len(self["out.ws"]), 0))

    def map(self, **truncation) -> torch.Tensor:
        return self.generator.mapping(self.z, self.tensors.get("in.c"), **truncation)

    def positions(self, tag: str) -> tuple[torch.Tensor, torch.Tensor]:
        coords = self[f"in.coords_{tag}"].double()
        return coords[0, :, 0, 0], coords[0, :, 1, 0]


@pytest.fixture(scope="module", params=FILES)
def golden(request) -> Golden:
    return Golden(request.param)


def golden_keys(prefix: str) -> list[tuple[str, str]]:
    """Every file and key, of all files, whose key begins with the prefix."""
    found = []
    for name in FILES:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            found += [(name, key) for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
    assert found, f"no golden value is named {prefix}"
    return found


def truncation_of(key: str) -> dict[str, float | int | None]:
    """Arguments of the mapping from a key such as out.ws_psi0.7_cut5."""
    psi, cutoff = key.partition("_psi")[2].split("_cut")
    return {"truncation_psi": float(psi), "truncation_cutoff": None if cutoff == "None" else int(cutoff)}


def assert_close(found: torch.Tensor, wanted: torch.Tensor, record=None) -> None:
    """Within the tolerance that the golden numbers' own rounding asks for."""
    scale = max(1.0, wanted.std().item() if wanted.numel() > 1 else 0.0)
    error = (found - wanted).double()
    worst, rms = error.abs().max().item(), error.square().mean().sqrt().item()
    print(f"max {worst / scale:.1e}, rms {rms / scale:.1e} (of {scale:.3g})")
    assert found.shape == wanted.shape
    assert worst <= 2e-4 * scale
    assert rms <= 2e-5 * scale


@torch.no_grad()
def test_mapping_and_truncation(golden: Golden):
    assert_close(golden.map(), golden["out.ws"])
    for key in golden.keys("out.ws_psi"):
        assert_close(golden.map(**truncation_of(key)), golden[key])


@torch.no_grad()
def test_pictures_at_every_set_of_coordinates(golden: Golden):
    for tag in golden.meta["coord_tags"]:
        assert_close(golden.generator.synthesis(golden.map(), *golden.positions(tag)), golden[f"out.img_{tag}"])


@torch.no_grad()
@pytest.mark.parametrize(("name", "key"), golden_keys("out.img_psi"))
def test_truncated_pictures(name: str, key: str):
    """From the golden styles, and from z with our own truncation."""
    golden = Golden(name)
    for ws in (golden[key.replace("img", "ws")], golden.map(**truncation_of(key))):
        assert_close(golden.generator.synthesis(ws, *golden.positions("s1")), golden[key])


def test_render_gives_the_same_pictures(golden: Golden):
    """The tiled path, at the sizes whose coordinates are those of a whole frame."""
    for tag in set(golden.meta["coord_tags"]) - {"window", "outside"}:
        n = len(golden.positions(tag)[0])
        image = render(golden.generator, golden["out.ws"], height=n, width=n)
        assert_close(image, golden[f"out.img_{tag}"])


@pytest.mark.parametrize(("name", "key"), golden_keys("out.img_u8_s1"))
def test_render_gives_the_same_8_bit_pictures(name: str, key: str):
    golden = Golden(name)
    wanted = golden[key]
    pixels = torch.empty(wanted.shape, dtype=torch.uint8)
    render(
        golden.generator,
        golden["out.ws"],
        height=pixels.shape[1],
        width=pixels.shape[2],
        out=pixels.permute(0, 3, 1, 2),
    )
    difference = (pixels.int() - wanted.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


@torch.no_grad()
def test_nearer_to_float64_than_the_published_code(golden: Golden):
    """The Fourier phase is exact here, so the float64 evaluation is nearer than its float32 one is."""
    exact = golden["ref64.img_s1"]
    ours = golden.generator.synthesis(golden["out.ws"], *golden.positions("s1")) - exact
    theirs = golden["out.img_s1"] - exact
    print(f"max {ours.abs().max():.1e}, published {theirs.abs().max():.1e}")
    assert ours.square().mean() <= theirs.square().mean()


@torch.no_grad()
def test_intermediate_values_of_the_lines(golden: Golden):
    if not golden.keys("mid."):
        pytest.skip("this file holds images only; the others hold intermediate values")
    synthesis, seen = golden.generator.synthesis, {}

    def keep(name: str):
        def hook(module, args, output):
            x = output[0].unflatten(1, (-1, 8)) if isinstance(output, tuple) else output  # [N, n, 8, C]
            seen.setdefault(name, []).append(x.permute(0, 3, 1, 2))

        return hook

    hooks = [synthesis.b4.input.register_forward_hook(keep("input"))]
    hooks += [getattr(synthesis, f"b{k}").register_forward_hook(keep(f"x_{k}")) for k in golden.config.levels]
    positions = golden.positions("s1")
    styles = synthesis.line_styles(golden["out.ws"])
    lines = [synthesis.bilines(styles, p, line) for line, p in zip((COLUMNS, ROWS), positions, strict=True)]
    for hook in hooks:
        hook.remove()
    for i, level in enumerate(golden.config.biline_levels):
        seen[f"biline_{level}"] = [line[:, i] for line in lines]
    for name, (columns, rows) in seen.items():
        if f"mid.{name}" in golden.tensors:
            assert_close(torch.cat([columns, rows], -1), golden[f"mid.{name}"])


@torch.no_grad()
def test_intermediate_values_of_the_pixels(golden: Golden):
    """The specification, step by step from the golden bi-lines."""
    names = [f"mid.biline_{level}" for level in golden.config.biline_levels]
    if not all(name in golden.tensors for name in names):
        pytest.skip("this file does not hold every bi-line; the others do")
    bilines = torch.stack([golden[name] for name in names], 1)
    columns, rows = bilines.split(8, -1)
    stage = golden.generator.synthesis.pixel_stage(golden["out.ws"])
    side = columns.shape[-2]

    def check(name: str, x: torch.Tensor) -> None:
        if f"mid.{name}" in golden.tensors:
            assert_close(x.unflatten(-1, (side, side)), golden[f"mid.{name}"])

    products = reference.outer_product(columns, rows).flatten(-2)
    check("feature_first", products[:, 0])
    feature = products[:, 0]
    for level, decoder in enumerate(stage.decoders[:-1], start=1):
        feature = reference.apply_decoder(feature, decoder) + products[:, level]
    check("feature_predec", feature)
    feature = reference.apply_decoder(feature, stage.decoders[-1])
    check("feature_last", feature)
    image = reference.linear(feature, stage.image)
    check("img_pre", image)
    x, residual = reference.pixel_block(feature, stage.blocks[0])
    check("block0_x", x)
    check("img_block0", image + residual)


@torch.no_grad()
def test_half_precision_stays_near(golden: Golden):
    """float16 and bfloat16 against float32, at the error that their rounding explains."""
    if golden.config.img_resolution < 32 or golden.name == "g32_clamp":
        pytest.skip("too small, or beyond the range of float16; the others are checked")
    n = golden.config.img_resolution
    exact = render(golden.generator, golden["out.ws"], height=n, width=n)
    for precision, bound in (("float16", 2e-2), ("bfloat16", 1.5e-1)):
        rough = render(golden.generator, golden["out.ws"], height=n, width=n, precision=precision)
        error = ((rough - exact).abs().max() / exact.abs().max()).item()
        print(f"{precision}: {error:.1e} of the largest value")
        assert error <= bound


def test_seeds_are_those_of_the_authors():
    golden = Golden("g32_uncond")
    for seed, z in zip(golden.meta["z_seeds"], golden.z, strict=True):
        assert torch.equal(seed_to_z(seed, len(z)), z)
    assert torch.equal(
        seed_to_z(2, 512), torch.from_numpy(np.random.RandomState(2).randn(1, 512)[0].astype(np.float32))
    )


@torch.no_grad()
def test_float64_run_gives_the_float64_numbers(golden: Golden):
    """With float64 arithmetic from the same weights nothing but the file's own rounding is left."""
    generator = copy.deepcopy(golden.generator).double()
    ws = generator.mapping(golden.z, golden.tensors.get("in.c"))
    exact, wanted = generator.synthesis(ws, *golden.positions("s1")), golden["ref64.img_s1"]
    assert (exact - wanted).abs().max() <= 3e-7 * wanted.abs().max()


def test_double_backward_through_the_specification():
    """Path-length regularisation differentiates the image twice."""
    golden = Golden("g4_edge")
    ws = golden["out.ws"][:1, :, :].double().requires_grad_()
    generator = copy.deepcopy(golden.generator).double()
    positions = torch.linspace(0, 1, 2, dtype=torch.float64)

    def brightness(w: torch.Tensor) -> torch.Tensor:
        return generator.synthesis(w, positions, positions).mean((1, 2, 3))

    assert torch.autograd.gradgradcheck(brightness, (ws,))
