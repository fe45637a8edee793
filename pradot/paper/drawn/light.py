"""From the field to a photograph: light, shadows, mirrors, lens and sensor."""

import numpy as np
from scipy.ndimage import gaussian_filter

from pradot.paper.drawn.canvas import SUPERSAMPLING, Canvas, common_fields
from pradot.paper.drawn.parts import ramp

LIGHT = np.array([-0.46, -0.56, 0.69], np.float32)  # towards the key light: from the upper left


def shade(canvas: Canvas) -> np.ndarray:
    """Linear light of the scene at the final size, (size, size, 3)."""
    n, scale = canvas.n, canvas.scale
    height = gaussian_filter(canvas.height, 0.35 * scale, truncate=2.5)
    down, right = np.gradient(height * scale)
    down, right = np.clip(down, -2.5, 2.5), np.clip(right, -2.5, 2.5)
    nz = 1 / np.sqrt(1 + down**2 + right**2)
    nx, ny = -right * nz, -down * nz

    # Shadows and the sky seen from each point are smooth: half the samples do.
    low = height[::2, ::2]
    slope = LIGHT[2] / np.hypot(LIGHT[0], LIGHT[1])
    blocked = np.zeros_like(low)
    for step in np.arange(1.0, 17.0, 1.5):
        distance = step * scale / 2
        sx, sy = (round(distance * c / np.hypot(LIGHT[0], LIGHT[1])) for c in LIGHT[:2])
        towards = np.pad(low, ((-sy, 0), (-sx, 0)), mode="edge")[: low.shape[0], : low.shape[1]]
        np.maximum(blocked, towards - low - step * slope, out=blocked)
    lit = 1 - 0.85 * gaussian_filter(ramp(0.0, 2.5, blocked), 1.1 * scale / 2)
    hidden = np.maximum(gaussian_filter(low, 6 * scale / 2, truncate=2.5) - low, 0)
    hidden += np.maximum(gaussian_filter(low, 2 * scale / 2) - low, 0)
    sky = 1 / (1 + 0.13 * hidden)
    lit, sky = (np.repeat(np.repeat(a, 2, 0), 2, 1)[:n, :n] for a in (lit, sky))
    lit, sky = (gaussian_filter(a, 0.8, truncate=2) for a in (lit, sky))

    facing = np.maximum(nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2], 0)
    diffuse = 1.15 * facing * lit + (0.22 + 0.22 * nz) * sky
    rx, ry, rz = 2 * nz * nx, 2 * nz * ny, 2 * nz * nz - 1  # where the camera looks after one reflection
    mirror = np.maximum(rx * LIGHT[0] + ry * LIGHT[1] + rz * LIGHT[2], 0)
    highlight = mirror**24 * lit
    box = ramp(0.80, 0.97, mirror) * (0.35 + 0.65 * lit)
    surroundings = 0.10 + 0.42 * ramp(0.2, 1.0, rz) + 0.22 * ramp(0.0, 1.0, mirror) + 1.25 * box
    surroundings += 0.35 * ramp(0.25, 0.75, rx * 0.5 + ry * 0.7)  # a fill light opposite the key light
    reflected = surroundings * (0.25 + 0.75 * sky) * (0.55 + 0.45 * lit)

    light = diffuse + canvas.metal * (reflected - diffuse)
    image = canvas.colour * light[..., None] + (canvas.gloss * highlight)[..., None]
    factor = SUPERSAMPLING
    return image.reshape(canvas.size, factor, canvas.size, factor, 3).mean((1, 3))


def photograph(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lens and sensor: uneven lighting, colour temperature, blur, vignette, tone curve, noise; uint8."""
    size = light.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    gradient = 1 + rng.uniform(-0.06, 0.06) * ramp[None, :, None] + rng.uniform(-0.06, 0.06) * ramp[:, None, None]
    warmth = rng.uniform(-0.025, 0.025)
    gain = rng.uniform(0.94, 1.06) * np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    image = light * gradient * common_fields(size)["vignette"] * gain
    image = gaussian_filter(image, (0.55 * size / 256, 0.55 * size / 256, 0), truncate=3)
    image = 2.1 * image
    image = np.clip(image * (1 + image / 9) / (0.62 + image), 0, 1)  # soft shoulder to white at 3
    shot = rng.standard_normal(image.shape, np.float32)
    image = image + 0.012 * np.sqrt(image + 0.02) * shot
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    return (image * 255 + 0.5).astype(np.uint8)
