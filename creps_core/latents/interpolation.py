"""Ways through the space of latents: between keys, and random ones that return to where they began."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..network import Generator, Label
from ..rendering import render
from .sampling import Latents, Origin, check_belongs, from_origin, sample_latents

CURVES = ("linear", "spherical", "cubic")
SPACES = ("z", "ws")
MAX_FRAMES = 1 << 16

_EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda t: t,
    "smooth": lambda t: t * t * (3 - 2 * t),
    "ease-in": lambda t: t * t,
    "ease-out": lambda t: t * (2 - t),
}
EVEN = "even"
EASINGS = (*_EASINGS, EVEN)
_LOOK = 48  # side of the pictures by which an even pace is found
_LOOKS = 2, 1024  # per frame, and about how many at most
_PORTION = 64  # at a time


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
    """A path through some latents.

    Args:
        generator: the one that they belong to.
        keys: K latents, which the path passes in their order; at least two.
        frames: per segment, from one key to the next. An open path has `(K - 1) * frames + 1` latents, the last key
            included; a closed one `K * frames`, and its first latent follows its last as any other.
        space: `ws` blends the styles, directly from picture to picture; `z` goes through the mapping, so that every
            latent on the way is as likely as a sampled one.
        curve: see `path`.
        easing: see `path`, or `even`: the pictures change by about as much in every step (found by looking at
            small ones). The path as a whole is timed so: a key is near a frame, not one.
        closed: return to the first key.

    Raises:
        ValueError: an argument is out of range, or `space` is z and the latents have none.
    """
    if space not in SPACES:
        raise ValueError(f"space must be one of {list(SPACES)}, not {space!r}")
    check_belongs(generator, keys)
    if space == "z" and keys.origin is None:
        raise ValueError(
            "these latents have no z: they were averaged, mixed, edited, projected or moved towards one another. "
            "Interpolate them in ws, or use latents as they were sampled"
        )
    if easing == EVEN:
        times = _even_times(generator, keys, frames, space, curve, closed)
        return _through(generator, keys, space, curve, closed, times)
    return _through(generator, keys, space, curve, closed, _times(len(keys), frames, easing, closed))


def _through(generator: Generator, keys: Latents, space: str, curve: str, closed: bool, times: Tensor) -> Latents:
    if space == "ws":
        centre = generator.mapping.w_avg.to("cpu") if curve == "spherical" else None
        return keys.derived(_at(keys.ws, times, curve, closed, centre))
    origin = keys.origin
    assert origin is not None
    on_the_way = Origin(  # labels, and how much to truncate, are no points in a space
        _at(origin.z, times, curve, closed),
        _at(origin.psi, times, "linear", closed),
        None if origin.c is None else _at(origin.c, times, "linear", closed),
    )
    return keys.derived(from_origin(generator, on_the_way), origin=on_the_way)


def _even_times(generator: Generator, keys: Latents, frames: int, space: str, curve: str, closed: bool) -> Tensor:
    """Moments of the frames at which a path has come the same way on, as its pictures go."""
    wanted = _times(len(keys), frames, "linear", closed)
    segments = len(keys) if closed else len(keys) - 1
    per_frame, most = _LOOKS
    looks = min(per_frame * frames, max(most // segments, per_frame))
    moments = torch.arange(segments * looks + 1, dtype=torch.float64) / looks
    way = [torch.zeros(1, dtype=torch.float64)]
    last = None
    for portion in moments.split(_PORTION):
        ws = _through(generator, keys, space, curve, closed, portion).ws
        seen = render(generator, ws, height=_LOOK, width=_LOOK, supersample=2).clamp(-1, 1).cpu().double()
        seen = seen if last is None else torch.cat([last, seen])
        way.append(seen.diff(dim=0).square().mean((1, 2, 3)).sqrt())
        last = seen[-1:]
    length = torch.cat(way).cumsum(0)
    if length[-1] == 0:
        return wanted
    goals = torch.arange(len(wanted), dtype=torch.float64) * (length[-1] / (segments * frames))
    return torch.from_numpy(np.interp(goals.numpy(), length.numpy(), moments.numpy()))


def path(
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
        frames: points per segment; the key at its end belongs to the next.
        curve: `linear`; `spherical`, along great circles around `centre`, the distance from it changing evenly;
            `cubic`, which passes the keys without a corner (Catmull-Rom: the tangent at a key is half the way from
            the key before to the key after).
        easing: how fast a segment is passed: `linear` evenly, `smooth` slowly at both ends, `ease-in` slowly at its
            beginning, `ease-out` at its end.
        closed: return to the first key.
        centre: [D], of the sphere; None for the origin.

    Returns:
        [F, ..., D] with F = K * frames if closed, else (K - 1) * frames + 1.

    Raises:
        ValueError: an argument is out of range.
    """
    return _at(keys, _times(len(keys), frames, easing, closed), curve, closed, centre)


