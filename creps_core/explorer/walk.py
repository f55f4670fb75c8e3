"""Turn shots into latents: the latent of the seed, moved along the directions of the pad."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

from ...common.cache import LruCache
from ..latents import DIRECTION_METHODS, Directions, Latents, edit, find_directions, sample, sample_latents
from ..network import Generator
from ..rendering import EASINGS, View, between
from .scene import Keyframe, Scene, Shot, Walk

_CACHED = 64  # latents and pairs of directions, a few KB each
_NOT_LINKED = "no directions are linked: link CREPS Directions and run once, or choose another walk"
_SAMPLES = 1024  # for the length of a step, to half a percent

T = TypeVar("T")


class Walker:
    """Latents of shots from one generator; recent latents and directions are cached, as a drag asks for them again.

    Args:
        generator: on any device.
        linked: directions for walks of kind `linked`.
    """

    generator: Generator
    linked: Directions | None

    def __init__(self, generator: Generator, linked: Directions | None = None):
        self.generator, self.linked = generator, linked
        self._cache = LruCache[Hashable, Any](_CACHED)

    def latents(self, shot: Shot) -> Latents:
        """The latent of a shot (one, on the CPU).

        Raises:
            ValueError: the class or the directions do not exist.
        """
        label = self._label(shot)
        latents = self._cached(
            ("latent", shot.seed, shot.psi, label),
            lambda: sample_latents(self.generator, [shot.seed], label=label, truncation_psi=shot.psi),
        )
        walk = shot.walk
        if walk.x or walk.y:
            latents = edit(latents, self._directions(shot), {0: walk.x, 1: walk.y}, walk.layers)
        return edit(latents, self._third(walk), {0: walk.z}, walk.layers) if walk.z else latents

    def film(self, scene: Scene) -> tuple[Latents, list[View]]:
        """A latent and a view per frame of the film, at `frame_times`; without a film, those of the scene's shot."""
        frames = [self.at(scene, time) for time in frame_times(scene)]
        first = frames[0][0]
        if len(frames) == 1:
            return first, [frames[0][1]]
        return first.derived(torch.cat([latents.ws for latents, _ in frames])), [view for _, view in frames]

    def at(self, scene: Scene, time: float | None) -> tuple[Latents, View]:
        """The latent and the view at a time of the film in seconds; those of the scene's shot without a film or time.

        Raises:
            ValueError: see `latents`.
        """
        if time is None or not scene.legs:
            return self.latents(scene.shot), scene.shot.view
        first, second, t = _position(scene, time)
        a, b = self.latents(first.shot), self.latents(second.shot)
        t = EASINGS[scene.easing](t)
        if t in (0.0, 1.0):
            return (a, first.shot.view) if t == 0.0 else (b, second.shot.view)
        return a.derived(torch.lerp(a.ws, b.ws, t)), between(first.shot.view, second.shot.view, t)

    def _label(self, shot: Shot) -> int | None:
        classes = self.generator.config.c_dim
        return shot.label if classes and shot.label >= 0 else None

    def _directions(self, shot: Shot) -> Directions:
        walk = shot.walk
        if walk.kind == "random":
            return self._cached(("random", walk.number), lambda: self._random(walk.number))
        if walk.kind == "seeds":
            return self._to_seeds(shot)
        if walk.kind == "linked":
            if self.linked is None:
                raise ValueError(_NOT_LINKED)
            return _slice(self.linked, 2 * walk.number, 2)
        return _slice(self._found(walk, 2 * walk.number + 2), 2 * walk.number, 2)

    def _found(self, walk: Walk, count: int) -> Directions:
        """The first `count` directions, or all if there are fewer."""
        count = min(count, self.generator.config.w_dim)
        kind = "SeFa" if walk.kind == "Named" and not self.generator.directions else walk.kind
        samples = {"samples": _SAMPLES} if kind == DIRECTION_METHODS[0] else {}
        return self._cached(
            (kind, walk.layers, count),
            lambda: find_directions(self.generator, kind, layers=walk.layers, count=count, **samples),
        )

    def _third(self, walk: Walk) -> Directions:
        """The direction after the pair."""
        index = 2 * walk.number + 2
        if walk.kind == "seeds":
            raise ValueError("between seeds there are two directions: z must be 0")
        if walk.kind == "random":
            return self._cached(("third", walk.number), lambda: _slice(self._random(walk.number, 3), 2, 1))
        if walk.kind == "linked":
            if self.linked is None:
                raise ValueError(_NOT_LINKED)
            return _slice(self.linked, index, 1)
        return _slice(self._found(walk, index + 1), index, 1)

    def _random(self, number: int, count: int = 2) -> Directions:
        """Random orthogonal directions, distributed as the generator's latents; a step is their standard deviation."""
        most = self.generator.config.w_dim
        found = self._cached(
            ("basis",), lambda: find_directions(self.generator, "PCA", count=most, samples=max(2 * most, _SAMPLES))
        )
        moves = found.vectors * found.steps[:, None]  # normal noise times these has the latents' distribution
        source = torch.Generator().manual_seed(number)  # the pair does not depend on whether a third is drawn
        draws = [torch.randn((n, len(moves)), generator=source, dtype=torch.float64) for n in (2, count - 2) if n]
        noise = torch.cat(draws)
        vectors, _ = torch.linalg.qr((noise @ moves.double()).mT)
        steps = (vectors.mT @ moves.double().mT).square().sum(1).sqrt()
        return Directions(vectors.mT.float(), steps.float(), found.layers, "random", found.fingerprint, found.name)

    def _to_seeds(self, shot: Shot) -> Directions:
        """Directions to the latents of two other seeds; one step reaches them."""

        def found() -> Directions:
            seeds, label = [shot.seed, *shot.walk.seeds], self._label(shot)
            ws = sample(self.generator, seeds, label=label, truncation_psi=shot.psi)[:, 0].cpu()
            ways = ws[1:] - ws[:1]
            lengths = ways.norm(dim=1)
            return Directions(
                ways / lengths.clamp_min(1e-12)[:, None], lengths, list(range(self.generator.config.num_ws))
            )

        return self._cached(("seeds", shot.seed, shot.walk.seeds, shot.psi, self._label(shot)), found)

    def _cached(self, key: Hashable, make: Callable[[], T]) -> T:
        return self._cache.get_or_make(key, make)


