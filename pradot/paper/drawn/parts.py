"""What the tray holds: materials, the shapes of the parts, and what belongs in which compartment."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Material(NamedTuple):
    """What a surface is made of."""

    colour: tuple[float, float, float]  # linear reflectance
    metal: float  # 1: mirrors its surroundings, 0: diffuse
    gloss: float  # strength of the highlight of a diffuse material
    grain: float  # strength of the surface texture


_STEEL = Material((0.50, 0.51, 0.52), 1.0, 0.0, 0.7)
_ZINC = Material((0.66, 0.65, 0.61), 1.0, 0.0, 1.0)
_STAINLESS = Material((0.52, 0.51, 0.50), 1.0, 0.0, 0.7)
_BRASS = Material((0.66, 0.43, 0.15), 1.0, 0.0, 0.8)
_SILICONE = Material((0.42, 0.06, 0.02), 0.0, 0.22, 0.5)
_PLASTIC = Material((0.018, 0.075, 0.27), 0.0, 0.60, 0.3)
TRAY_PLASTIC = Material((0.050, 0.053, 0.058), 0.0, 0.05, 1.0)
TABLE = Material((0.24, 0.24, 0.235), 0.65, 0.0, 1.0)


def ramp(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """From 0 at `low` to 1 at `high`, smooth at both ends."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# The shape of a part is a function (x, y) -> signed distance to its outline (negative inside), height above the floor.


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
    web = ramp(8.5, 10.0, r) * (1 - ramp(15.0, 16.5, r))
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
    flutes = 0.5 * np.cos(30 * angle) * ramp(16, 19.5, r)
    return edge, dome - groove + flutes + 1.4 * np.minimum(-edge - 3.0, 0)


class Part(NamedTuple):
    """A kind of part."""

    shape: Callable
    material: Material
    turn: float  # normal spread of its direction, degrees either way
    turned: bool  # machined on a lathe


_NUT = Part(_nut, _STEEL, 9, True)
_RING = Part(_ring, _SILICONE, 180, False)
_GEAR = Part(_gear, _BRASS, 9, True)
_CAP = Part(_cap, _PLASTIC, 180, False)
_SCREW = Part(_screw, _STAINLESS, 7, False)
_WASHER = Part(_washer, _ZINC, 180, True)
PARTS = (_NUT, _RING, _GEAR, _CAP, _SCREW, _WASHER)


class Item(NamedTuple):
    """A part in a compartment."""

    part: Part
    x: float  # its place in the compartment
    y: float
    size: float


# What belongs in the compartments: upper row, then lower row.
CONTENTS = (
    (Item(_SCREW, -16, 0, 0.98), Item(_WASHER, 12, -9, 0.74)),
    (Item(_GEAR, 0, 0, 1.3),),
    (Item(_CAP, 0, 0, 1.35),),
    (Item(_NUT, -13, -12, 0.78), Item(_RING, 12, 13, 0.76)),
)