def _times(count: int, frames: int, easing: str, closed: bool) -> Tensor:
    """When the frames are, in segments: [F] float64."""
    if easing not in _EASINGS:
        raise ValueError(f"easing must be one of {list(EASINGS)}, not {easing!r}")
    if count < 2:
        raise ValueError(f"a path needs at least two latents, not {count}")
    segments = count if closed else count - 1
    if frames < 1 or segments * frames > MAX_FRAMES:
        raise ValueError(f"{segments} segments of {frames} frames: from 1 to {MAX_FRAMES} in all are possible")
    t = _EASINGS[easing](torch.arange(frames, dtype=torch.float64) / frames)
    times = (torch.arange(segments, dtype=torch.float64)[:, None] + t).flatten()
    return times if closed else torch.cat([times, times.new_tensor([segments])])


def _at(keys: Tensor, times: Tensor, curve: str, closed: bool, centre: Tensor | None = None) -> Tensor:
    """Points of a curve through keys [K, ..., D] at times, in segments; a closed one ends where it began."""
    if curve not in CURVES:
        raise ValueError(f"curve must be one of {list(CURVES)}, not {curve!r}")
    count = len(keys)
    if closed:
        around = torch.stack([keys[(i - 1) % count] for i in range(count + 3)])
    else:  # a straight run into the first key and out of the last
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
    """A random way that ends where it began.

    In z every coordinate is a periodic Gaussian process (its Fourier series has random coefficients, as strong as
    the kernel exp(-(lag / smoothness)^2 / 2) says): at every moment z is distributed as if it had been sampled.

    Args:
        generator: it is for.
        seed: of the walk, and of the latent that it stays near when `reach` is below 1.
        frames: of the loop.
        smoothness: after so many frames little likeness is left; the larger, the slower the walk.
        reach: 1 walks freely, 0 stands still at the latent of the seed.
        label, truncation_psi, truncation_cutoff: see `sample`.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 1 <= frames <= MAX_FRAMES:
        raise ValueError(f"frames must be from 1 to {MAX_FRAMES}, not {frames}")
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
    """A smooth loop of noise, [frames, dims] float32: every value is normally distributed with variance 1."""
    k = np.arange(frames // 2 + 1)
    # The spectrum of the kernel; both its ends count once, the others stand for k and -k.
    power = np.exp(-2 * (math.pi * smoothness / frames * k) ** 2)
    power /= power[0] + 2 * power[1:].sum()
    rng = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, 1])  # not the stream of the seed's own latent
    phase = 2 * math.pi * np.outer(np.arange(frames), k) / frames
    scale = np.sqrt(np.where(k == 0, 1, 2) * power)[:, None]
    a, b = rng.randn(2, len(k), dims) * scale
    return torch.from_numpy((np.cos(phase) @ a + np.sin(phase) @ b).astype(np.float32))


def _segment(keys: list[Tensor], t: Tensor, curve: str, centre: Tensor | None) -> Tensor:
    """Points t [F, 1...] of the way from the second of four keys to the third."""
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
    # Without a plane to turn in (the same direction, or the opposite one) the way is straight.
    direction = torch.where(sine > 1e-4, turned, torch.lerp(unit_a, unit_b, t))
    return centre + direction * torch.lerp(length_a, length_b, t)
