"""The pixel stage of `alpenglow`: from the fields at a pixel to shares of colours, which sum to 1, and lights.

Outside and inside are 0 and 1, separated by steps in two layers, so that half precision has enough digits. The product
of a share and such a 0 or 1 is `relu(share + inside - 1)`.
"""

from __future__ import annotations

import numpy as np
from alpenglow_colours import channels
from alpenglow_lines import BANK, HEROES, MOUNTAINS, RANGES
from alpenglow_meaning import Meaning
from comfyui_creps.creps_core.network import GeneratorConfig
from program import Layer, State, Value, total

_MIST_TOP = (0.22, 0.20, 0.16, 0.10, 0.10, 0.10)  # of each range, above the water
_MISTY = (0.9, 0.85, 0.75, 0.7, 0.5, 0.25)  # its density at the shore
_NEARNESS = (0.0, 0.35, 0.75, 1.0)  # of the mountains, between the colours far and near
_TINT = 0.3  # share of water in reflections
_RANGES = {  # value ranges of the fields at a pixel; others lie in -1.5..1.5
    "sun": (-3, 0.01),
    "glow": (0, 4),
    "beside": (0, 2),
    "lift": (0, 1),
    "mist": (-0.2, 0.3),
    "clouds": (-8, 8),
    "stars": (-8, 8),
    "glitter": (-8, 8),
    "ripples": (-4, 4),
}


class _Decoders:
    """The layers of the decoders, in order."""

    def __init__(self, state: State, config: GeneratorConfig) -> None:
        self._state = state
        width = config.biline_channels
        names = (*config.biline_levels[1:], "last")
        self._places = [(f"decoder_{name}.{i}", width * n) for name in names for i, n in enumerate((2, 4, 2, 1))]
        self.gains = np.ones(width)
        self.layer = Layer()

    @property
    def left(self) -> int:
        return len(self._places)

    def next(self) -> Layer:
        """Write the current layer, and start the next one."""
        name, width = self._places.pop(0)
        self.gains = self._state.connected(f"synthesis.{name}", self.layer, self.gains, width)
        self.layer = Layer()
        return self.layer


def write_pixels(state: State, meaning: Meaning, channels_of: dict[str, int], config: GeneratorConfig) -> None:
    """Write the decoders and the pixel blocks. `channels_of` has the bi-line channel of each field."""
    decoders = _Decoders(state, config)
    fields = {
        name: Value({channel: 1.0}, 0.0, *_RANGES.get(name.split(" ")[0], (-1.5, 1.5)))
        for name, channel in channels_of.items()
    }
    shares = _shares(decoders, fields)
    while decoders.left:
        shares = {name: decoders.layer.keep(share.within(0.0, 1.0)) for name, share in shares.items()}
        decoders.next()
    _paint(state, meaning, shares, decoders.gains, config)


