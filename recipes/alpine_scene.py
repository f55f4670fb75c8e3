"""What there is in an alpine scene: a `Scene` of plain numbers, made from a seed. `alpine_paint` draws it.

Positions are fractions of the frame: x from left to right, y from top to bottom, both 0..1.

Every aspect (light, land, forest, sky, water, foreground) has a random stream of its own,
`default_rng([seed, aspect])`, read in the order in which the function of that aspect is written. So a change to one
aspect leaves all others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

LIGHT, LAND, FOREST, SKY, WATER, FOREGROUND = range(6)

# One palette per time of day, in a circle: the hour parameter walks from each to the next.
# Colours: sky at the top, in the middle and at the horizon; disc of sun or moon; light that falls on faces;
# far ridges, near rock, near forest; water; clouds. Numbers: elevation of the disc (0 at the ridges, 1 at the top),
# radius of the disc, strength of its glow, stars.
HOURS = {
    "midnight": ("0a1533 1c3463 4d76a0 f6f1da b4cdea 46668f 22395f 081226 152a52 6d8db5", 0.75, 0.036, 0.45, 1.0),
    "predawn": ("1c2454 5a5596 cf98b4 fff0dc ecbac6 857aad 434376 141836 45457c b08bb4", 0.45, 0.040, 0.45, 0.4),
    "dawn": ("4c62a6 b795c4 ffc6b2 fff3dc ffcbb6 b394ba 675c94 232548 8479b0 f7b3bd", 0.32, 0.048, 0.6, 0.0),
    "sunrise": ("5f8fc0 dcc3bf ffd9a0 fffbe2 ffdca4 c4a8a6 79657e 2b2b42 8f93a6 ffe3c4", 0.36, 0.050, 0.7, 0.0),
    "morning": ("5aa6cf a2d4de fbf0cf fffdee fff0cd a2c0ca 597d94 1b3c48 5f9fb4 ffffff", 0.62, 0.040, 0.6, 0.0),
    "noon": ("2378bd 6cbce2 dbf3ee fffdf0 fff6dc 98c4dc 4a7599 123d3c 2a7fa8 ffffff", 0.82, 0.036, 0.55, 0.0),
    "afternoon": ("2f8fa2 8acfc8 fdeec8 fffbe4 ffefc8 97c4bd 477a84 12393c 338a94 fffaee", 0.68, 0.040, 0.6, 0.0),
    "golden": ("6a93b0 efc594 ffc766 fff6cf ffd482 d99f78 8c5757 33202e b9846c ffdfa6", 0.42, 0.052, 0.8, 0.0),
    "sunset": ("564b8c dd6e7c ffb565 fff2bc ffb880 c46e7d 6c3b5f 27162f 8f5078 ffa482", 0.27, 0.060, 0.8, 0.0),
    "crimson": ("2e2a62 93427a ff8460 ffe2a6 ffa084 8f4a7c 4a2b5d 170f2c 5c3068 e8748a", 0.24, 0.062, 0.7, 0.1),
    "violet": ("1f2453 604f96 dc93b2 ffeccc e6aac4 7c68a4 3d356c 121432 44407c a37cb0", 0.40, 0.050, 0.5, 0.4),
    "blue": ("11285a 2f64a0 a4c9d8 fff4d4 c4d9ec 5f8bb4 2b4f7d 0b1c36 2a5688 8fb2cf", 0.55, 0.042, 0.45, 0.6),
    "teal": ("061c30 0f4253 3a8784 f2f8e4 b0e0d4 2f6673 153e50 04141e 0f3a4a 5a9c9e", 0.72, 0.038, 0.45, 1.0),
}
_COLOURS = ("top", "mid", "low", "disc", "light", "far", "rock", "near", "water", "cloud")
_MIST = "8fa6b6 b4c4cc d9dfdd fbf7ea e9ebe6 a9bac4 6d8494 2c3f4c 8199a8 e6eaea"  # what mist turns every hour into

_TO_LMS = np.array([[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.63]])
_TO_LAB = np.array([[0.21045, 0.79362, -0.00407], [1.9779985, -2.4285922, 0.4505937], [0.02590, 0.78277, -0.80867]])
_FROM_LAB, _FROM_LMS = np.linalg.inv(_TO_LAB), np.linalg.inv(_TO_LMS)


def _lab(hexadecimal: str) -> np.ndarray:
    """The OKLab coordinates of a row of sRGB colours: mixtures of colours stay clean there."""
    rgb = np.array([[int(word[i : i + 2], 16) for i in (0, 2, 4)] for word in hexadecimal.split()]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def _rgb(lab: np.ndarray) -> np.ndarray:
    linear = np.clip((lab @ _FROM_LAB.T) ** 3 @ _FROM_LMS.T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


_KEYS = np.stack([_lab(row[0]) for row in HOURS.values()])
_NUMBERS = np.array([row[1:] for row in HOURS.values()])
_MIST_LAB = _lab(_MIST)


@dataclass(frozen=True)
class Light:
    """Hour, colours (sRGB, 0..1), and the sun or moon."""

    colours: dict[str, np.ndarray]
    x: float
    y: float
    radius: float
    glow: float
    stars: float
    aurora: float
    mist: float


@dataclass(frozen=True)
class Peak:
    """One mountain: `apex` at (x, y), sides that fall with the given slopes, and the jags of its ridges."""

    x: float
    y: float
    left: float
    right: float
    lean: float
    jags: np.ndarray  # [5, 64] in -1..1: silhouette coarse and fine, spine coarse and fine, snow line


@dataclass(frozen=True)
class Range:
    """Mountains of one distance: `depth` from 0 (far, nearly sky) to 1 (near), `snow` the y of the snow line."""

    depth: float
    peaks: tuple[Peak, ...]
    snow: float
    mist: float
    rough: float


@dataclass(frozen=True)
class Forest:
    """A hill with firs on its back, one fir in each cell of a lattice along x."""

    depth: float
    y: float
    amplitude: float
    waves: np.ndarray  # [3, 3] frequency, phase, weight of the sines that shape the hill
    cells: float  # firs per frame width
    height: float
    firs: np.ndarray  # [128, 4] in 0..1, then again: position in the cell, height, width, drop below the hill
    gap: float = 0.5  # centre of a bay where this hill stays under water
    gap_half: float = -1.0  # half its width; none where negative
    bank: float = 0.0  # how far the ground rises towards the frame's side: > 0 to the right, < 0 to the left


@dataclass(frozen=True)
class Scene:
    seed: int
    waterline: float
    light: Light
    ranges: tuple[Range, ...]
    forests: tuple[Forest, ...]
    foreground: Forest | None
    clouds: float
    cloud_noise: np.ndarray  # [3 octaves, 40, 24]
    stars: np.ndarray  # [n, 3] x, y, size
    aurora_wave: np.ndarray
    ripple_noise: np.ndarray  # [3, 64, 24]
    ripple: float
    glitter: float


def make_scene(seed: int) -> Scene:
    stream = np.random.default_rng([seed, LIGHT])
    waterline = stream.uniform(0.56, 0.74)
    light = _light(stream, waterline)
    hero = _hero(light, stream)
    ranges = _ranges(np.random.default_rng([seed, LAND]), waterline, light, hero)
    light = lift_disc(light, ranges)
    sky = np.random.default_rng([seed, SKY])
    water = np.random.default_rng([seed, WATER])
    return Scene(
        seed=seed,
        waterline=waterline,
        light=light,
        ranges=ranges,
        forests=_forests(np.random.default_rng([seed, FOREST]), waterline, light),
        foreground=_foreground(np.random.default_rng([seed, FOREGROUND]), light),
        clouds=float(sky.beta(1.1, 1.4)),
        cloud_noise=sky.uniform(-1, 1, (3, 40, 24)),
        stars=_stars(sky, waterline),
        aurora_wave=sky.uniform(0, 1, 12),
        ripple_noise=water.uniform(-1, 1, (3, 64, 24)),
        ripple=water.uniform(0.25, 1.0),
        glitter=water.uniform(0.5, 1.0),
    )


def _light(stream: np.random.Generator, waterline: float) -> Light:
    hour, mist = stream.uniform(0, len(_KEYS)), float(stream.beta(1.0, 2.6))
    colours, elevation, radius, glow, stars = colours_at(
        hour, mist, turn=stream.normal(0, 0.1), chroma=stream.uniform(0.88, 1.1)
    )
    side = stream.choice([-1.0, 1.0])
    x = 0.5 + side * stream.triangular(0.02, 0.2, 0.36)
    elevation = np.clip(elevation + stream.normal(0, 0.1), 0.12, 0.95)
    aurora = max(0.0, float(stream.uniform(-1.6, 1.0))) * float(np.clip(stars * 2 - 1, 0, 1))
    return Light(
        colours=colours,
        x=float(x),
        y=float((waterline - 0.16) * (1 - elevation) + 0.1 * elevation),
        radius=float(radius * stream.uniform(0.8, 1.3)),
        glow=float(glow),
        stars=float(stars),
        aurora=aurora,
        mist=mist,
    )


def colours_at(
    hour: float, mist: float, turn: float, chroma: float
) -> tuple[dict[str, np.ndarray], float, float, float, float]:
    """Colours (sRGB, 0..1), and elevation, radius, glow and stars, at an hour: 0..13 around the clock of `HOURS`.

    `turn` (radians) and `chroma` vary the hues, `mist` (0..1) greys them.
    """
    first, part = int(hour) % len(_KEYS), hour % 1
    part = part * part * (3 - 2 * part)  # linger at the tuned palettes
    second = (first + 1) % len(_KEYS)
    lab = _KEYS[first] * (1 - part) + _KEYS[second] * part
    elevation, radius, glow, stars = (float(x) for x in _NUMBERS[first] * (1 - part) + _NUMBERS[second] * part)
    grey = 0.5 * max(0.0, mist - 0.45) / 0.55 * (1 - stars)
    brightness = lab[:, :1]
    lab = lab + grey * (_MIST_LAB - lab) * [0.35, 1, 1]
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * chroma
    lab = np.concatenate([0.7 * lab[:, :1] + 0.3 * brightness, lab[:, 1:] @ spin.T], axis=1)
    colours = dict(zip(_COLOURS, _rgb(lab).astype(np.float32), strict=True))
    return colours, elevation, radius, glow, stars


def _hero(light: Light, stream: np.random.Generator) -> float:
    """The highest summit stands on the other side of the picture than the sun, so that both have room."""
    return float(np.clip(1 - light.x + stream.normal(0, 0.08), 0.15, 0.85))


def lift_disc(light: Light, ranges: tuple[Range, ...]) -> Light:
    """Lifts the disc until at least its upper half stands free of the mountains."""
    skyline = 1.0
    for peak in (peak for mountains in ranges for peak in mountains.peaks):
        aside = light.x - peak.x
        fall = abs(aside) * (peak.left if aside < 0 else peak.right)
        skyline = min(skyline, peak.y + 0.8 * fall)
    return replace(light, y=min(light.y, skyline - 0.1 * light.radius))


def _ranges(stream: np.random.Generator, waterline: float, light: Light, hero: float) -> tuple[Range, ...]:
    count = int(stream.integers(2, 5))
    grandeur = stream.uniform(0.62, 1.2)
    snow_level, rough = stream.uniform(-0.1, 1.1), stream.uniform(0.5, 1.2)
    ranges = []
    for index in range(count):
        depth = (index + 0.6) / count
        # The last but one range carries the hero; the ones behind peep over it, the one before stays below.
        rise = waterline * grandeur * (0.68, 0.62, 0.4)[min(2, max(0, index - count + 3))] * stream.uniform(0.85, 1.1)
        ranges.append(
            Range(
                depth=depth,
                peaks=_peaks(stream, waterline, rise, light, hero if index % 2 else 1 - hero, rough),
                snow=waterline - waterline * grandeur * 0.62 * (1 - 0.75 * snow_level),
                mist=0.25 + 0.7 * stream.uniform(0.3, 1) * (0.35 + light.mist),
                rough=rough,
            )
        )
    return tuple(ranges)


def _peaks(
    stream: np.random.Generator, waterline: float, rise: float, light: Light, hero: float, rough: float
) -> tuple[Peak, ...]:
    count = int(stream.integers(4, 8))
    places = (np.arange(count) + stream.uniform(0.15, 0.85, count)) / count * 1.3 - 0.15
    places[np.argmin(abs(places - hero))] = hero
    peaks = []
    for x in places:
        near_hero = np.exp(-(((x - hero) / 0.2) ** 2))
        below_sun = np.exp(-(((x - light.x) / 0.16) ** 2))
        height = rise * (stream.uniform(0.4, 0.72) + 0.42 * near_hero - 0.2 * below_sun)
        slope = stream.uniform(0.75, 1.25) * (0.8 + 0.3 * rough)
        peaks.append(
            Peak(
                x=float(x),
                y=float(waterline - height),
                left=float(slope * stream.uniform(0.7, 1.25)),
                right=float(slope * stream.uniform(0.7, 1.25)),
                lean=float(stream.uniform(-0.3, 0.3)),
                jags=stream.uniform(-1, 1, (5, 64)).astype(np.float32),
            )
        )
    return tuple(sorted(peaks, key=lambda peak: peak.y))  # lower ones stand in front


def _forests(stream: np.random.Generator, waterline: float, light: Light) -> tuple[Forest, ...]:
    count = int(stream.integers(1, 4))
    tallest = stream.uniform(0.04, 0.12)
    bay = stream.uniform(-0.25, 0.42, 3)
    forests = []
    for index in range(count):
        nearness = (index + 1) / count
        height = tallest * (0.35 + 0.65 * nearness)
        forests.append(
            Forest(
                depth=nearness,
                y=waterline - 0.008 - (1 - nearness) * stream.uniform(0.06, 0.13),
                amplitude=stream.uniform(0.006, 0.06) * (1.2 - 0.5 * nearness),
                waves=stream.uniform(0, 1, (3, 3)),
                cells=1 / (height * stream.uniform(0.28, 0.42)),
                height=height,
                firs=stream.uniform(0, 1, (128, 4)).astype(np.float32),
                gap=light.x + stream.normal(0, 0.22),
                gap_half=bay[index] * nearness,
            )
        )
    return tuple(forests)


def _foreground(stream: np.random.Generator, light: Light) -> Forest | None:
    """A bank with tall firs on the side away from the sun, which frames some of the scenes."""
    present = stream.uniform() < 0.4
    side = 1.0 if light.x < 0.5 else -1.0
    height = stream.uniform(0.22, 0.42)
    bank = Forest(
        depth=1.25,
        y=stream.uniform(1.02, 1.06),
        amplitude=0.012,
        waves=stream.uniform(0, 1, (3, 3)),
        cells=1 / (height * stream.uniform(0.22, 0.34)),
        height=height,
        firs=stream.uniform(0, 1, (128, 4)).astype(np.float32),
        bank=side * stream.uniform(0.12, 0.26),
    )
    return bank if present else None


def _stars(stream: np.random.Generator, waterline: float) -> np.ndarray:
    count = int(stream.integers(18, 46))
    stars = stream.uniform(0, 1, (count, 3))
    stars[:, 1] = stars[:, 1] ** 1.3 * waterline * 0.7
    stars[:, 2] = 0.0022 + 0.0028 * stars[:, 2] ** 2
    return stars
