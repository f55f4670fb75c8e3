"""Batches of latents: select, reorder, repeat, concatenate, average."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .ranges import parse_indices
from .sampling import Latents, Origin


def select(latents: Latents, indices: Sequence[int] | str, repeat: int = 1) -> Latents:
    """Select latents of a batch, in any order.

    Args:
        latents: N of them.
        indices: positions 0..N-1, in any order, any number of times; or a text for `parse_indices`.
        repeat: how many times to repeat the whole selection.

    Raises:
        ValueError: a position is outside the batch, or there is none.
    """
    if isinstance(indices, str):
        indices = parse_indices(indices, len(latents))
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat}")
    if not indices or not all(0 <= i < len(latents) for i in indices):
        raise ValueError(f"{list(indices)} are not positions in a batch of {len(latents)}")
    order = list(indices) * repeat
    return latents.derived(
        latents.ws[order],
        seeds=[latents.seeds[i] for i in order] if latents.seeds else [],
        labels=[latents.labels[i] for i in order] if latents.labels else [],
        origin=None if latents.origin is None else latents.origin[order],
    )


def concatenate(batches: Sequence[Latents]) -> Latents:
    """Concatenate batches. The result has seeds, z and a generator's fingerprint only if all batches have them.

    Raises:
        ValueError: there is no batch, or the shapes of the styles differ: different generators.
    """
    check_alike(batches)
    ws = torch.cat([batch.ws for batch in batches])
    known = all(batch.seeds for batch in batches)
    named = any(batch.labels for batch in batches)
    return Latents(
        ws,
        seeds=[seed for batch in batches for seed in batch.seeds] if known else [],
        fingerprint=_common([batch.fingerprint for batch in batches]),
        name=_common([batch.name for batch in batches]),
        origin=_concatenated([batch.origin for batch in batches]),
        labels=[title for batch in batches for title in batch.titles()] if named or not known else [],
    )


def average_latents(latents: Latents) -> Latents:
    """The mean of a batch in ws, a batch of one latent."""
    return latents.derived(latents.ws.mean(0, keepdim=True), labels=[f"mean of {len(latents)}"])


def check_alike(batches: Sequence[Latents]) -> None:
    """Raise ValueError unless there is a batch, and all batches have styles of one shape."""
    if not batches:
        raise ValueError("there are no latents")
    shapes = {tuple(batch.ws.shape[1:]): batch.name or "a generator" for batch in batches}
    if len(shapes) > 1:
        parts = [f"{styles} styles of {size} numbers ({name})" for (styles, size), name in shapes.items()]
        raise ValueError(f"these latents belong to different generators: {' and '.join(parts)}")


def _common(texts: Sequence[str]) -> str:
    """The text if all are equal; empty if they differ."""
    return texts[0] if len(set(texts)) == 1 else ""


def _concatenated(origins: Sequence[Origin | None]) -> Origin | None:
    present = [origin for origin in origins if origin is not None]
    labelled = [origin.c for origin in present if origin.c is not None]
    if len(present) < len(origins) or len(labelled) not in (0, len(present)):
        return None
    if len({origin.z.shape[1] for origin in present}) > 1:
        return None
    return Origin(
        torch.cat([origin.z for origin in present]),
        torch.cat([origin.psi for origin in present]),
        torch.cat(labelled) if labelled else None,
    )
