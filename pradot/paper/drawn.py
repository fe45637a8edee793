"""The drawn data set: an inspection camera looks down on a tray of parts, drawn from a seed.

The scene is a height field with colours and materials, shaded as a camera would see it: a key light with cast
shadows, a sky, mirror-like metal, then lens blur, vignette and sensor noise. All lengths are in pixels of a
256 x 256 image.

A tray has 2 x 2 equal compartments, each with its own contents. Parts look the same in any compartment, and the walls
are wide, so that exchanged contents (`swapped`) can be told by their place alone as long as an encoder looks no
further than about 30 pixels around. Scale 2 of the offline encoder does; its scale 3 sees about twice as far, and at
the picture's border feels the zero padding, which gives part of the place away.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from pradot.errors import PradotError
from pradot.files import alone, scratch
from pradot.progress import progress_bar

CATEGORY = "tray"
MARKER = "drawn.txt"  # lies in the category's folder, says with what settings it was drawn
STRUCTURAL = ("scratch", "dent", "stain")
LOGICAL = ("missing", "swapped", "extra")
VERSION = 3  # of the drawing: raise it with any change of the pictures, so that older sets are redrawn

_SUPERSAMPLING = 2
_PITCH = 113.0  # distance of compartment centres
_COMPARTMENT = 44.0  # half its side at the rim
_TRAY = 121.0  # half its side
_FLOOR, _RIM = 3.0, 15.0  # heights above the table
_LIGHT = np.array([-0.46, -0.56, 0.69], np.float32)  # towards the key light: from the upper left


class _Material(NamedTuple):
    colour: tuple[float, float, float]  # linear reflectance
    metal: float  # 1: mirrors its surroundings, 0: diffuse
    gloss: float  # strength of the highlight of a diffuse material
    grain: float  # strength of the surface texture


_STEEL = _Material((0.50, 0.51, 0.52), 1.0, 0.0, 0.7)
_ZINC = _Material((0.66, 0.65, 0.61), 1.0, 0.0, 1.0)
_STAINLESS = _Material((0.52, 0.51, 0.50), 1.0, 0.0, 0.7)
_BRASS = _Material((0.66, 0.43, 0.15), 1.0, 0.0, 0.8)
_SILICONE = _Material((0.42, 0.06, 0.02), 0.0, 0.22, 0.5)
_PLASTIC = _Material((0.018, 0.075, 0.27), 0.0, 0.60, 0.3)
_TRAY_PLASTIC = _Material((0.050, 0.053, 0.058), 0.0, 0.05, 1.0)
_TABLE = _Material((0.24, 0.24, 0.235), 0.65, 0.0, 1.0)


# --------------------------------------------------------------------------------------------------------------- parts
# A part is a function (x, y) -> signed distance to its outline (negative inside), height above the floor.


def _ramp(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _nut(x, y):
    r = np.hypot(x, y)
    hexagon = np.max([np.abs(x * np.cos(a) + y * np.sin(a)) for a in np.deg2rad([0, 60, 120])], axis=0) - 18.5
    height = 11 - 0.75 * np.maximum(r - 17.5, 0) - 0.9 * np.maximum(12.5 - r, 0)
    height += 0.35 * np.sin(r * 3.0) * (r < 11.5)  # the thread
    return np.maximum(hexagon, 9.5 - r), np.minimum(height, 11 + 0.8 * np.minimum(-hexagon - 1.5, 0))


def _washer(x, y):
    r = np.hypot(x, y)
    edge = np.maximum(r - 21.5, 10.5 - r)
    return edge, 3.4 + 0.8 * np.minimum(-edge - 1.6, 0)


def _ring(x, y):
    edge = np.abs(np.hypot(x, y) - 17.5) - 4.2
    return edge, 4.2 + np.sqrt(np.maximum(4.2**2 - (edge + 4.2) ** 2, 0))


def _gear(x, y):
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = np.maximum(r - 20 - 2.0 * np.clip(1.7 * np.cos(16 * angle), -1, 1), 5.5 - r)
    web = _ramp(8.5, 10.0, r) * (1 - _ramp(15.0, 16.5, r))
    return edge, 8 - 3.2 * web + 0.8 * np.minimum(-edge - 1.3, 0)


def _screw(x, y):
    y = y + 2
    thread = 0.55 * np.abs(((y / 2.6 + x / 22) % 1) * 2 - 1)
    radius = np.where(y < -13, 9.0 - 0.12 * np.maximum(-20 - y, 0) ** 2, (4.6 - thread) * np.clip((27.5 - y) / 4, 0.05, 1))
    edge = np.maximum(np.abs(x) - radius, np.maximum(-25 - y, y - 27))
    height = 5 + np.sqrt(np.maximum(radius**2 - x**2, 0))
    height += np.where(y < -13, 0.25 * np.sin(x * 3.2), 0)  # the knurled head
    return edge, height


def _cap(x, y):
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = r - 20.5 - 0.4 * np.cos(30 * angle)
    dome = 9 + 4.0 * np.sqrt(np.clip(1 - (r / 24) ** 2, 0, 1))
    groove = 0.9 * np.exp(-(((r - 11) / 1.1) ** 2))
    flutes = 0.5 * np.cos(30 * angle) * _ramp(16, 19.5, r)
    return edge, dome - groove + flutes + 1.4 * np.minimum(-edge - 3.0, 0)


class _Part(NamedTuple):
    shape: Callable
    material: _Material
    turn: float  # normal spread of its direction, degrees either way
    turned: bool  # machined on a lathe


_NUT = _Part(_nut, _STEEL, 9, True)
_RING = _Part(_ring, _SILICONE, 180, False)
_GEAR = _Part(_gear, _BRASS, 9, True)
_CAP = _Part(_cap, _PLASTIC, 180, False)
_SCREW = _Part(_screw, _STAINLESS, 7, False)
_WASHER = _Part(_washer, _ZINC, 180, True)
_PARTS = (_NUT, _RING, _GEAR, _CAP, _SCREW, _WASHER)


class _Item(NamedTuple):
    part: _Part
    x: float  # its place in the compartment
    y: float
    size: float


# What belongs in the compartments: upper row, then lower row.
_CONTENTS = (
    (_Item(_SCREW, -16, 0, 0.98), _Item(_WASHER, 12, -9, 0.74)),
    (_Item(_GEAR, 0, 0, 1.3),),
    (_Item(_CAP, 0, 0, 1.35),),
    (_Item(_NUT, -13, -12, 0.78), _Item(_RING, 12, 13, 0.76)),
)


# --------------------------------------------------------------------------------------------------------------- scene


@lru_cache(maxsize=2)
def _shared(size: int) -> dict[str, np.ndarray]:
    """What all scenes of one size share: pixel coordinates, textures to crop from, vignette."""
    n, scale = _SUPERSAMPLING * size, _SUPERSAMPLING * size / 256
    rng = np.random.default_rng(20250812)  # the same stock of textures for all; scenes take different crops
    axis = ((np.arange(n, dtype=np.float32) + 0.5) / scale) - 128
    wide = n + n // 2

    def noise(*sigma):
        field = rng.standard_normal((wide, wide), np.float32)
        for which, s in enumerate(sigma):
            field = gaussian_filter1d(field, s * scale, axis=which, mode="wrap")
        return field / field.std()

    r2 = (np.arange(size) + 0.5 - size / 2) ** 2 / (size / 2) ** 2
    return {
        "axis": axis,
        "grain": noise(0.4, 0.4) + 0.35 * noise(1.0, 1.0),
        "brushed": 0.7 * noise(0.35, 9.0) + 0.5 * noise(0.9, 30.0),
        "cloud": noise(14.0, 14.0),
        "vignette": (1 - 0.09 * (r2[:, None] + r2[None, :])).astype(np.float32)[..., None],
    }


class _Canvas:
    """Height, colour and material of each point of the scene, at the supersampled size."""

    def __init__(self, size: int):
        self.size, self.n = size, _SUPERSAMPLING * size
        self.scale = self.n / 256  # samples per unit
        self.height = np.zeros((self.n, self.n), np.float32)
        self.colour = np.zeros((self.n, self.n, 3), np.float32)
        self.metal, self.gloss = np.zeros_like(self.height), np.zeros_like(self.height)

    def window(self, x: float, y: float, reach: float):
        """Slices around a point, and the coordinates of their samples relative to it."""
        axis = _shared(self.size)["axis"]
        spans = []
        for centre in (y, x):
            middle = round((centre + 128) * self.scale)
            half = int(np.ceil(reach * self.scale))
            spans.append(slice(max(middle - half, 0), max(min(middle + half, self.n), 0)))
        dy, dx = (axis[span] - centre for span, centre in zip(spans, (y, x), strict=True))
        return tuple(spans), dx[None, :], dy[:, None]

    def lay(self, where, cover, height, material: _Material, tone=1.0):
        """Put a surface over what is there: `cover` in [0, 1], height above the table."""
        self.height[where] += cover * (height - self.height[where])
        tint = np.asarray(material.colour, np.float32) * (tone[..., None] if isinstance(tone, np.ndarray) else tone)
        self.colour[where] += cover[..., None] * (tint - self.colour[where])
        self.metal[where] += cover * (material.metal - self.metal[where])
        self.gloss[where] += cover * (material.gloss - self.gloss[where])


def _crop(rng: np.random.Generator, field: np.ndarray, n: int) -> np.ndarray:
    top, left = rng.integers(0, field.shape[0] - n, 2)
    return field[top : top + n, left : left + n]


def _turned(x, y, degrees: float):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


class _Pose(NamedTuple):
    x: float  # shift from its place
    y: float
    turn: float  # a number in [-1, 1], times the part's own spread
    tilt: tuple[float, float]  # slope of its base to the right and down
    tone: float  # brightness of its surface
    texture: int  # where its surface texture is cropped


class _Tray(NamedTuple):
    x: float  # centre in the image
    y: float
    turn: float  # degrees

    def place(self, cell: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of a compartment (0 to 3) is in the image."""
        x, y = x + (cell % 2 - 0.5) * _PITCH, y + (cell // 2 - 0.5) * _PITCH
        x, y = _turned(x, y, -self.turn)
        return float(x) + self.x, float(y) + self.y


def _place(canvas: _Canvas, tray: _Tray, cell: int, item: _Item, pose: _Pose, base: float = _FLOOR) -> np.ndarray:
    """Lay a part down; gives the pixels that it covers, at the supersampled size."""
    part = item.part
    where, dx, dy = canvas.window(*tray.place(cell, item.x + pose.x, item.y + pose.y), 32 * item.size)
    x, y = _turned(dx / item.size, dy / item.size, tray.turn + pose.turn * part.turn)
    edge, height = part.shape(x, y)
    edge, height = edge * item.size, height * item.size
    cover = np.clip(0.5 - edge * canvas.scale, 0, 1)
    shared = _shared(canvas.size)
    texture = shared["brushed" if part.material.metal else "grain"]
    top = pose.texture % (texture.shape[0] - cover.shape[0])
    texture = texture[top : top + cover.shape[0], : cover.shape[1]]
    tone = pose.tone * (1 + 0.06 * part.material.grain * texture)
    if part.turned:  # fine turning marks mirror the light in a bow tie
        tone *= 0.92 + 0.5 * np.cos(np.arctan2(dy, dx) - np.arctan2(_LIGHT[1], _LIGHT[0])) ** 6
    height = base + height + pose.tilt[0] * dx + pose.tilt[1] * dy + 0.03 * part.material.grain * texture
    canvas.lay(where, cover, height, part.material, tone)
    covered = np.zeros((canvas.n, canvas.n), bool)
    covered[where] = cover > 0.5
    return covered


def _draw_tray(canvas: _Canvas, rng: np.random.Generator) -> _Tray:
    """Draw the table, and the tray on it with empty compartments."""
    shared, everything = _shared(canvas.size), (slice(None), slice(None))
    brushed, grain = _crop(rng, shared["brushed"], canvas.n), _crop(rng, shared["grain"], canvas.n)
    cloud = _crop(rng, shared["cloud"], canvas.n)
    one = np.ones_like(canvas.height)
    canvas.lay(everything, one, 0.02 * brushed, _TABLE, 1 + 0.09 * brushed + 0.05 * cloud)

    tray = _Tray(*rng.uniform(-1.2, 1.2, 2), rng.uniform(-0.5, 0.5))
    axis = shared["axis"]
    x, y = _turned(axis[None, :] - tray.x, axis[:, None] - tray.y, tray.turn)

    def box(x, y, half, radius):  # signed distance to a rounded rectangle
        dx, dy = np.abs(x) - (half - radius), np.abs(y) - (half - radius)
        return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius

    outline = box(x, y, _TRAY, 12)
    inside = box(np.abs(x) - _PITCH / 2, np.abs(y) - _PITCH / 2, _COMPARTMENT, 9)  # the four are equal
    height = _RIM - (_RIM - _FLOOR) * (1 - _ramp(-5.0, -0.5, inside))  # sloped walls
    height -= 7 * _ramp(-3.5, 0.5, outline)
    height += 0.06 * grain
    canvas.lay(everything, np.clip(0.5 - outline * canvas.scale, 0, 1), height, _TRAY_PLASTIC, 1 + 0.07 * grain + 0.04 * cloud)

    return tray


def _pose(rng: np.random.Generator) -> _Pose:
    """What is left to chance of a part that lies as it should."""
    return _Pose(
        *rng.uniform(-1.4, 1.4, 2),
        rng.uniform(-1, 1),
        tuple(rng.normal(0, 0.025, 2)),
        rng.normal(1, 0.03),
        int(rng.integers(1 << 20)),
    )


# --------------------------------------------------------------------------------------------------------------- light


def _shade(canvas: _Canvas) -> np.ndarray:
    """Linear light of the scene at the final size, (size, size, 3)."""
    n, scale = canvas.n, canvas.scale
    height = gaussian_filter(canvas.height, 0.35 * scale, truncate=2.5)
    down, right = np.gradient(height * scale)
    down, right = np.clip(down, -2.5, 2.5), np.clip(right, -2.5, 2.5)
    nz = 1 / np.sqrt(1 + down**2 + right**2)
    nx, ny = -right * nz, -down * nz

    # Shadows and the sky seen from each point are smooth: half the samples do.
    low = height[::2, ::2]
    slope = _LIGHT[2] / np.hypot(_LIGHT[0], _LIGHT[1])
    blocked = np.zeros_like(low)
    for step in np.arange(1.0, 17.0, 1.5):
        distance = step * scale / 2
        sx, sy = (round(distance * c / np.hypot(_LIGHT[0], _LIGHT[1])) for c in _LIGHT[:2])
        towards = np.pad(low, ((-sy, 0), (-sx, 0)), mode="edge")[: low.shape[0], : low.shape[1]]
        np.maximum(blocked, towards - low - step * slope, out=blocked)
    lit = 1 - 0.85 * gaussian_filter(_ramp(0.0, 2.5, blocked), 1.1 * scale / 2)
    hidden = np.maximum(gaussian_filter(low, 6 * scale / 2, truncate=2.5) - low, 0)
    hidden += np.maximum(gaussian_filter(low, 2 * scale / 2) - low, 0)
    sky = 1 / (1 + 0.13 * hidden)
    lit, sky = (np.repeat(np.repeat(a, 2, 0), 2, 1)[:n, :n] for a in (lit, sky))
    lit, sky = (gaussian_filter(a, 0.8, truncate=2) for a in (lit, sky))

    facing = np.maximum(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0)
    diffuse = 1.15 * facing * lit + (0.22 + 0.22 * nz) * sky
    rx, ry, rz = 2 * nz * nx, 2 * nz * ny, 2 * nz * nz - 1  # where the camera looks after one reflection
    mirror = np.maximum(rx * _LIGHT[0] + ry * _LIGHT[1] + rz * _LIGHT[2], 0)
    highlight = mirror**24 * lit
    box = _ramp(0.80, 0.97, mirror) * (0.35 + 0.65 * lit)
    surroundings = 0.10 + 0.42 * _ramp(0.2, 1.0, rz) + 0.22 * _ramp(0.0, 1.0, mirror) + 1.25 * box
    surroundings += 0.35 * _ramp(0.25, 0.75, rx * 0.5 + ry * 0.7)  # a fill light opposite the key light
    reflected = surroundings * (0.25 + 0.75 * sky) * (0.55 + 0.45 * lit)

    light = diffuse + canvas.metal * (reflected - diffuse)
    image = canvas.colour * light[..., None] + (canvas.gloss * highlight)[..., None]
    factor = _SUPERSAMPLING
    return image.reshape(canvas.size, factor, canvas.size, factor, 3).mean((1, 3))


def _photograph(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lens and sensor: uneven lighting, colour temperature, blur, vignette, tone curve, noise; uint8."""
    size = light.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    gradient = 1 + rng.uniform(-0.06, 0.06) * ramp[None, :, None] + rng.uniform(-0.06, 0.06) * ramp[:, None, None]
    warmth = rng.uniform(-0.025, 0.025)
    gain = rng.uniform(0.94, 1.06) * np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    image = light * gradient * _shared(size)["vignette"] * gain
    image = gaussian_filter(image, (0.55 * size / 256, 0.55 * size / 256, 0), truncate=3)
    image = 2.1 * image
    image = np.clip(image * (1 + image / 9) / (0.62 + image), 0, 1)  # soft shoulder to white at 3
    shot = rng.standard_normal(image.shape, np.float32)
    image = image + 0.012 * np.sqrt(image + 0.02) * shot
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    return (image * 255 + 0.5).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------- defects


def _scratch(canvas: _Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
    length, bend, angle = rng.uniform(35, 75), rng.uniform(-0.004, 0.004), rng.uniform(0, 180)
    where, dx, dy = canvas.window(*spot, length / 2 + 8)
    x, y = _turned(dx, dy, angle)
    y = y - bend * x**2 - 0.3 * np.sin(x * rng.uniform(0.2, 0.5))
    depth = np.zeros_like(x)
    for _ in range(rng.integers(1, 4)):  # one slip of a tool leaves some marks side by side
        off, width = np.abs(y - rng.uniform(-3, 3)), rng.uniform(0.7, 1.3)
        start, end = np.sort(rng.uniform((-0.5, 0.2), (-0.2, 0.5))) * length
        taper = np.clip(np.minimum(x - start, end - x) / 6, 0, 1)
        np.maximum(depth, taper * np.clip(1.5 - off / width, 0, 1), out=depth)
    canvas.height[where] -= 1.2 * depth
    bright = np.float32(rng.uniform(0.5, 0.65))
    canvas.colour[where] += 0.7 * depth[..., None] * (bright - canvas.colour[where])
    return _covered(canvas, where, depth > 0.1)


def _dent(canvas: _Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
    radius, angle, oval = rng.uniform(9, 14), rng.uniform(0, 180), rng.uniform(0.65, 1.0)
    where, dx, dy = canvas.window(*spot, radius * 1.6)
    x, y = _turned(dx, dy, angle)
    r = np.hypot(x, y / oval) / radius
    bowl = -rng.uniform(6, 9) * np.exp(-2.2 * r**2) + 2.0 * np.exp(-18 * (r - 1.05) ** 2)
    # What is struck gives way: relief is flattened where the bowl is deep.
    flat = gaussian_filter(canvas.height[where], 5 * canvas.scale)
    canvas.height[where] += np.exp(-1.5 * r**4) * (flat - canvas.height[where]) + bowl
    whitened = 0.2 * np.exp(-14 * (r - 0.95) ** 2)  # strained material turns pale
    canvas.colour[where] += whitened[..., None] * (np.float32(0.42) - canvas.colour[where])
    return _covered(canvas, where, r < 1.25)


def _stain(canvas: _Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
    radius = rng.uniform(9, 15)
    where, dx, dy = canvas.window(*spot, radius * 1.8)
    angle = np.arctan2(dy, dx)
    wobble = sum(rng.uniform(-0.16, 0.16) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5, 7))
    r = np.hypot(dx, dy) / (radius * (1 + wobble))
    film = np.clip((1.0 - r) * radius / 1.5, 0, 1)
    film = film * (0.55 + 0.45 * np.exp(-(((r - 0.92) / 0.09) ** 2)))  # what dries leaves most at its edge
    tint = np.array([0.40, 0.20, 0.05], np.float32)
    canvas.colour[where] += rng.uniform(0.5, 0.8) * film[..., None] * (tint - canvas.colour[where])
    canvas.metal[where] *= 1 - 0.8 * film
    canvas.gloss[where] += 0.12 * film
    canvas.height[where] += 0.25 * film * _crop(rng, _shared(canvas.size)["grain"], canvas.n)[where]
    return _covered(canvas, where, film > 0.1)


def _covered(canvas: _Canvas, where, part: np.ndarray) -> np.ndarray:
    covered = np.zeros((canvas.n, canvas.n), bool)
    covered[where] = part
    return covered


_SURFACE = {"scratch": _scratch, "dent": _dent, "stain": _stain}


def _beside(rng: np.random.Generator, item: _Item) -> _Item:
    """One more part in a compartment, leaning on the part that is there."""
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(24, 29) * (item.size + 0.1)
    part = _PARTS[rng.integers(len(_PARTS))]
    x, y = np.clip((item.x + away * np.cos(angle), item.y + away * np.sin(angle)), -26, 26)
    return _Item(part, float(x), float(y), 0.8)


def draw_scene(rng: np.random.Generator, defect: str = "good", size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture of the tray, and the mask of its defect.

    The same state of `rng` gives the same scene, light and noise whatever the defect, so that a scene can be compared
    with itself without the defect.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides everything left to chance.
    defect : str, default="good"
        "good", one of `STRUCTURAL` or one of `LOGICAL`.
    size : int, default=256
        Height and width, pixels.

    Returns
    -------
    image : ndarray of uint8, (size, size, 3)
        RGB.
    mask : ndarray of bool, (size, size)
        Where the defect is: the mark (`STRUCTURAL`), where the part should be (`missing`), the pixels of the additional
        part (`extra`), those of either part in both compartments (`swapped`). Empty for "good".

    Raises
    ------
    PradotError
        If there is no such defect.
    """
    if defect not in ("good", *STRUCTURAL, *LOGICAL):
        raise PradotError(f"no defect {defect!r} in the drawn set; it has {', '.join((*STRUCTURAL, *LOGICAL))} and good")
    scene, fault, camera = rng.spawn(3)  # apart, so that a defect changes nothing else
    canvas, elsewhere = _Canvas(size), _Canvas(size)  # what is laid elsewhere only gives its outline
    tray = _draw_tray(canvas, scene)
    contents = list(_CONTENTS)
    poses = [[_pose(scene) for _ in range(2)] for _ in contents]
    covered = np.zeros((canvas.n, canvas.n), bool)
    cell = int(fault.integers(len(contents)))
    which = int(fault.integers(len(contents[cell])))

    if defect == "swapped":
        other = (cell + int(fault.integers(1, len(contents)))) % len(contents)
        for here, there in ((cell, other), (other, cell)):
            contents[here] = _CONTENTS[there]
            for items in (_CONTENTS[here], _CONTENTS[there]):
                for item, pose in zip(items, poses[here], strict=False):
                    covered |= _place(elsewhere, tray, here, item, pose)
    for number, items in enumerate(contents):
        for place, (item, pose) in enumerate(zip(items, poses[number], strict=False)):
            if defect == "missing" and (number, place) == (cell, which):
                covered |= _place(elsewhere, tray, number, item, pose)
            else:
                _place(canvas, tray, number, item, pose)
    if defect == "extra":
        covered |= _place(canvas, tray, cell, _beside(fault, contents[cell][which]), _pose(fault), base=_FLOOR + 5)
    if defect in _SURFACE:
        item = contents[cell][which]
        spot = tray.place(cell, *(np.array([item.x, item.y]) + fault.uniform(-14, 14, 2)))
        covered |= _SURFACE[defect](canvas, fault, spot)

    mask = covered.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean((1, 3)) >= 0.5
    return _photograph(_shade(canvas), camera), mask


# ------------------------------------------------------------------------------------------------------------- the set


def draw(
    root: str | Path,
    seed: int = 0,
    n_train: int = 80,
    n_good: int = 20,
    n_per_defect: int = 8,
    size: int = 256,
) -> Path:
    """Draw the set under `root`/tray in the layout of MVTec AD, or keep the same set if it is there.

    The folder appears in one step, finished. A drawn set with other settings, of another version of the drawing, or
    with files missing is replaced.

    Parameters
    ----------
    root : str or Path
        Folder of the data set; made if missing.
    seed : int, default=0
        Same seed, same bytes.
    n_train, n_good : int
        Normal images to train on and to test on.
    n_per_defect : int
        Test images, and masks, for each of `STRUCTURAL` and `LOGICAL`.
    size : int, default=256
        Height and width of the images, pixels.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    PradotError
        If `root`/tray is not a drawn set: it is never overwritten.
    """
    root = Path(root)
    folder = root / CATEGORY
    counts = {("train", "good"): n_train, ("test", "good"): n_good}
    counts |= {("test", defect): n_per_defect for defect in (*STRUCTURAL, *LOGICAL)}
    n_files = sum(counts.values()) + n_per_defect * len((*STRUCTURAL, *LOGICAL))
    settings = (
        f"drawn by pradot.paper.drawn, version {VERSION}\n"
        f"seed {seed}, n_train {n_train}, n_good {n_good}, n_per_defect {n_per_defect}, size {size}\n"
    )
    if _is_there(folder, settings, n_files):
        return root

    with alone(folder, waiting=f"{folder} is being drawn by another process: waiting for it"):
        if _is_there(folder, settings, n_files):
            return root
        rngs = np.random.default_rng(seed).spawn(len(counts))
        jobs = [
            (split, defect, number, rng)
            for ((split, defect), count), group in zip(counts.items(), rngs, strict=True)
            for number, rng in enumerate(group.spawn(count))
        ]
        with scratch(folder) as temporary, progress_bar(len(jobs), f"drawing {folder}", "image") as bar:
            new = temporary / "new"
            for split, defect, number, rng in jobs:
                image, mask = draw_scene(rng, defect, size)
                _write(image, new / split / defect / f"{number:03d}.png")
                if defect != "good":
                    _write(mask.astype(np.uint8) * 255, new / "ground_truth" / defect / f"{number:03d}_mask.png")
                bar.update()
            (new / MARKER).write_text(settings)
            if folder.exists():
                os.replace(folder, temporary / "old")
            os.replace(new, folder)
    return root


def _is_there(folder: Path, settings: str, n_files: int) -> bool:
    marker = folder / MARKER
    if marker.is_file():
        return marker.read_text() == settings and sum(1 for _ in folder.glob("*/*/*.png")) == n_files
    if folder.exists() and any(folder.iterdir()):
        raise PradotError(
            f"looked for a drawn set at {folder}, found a folder without {MARKER}, which pradot has not drawn; "
            "name another root, or move that folder away"
        )
    return False


def _write(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
