"""Paths through latent space: interpolation between keys, and random walks in a loop."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..network import Generator, Label
from ..rendering import EASINGS, render
from .sampling import Latents, Origin, check_belongs, from_origin, sample_latents

CURVES = ("linear", "spherical", "cubic")
INTERPOLATION_SPACES = ("ws", "z")
MAX_LATENT_FRAMES = 1 << 16

_SEGMENT_EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": EASINGS["linear"],
    "smooth": EASINGS["ease in and out"],
    "ease-in": EASINGS["ease in"],
    "ease-out": EASINGS["ease out"],
}
EVEN = "even"
LATENT_EASINGS = (*_SEGMENT_EASINGS, EVEN)
"""Easings of a segment between two keys; `even` is one of the path as a whole, see `interpolate`."""
_PROBE_SIDE = 48  # of the images that the distances of an even path are measured on
_PROBES_PER_FRAME, _MAX_PROBES = 2, 1024
_BATCH = 64


def interpolate(
    generator: Generator,
    keys: Latents,
    *,
    frames: int,
    space: str = "ws",
    curve: str = "cubic",
    easing: str = "linear",
    closed: bool = False,
) -> Latents:
    """Interpolate between latents.

    Args:
        generator: of the latents.
        keys: K latents, which the path passes in this order; at least two.
        frames: per segment, from one key to the next. An open path has `(K - 1) * frames + 1` latents, including the
            last key; a closed path has `K * frames`, and its last latent leads to its first.
        space: `ws` interpolates the styles; `z` interpolates z and applies the mapping network, so that every latent on
            the path is as likely as a sampled one.
        curve: see `latent_curve`.
        easing: see `latent_curve`; or `even`, which changes the image by about the same amount in every step (measured
            on small renders, in RMS). It times the path as a whole, so a key lies near a frame, not exactly on one.
        closed: return to the first key.

    Raises:
        ValueError: an argument is out of range, or `space` is z and the latents have none.
    """
    if space not in INTERPOLATION_SPACES:
        raise ValueError(f"space must be one of {list(INTERPOLATION_SPACES)}, not {space!r}")
    check_belongs(generator, keys)
    if space == "z" and keys.origin is None:
        raise ValueError(
            "these latents have no z: they were averaged, mixed, edited, projected or moved towards one another. "
            "Interpolate them in ws, or use latents as they were sampled"
        )
    if easing == EVEN:
        times = _even_times(generator, keys, frames, space, curve, closed)
    else:
        times = _times(len(keys), frames, easing, closed)
    return _latents_at(generator, keys, space, curve, closed, times)


def _latents_at(generator: Generator, keys: Latents, space: str, curve: str, closed: bool, times: Tensor) -> Latents:
    if space == "ws":
        centre = generator.mapping.w_avg.to("cpu") if curve == "spherical" else None
        return keys.derived(_at(keys.ws, times, curve, closed, centre))
    origin = keys.origin
    assert origin is not None
    path = Origin(  # labels and truncation are always interpolated linearly
        _at(origin.z, times, curve, closed),
        _at(origin.psi, times, "linear", closed),
        None if origin.c is None else _at(origin.c, times, "linear", closed),
    )
    return keys.derived(from_origin(generator, path), origin=path)


def _even_times(generator: Generator, keys: Latents, frames: int, space: str, curve: str, closed: bool) -> Tensor:
    """Times of frames between which the image changes by equal amounts, [F] float64, in segments."""
    linear = _times(len(keys), frames, "linear", closed)
    segments = len(keys) if closed else len(keys) - 1
    probes = min(_PROBES_PER_FRAME * frames, max(_MAX_PROBES // segments, _PROBES_PER_FRAME))
    times = torch.arange(segments * probes + 1, dtype=torch.float64) / probes
    distances = [torch.zeros(1, dtype=torch.float64)]
    last = None
    for batch in times.split(_BATCH):
        ws = _latents_at(generator, keys, space, curve, closed, batch).ws
        images = render(generator, ws, height=_PROBE_SIDE, width=_PROBE_SIDE, supersample=2)
        images = images.clamp(-1, 1).cpu().double()
        images = images if last is None else torch.cat([last, images])
        distances.append(images.diff(dim=0).square().mean((1, 2, 3)).sqrt())
        last = images[-1:]
    length = torch.cat(distances).cumsum(0)
    if length[-1] == 0:
        return linear
    goals = torch.arange(len(linear), dtype=torch.float64) * (length[-1] / (segments * frames))
    return torch.from_numpy(np.interp(goals.numpy(), length.numpy(), times.numpy()))


def latent_curve(
    keys: Tensor,
    *,
    frames: int,
    curve: str = "cubic",
    easing: str = "linear",
    closed: bool = False,
    centre: Tensor | None = None,
) -> Tensor:
    """Points on a curve through keys.

    Args:
        keys: [K, ..., D], K >= 2.
        frames: points per segment; the key at the end of a segment belongs to the next one.
        curve: `linear`; `spherical`, along great circles around `centre`, while the distance from it is interpolated
            linearly; `cubic`, smooth at the keys (Catmull-Rom spline: the tangent at a key is half the difference of
            its neighbours).
        easing: speed within a segment: `linear` is constant, `smooth` slow at both ends, `ease-in` slow at the start,
            `ease-out` slow at the end.
        closed: return to the first key.
        centre: [D], of the sphere; None for the origin.

    Returns:
        [F, ..., D] with F = K * frames if closed, else (K - 1) * frames + 1.

    Raises:
        ValueError: an argument is out of range.
    """
    return _at(keys, _times(len(keys), frames, easing, closed), curve, closed, centre)


def _times(count: int, frames: int, easing: str, closed: bool) -> Tensor:
    """Times of the frames, [F] float64, in segments."""
    if easing not in _SEGMENT_EASINGS:
        raise ValueError(f"easing must be one of {list(LATENT_EASINGS)}, not {easing!r}")
    if count < 2:
        raise ValueError(f"a path needs at least two latents, not {count}")
    segments = count if closed else count - 1
    if frames < 1 or segments * frames > MAX_LATENT_FRAMES:
        raise ValueError(f"{segments} segments of {frames} frames: from 1 to {MAX_LATENT_FRAMES} in all are possible")
    t = _SEGMENT_EASINGS[easing](torch.arange(frames, dtype=torch.float64) / frames)
    times = (torch.arange(segments, dtype=torch.float64)[:, None] + t).flatten()
    return times if closed else torch.cat([times, times.new_tensor([segments])])


def _at(keys: Tensor, times: Tensor, curve: str, closed: bool, centre: Tensor | None = None) -> Tensor:
    """Points of a curve through keys [K, ..., D] at times [F] in segments; a closed curve returns to its first key."""
    if curve not in CURVES:
        raise ValueError(f"curve must be one of {list(CURVES)}, not {curve!r}")
    count = len(keys)
    if closed:
        around = torch.stack([keys[(i - 1) % count] for i in range(count + 3)])
    else:  # straight into the first key and out of the last
        around = torch.cat([2 * keys[:1] - keys[1:2], keys, 2 * keys[-1:] - keys[-2:-1]])
    segments = len(around) - 3
    number = times.floor().long().clamp(0, segments - 1)
    t = (times - number).to(keys.dtype).view(-1, *[1] * (keys.ndim - 1))
    return _segment([around[number + i] for i in range(4)], t, curve, centre)


def random_walk(
    generator: Generator,
    seed: int,
    *,
    frames: int,
    smoothness: float,
    reach: float = 1.0,
    label: Label | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
) -> Latents:
    """A random walk in a closed loop.

    Every coordinate of z is a periodic Gaussian process with the covariance exp(-(lag / smoothness)^2 / 2), as a
    Fourier series with random coefficients: each z on the walk has the distribution of a sampled one.

    Args:
        generator: to walk through.
        seed: of the walk, and of the latent that it stays near if `reach` is below 1.
        frames: of the loop.
        smoothness: standard deviation of the covariance, in frames; the larger, the slower the walk.
        reach: 1 walks freely, 0 stays at the latent of the seed.
        label, truncation_psi, truncation_cutoff: see `sample`.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 1 <= frames <= MAX_LATENT_FRAMES:
        raise ValueError(f"frames must be from 1 to {MAX_LATENT_FRAMES}, not {frames}")
    if not (smoothness > 0 and math.isfinite(smoothness)):
        raise ValueError(f"smoothness must be a positive number of frames, not {smoothness}")
    if not 0 <= reach <= 1:
        raise ValueError(f"reach must be from 0 to 1, not {reach}")
    truncation = {"truncation_psi": truncation_psi, "truncation_cutoff": truncation_cutoff}
    home = sample_latents(generator, [seed], label=label, **truncation)
    origin = home.origin
    assert origin is not None
    walk = periodic_noise(seed, frames, smoothness, generator.config.z_dim)
    z = math.sqrt(1 - reach**2) * origin.z + reach * walk
    c = None if origin.c is None else origin.c.expand(frames, -1)
    origin = Origin(z, origin.psi.expand(frames, -1), c)
    return home.derived(from_origin(generator, origin), origin=origin)


