"""Build networks from tensors. Names and shapes are compared before any memory is allocated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..network import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from .container import MakeError

Shapes = Mapping[str, tuple[int, ...]]


def build_generator(config: GeneratorConfig, tensors: Mapping[str, Tensor], error: MakeError = ValueError) -> Generator:
    """Build a generator from a config and tensors under their official names: float32, eval mode, no gradients.

    Unused tensors of official files are dropped. Raises `error(message)` if names, shapes or values do not fit.
    """
    generator = _empty(Generator, config)
    tensors = {name: tensor for name, tensor in tensors.items() if not _is_dead(name, config)}
    _fill(generator, tensors, "a CREPS generator", error)
    return generator


def build_discriminator(
    config: DiscriminatorConfig, tensors: Mapping[str, Tensor], error: MakeError = ValueError
) -> Discriminator:
    """Build a discriminator likewise."""
    discriminator = _empty(Discriminator, config)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("resample_filter")}
    _fill(discriminator, tensors, "a discriminator", error)
    return discriminator


def shapes_of(config: GeneratorConfig | DiscriminatorConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors by name, without allocating them."""
    network = _empty(Generator if isinstance(config, GeneratorConfig) else Discriminator, config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def check_shapes(wanted: Shapes, found: Shapes, what: str, error: MakeError) -> None:
    """Raise `error(message)` unless names and shapes are as wanted; `what` names the network."""
    if problems := _differences(wanted, found):
        raise error(f"the weights do not belong to {what} of its config. {problems}{resembles(found)}")


def check_finite(name: str, tensor: Tensor, error: MakeError) -> None:
    """Raise `error(message)` unless all values are finite."""
    if not torch.isfinite(tensor).all():
        raise error(f"{name} holds values that are not finite: it is damaged, or its training had diverged")


def resembles(names: Mapping[str, object]) -> str:
    """A guess at the model that a foreign state dict belongs to, as a sentence; may be empty."""
    for key, model in (
        ("synthesis.input.freqs", "StyleGAN3"),
        ("synthesis.b4.const", "StyleGAN2"),
        ("b4.out.weight", "a StyleGAN2 discriminator"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a diffusion model"),
    ):
        if key in names:
            return f" It looks like {model}."
    return ""


def _empty(network: Callable[..., Any], config: object) -> Any:
    """A network on the meta device: its tensors have shapes, but no memory."""
    # The random weights are replaced: the caller's random stream stays as it was.
    with torch.random.fork_rng([]), torch.device("meta"):
        return network(config)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], what: str, error: MakeError) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_shapes(wanted, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, what, error)
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in weights.items():
        check_finite(name, tensor, error)
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(False)


def _is_dead(name: str, config: GeneratorConfig) -> bool:
    """Whether no image depends on this tensor of an official state dict."""
    dead = ["synthesis.b4.input.coords", "synthesis.decoder_8."]
    if config.img_resolution > 4:
        dead.append("synthesis.b4.tores.")
    return name.startswith(tuple(dead))


def _differences(wanted: Shapes, found: Shapes) -> str:
    parts = []
    for title, names in (
        ("Missing", wanted.keys() - found.keys()),
        ("Not expected", found.keys() - wanted.keys()),
    ):
        if names:
            parts.append(f"{title}: {_some(sorted(names))}.")
    wrong = [
        f"{k} {found[k]} instead of {wanted[k]}" for k in sorted(wanted.keys() & found.keys()) if found[k] != wanted[k]
    ]
    if wrong:
        parts.append(f"Wrong shape: {_some(wrong)}.")
    return " ".join(parts)


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