def _shares(decoders: _Decoders, fields: dict[str, Value]) -> dict[str, Value]:
    layer = decoders.layer
    ripples = fields["ripples"] * 0.012  # mirror images waver up and down
    inside = [fields[f"range {r}"] + (Value() if r == BANK else ripples) for r in range(RANGES)]
    cover = [layer.curve(v.within(-1.5, 1.5), (-0.015, 0.015), (0.0, 1.0)) for v in inside]
    sun = layer.curve(fields["sun"] + ripples * 0.1, (-0.0004, 0.0004), (0.0, 1.0))
    wet = layer.curve(fields["water"], (-0.01, 0.01), (0.0, 1.0))
    signs = dict(zip(HEROES, (1.0, -1.0), strict=True))  # so that no two ranges are alike
    spines = [  # at the summit the edge is where the summit is
        layer.least(fields["spine"] * (0.9 * sign), inside[r].within(0.0, 1.0) * 2.0) for r, sign in signs.items()
    ]
    waves = [[layer.keep(fields[f"wave {r} {i}"].within(-4.0, 4.0)) for i in (0, 1)] for r in HEROES]
    slopes = [[layer.keep(fields[f"slope {r} {i}"].within(-4.0, 4.0)) for i in (0, 1)] for r in HEROES]
    folds = [
        [
            layer.abs((fields[f"wave {r} {i}"] + fields["spine"] * (sign * k)).within(-4.0, 4.0)) - 1.0
            for i, k in ((2, 2.0), (3, 5.0))
        ]
        for r, sign in signs.items()
    ]
    above_mist = layer.keep(fields["lift"] - fields["mist"])
    lift, snow, square = layer.all_keep(fields["lift"], fields["snow"], fields["glow"])
    clouds = layer.keep((fields["clouds"] + fields["cover"]).within(-6.0, 6.0))
    stars = layer.keep(fields["stars"].within(-6.0, 6.0))
    glitter = layer.keep((fields["glitter"] * 0.35 - fields["beside"] * 9.0).within(-20.0, 3.0))

    layer = decoders.next()
    cover = [layer.curve(v, (0.49, 0.51), (0.0, 1.0)) for v in cover]
    sun = layer.curve(sun, (0.45, 0.55), (0.0, 1.0))
    wet = layer.curve(wet, (0.46, 0.54), (0.0, 1.0))
    sunny = []
    for wave, slope, spine, (fold, crease) in zip(waves, slopes, spines, folds, strict=True):
        bend = fold * 0.05 + crease * 0.025
        main = layer.same_sign((wave[0] + spine + bend).within(-4, 4), (slope[0] + bend * 0.7).within(-4, 4))
        spurs = (wave[1] + spine * 2.0 + fold * 0.12 + crease * 0.08).within(-4, 4)
        side = layer.same_sign(spurs, (slope[1] + fold * 0.2).within(-4, 4))
        sunny.append((main + side * 0.45).within(-4.0, 4.0))
    snow = [layer.keep((snow + fold * 0.018 + crease * 0.016).within(-1.0, 1.0)) for fold, crease in folds]
    mist = [
        layer.curve(above_mist, (0.0, 0.35 * top, top), (misty, 0.5 * misty, 0.0))
        for top, misty in zip(_MIST_TOP, _MISTY, strict=True)
    ]
    to_top = layer.curve(lift, (0.05, 0.15, 0.3, 0.45, 0.6), (0.0, 0.15, 0.5, 0.85, 1.0))
    to_horizon = layer.curve(lift, (0.0, 0.05, 0.12, 0.2, 0.32), (1.0, 0.85, 0.5, 0.18, 0.0))
    knots = np.array([0.0, 0.002, 0.006, 0.012, 0.02, 0.032, 0.05, 0.075, 0.11, 0.16, 0.23, 0.33, 0.5])
    halo = 0.6 * np.exp(-knots / 0.06) + 0.4 * np.exp(-np.sqrt(knots) / 0.05)
    glow = layer.curve(square, knots.tolist(), [*halo[:-1].tolist(), 0.0])
    clouds = layer.curve(clouds, (0.4, 1.2, 2.6), (0.0, 0.4, 1.0))
    stars = layer.curve(stars, (4.4, 5.6), (0.0, 1.0))
    glitter = layer.curve(glitter, (-0.35, 0.15), (0.0, 1.0))

    layer = decoders.next()
    snowy = [  # it lies lower in the shade
        layer.curve((line - light * 0.05).within(-2, 2), (-0.006, 0.006), (0.0, 1.0))
        for line, light in zip(snow, sunny, strict=True)
    ]
    sunny = [layer.curve(light, (-0.006, 0.006), (0.0, 1.0)) for light in sunny]
    seen = [layer.relu((cover[r] - total(cover[r + 1 :])).within(-6.0, 1.0)) for r in range(RANGES)]
    sky = layer.relu((1.0 - total(cover)).within(-6.0, 1.0))
    sun = layer.relu((sun - total(cover)).within(-7.0, 1.0))
    mist = layer.all_keep(*mist)
    wet, to_top, to_horizon, glow, clouds, stars, glitter = layer.all_keep(
        wet, to_top, to_horizon, glow, clouds, stars, glitter
    )

    layer = decoders.next()
    clear = [layer.keep((view - haze).within(-1.0, 1.0)) for view, haze in zip(seen[:BANK], mist, strict=True)]
    seen, sunny, snowy = layer.all_keep(*seen), layer.all_keep(*sunny), layer.all_keep(*snowy)
    wet, to_top, to_horizon, glow, clouds, stars, glitter, sky, sun = layer.all_keep(
        wet, to_top, to_horizon, glow, clouds, stars, glitter, sky, sun
    )

    layer = decoders.next()
    *seen, bank = seen
    clear = [  # view * (1 - haze), exact where a pixel is covered by one half or wholly
        (layer.relu(v) + layer.keep(view) - layer.relu((view * 2.0 - v - 1.0).within(-1.0, 1.0))) * 0.5
        for v, view in zip(clear, seen, strict=True)
    ]
    top, horizon, clouds, stars = (
        layer.relu((part + sky - 1.0).within(-1.0, 1.0)) for part in (to_top, to_horizon, clouds, stars)
    )
    glitter = layer.relu((glitter + wet - 1.0 - bank).within(-2.0, 1.0))
    glow = layer.relu((glow - bank).within(-1.0, 1.0))
    sunny, snowy = ([layer.curve(v, (0.3, 0.7), (0.0, 1.0)) for v in parts] for parts in (sunny, snowy))
    wet, sky, sun, bank = layer.all_keep(wet, sky, sun, bank)

    layer = decoders.next()
    faces = [(clear[r].within(0.0, 1.0), light, white) for r, light, white in zip(HEROES, sunny, snowy, strict=True)]
    lit = [layer.relu((face + light - 1.0).within(-1.0, 1.0)) for face, light, _ in faces]
    white = [layer.relu((face + snow - 1.0).within(-1.0, 1.0)) for face, _, snow in faces]
    bright = [layer.relu((face + light + snow - 2.0).within(-2.0, 1.0)) for face, light, snow in faces]
    clear = [layer.keep(v.within(0.0, 1.0)) for v in clear]
    top, horizon, clouds, stars, glitter, glow, wet, sky, sun, bank = layer.all_keep(
        top, horizon, clouds, stars, glitter, glow, wet, sky, sun, bank
    )

    layer = decoders.next()
    hazy = 1.0 - sky - bank - total(clear)
    rock = dict(zip(MOUNTAINS, clear, strict=False))  # less what is lit or white
    for r, sun_lit, snow, both in zip(HEROES, lit, white, bright, strict=True):
        rock[r] = rock[r] - sun_lit - snow + both
    near = total([rock[r] * nearness for r, nearness in zip(MOUNTAINS, _NEARNESS, strict=True)])
    lit, white, bright = total(lit), total(white), total(bright)
    shares = {
        "top": top,
        "middle": sky - top - horizon,
        "horizon": horizon + hazy,
        "far": total(list(rock.values())) - near,
        "near": near,
        "lit": lit - bright,
        "shaded snow": white - bright,
        "snow": bright,
        "forest": total(clear[len(MOUNTAINS) :]),
    }
    shares = {
        name: layer.keep(share.within(0.0, 1.0)) - layer.relu((share + wet - 1.0).within(-1.0, 1.0)) * _TINT
        for name, share in shares.items()
    }
    wet, bank, sun, glow, clouds, stars, glitter = layer.all_keep(wet, bank, sun, glow, clouds, stars, glitter)
    lights = {"sun": sun, "glow": glow, "clouds": clouds, "stars": stars, "glitter": glitter}
    decoders.next()
    return shares | {"water": (wet - bank) * _TINT, "bank": bank} | lights


