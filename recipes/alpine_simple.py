"""Alpine scenes for a small network: few and large shapes, and 46 numbers that decide each.

`alpine_scene` draws thousands of random numbers for a scene. Here the picture changes smoothly with each of 46; the
jags of the ridges and the glitter on the water are those of one fixed draw.
"""

from __future__ import annotations

import math

import numpy as np
from alpine_scene import HOURS, Forest, Light, Peak, Range, Scene, colours_at, lift_disc

LATENT = 64  # numbers that are drawn; the last 18 are not read
_FIXED = np.random.default_rng(64)
_RIPPLES = _FIXED.uniform(-1, 1, (3, 64, 24))
_FIRS = _FIXED.uniform(0, 1, (2, 128, 4)).astype(np.float32)
_JAGS = _FIXED.uniform(-1, 1, (3, 3, 5, 64)).astype(np.float32) * np.float32([0.45, 0, 0.35, 0, 0.5])[:, None]
_erf = np.vectorize(math.erf)


def make_simple_scene(seed: int) -> Scene:
    """The scene of a seed."""
    return scene_of(np.random.default_rng([seed, LATENT]).standard_normal(LATENT))


def scene_of(z: np.ndarray) -> Scene:
    """The scene of a standard normal vector [64]."""
    shares = iter(0.5 + 0.5 * _erf(z[2:] / math.sqrt(2)))

    def span(low: float, high: float) -> float:
        return low + (high - low) * float(next(shares))

    waterline = span(0.58, 0.72)
    light = _light(span, len(HOURS) * (math.atan2(z[0], z[1]) / (2 * math.pi) + 0.5), waterline)
    hero = float(np.clip(1 - light.x + span(-0.12, 0.12), 0.15, 0.85))
    grandeur, snow = span(0.7, 1.2), span(0.0, 1.1)
    ranges = tuple(_range(span, index, waterline, grandeur, snow, hero, light) for index in range(2))
    return Scene(
        seed=0,
        waterline=waterline,
        light=lift_disc(light, ranges),
        ranges=ranges,
        forests=tuple(_forest(span, index, waterline) for index in range(2)),
        foreground=None,
        clouds=0.0,
        cloud_noise=np.zeros((3, 40, 24)),
        stars=np.zeros((0, 3)),
        aurora_wave=np.zeros(12),
        ripple_noise=_RIPPLES,
        ripple=0.0,
        glitter=0.85,
    )


def _light(span, hour: float, waterline: float) -> Light:
    mist = span(0.0, 0.95) ** 2
    colours, elevation, radius, glow, _ = colours_at(hour, mist, turn=span(-0.15, 0.15), chroma=span(0.9, 1.1))
    elevation = float(np.clip(elevation + span(-0.15, 0.15), 0.12, 0.95))
    return Light(
        colours=colours,
        x=span(0.16, 0.84),
        y=(waterline - 0.16) * (1 - elevation) + 0.1 * elevation,
        radius=radius * span(1.0, 1.5),
        glow=glow,
        stars=0.0,
        aurora=0.0,
        mist=mist,
    )


def _range(span, index: int, waterline: float, grandeur: float, snow: float, hero: float, light: Light) -> Range:
    """Three peaks; the first of the middle range is the hero, the summit of the picture."""
    rise = waterline * grandeur * (0.62, 0.58)[index] * span(0.85, 1.1)
    middle = hero if index == 1 else 1 - hero
    peaks = []
    for number, (aside, share) in enumerate(((0.0, 1.0), (-0.38, 0.66), (0.38, 0.66))):
        x = middle + aside + span(-0.13, 0.13)
        below_sun = math.exp(-(((x - light.x) / 0.16) ** 2))
        height = rise * (share * span(0.75, 1.1) - 0.2 * below_sun)
        peaks.append(
            Peak(
                x=x,
                y=waterline - height,
                left=span(0.7, 1.3),
                right=span(0.7, 1.3),
                lean=(-0.2, 0.15, 0.05)[(index + number) % 3],
                jags=_JAGS[index, number],
            )
        )
    return Range(
        depth=(0.25, 0.75)[index],
        peaks=tuple(peaks),
        snow=waterline - waterline * grandeur * 0.62 * (1 - 0.75 * snow),
        mist=0.25 + 0.4 * (0.35 + light.mist),
        rough=1.0,
    )


def _forest(span, index: int, waterline: float) -> Forest:
    """A wooded hill behind, and a shore in front that leaves a bay open. No firs: too fine for a small network."""
    phases = [span(0, 1), 0.37, 0.81]
    return Forest(
        depth=(0.4, 1.0)[index],
        y=waterline - (0.06, 0.02)[index],
        amplitude=span(0.01, 0.05),
        waves=np.stack([[0.3, 0.5, 0.7], phases, [0.9, 0.7, 0.6]], 1),
        cells=15.0,
        height=1e-4,
        firs=_FIRS[index],
        gap=span(-0.1, 1.1),
        gap_half=span(-0.25, 0.4),
    )