def frame_times(scene: Scene) -> list[float]:
    """Times of the frames of a film, in seconds; [0] without a film. An open film ends with its last keyframe."""
    steps = max(1, scene.film_frames - (not scene.closed))
    return [scene.film_seconds * i / steps for i in range(scene.film_frames)]


def _position(scene: Scene, time: float) -> tuple[Keyframe, Keyframe, float]:
    """The keyframes before and after a time, and its position between them, 0..1."""
    legs, seconds = scene.legs, scene.film_seconds
    time = time % seconds if scene.closed else min(max(time, 0.0), seconds)
    for i, key in enumerate(legs):
        if time <= key.seconds or i == len(legs) - 1:
            return key, scene.keyframes[(i + 1) % len(scene.keyframes)], min(time / key.seconds, 1.0)
        time -= key.seconds
    raise AssertionError("a film has at least two keyframes")


def _slice(directions: Directions, begin: int, count: int) -> Directions:
    """Directions `begin` to `begin + count`: the pair of the pad, or the one of the third slider."""
    if begin + count > len(directions):
        pairs = f"{len(directions)} directions, {len(directions) // 2} pairs"
        raise ValueError(
            f"there is no pair {begin // 2}: there are {pairs}"
            if count == 2
            else f"there is no direction {begin}, after pair {begin // 2 - 1}: there are {pairs}; z must be 0"
        )
    chosen = slice(begin, begin + count)
    return Directions(
        directions.vectors[chosen],
        directions.steps[chosen],
        directions.layers,
        directions.method,
        directions.fingerprint,
        directions.name,
    )
