"""Editing directions found without labels: closed-form factorisation of the weights, and PCA of the styles.

SeFa: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", arXiv 2007.06600.
GANSpace: Harkonen et al., "GANSpace: Discovering Interpretable GAN Controls", arXiv 2004.02546.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from ...common.errors import require_finite
from ..checkpoints import fingerprint
from ..network import FullyConnected, Generator, ModulatedLinear
from .ranges import parse_indices, parse_layers
from .sampling import Latents

DIRECTION_METHODS = ("SeFa", "PCA", "Named")
MAX_DIRECTIONS = 512
_DEVIATION_SAMPLES = 2048
_BATCH = 1024


@dataclass(frozen=True)
class Directions:
    """Directions in w along which an image changes, the strongest first. All tensors on the CPU."""

    vectors: Tensor
    """[K, w_dim] float32, unit vectors."""
    steps: Tensor
    """[K] float32: length of a step of strength 1 along each."""
    layers: list[int]
    """Positions of the styles that they were found for and change by default."""
    method: str = ""
    fingerprint: str = ""
    name: str = ""
    """Of the generator, as in `Latents`."""
    titles: tuple[str, ...] = ()
    """The effect of each, if it is known."""

    def __len__(self) -> int:
        return len(self.vectors)


def find_directions(
    generator: Generator,
    method: str = "SeFa",
    *,
    layers: str = "all",
    count: int = 10,
    samples: int = 4096,
    seed: int = 0,
) -> Directions:
    """Find editing directions of a generator.

    `SeFa` (SeFa, section 3) returns the eigenvectors of A^T A with the largest eigenvalues, where A stacks the affine
    matrices that turn the chosen styles into scales of features, each divided by its norm so that wide layers do not
    dominate: these directions change the features most. `PCA` (GANSpace) returns the principal components of sampled
    styles: the generator itself varies most along these. `Named` returns the directions that are stored in the
    generator with a name, as in the built-in `alpenglow`, with their own steps.

    A strength of 1 is one standard deviation of sampled styles along the direction; for SeFa, whose directions may
    hardly vary in samples, at least the deviation along an average direction.

    Args:
        generator: on any device.
        method: `SeFa | PCA | Named`.
        layers: styles to analyse and to change, see `parse_layers`. The directions of PCA do not depend on them.
        count: number of directions, at most w_dim.
        samples: number of sampled styles, for PCA and for the standard deviations.
        seed: of the samples.

    Raises:
        ValueError: an argument is out of range, no weight depends on the chosen styles, or there are no named
            directions.
    """
    if method not in DIRECTION_METHODS:
        raise ValueError(f"method must be one of {list(DIRECTION_METHODS)}, not {method!r}")
    config = generator.config
    if not 1 <= count <= MAX_DIRECTIONS:
        raise ValueError(f"count must be from 1 to {MAX_DIRECTIONS}, not {count}")
    if samples < 2:
        raise ValueError(f"samples must be at least 2, not {samples}")
    chosen = parse_layers(layers, config.num_ws)
    if method == "Named":
        return _named(generator, chosen, count)
    w = sample_w(generator, samples, seed).double()
    centred = w - w.mean(0)
    covariance = centred.mT @ centred / (len(w) - 1)
    if not covariance.isfinite().all():
        raise ValueError(f"the styles of {generator.name} are not finite numbers: its weights are unusable")
    count = min(count, config.w_dim)
    vectors = _leading(covariance if method == "PCA" else _sensitivity(generator, chosen), count)
    steps = (vectors @ covariance * vectors).sum(1).clamp_min(0).sqrt()
    if method == "SeFa":
        steps = steps.clamp_min((covariance.trace() / config.w_dim).sqrt().item())
    return Directions(vectors.float(), steps.float(), chosen, method, fingerprint(generator), generator.name)


def _named(generator: Generator, layers: list[int], count: int) -> Directions:
    if not generator.directions:
        raise ValueError(f"{generator.name} has no directions with names: use SeFa or PCA")
    titles = tuple(generator.directions)[:count]
    moves = torch.stack([generator.directions[title].cpu() for title in titles])
    steps = moves.norm(dim=1)
    mark = fingerprint(generator)
    return Directions(moves / steps[:, None], steps, layers, "Named", mark, generator.name, titles)


def sample_w(generator: Generator, count: int, seed: int = 0) -> Tensor:
    """Vectors w of random latents, [count, w_dim] float32 on the CPU."""
    config, mapping = generator.config, generator.mapping
    device = mapping.w_avg.device
    rng = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, 2])
    parts = []
    with torch.no_grad():
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            z = torch.from_numpy(rng.randn(size, config.z_dim).astype(np.float32))
            c = None
            if generator.labels is not None:
                c = generator.labels.sample(rng, size, config.c_dim).to(device)
            elif config.c_dim:
                c = torch.eye(config.c_dim)[torch.from_numpy(rng.randint(config.c_dim, size=size))].to(device)
            parts.append(mapping(z.to(device), c)[:, 0].cpu())
    return torch.cat(parts)


def edit(
    latents: Latents,
    directions: Directions,
    strengths: Mapping[int, float],
    layers: str = "",
) -> Latents:
    """Move latents along directions.

    Args:
        latents: N of them.
        directions: K of the same generator, or of one that it was fine-tuned from.
        strengths: index of a direction -> distance, in `Directions.steps`.
        layers: styles to change, see `parse_layers`; empty: those that the directions were found for.

    Raises:
        ValueError: the directions do not match the latents, there is no such direction, or `layers` cannot be parsed.
    """
    chosen = _check(latents, directions, layers)
    ws = latents.ws.clone()
    for index, strength in strengths.items():
        require_finite("strength", strength)
        if not 0 <= index < len(directions):
            raise ValueError(f"there is no direction {index}: there are {len(directions)}, counted from 0")
        ws[:, chosen] += strength * directions.steps[index] * directions.vectors[index]
    return latents.derived(ws, seeds=latents.seeds, labels=latents.labels, grid=latents.grid)


def direction_strip(
    latents: Latents,
    directions: Directions,
    indices: str = "0:5",
    *,
    reach: float = 3.0,
    columns: int = 7,
    layers: str = "",
) -> Latents:
    """Show the effect of directions: a table with a row per latent and direction, and strengths from -reach to reach.

    Args:
        latents, directions, layers: see `edit`.
        indices: of directions, see `parse_indices`.
        reach: the largest strength.
        columns: number of strengths; if it is odd, the middle one is 0.

    Raises:
        ValueError: as `edit` and `parse_indices`, or there are fewer than two columns.
    """
    chosen = _check(latents, directions, layers)
    if columns < 2:
        raise ValueError(f"a strip needs at least two columns, not {columns}")
    require_finite("reach", reach)
    order = parse_indices(indices, len(directions))
    strengths = torch.linspace(-reach, reach, columns)
    moves = strengths[:, None] * (directions.vectors * directions.steps[:, None])[order, None]  # [D, S, w_dim]
    ws = repeat(latents.ws, "n layer w -> n row column layer w", row=len(order), column=columns).clone()
    ws[..., chosen, :] += moves[:, :, None]
    several = len(latents) > 1
    rows = [f"{f'{title}, ' * several}{_title(directions, i)}" for title in latents.titles() for i in order]
    heads = [f"{strength:+.3g}" if strength else "0" for strength in strengths.tolist()]
    labels = [f"{row}: {head}" for row in rows for head in heads]
    ws = rearrange(ws, "n row column layer w -> (n row column) layer w")
    return latents.derived(ws, labels=labels, grid=(rows, heads))


def _title(directions: Directions, index: int) -> str:
    return directions.titles[index] if directions.titles else f"direction {index}"


def style_matrices(generator: Generator, layer: int) -> list[FullyConnected]:
    """The affine layers that read the style at position `layer`: weights [features, w_dim] each."""
    synthesis, config = generator.synthesis, generator.config
    found = [synthesis.b4.input.affine] if layer == 0 else []
    for i, level in enumerate(config.levels):
        k = layer - max(2 * i - 1, 1)
        children = getattr(synthesis, f"b{level}").children()
        modulated = [child for child in children if isinstance(child, ModulatedLinear)]  # in the order of their styles
        if 0 <= k < len(modulated):
            found.append(modulated[k].affine)
    if layer == config.num_ws - 1:
        for block in (synthesis.block0, synthesis.block1):
            found += [block.fc0.affine, block.fc1.affine, block.tores.affine]
    return found


def _sensitivity(generator: Generator, layers: Sequence[int]) -> Tensor:
    """A^T A, [w_dim, w_dim] float64."""
    total = torch.zeros((generator.config.w_dim,) * 2, dtype=torch.float64)
    for layer in layers:
        for affine in style_matrices(generator, layer):
            weight = affine.weight.detach().to("cpu", torch.float64)
            if norm := weight.square().sum().item():
                total += weight.mT @ weight / norm
    if not total.isfinite().all():
        raise ValueError(f"the weights of {generator.name} are unusable: they overflow")
    if not total.any():
        raise ValueError(f"no weight of {generator.name} depends on the styles {list(layers)}: choose others")
    return total


def _leading(matrix: Tensor, count: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues, [count, n], signed so that the largest entry of each is positive."""
    vectors = torch.linalg.eigh(matrix).eigenvectors.mT.flip(0)[:count]
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


def _check(latents: Latents, directions: Directions, layers: str) -> list[int]:
    num_ws, w_dim = latents.ws.shape[1:]
    if directions.vectors.shape[1] != w_dim:
        raise ValueError(
            f"these directions ({directions.name}) have {directions.vectors.shape[1]} numbers, the styles "
            f"({latents.name}) {w_dim}: they belong to different generators"
        )
    chosen = parse_layers(layers, num_ws) if layers.strip() else directions.layers
    if max(chosen) >= num_ws:
        raise ValueError(
            f"these directions ({directions.name}) are for styles up to {max(chosen)}, and the latents "
            f"({latents.name}) have {num_ws}: name the styles to change"
        )
    return chosen
