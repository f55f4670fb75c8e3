"""The column/row network of `alpenglow`: fields over the frame, each a sum of products of a column and a row.

A bi-line has eight lanes (ranks). A field reads the same units in both lines: it is the sum over the lanes of the
column's value times the row's value. So a function of x alone is stored in a lane of the rows, with a 1 in the same
lane of the columns; unused lanes are 0. Lane r < 7 belongs to a mountain range, lane 7 to functions of y. Positions
along the height are called y, along the width x, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from alpenglow_meaning import PROPERTIES, Meaning, normal
from comfyui_creps.creps_core.network import COLUMNS, RANK, ROWS, GeneratorConfig
from program import Layer, State, Value, total

RANGES = 7
"""Far mountains, two ranges with faces and snow, hills, a wood, a shore; and the near bank, never mirrored."""
HEROES = (1, 2)
MOUNTAINS, WOODS, BANK = range(4), (4, 5), 6
_Y_LANE = RANK - 1
_CREST = (1.2, 1.15, 1.0, 0.85, 0.8, 0.3)  # of a range, where all its waves are 0, in its own heights
_HEIGHT = (0.24, 0.36, 0.30, 0.16, 0.06, 0.06, 1.0)  # of a range, in frames
_CYCLES = (1.3, 0.9, 1.15, 1.5, 1.3, 1.2, 0.8)  # how close its peaks stand
_ROUGH = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.06)
# Cycles per frame, number of waves and height of each octave of an outline; the last makes needles of firs.
_OCTAVES = (
    (0.5, 3, 1.0),
    (1.5, 3, 0.25),
    (4.0, 3, 0.08),
    (9.7, 2, 0.028),
    (23.0, 2, 0.010),
    (54.0, 2, 0.0036),
    (128.0, 1, 0.0014),
    (300.0, 1, 0.0005),
)
_NEEDLES = (1, 1, 1, 12, 70, 80, 260)
_FACES, _FOLDS = (0, 1), (2, 3)  # octaves that part sunny from shaded faces, and that crease them
# Firs stand where a sum of waves crosses 0: cycles per frame and number of waves, two sizes.
_FIRS = ((26.0, 3), (61.0, 2))
# Lane: cycles, height, slimness, and the cycles and height of the groves they stand in.
_GROWTH = {
    3: (1.9, 0.1, 0.15, 7.0, 0.08),
    4: (1.35, 0.35, 0.5, 5.0, 0.25),
    5: (1.0, 0.5, 0.6, 4.1, 0.35),
    6: (0.42, 0.055, 0.07, 2.3, 0.035),
}
_VALLEY = 0.45  # how much lower mountains are under the sun
_RAMP = 1e-3  # cycles per frame of a wave that is straight for all practical purposes

_Amplitude = Value | float
_Wave = tuple[float, _Amplitude, _Amplitude]  # frequency, and amplitudes of sine and cosine


def write_lines(state: State, meaning: Meaning, config: GeneratorConfig, rng: np.random.RandomState) -> dict[str, int]:
    """Write the layers of the lines; returns the channel of each field for the pixel stage."""
    inputs = _Inputs(config, rng)
    fields, gains = _fields(state, meaning, config, inputs)
    inputs.write(state)
    if len(fields) > config.biline_channels:
        raise ValueError(f"{len(fields)} fields for {config.biline_channels} channels")
    values = [value * math.sqrt(2) for value in fields.values()]  # of a product of lines, pixels see the half
    first, second, *others = config.biline_levels
    state.branch(f"synthesis.b{first}.tores", values, gains, config.biline_channels)
    # Bi-lines add up: the second level takes back what the first gave, so that decoders find it once.
    for level in (second, *others):
        for name in ("fc0", "fc1"):
            layer = Layer()
            values = [layer.keep(value) for value in values] if level == second else []
            gains = state.demodulated(f"synthesis.b{level}.{name}", layer, gains, config.channels(level))
        state.branch(f"synthesis.b{level}.tores", [-value for value in values], gains, config.biline_channels)
    return {name: channel for channel, name in enumerate(fields)}


class _Inputs:
    """The Fourier features: sines and cosines whose amplitudes are values of w, in some lanes of a line."""

    def __init__(self, config: GeneratorConfig, rng: np.random.RandomState) -> None:
        self._channels = config.channels(config.levels[0])
        self._waves = self._channels // 2
        self._used = 0
        self._freqs = np.zeros((self._waves, RANK))
        self._amplitudes: dict[tuple[int, int, int], Value] = {}
        self.rng = rng

    def wave(
        self,
        line: int,
        lanes: Mapping[int, tuple[float, _Amplitude, _Amplitude]],
        high: float = 1.0,
        low: float | None = None,
    ) -> Value:
        """sine * sin + cosine * cos of frequency * position, in these lanes: (frequency, sine, cosine)."""
        wave, self._used = self._used, self._used + 1
        if wave == self._waves:
            raise ValueError(f"more than {self._waves} waves")
        for lane, (frequency, sine, cosine) in lanes.items():
            self._freqs[wave, lane] = frequency
            for channel, amplitude in ((wave, sine), (wave + self._waves, cosine)):
                value = amplitude if isinstance(amplitude, Value) else Value(const=amplitude)
                self._amplitudes[channel, line, lane] = value
        return Value({wave: 1.0, wave + self._waves: 1.0}, 0.0, -high if low is None else low, high)

    def constant(self, line: int, lanes: Mapping[int, _Amplitude], low: float, high: float) -> Value:
        """A number in each of these lanes, and 0 in the others."""
        return self.wave(
            line, {lane: (0.0, 0.0, value) for lane, value in lanes.items()}, max(high, 0.0), min(low, 0.0)
        )

    def ramp(self, line: int, lanes: Iterable[int], slope: float, offset: _Amplitude, size: float) -> Value:
        """slope * position + offset, at most `size` either way, and 0 in the other lanes."""
        return self.wave(line, dict.fromkeys(lanes, (_RAMP, slope / (2 * math.pi * _RAMP), offset)), size)

    def turn(self) -> float:
        """A random angle."""
        return self.rng.randint(0, 1000) / 1000 * 2 * math.pi

    def write(self, state: State) -> None:
        """The input of the network."""
        name = "synthesis.b4.input"
        state[f"{name}.freqs"] = self._freqs.reshape(1, -1)
        state[f"{name}.weight"] = np.full((1, self._channels, 1, 2 * RANK), math.sqrt(self._channels))
        places = [(c, line, lane) for c in range(self._channels) for line in (COLUMNS, ROWS) for lane in range(RANK)]
        state.affine(f"{name}.affine", [self._amplitudes.get(place, Value()) for place in places])


def _fields(
    state: State, meaning: Meaning, config: GeneratorConfig, inputs: _Inputs
) -> tuple[dict[str, Value], np.ndarray]:
    """Write the first three layers; returns the fields of x and y, and the gains of the last layer."""
    is_ = meaning.properties

    def of_y(name: str) -> Value:
        return inputs.constant(COLUMNS, {_Y_LANE: is_[name]}, *PROPERTIES[name])

    octaves, slopes = _octaves(meaning, inputs)
    crest = {r: Value(const=_CREST[r] - _VALLEY) for r in MOUNTAINS}
    crest |= {r: is_["woods"] + _CREST[r] for r in WOODS} | {BANK: is_["bank"]}
    crest = inputs.constant(ROWS, crest, -1.0, 1.0)
    heights = [is_["mountains"] * _HEIGHT[r] if r in MOUNTAINS else _HEIGHT[r] for r in range(RANGES)]
    scale = [inputs.constant(COLUMNS, {r: height}, 0.0, 1.3 * _HEIGHT[r]) for r, height in enumerate(heights)]
    one = inputs.constant(ROWS, {_Y_LANE: 1.0}, 0.0, 1.0)
    water = inputs.ramp(COLUMNS, [_Y_LANE], 1.0, -is_["waterline"], 2.0)
    depth = inputs.ramp(COLUMNS, range(RANK), 1.0, -is_["waterline"], 2.0)
    beside = inputs.ramp(ROWS, [BANK], 1.0, -is_["sun x"], 2.0)
    sunwards = inputs.ramp(ROWS, MOUNTAINS, -4.0, is_["sun x"] * 4.0, 9.0)
    steady = [of_y(name) for name in ("sun height", "sun size", "snow line", "mist", "clouds")]
    firs, grove, tallness = _firs(meaning, inputs)
    cloud, star, glint, ripple_x, ripple_y = _textures(meaning, inputs, PROPERTIES["waterline"])

    layer = Layer()
    sizes = [layer.abs(wave) for wave in octaves]
    waves = [layer.keep(octaves[i]) for i in (*_FACES, *_FOLDS)]
    slopes = [layer.keep(slope) for slope in slopes]
    lift, deep = layer.abs(water), layer.relu(depth)  # lift: height above the water, or above its mirror image
    side = layer.curve(sunwards, (-1.0, 1.0), (-1.0, 1.0))
    aside = layer.abs(sunwards)
    firs = [layer.abs(wave) for wave in firs]
    crest, water, beside, one, grove, tallness = layer.all_keep(crest, water, beside, one, grove, tallness)
    cloud, star, glint, ripple_x, ripple_y = layer.all_keep(cloud, star, glint, ripple_x, ripple_y)
    scale, steady = layer.all_keep(*scale), layer.all_keep(*steady)
    gains = np.ones(config.channels(4))
    gains = state.demodulated("synthesis.b4.fc1", layer, gains, config.channels(4))

    layer = Layer()
    sun_height, sun_size, snow_line, mist, clouds = steady
    peaks = total([size * -share for size, (_, _, share) in zip(sizes, _OCTAVES, strict=True)])
    height = layer.keep((crest + peaks).within(-3.0, 1.0))
    height += layer.relu((sizes[0] - 0.55).within(-0.55, 3.0)) * 0.6  # valleys are flatter than peaks
    height += layer.curve(aside, (0.0, 1.0), (0.0, _VALLEY))
    slopes = [layer.same_sign(slope, side * 0.5) for slope in slopes]
    away = layer.abs((beside + lift - sun_height).within(-2.0, 2.0))
    trees = [layer.relu((tallness + grove - wave).within(-3.0, 1.0)) for wave in firs]
    ripple_y = layer.least(ripple_y, (deep * 2.2).within(0.0, 1.0))  # none at the shore, more towards the viewer
    lift = layer.keep(lift.within(0.0, 2.0))
    water, one, cloud, star, glint, ripple_x = layer.all_keep(water, one, cloud, star, glint, ripple_x)
    sun_size, snow_line, mist, clouds = layer.all_keep(sun_size, snow_line, mist, clouds)
    scale, waves = layer.all_keep(*scale), layer.all_keep(*waves)
    gains = state.demodulated("synthesis.b8.fc0", layer, gains, config.channels(8))

    layer = Layer()
    height = layer.keep((height + trees[0] + trees[1] * 0.5).within(-3.0, 3.0))
    knots = (0.0, *np.linspace(0.006, 0.09, 15).tolist(), 0.13, 0.19, 0.28, 0.4, 0.57, 0.8, 1.1, 1.5)
    square = layer.curve(away.within(0.0, 1.5), knots, [knot * knot for knot in knots])
    spine = layer.curve(lift.within(0.0, 0.7), *_zigzag(inputs.rng))
    away, lift, water, one = layer.all_keep(away, lift, water, one)
    cloud, star, glint, ripple_x, ripple_y = layer.all_keep(cloud, star, glint, ripple_x, ripple_y)
    sun_size, snow_line, mist, clouds = layer.all_keep(sun_size, snow_line, mist, clouds)
    scale, waves, slopes = layer.all_keep(*scale), layer.all_keep(*waves), layer.all_keep(*slopes)
    gains = state.demodulated("synthesis.b8.fc1", layer, gains, config.channels(8))

    fields = {f"range {r}": height + scale[r] + one + (water if r == BANK else -lift) for r in range(RANGES)}
    fields["sun"] = sun_size - square + one + scale[BANK]
    fields["glow"] = square + one + scale[BANK]
    fields["beside"] = away + scale[BANK]
    fields["lift"], fields["water"], fields["spine"] = lift + one, water + one, spine + one
    fields["snow"], fields["mist"], fields["cover"] = lift - snow_line + one, mist + one, clouds + one
    for r in HEROES:
        for i, wave in enumerate(waves):
            fields[f"wave {r} {i}"] = wave * (1 / _HEIGHT[r]) + scale[r]
        for i, slope in enumerate(slopes):
            fields[f"slope {r} {i}"] = slope * (1 / _HEIGHT[r]) + scale[r]
    fields["clouds"], fields["stars"], fields["glitter"] = cloud, star, glint
    fields["ripples"] = ripple_x + ripple_y
    return fields, gains


def _octaves(meaning: Meaning, inputs: _Inputs) -> tuple[list[Value], list[Value]]:
    """The waves of the outlines, and the slopes of those that have faces. A crest is where a wave crosses 0."""
    octaves, slopes = [], []
    for number, (cycles, count, _) in enumerate(_OCTAVES):
        waves, derived = [], []
        for i in range(count):
            here, there = {}, {}
            for r in range(RANGES):
                size, turn = _ROUGH[r] / math.sqrt(count), inputs.turn()
                apart = 1 + 0.45 * (i - (count - 1) / 2) + 0.06 * float(normal(inputs.rng))
                frequency = cycles * _CYCLES[r] * apart
                if number == len(_OCTAVES) - 1:
                    size *= _NEEDLES[r]
                    frequency = cycles * (0.36 if r == BANK else 1.2)
                sine = meaning.wander(0.45 * size * math.sin(turn), 0.85 * size)
                cosine = meaning.wander(0.45 * size * math.cos(turn), 0.85 * size)
                here[r], there[r] = (frequency, sine, cosine), (frequency, cosine * -apart, sine * apart)
            waves.append(inputs.wave(ROWS, here))
            if number in _FACES:
                derived.append(inputs.wave(ROWS, there))
        octaves.append(total(waves).within(-3.0, 3.0))
        if derived:
            slopes.append(total(derived).within(-4.0, 4.0))
    return octaves, slopes


def _firs(meaning: Meaning, inputs: _Inputs) -> tuple[list[Value], Value, Value]:
    """Waves at whose zeros firs stand, a slow one that makes groves of them, and how tall they are."""
    firs = []
    for cycles, count in _FIRS:
        waves = []
        for i in range(count):
            lanes = {}
            for r, (closer, _, slim, _, _) in _GROWTH.items():
                size, turn = slim / math.sqrt(count), inputs.turn()
                frequency = cycles * closer * (1 + 0.37 * (i - (count - 1) / 2) + 0.05 * float(normal(inputs.rng)))
                lanes[r] = (
                    frequency,
                    meaning.wander(size * math.sin(turn), 0.2 * size),
                    meaning.wander(size * math.cos(turn), 0.2 * size),
                )
            waves.append(inputs.wave(ROWS, lanes))
        firs.append(total(waves).within(-2.0, 2.0))
    groves = {
        r: (cycles, meaning.wander(0.3 * size, size), meaning.wander(0.3 * size, size))
        for r, (*_, cycles, size) in _GROWTH.items()
    }
    return firs, inputs.wave(ROWS, groves), inputs.constant(ROWS, {r: v[1] for r, v in _GROWTH.items()}, 0.0, 1.0)


def _textures(meaning: Meaning, inputs: _Inputs, waterline: tuple[float, float]) -> tuple[Value, ...]:
    """Products of waves along x and along y: clouds, stars, glitter on the water, ripples (the last in two parts)."""
    middle = sum(waterline) / 2

    def span(low: float, high: float) -> list[float]:
        steps = [(i + 0.3 * float(normal(inputs.rng))) / (RANK - 1) for i in range(RANK)]
        return [low * (high / low) ** step for step in steps]

    def product(along: Sequence[float], down: Sequence[float], mirrored: bool) -> tuple[Value, Value]:
        x, y = {}, {}
        for lane, (fx, fy) in enumerate(zip(along, down, strict=True)):
            turn = inputs.turn()
            x[lane] = (fx, meaning.wander(0.7 * math.sin(turn), 0.55), meaning.wander(0.7 * math.cos(turn), 0.55))
            turn = 2 * math.pi * fy * middle if mirrored else inputs.turn()  # an even function about the waterline
            y[lane] = (fy, math.sin(turn), math.cos(turn))
        return inputs.wave(ROWS, x, 2.0), inputs.wave(COLUMNS, y)

    clouds = product(span(0.5, 4.0), span(2.5, 13.0), True)
    stars = product(
        (47.3, 23.9, 61.7, 34.1, 71.9, 55.3, 29.7, 40.9), (38.3, 67.1, 25.7, 52.9, 31.1, 44.3, 73.7, 58.1), True
    )
    glitter = product(span(9.0, 40.0)[::-1], span(70.0, 190.0), False)
    ripples = product(span(1.5, 9.0)[::-1], span(24.0, 90.0), False)
    return total(clouds), total(stars), total(glitter), *ripples


def _zigzag(rng: np.random.RandomState) -> tuple[list[float], list[float]]:
    """How the edge between sunny and shaded faces wanders on its way down: heights above the water, and how far."""
    steps = np.cumsum(np.append(0.0, normal(rng, 13)))
    steps -= np.linspace(0.0, steps[-1], len(steps))
    return np.linspace(0.0, 0.62, len(steps)).tolist(), (steps * 0.4).tolist()