def periodic_noise(seed: int, frames: int, smoothness: float, dims: int) -> Tensor:
    """Smooth periodic noise, [frames, dims] float32: every value is normally distributed with variance 1."""
    k = np.arange(frames // 2 + 1)
    # The spectrum of the covariance. The first and last terms count once, the others for both k and -k.
    power = np.exp(-2 * (math.pi * smoothness / frames * k) ** 2)
    power /= power[0] + 2 * power[1:].sum()
    rng = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, 1])  # another stream than that of the seed's latent
    phase = 2 * math.pi * np.outer(np.arange(frames), k) / frames
    scale = np.sqrt(np.where(k == 0, 1, 2) * power)[:, None]
    a, b = rng.randn(2, len(k), dims) * scale
    return torch.from_numpy((np.cos(phase) @ a + np.sin(phase) @ b).astype(np.float32))


def _segment(keys: list[Tensor], t: Tensor, curve: str, centre: Tensor | None) -> Tensor:
    """Points between the second and the third of four keys, at t [F, 1...] in 0..1."""
    before, a, b, after = keys
    if curve == "linear":
        return torch.lerp(a, b, t)
    if curve == "spherical":
        return _great_circle(a, b, t, torch.zeros_like(a[..., :1]) if centre is None else centre)
    bend = torch.lerp(before - 2 * a + b, a - 2 * b + after, t)
    return torch.lerp(a, b, t) + t * (t - 1) / 2 * bend


def _great_circle(a: Tensor, b: Tensor, t: Tensor, centre: Tensor) -> Tensor:
    a, b = a - centre, b - centre
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
    cosine = (unit_a * unit_b).sum(-1, keepdim=True).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = angle.sin()
    turned = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / sine.clamp_min(1e-6)
    # Equal and opposite directions define no plane to rotate in: interpolate linearly.
    direction = torch.where(sine > 1e-4, turned, torch.lerp(unit_a, unit_b, t))
    return centre + direction * torch.lerp(length_a, length_b, t)
