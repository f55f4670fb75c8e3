"""All styles at once are those of the layers one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from comfyui_creps.creps_core.network import Styles, styles_of, tensors_of
from fake_graph import counted
from networks import make_generator, make_ws

GENERATOR = make_generator(img_resolution=32)
Y, X = torch.linspace(0, 1, 5).double(), torch.linspace(0.2, 0.7, 4).double()


def network():
    """In float64, its parameters wanting gradients, with biases that tell layers apart."""
    synthesis = copy.deepcopy(GENERATOR.synthesis).double().requires_grad_()
    rng = torch.Generator().manual_seed(4)
    for name, parameter in synthesis.named_parameters():
        if name.endswith("bias"):
            parameter.data += torch.randn(parameter.shape, generator=rng).double() * 0.1
    return synthesis


@pytest.mark.parametrize("shared", [True, False], ids=["one w", "ws"])
def test_all_styles_at_once_are_those_of_the_layers(shared: bool):
    synthesis = network()
    ws = make_ws(GENERATOR, 3).double()
    ws = ws[:, :1].expand_as(ws) if shared else ws + torch.randn_like(ws) * 0.1
    found = []
    for once in (True, False):
        w = ws.detach()[:, :1].requires_grad_() if shared else ws.detach().requires_grad_()
        used = w.expand_as(ws) if shared else w
        applied = Styles(synthesis).apply(used) if once else None
        styles, stage = applied or (synthesis.line_styles(used), synthesis.pixel_stage(used))
        if once:
            styles = styles_of(styles, tensors_of(styles))
        outputs = [
            *synthesis.both_bilines(styles, Y, X),
            *(t for block in stage.blocks for layer in block for t in layer),
        ]
        outputs += [t for decoder in stage.decoders for layer in decoder for t in layer]
        rng = torch.Generator().manual_seed(5)
        total = sum((x * torch.randn(x.shape, generator=rng).double()).sum() for x in outputs)
        inputs = [w, *(p for n, p in synthesis.named_parameters() if "decoder_img" not in n)]
        found.append([*outputs, *torch.autograd.grad(total, inputs)])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1.0, b.abs().max().item())


def test_it_takes_few_operations():
    """Per layer its product with the styles, and its weight for the latents where that is smaller than the features."""
    synthesis, ws = GENERATOR.synthesis, make_ws(GENERATOR, 2)
    styles = Styles(synthesis)
    styles.apply(ws[:, :1].expand_as(ws))  # makes the constants
    with counted() as few:
        styles.apply(ws[:, :1].expand_as(ws))
    with counted() as many:
        synthesis.line_styles(ws)
        synthesis.pixel_stage(ws)
    print(f"{few[0]} operations, {many[0]} layer by layer, for {len(styles.layers)} layers")
    assert few[0] <= many[0] / 4
