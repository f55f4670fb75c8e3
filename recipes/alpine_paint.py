"""How an alpine scene looks: `paint` turns a `Scene` into pixels, back to front, at any size.

Everything is a function of continuous coordinates, so that a scene is the same one at every size. Within a function
x is a row of columns, y a column of rows, colours are planar ([3, rows, columns] in 0..1), and `size` is the number of
rows of the whole frame.
"""

from __future__ import annotations

import numpy as np
from alpine_scene import Forest, Peak, Range, Scene
from einops import rearrange, reduce


def paint(scene: Scene, side: int, strip: int = 512) -> np.ndarray:
    """The scene as uint8 [side, side, 3], painted in strips of that many columns, which bounds the memory."""
    picture = np.empty((side, side, 3), np.uint8)
    for left in range(0, side, strip):
        right = min(left + strip, side)
        picture[:, left:right] = _strip(scene, side, left, right)
    return picture


def _strip(scene: Scene, side: int, left: int, right: int, fine: int = 2) -> np.ndarray:
    """The columns `left` to `right`: painted `fine` times finer, then averaged. Edges are smooth over a fine pixel."""
    size = side * fine
    x = (np.arange(left * fine, right * fine, dtype=np.float32) + 0.5) / size
    y = (np.arange(size, dtype=np.float32) + 0.5) / size
    shore = int(scene.waterline * size)
    canvas = np.empty((3, size, len(x)), np.float32)
    land = canvas[:, :shore]
    _sky(scene, land, x, y[:shore], size)
    for mountains in scene.ranges:
        _range(scene, mountains, land, x, y[:shore], size)
    _lay(land, _glare(scene), _glow(scene, x, y[:shore], 0.2) * 0.3)
    for forest in scene.forests:
        _forest(scene, forest, land, x, y[:shore], size)
    _lake(scene, canvas, x, y, shore)
    if scene.foreground is not None:
        _forest(scene, scene.foreground, canvas, x, y, size)
    canvas = reduce(canvas, "c (h ky) (w kx) -> c h w", "mean", ky=fine, kx=fine)
    return rearrange((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8), "c h w -> h w c")


# Small tools


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((value - low) * (1 / (high - low)), 0, 1)
    return part * part * (3 - 2 * part)


def _cover(distance: np.ndarray, size: int) -> np.ndarray:
    """How much of a pixel an edge covers that lies `distance` away (inside is positive)."""
    return np.clip(distance * size + 0.5, 0, 1)


