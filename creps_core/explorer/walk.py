"""From looks to latents: the seed's latent, and the pad's two directions away from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch

from ..latents import METHODS, Directions, Latents, edit, find_directions, sample, sample_latents
from ..network import Generator
from ..rendering import EASINGS, View, between
from .scene import Key, Look, Scene, Walk

_KEPT = 64  # latents and pairs of directions, a few KB each
_NOTHING_LINKED = "no directions are linked: link CREPS Directions and run once, or choose another walk"
_SAMPLES = 1024  # from which the size of a step is computed: half a percent, in an instant

T = TypeVar("T")


class Walker:
    """Latents of looks, of one generator. What a drag asks for again and again is computed once.

    Args:
        generator: on any device.
        linked: what walks of the kind `linked` go along.
    """

    def __init__(self, generator: Generator, linked: Directions | None = None):
        self.generator, self.linked = generator, linked
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def latents(self, look: Look) -> Latents:
        """The one latent of a look, on the CPU.

        Raises:
            ValueError: there is no such class, or no such directions.
        """
        label = self._label(look)
        home = self._once(
            ("latent", look.seed, look.psi, label),
            lambda: sample_latents(self.generator, [look.seed], label=label, truncation_psi=look.psi),
        )
        walk = look.walk
        if walk.x or walk.y:
            home = edit(home, self._directions(look), {0: walk.x, 1: walk.y}, walk.layers)
        return edit(home, self._third(walk), {0: walk.z}, walk.layers) if walk.z else home

    def film(self, scene: Scene) -> tuple[Latents, list[View]]:
        """A latent and a view per frame of the scene's film: `frame_times`. Without a film, of its look."""
        moments = [self.at(scene, time) for time in frame_times(scene)]
        first = moments[0][0]
        if len(moments) == 1:
            return first, [moments[0][1]]
        return first.derived(torch.cat([latents.ws for latents, _ in moments])), [view for _, view in moments]

    def at(self, scene: Scene, time: float | None) -> tuple[Latents, View]:
        """The latent and the view at a time of the film, in seconds; of the look when there is no film, or no time.

        Raises:
            ValueError: as `latents`.
        """
        if time is None or len(scene.keys) < 2:
            return self.latents(scene.look), scene.look.view
        first, second, t = _place(scene, time)
        a, b = self.latents(first.look), self.latents(second.look)
        t = EASINGS[scene.easing](t)
        if t in (0.0, 1.0):
            return (a, first.look.view) if t == 0.0 else (b, second.look.view)
        return a.derived(torch.lerp(a.ws, b.ws, t)), between(first.look.view, second.look.view, t)

    def _label(self, look: Look) -> int | None:
        classes = self.generator.config.c_dim
        return look.label if classes and look.label >= 0 else None

    def _directions(self, look: Look) -> Directions:
        walk = look.walk
        if walk.kind == "random":
            return self._once(("random", walk.number), lambda: self._random(walk.number))
        if walk.kind == "seeds":
            return self._towards(look)
        if walk.kind == "linked":
            if self.linked is None:
                raise ValueError(_NOTHING_LINKED)
            return _part(self.linked, 2 * walk.number, 2)
        return _part(self._found(walk, 2 * walk.number + 2), 2 * walk.number, 2)

    def _found(self, walk: Walk, count: int) -> Directions:
        """So many directions, or all that there are."""
        count = min(count, self.generator.config.w_dim)
        kind = "SeFa" if walk.kind == "Named" and not self.generator.directions else walk.kind
        samples = {"samples": _SAMPLES} if kind == METHODS[0] else {}
        return self._once(
            (kind, walk.layers, count),
            lambda: find_directions(self.generator, kind, layers=walk.layers, count=count, **samples),
        )

    def _third(self, walk: Walk) -> Directions:
        """The direction after the pair."""
        place = 2 * walk.number + 2
        if walk.kind == "seeds":
            raise ValueError("between seeds there are two directions: z must be 0")
        if walk.kind == "random":
            return self._once(("third", walk.number), lambda: _part(self._random(walk.number, 3), 2, 1))
        if walk.kind == "linked":
            if self.linked is None:
                raise ValueError(_NOTHING_LINKED)
            return _part(self.linked, place, 1)
        return _part(self._found(walk, place + 1), place, 1)

    def _random(self, number: int, count: int = 2) -> Directions:
        """Directions in which this generator's own latents differ, at right angles; a step is their deviation."""
        most = self.generator.config.w_dim
        found = self._once(
            ("basis",), lambda: find_directions(self.generator, "PCA", count=most, samples=max(2 * most, _SAMPLES))
        )
        moves = found.vectors * found.steps[:, None]  # normal noise times these is distributed as the latents are
        source = torch.Generator().manual_seed(number)  # the pair is the same whether there is a third or not
        draws = [torch.randn((n, len(moves)), generator=source, dtype=torch.float64) for n in (2, count - 2) if n]
        noise = torch.cat(draws)
        vectors, _ = torch.linalg.qr((noise @ moves.double()).mT)
        steps = (vectors.mT @ moves.double().mT).square().sum(1).sqrt()
        return Directions(vectors.mT.float(), steps.float(), found.layers, "random", found.fingerprint, found.name)

    def _towards(self, look: Look) -> Directions:
        """To two other seeds: a step arrives there."""

        def found() -> Directions:
            seeds, label = [look.seed, *look.walk.seeds], self._label(look)
            ws = sample(self.generator, seeds, label=label, truncation_psi=look.psi)[:, 0].cpu()
            ways = ws[1:] - ws[:1]
            lengths = ways.norm(dim=1)
            return Directions(
                ways / lengths.clamp_min(1e-12)[:, None], lengths, list(range(self.generator.config.num_ws))
            )

        return self._once(("seeds", look.seed, look.walk.seeds, look.psi, self._label(look)), found)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def frame_times(scene: Scene) -> list[float]:
    """Of the frames of a scene's film, in seconds; without a film [0]. An open film shows its last key at its end."""
    if len(scene.keys) < 2:
        return [0.0]
    count = max(1, round(length(scene) * scene.fps))
    return [length(scene) * i / count for i in range(count + (not scene.closed))]


def length(scene: Scene) -> float:
    """Of the film, in seconds."""
    return sum(key.seconds for key in _legs(scene))


def _legs(scene: Scene) -> Sequence[Key]:
    """The keys that lead to another."""
    return scene.keys if scene.closed else scene.keys[:-1]


def _place(scene: Scene, time: float) -> tuple[Key, Key, float]:
    """The keys before and after a time, and how far it is from one to the other, 0..1."""
    legs = _legs(scene)
    time = time % length(scene) if scene.closed else min(max(time, 0.0), length(scene))
    for i, key in enumerate(legs):
        if time <= key.seconds or i == len(legs) - 1:
            return key, scene.keys[(i + 1) % len(scene.keys)], min(time / key.seconds, 1.0)
        time -= key.seconds
    raise AssertionError("a film has at least two keys")


def _part(directions: Directions, begin: int, count: int) -> Directions:
    """The directions of a pad, or of the third slider, in the order of their strength."""
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
