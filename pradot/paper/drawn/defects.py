"""What can be wrong: marks on the surface, and one part too many."""

import numpy as np
from scipy.ndimage import gaussian_filter

from pradot.paper.drawn.canvas import Canvas, common_fields, crop, turned
from pradot.paper.drawn.parts import PARTS, Item


def _scratch(canvas: Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
    length, bend, angle = rng.uniform(35, 75), rng.uniform(-0.004, 0.004), rng.uniform(0, 180)
    where, dx, dy = canvas.window(*spot, length / 2 + 8)
    x, y = turned(dx, dy, angle)
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


def _dent(canvas: Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
    radius, angle, oval = rng.uniform(9, 14), rng.uniform(0, 180), rng.uniform(0.65, 1.0)
    where, dx, dy = canvas.window(*spot, radius * 1.6)
    x, y = turned(dx, dy, angle)
    r = np.hypot(x, y / oval) / radius
    bowl = -rng.uniform(6, 9) * np.exp(-2.2 * r**2) + 2.0 * np.exp(-18 * (r - 1.05) ** 2)
    # What is struck gives way: relief is flattened where the bowl is deep.
    flat = gaussian_filter(canvas.height[where], 5 * canvas.scale)
    canvas.height[where] += np.exp(-1.5 * r**4) * (flat - canvas.height[where]) + bowl
    whitened = 0.2 * np.exp(-14 * (r - 0.95) ** 2)  # strained material turns pale
    canvas.colour[where] += whitened[..., None] * (np.float32(0.42) - canvas.colour[where])
    return _covered(canvas, where, r < 1.25)


def _stain(canvas: Canvas, rng: np.random.Generator, spot: tuple[float, float]) -> np.ndarray:
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
    canvas.height[where] += 0.25 * film * crop(rng, common_fields(canvas.size)["grain"], canvas.n)[where]
    return _covered(canvas, where, film > 0.1)


def _covered(canvas: Canvas, where, part: np.ndarray) -> np.ndarray:
    covered = np.zeros((canvas.n, canvas.n), bool)
    covered[where] = part
    return covered


SURFACE = {"scratch": _scratch, "dent": _dent, "stain": _stain}


def beside(rng: np.random.Generator, item: Item) -> Item:
    """One more part in a compartment, leaning on the part that is there."""
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(24, 29) * (item.size + 0.1)
    part = PARTS[rng.integers(len(PARTS))]
    x, y = np.clip((item.x + away * np.cos(angle), item.y + away * np.sin(angle)), -26, 26)
    return Item(part, float(x), float(y), 0.8)