def _zigzag(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Straight lines between random values at the whole numbers; 64 of them, then again."""
    whole = np.floor(at)
    index = whole.astype(np.int32)
    first = values[index & 63]
    return first + (at - whole) * (values[(index + 1) & 63] - first)


def _spline(at: np.ndarray, count: int) -> np.ndarray:
    """[len(at), count] weights of a cubic B-spline: smooth noise is then rows @ lattice @ columns."""
    whole = np.floor(at)
    t = (at - whole).astype(np.float32)
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    basis = np.zeros((len(at), count), np.float32)
    for offset, weight in enumerate(weights):
        basis[np.arange(len(at)), (whole.astype(np.int64) + offset) % count] += weight
    return basis


def _noise(lattice: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Smooth noise over the grid of the coordinates y and x, about -1..1."""
    rows, columns = lattice.shape
    return 1.7 * (_spline(y, rows) @ lattice.astype(np.float32) @ _spline(x, columns).T)


def _mix(first: np.ndarray, second: np.ndarray | float, part: float) -> np.ndarray:
    return first + (second - first) * part


def _lay(canvas: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lays a colour, or planes of colour, over the canvas."""
    for plane, value in zip(canvas, colour, strict=True):
        plane += (value - plane) * cover


# Sky


def _sky(scene: Scene, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> None:
    light, colours = scene.light, scene.light.colours
    high = y / scene.waterline
    to_mid, to_low = _step(high, 0.0, 0.62)[:, None], _step(high, 0.42, 0.98)[:, None]
    for plane, top, mid, low in zip(canvas, colours["top"], colours["mid"], colours["low"], strict=True):
        plane[:] = _mix(_mix(top, mid, to_mid), low, to_low)
    if light.stars > 0.05:
        _stars(scene, canvas, x, y, size)
    if light.aurora > 0:
        _aurora(scene, canvas, x, y)
    away = _distance(x, y, light.x, light.y)
    wide = _glow(scene, x, y, 0.36)
    _lay(canvas, _glare(scene), wide * 0.6)
    _lay(canvas, _mix(colours["low"], colours["disc"], 0.75), np.exp(-away / (light.radius * 1.3)) * light.glow)
    _lay(canvas, colours["disc"], _cover(light.radius - away, size))
    _clouds(scene, canvas, x, y, wide)


def _glow(scene: Scene, x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """Light that the air scatters around the disc, somewhat wider than high."""
    beside = np.exp(-(((x - scene.light.x) / width) ** 2)) * scene.light.glow
    return np.exp(-(((y - scene.light.y) * (1.15 / width)) ** 2))[:, None] * beside


def _glare(scene: Scene) -> np.ndarray:
    return _mix(scene.light.colours["low"], scene.light.colours["disc"], 0.2)


def _distance(x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float) -> np.ndarray:
    return np.hypot(x - np.float32(centre_x), (y - np.float32(centre_y))[:, None])


def _stars(scene: Scene, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> None:
    for star_x, star_y, radius in scene.stars:
        rows = slice(*np.searchsorted(y, [star_y - 3 * radius, star_y + 3 * radius]))
        columns = slice(*np.searchsorted(x, [star_x - 3 * radius, star_x + 3 * radius]))
        away = _distance(x[columns], y[rows], star_x, star_y)
        spot = np.exp(-((away / radius) ** 2)) * scene.light.stars * (0.35 + 130 * radius)
        _lay(canvas[:, rows, columns], scene.light.colours["disc"], np.minimum(spot, 1))


def _aurora(scene: Scene, canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Two curtains: sharp below, fading upwards, brighter where the curtain folds."""
    wave = scene.aurora_wave
    for curtain in (0, 1):
        a, b, c, d, e, f = wave[6 * curtain : 6 * curtain + 6]
        foot = 0.2 + 0.2 * a + 0.06 * np.sin(6.3 * (x * (0.7 + b) + c)) + 0.025 * np.sin(6.3 * (x * 2.6 + d))
        fold = 0.55 + 0.45 * np.sin(6.3 * (x * (2 + 2 * e) + f) + 2 * np.sin(6.3 * (x * 1.3 + b)))
        above = foot[None] - y[:, None]
        strength = _step(above, -0.03, 0.02) * np.exp(-np.maximum(above, 0) / (0.09 + 0.1 * fold)) * fold
        green, violet = np.float32([0.35, 0.95, 0.66]), np.float32([0.55, 0.42, 0.86])
        part = np.clip(above / 0.2, 0, 1)
        planes = [g + (v - g) * part for g, v in zip(green, violet, strict=True)]
        _lay(canvas, np.stack(planes), strength * (0.6 * scene.light.aurora**0.5 * (1 - 0.35 * curtain)))


def _clouds(scene: Scene, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, halo: np.ndarray) -> None:
    """Bands that lie flatter and closer towards the horizon; the sun's side of the sky lights them."""
    if scene.clouds < 0.12:
        return
    colours = scene.light.colours
    far = -np.log(1.1 - y / scene.waterline)
    octaves = ((0.6, 0.9, 4.4), (0.3, 2.3, 8.5), (0.14, 6.1, 16.0))
    bands = sum(
        weight * _noise(lattice, far * down + 3, x * along)
        for lattice, (weight, along, down) in zip(scene.cloud_noise, octaves, strict=True)
    )
    threshold = 0.5 - 0.5 * scene.clouds
    body = _step(bands, threshold, threshold + 0.22) * 0.75 * (0.4 + 0.6 * scene.clouds)
    lit = _mix(colours["cloud"], colours["disc"], 0.45)
    shade = _mix(colours["cloud"], colours["mid"], 0.4)
    core = _step(bands, threshold + 0.1, threshold + 0.6) * np.clip(1 - 2.2 * halo, 0, 1)
    planes = np.stack([a + (b - a) * core for a, b in zip(lit, shade, strict=True)])
    _lay(canvas, planes, body * (1 - 0.3 * _step(y / scene.waterline, 0.7, 1.0))[:, None])


# Land


def _range(scene: Scene, mountains: Range, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> None:
    for peak in mountains.peaks:
        height = scene.waterline - peak.y
        reach = 1.2 * height / max(0.08, min(peak.left, peak.right) - 0.41)  # where the outline is under water for sure
        columns = slice(*np.searchsorted(x, [peak.x - reach, peak.x + reach]))
        top = max(0, int((peak.y - 0.12 * height) * size))
        if columns.stop > columns.start and top < len(y):
            _peak(scene, mountains, peak, canvas[:, top:, columns], x[columns], y[top:], size)


def _peak(
    scene: Scene, mountains: Range, peak: Peak, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, size: int
) -> None:
    light, colours, depth = scene.light, scene.light.colours, mountains.depth
    height = scene.waterline - peak.y
    u, v = (x - peak.x) / height, ((y - peak.y) / height)[:, None]
    # The outline: steep at the summit, flatter below, with jags that vanish at the summit.
    outwards = np.abs(u)
    slope = np.where(u < 0, peak.left, peak.right)
    jag = 0.1 * _zigzag(peak.jags[0], u * 7 + 32) + 0.045 * _zigzag(peak.jags[1], u * 19 + 20)
    outline = slope * outwards / (1 + 0.35 * outwards) + mountains.rough * jag * np.minimum(1, outwards * 5)
    cover = _cover((v - outline) * (height * 0.75), size)

    # The spine runs down from the summit in a zigzag and parts the lit face from the shaded one.
    spine = peak.lean * v + np.minimum(v * 2.5, 1) * (
        0.13 * _zigzag(peak.jags[2], v * 6 + 8) + 0.05 * _zigzag(peak.jags[3], v * 17 + 8)
    )
    across = (u - spine) * np.float32(1 if light.x > peak.x else -1)
    sunny = _cover(across * (height * 0.8), size)
    # Spurs leave the spine like the veins of a leaf; each has a lit and a shaded side of its own.
    leaf = v * 5.5 - np.abs(across) * 4.5 + 0.35 * _zigzag(peak.jags[1], u * 9 + 7)
    spur = _zigzag(peak.jags[4], leaf * 1.6 + 30)
    tooth = _cover((spur - 0.1) * (height * 0.15), size)
    sideways = min(1.0, abs(light.x - peak.x) / 0.12)  # straight under the sun both faces are nearly alike
    bright = 0.5 + (0.5 * sideways) * (2 * sunny - 1) * (1 - 0.42 * tooth)

    away = 1 - depth
    rock_dark = _mix(colours["far"], colours["rock"], depth)
    rock_light = _mix(rock_dark, colours["light"], 0.22 + 0.26 * depth)
    snow_dark = _mix(_mix(colours["far"], colours["cloud"], 0.5), colours["top"], 0.1)
    snow_light = _mix(_mix(colours["light"], 1.0, 0.45), snow_dark, 0.4 * away)
    line = 0.09 * _zigzag(peak.jags[4], u * 11 + 9) + 0.04 * _zigzag(peak.jags[0], u * 31 + 5) + 0.07 * spur
    snow = _cover((mountains.snow - peak.y) + (line * height - v * height), size)
    haze = np.clip(mountains.mist * _step(v, 0.25, 1.05) + 0.28 * away, 0, 0.95)
    planes = []
    for rock0, rock1, snow0, snow1, air in zip(
        rock_dark, rock_light, snow_dark, snow_light, _mix(colours["low"], colours["far"], 0.3), strict=True
    ):
        rock = rock0 + (rock1 - rock0) * bright
        tone = rock + (snow0 + (snow1 - snow0) * bright - rock) * snow
        planes.append(tone + (air - tone) * haze)
    _lay(canvas, planes, cover)


def _forest(scene: Scene, forest: Forest, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> None:
    """A hill and the firs along its back. Each column asks the firs of its own cell and the two beside it."""
    colours, bank = scene.light.colours, forest.bank
    tallest = 1.15 * forest.height

    def rise_at(at: np.ndarray) -> np.ndarray:
        return abs(bank) * 1.4 * _step(at if bank > 0 else 1 - at, 0.5, 1.15)

    def clump(at: np.ndarray) -> np.ndarray:
        a, b = forest.waves[0, 1:]
        return 0.78 + 0.22 * np.sin(6.283 * (2.3 * at + a)) * np.sin(6.283 * (3.9 * at + b))

    def ground(at: np.ndarray) -> np.ndarray:
        shape = sum(
            w * np.sin(6.283 * ((0.6 + 1.6 * i * f) * at + p)) / i for i, (f, p, w) in enumerate(forest.waves, 1)
        )
        bay = _step(forest.gap_half - np.abs(at - forest.gap), -0.12, 0.06)
        return forest.y + forest.amplitude * (shape - 0.8) + bay * (scene.waterline - forest.y + 0.06)

    line = ground(x) - rise_at(x)
    top = max(0, int((line.min() - tallest) * size))
    rows, v = canvas[:, top:], y[top:, None]
    cover = _cover(v - line, size)
    cell = np.floor(x * forest.cells)
    for neighbour in (-1, 0, 1):
        index = (cell + neighbour).astype(np.int64)
        place, tall, slender, drop = forest.firs[(index + 2) % 128].T
        centre = (index + 0.2 + 0.6 * place) / forest.cells
        height = forest.height * (0.45 + 0.7 * tall)
        if bank:  # the firs of the foreground stand on the bank only
            here = centre if bank > 0 else 1 - centre
            height = height * np.clip((here - 0.68) / 0.2, 0, 1)
            foot = ground(centre) - rise_at(centre) + 0.012 * drop
        else:
            foot = ground(centre) + 0.006 * drop
            height = height * np.clip((scene.waterline - foot) / 0.012, 0, 1) * clump(centre)
        cover = np.maximum(cover, _fir(x - centre, foot - v, height, height * (0.17 + 0.09 * slender), size))
    far = 1 - forest.depth
    dark = _mix(colours["near"], _mix(colours["rock"], colours["far"], 0.35), np.clip(0.75 * far + 0.12, 0, 1))
    haze = 0.0 if bank else scene.light.mist * (0.14 + 0.7 * far) * _step(v - scene.waterline, -0.1, 0.02)
    planes = [tone + (air - tone) * haze for tone, air in zip(dark, colours["low"], strict=True)]
    _lay(rows, planes, cover)


def _fir(aside: np.ndarray, up: np.ndarray, height: np.ndarray, width: np.ndarray, size: int) -> np.ndarray:
    """A cone whose edge is cut into drooping tiers, so that it does not look like a spike."""
    height = np.maximum(height, 1e-4)
    share = 1 - up / height + 0.12 * np.abs(aside) / np.maximum(width, 1e-4)  # 0 at the tip, 1 at the foot
    tier = share * 6
    edge = width * share * (0.72 + 0.4 * (tier - np.floor(tier)))
    inside = np.minimum(edge - np.abs(aside), up + 0.02)
    return _cover(inside, size) * (share > 0)


# Water


def _lake(scene: Scene, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, shore: int) -> None:
    """Mirrors the rows above the shore, each pixel shifted up or down by ripples that widen towards the viewer."""
    light, colours, size = scene.light, scene.light.colours, len(y)
    below = y[shore:] - scene.waterline
    near = below / (1 - scene.waterline)
    ripples, sparkle = _ripples(scene, x, below)
    shift = np.abs(ripples) * (scene.ripple * (0.006 + 0.11 * _step(near, -0.1, 1.1)))[:, None]
    source = np.clip((scene.waterline - below[:, None] * 0.92 - shift) * size - 0.5, 0, shore - 1.001)
    row = source.astype(np.int32)
    part = source - row
    depth = (0.16 + 0.36 * near)[:, None]
    streaks = _step(ripples, 0.5, 0.6) * (0.22 * scene.ripple)
    width = light.radius * (0.5 + 1.5 * near)[:, None]
    column = np.exp(-(((x - light.x) / width) ** 2))
    path = _step(sparkle + 0.95 * column, 0.72, 0.9) * np.minimum(1, 3 * column)
    path *= (0.85 * scene.glitter * (1 - 0.4 * near))[:, None]
    for plane, water, sky, disc in zip(canvas, colours["water"], colours["mid"], colours["disc"], strict=True):
        mirror = np.take_along_axis(plane[:shore], row, 0)
        mirror += part * (np.take_along_axis(plane[:shore], row + 1, 0) - mirror)
        mirror += (water - mirror) * depth
        mirror += (sky - mirror) * streaks
        mirror += (disc - mirror) * path
        plane[shore:] = mirror
    # A thin light line parts land and water, which are equally dark there; mist lies over both.
    offset = y - scene.waterline
    veil = 0.45 * np.exp(-((offset / 0.004) ** 2)) * (offset > 0) + 0.6 * light.mist * np.exp(-np.abs(offset) / 0.025)
    reach = slice(*np.searchsorted(offset, [-0.15, 0.15]))
    _lay(canvas[:, reach], _mix(colours["low"], colours["mid"], 0.3), veil[reach, None])


def _ripples(scene: Scene, x: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is stretched along x and crowds towards the far shore: one for the waves, one for the sparkle."""
    waves = []
    kinds = ((0.010, 0.16, 2.2), (0.007, 0.06, 4.0), (0.006, 0.024, 8.0))
    for lattice, (shore, wider, along) in zip(scene.ripple_noise, kinds, strict=True):
        # The lattice is `shore` apart at the shore and wider by `wider` times the distance from there.
        away = np.log(below * (wider / shore) + 1) / wider
        waves.append(_step(shore + wider * below, 0.003, 0.011)[:, None] * _noise(lattice, away, x * along))
    return 0.4 * waves[0] + 0.65 * waves[1], waves[2]
