"""Seeds -> latents z -> style vectors ws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...common.errors import require_finite
from ..checkpoints import fingerprint
from ..network import Generator, Label, label_vector, truncate

MAX_SEED = (1 << 64) - 1


@dataclass(frozen=True)
class Origin:
    """The inputs of the mapping network for ws: `ws == torch.lerp(w_avg, mapping(z, c), psi[..., None])`."""

    z: Tensor  # [N, z_dim] float32
    psi: Tensor  # [N, num_ws] float32: truncation of each style, 1 for none
    c: Tensor | None = None  # [N, c_dim] float32, of a generator with classes

    def __getitem__(self, index: list[int]) -> Origin:
        return Origin(self.z[index], self.psi[index], None if self.c is None else self.c[index])


@dataclass(frozen=True)
class Latents:
    """A batch of N latents, all tensors on the CPU."""

    ws: Tensor
    """[N, num_ws, w_dim] float32, the style vectors: all that rendering needs."""
    seeds: list[int] = field(default_factory=list)
    """One per latent; empty if the latents do not come from seeds, or were changed since."""
    fingerprint: str = ""
    """Of the generator that they belong to (see `checkpoints.fingerprint`); empty if it is unknown."""
    name: str = ""
    """Of that generator, for messages."""
    origin: Origin | None = None
    """For work in z; None if there is no z: after averaging, mixing, editing or projection."""
    labels: list[str] = field(default_factory=list)
    """One per latent, written below its image on a contact sheet. Empty: the seeds are."""
    grid: tuple[list[str], list[str]] | None = None
    """Titles of rows and columns if the batch is a table, stored row by row."""

    def __len__(self) -> int:
        return len(self.ws)

    def titles(self) -> list[str]:
        """A title of each latent: its label, else its seed, else its index in the batch."""
        if self.labels:
            return list(self.labels)
        return [f"seed {seed}" for seed in self.seeds] or [f"#{i}" for i in range(len(self))]

    def derived(self, ws: Tensor, **fields: Any) -> Latents:
        """A copy with other styles of the same generator; seeds, origin, labels and grid are dropped unless given."""
        return dataclasses.replace(
            self, **{"ws": ws, "seeds": [], "origin": None, "labels": [], "grid": None, **fields}
        )


def seed_to_z(seed: int, z_dim: int) -> Tensor:
    """The latent z of a seed, [z_dim] float32, normally distributed.

    Below 2^32 it is `numpy.random.RandomState(seed).randn(z_dim)`, as in the authors' tools, so a seed gives the
    same image there and here. Larger seeds, up to 2^64 - 1, seed the same random generator with the pair
    (low 32 bits, high 32 bits).

    Raises:
        ValueError: the seed is not a whole number from 0 to 2^64 - 1.
    """
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
    key = seed if seed < 1 << 32 else [seed & 0xFFFFFFFF, seed >> 32]
    return torch.from_numpy(np.random.RandomState(key).randn(z_dim).astype(np.float32))


def sample(
    generator: Generator,
    seeds: Sequence[int],
    *,
    label: Label | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Tensor:
    """Sample style vectors ws, [len(seeds), num_ws, w_dim] float32 on the generator's device.

    Args:
        generator: the generator that will render them.
        seeds: see `seed_to_z`.
        label: the index or name of a class, or the numbers of a label; a generator without labels ignores it. None
            draws a label by the seed, with its frequency among the training images; if that is unknown, as for official
            checkpoints, it is `seed % classes`.
        truncation_psi, truncation_cutoff: see `Mapping.forward`.

    Raises:
        ValueError: a seed or the label is out of range.
    """
    z, c = seeds_to_inputs(generator, seeds, label)
    device = generator.mapping.w_avg.device
    c = None if c is None else c.to(device)
    with torch.no_grad():
        return generator.mapping(z.to(device), c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)


def seeds_to_inputs(
    generator: Generator, seeds: Sequence[int], label: Label | None = None
) -> tuple[Tensor, Tensor | None]:
    """z [N, z_dim] and label vectors c [N, c_dim] (None for a generator without labels) of seeds; see `sample`."""
    config = generator.config
    z = torch.stack([seed_to_z(seed, config.z_dim) for seed in seeds])
    if not config.c_dim:
        return z, None
    known = generator.labels
    if label is not None:
        return z, label_vector(label, config.c_dim, known).repeat(len(z), 1)
    if known is not None:
        return z, torch.stack([known.draw(seed, config.c_dim) for seed in seeds])
    return z, torch.stack([label_vector(seed % config.c_dim, config.c_dim, None) for seed in seeds])


def sample_latents(
    generator: Generator,
    seeds: Sequence[int],
    *,
    label: Label | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Latents:
    """`sample`, returned with what later operations on latents need. Arguments and errors as there."""
    truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
    ws = sample(generator, seeds, label=label, **truncation).cpu()
    z, c = seeds_to_inputs(generator, seeds, label)
    psi = torch.ones(ws.shape[:2])
    psi[:, :truncation_cutoff] = truncation_psi
    latents = Latents(ws, list(seeds), fingerprint(generator), generator.name, Origin(z, psi, c))
    if c is None or generator.labels is None or not generator.labels.names:
        return latents
    titles = [f"seed {seed}, {generator.labels.title(row)}" for seed, row in zip(seeds, c, strict=True)]
    return dataclasses.replace(latents, labels=titles)


def from_origin(generator: Generator, origin: Origin) -> Tensor:
    """The styles ws [N, num_ws, w_dim] of an origin, on the CPU.

    Raises:
        ValueError: it belongs to another generator: the shapes differ.
    """
    mapping = generator.mapping
    device = mapping.w_avg.device
    if origin.psi.shape[1] != generator.config.num_ws:
        raise ValueError(
            f"these latents have {origin.psi.shape[1]} styles, {generator.name} has {generator.config.num_ws}: "
            "they belong to another generator"
        )
    with torch.no_grad():
        ws = mapping(origin.z.to(device), None if origin.c is None else origin.c.to(device))
        return torch.lerp(mapping.w_avg.to(device), ws, origin.psi.to(device)[..., None]).cpu()


def truncate_latents(
    generator: Generator, latents: Latents, psi: float, cutoff: int | None = None, towards: Latents | None = None
) -> Latents:
    """Move latents towards the average latent, or towards a given one.

    Args:
        generator: of the latents; its w_avg is the average.
        latents: N of them.
        psi: 1 leaves the latents unchanged, 0 moves them all the way; values outside 0..1 are allowed.
        cutoff: number of styles to move, from the first; None for all.
        towards: one latent, or N, one for each; None for the average. The result of a given one has no z.

    Raises:
        ValueError: the shapes or the numbers of latents do not match.
    """
    check_belongs(generator, latents)
    require_finite("psi", psi)
    if towards is None:
        ws = truncate(latents.ws, generator.mapping.w_avg.to("cpu"), psi, cutoff)
        origin = latents.origin
        if origin is not None:
            factor = torch.ones(origin.psi.shape[1])
            factor[:cutoff] = psi
            origin = dataclasses.replace(origin, psi=origin.psi * factor)
        return dataclasses.replace(latents, ws=ws, origin=origin)
    check_belongs(generator, towards)
    if len(towards) not in (1, len(latents)):
        raise ValueError(f"give one latent to move towards, or {len(latents)}, one for each, not {len(towards)}")
    ws = latents.ws.clone()
    ws[:, :cutoff] = torch.lerp(towards.ws[:, :cutoff], latents.ws[:, :cutoff], psi)
    return dataclasses.replace(latents, ws=ws, origin=None)


def check_belongs(generator: Generator, latents: Latents) -> None:
    """Raise ValueError unless the shape of the latents is that of the generator's styles."""
    config = generator.config
    if latents.ws.ndim != 3 or tuple(latents.ws.shape[1:]) != (config.num_ws, config.w_dim):
        whose = f"of {latents.name} " if latents.name else ""
        raise ValueError(
            f"these latents {whose}have the shape {list(latents.ws.shape)}, but {generator.name} has "
            f"{config.num_ws} styles of {config.w_dim} numbers: latents belong to the generator they were made with"
        )