def _paint(
    state: State, meaning: Meaning, shares: dict[str, Value], gains: np.ndarray, config: GeneratorConfig
) -> None:
    """The first pixel block: each share has three units, whose styles are its red, green and blue at the hour of w."""
    width = config.biline_channels
    layer = Layer()
    kept = {name: layer.keep(share.within(0.0, 1.0)) for name, share in shares.items()}
    gains = state.demodulated("synthesis.block0.fc0", layer, gains, 4 * width)
    layer = Layer()
    copies = {name: [layer.copy(share) for _ in range(3)] for name, share in kept.items()}
    gains = state.demodulated("synthesis.block0.fc1", layer, gains, 4 * width)
    styles = {}
    for name, units in copies.items():
        for unit, colours in zip(units, channels(name), strict=True):
            (index,) = unit.terms
            styles[index] = total([hour * (2 * colour) for hour, colour in zip(meaning.hours, colours, strict=True)])
    picture = [total([units[channel] for units in copies.values()]) - 1.0 for channel in range(3)]
    state.branch("synthesis.block0.tores", picture, gains, 3, styles)

    state.layer("synthesis.decoder_img", np.zeros((3, width)))
    gains = state.demodulated("synthesis.block1.fc0", Layer(), gains, 2 * width)
    gains = state.demodulated("synthesis.block1.fc1", Layer(), gains, 2 * width)
    state.branch("synthesis.block1.tores", [], gains, 3)
