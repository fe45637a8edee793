"""The field that is drawn on: height, colour and material of each point, and textures."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from pradot.paper.drawn.parts import Material

SUPERSAMPLING = 2


@lru_cache(maxsize=2)
def common_fields(size: int) -> dict[str, np.ndarray]:
    """What all scenes of one size share: pixel coordinates, textures to crop from, vignette."""
    n, scale = SUPERSAMPLING * size, SUPERSAMPLING * size / 256
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


class Canvas:
    """Height, colour and material of each point of the scene, at the supersampled size."""

    def __init__(self, size: int):
        self.size, self.n = size, SUPERSAMPLING * size
        self.scale = self.n / 256  # samples per unit
        self.height = np.zeros((self.n, self.n), np.float32)
        self.colour = np.zeros((self.n, self.n, 3), np.float32)
        self.metal, self.gloss = np.zeros_like(self.height), np.zeros_like(self.height)

    def window(self, x: float, y: float, reach: float):
        """Slices around a point, and the coordinates of their samples relative to it."""
        axis = common_fields(self.size)["axis"]
        spans = []
        for centre in (y, x):
            middle = round((centre + 128) * self.scale)
            half = int(np.ceil(reach * self.scale))
            spans.append(slice(max(middle - half, 0), max(min(middle + half, self.n), 0)))
        dy, dx = (axis[span] - centre for span, centre in zip(spans, (y, x), strict=True))
        return tuple(spans), dx[None, :], dy[:, None]

    def lay(self, where, cover, height, material: Material, tone=1.0):
        """Put a surface over what is there: `cover` in [0, 1], height above the table."""
        self.height[where] += cover * (height - self.height[where])
        tint = np.asarray(material.colour, np.float32) * (tone[..., None] if isinstance(tone, np.ndarray) else tone)
        self.colour[where] += cover[..., None] * (tint - self.colour[where])
        self.metal[where] += cover * (material.metal - self.metal[where])
        self.gloss[where] += cover * (material.gloss - self.gloss[where])


def crop(rng: np.random.Generator, field: np.ndarray, n: int) -> np.ndarray:
    """A square of `n` samples' side from a random place of a texture."""
    top, left = rng.integers(0, field.shape[0] - n, 2)
    return field[top : top + n, left : left + n]


def turned(x, y, degrees: float):
    """Coordinates in axes that are turned by some degrees, float32."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)
