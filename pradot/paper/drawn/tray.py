"""The tray on its table, and how parts lie in it."""

from typing import NamedTuple

import numpy as np

from pradot.paper.drawn.canvas import Canvas, common_fields, crop, turned
from pradot.paper.drawn.light import LIGHT
from pradot.paper.drawn.parts import TABLE, TRAY_PLASTIC, Item, ramp

PITCH = 113.0  # distance of compartment centres
_COMPARTMENT = 44.0  # half its side at the rim
_TRAY = 121.0  # half its side
FLOOR, _RIM = 3.0, 15.0  # heights above the table


class Pose(NamedTuple):
    """How one part lies."""

    x: float  # shift from its place
    y: float
    turn: float  # a number in [-1, 1], times the part's own spread
    tilt: tuple[float, float]  # slope of its base to the right and down
    tone: float  # brightness of its surface
    texture: int  # where its surface texture is cropped


class Tray(NamedTuple):
    """Where the tray lies."""

    x: float  # centre in the image
    y: float
    turn: float  # degrees

    def place(self, cell: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of a compartment (0 to 3) is in the image."""
        x, y = x + (cell % 2 - 0.5) * PITCH, y + (cell // 2 - 0.5) * PITCH
        x, y = turned(x, y, -self.turn)
        return float(x) + self.x, float(y) + self.y


def place_part(canvas: Canvas, tray: Tray, cell: int, item: Item, pose: Pose, base: float = FLOOR) -> np.ndarray:
    """Lay a part down; gives the pixels that it covers, at the supersampled size."""
    part = item.part
    where, dx, dy = canvas.window(*tray.place(cell, item.x + pose.x, item.y + pose.y), 32 * item.size)
    x, y = turned(dx / item.size, dy / item.size, tray.turn + pose.turn * part.turn)
    edge, height = part.shape(x, y)
    edge, height = edge * item.size, height * item.size
    cover = np.clip(0.5 - edge * canvas.scale, 0, 1)
    shared = common_fields(canvas.size)
    texture = shared["brushed" if part.material.metal else "grain"]
    top = pose.texture % (texture.shape[0] - cover.shape[0])
    texture = texture[top : top + cover.shape[0], : cover.shape[1]]
    tone = pose.tone * (1 + 0.06 * part.material.grain * texture)
    if part.turned:  # fine turning marks mirror the light in a bow tie
        tone *= 0.92 + 0.5 * np.cos(np.arctan2(dy, dx) - np.arctan2(LIGHT[1], LIGHT[0])) ** 6
    height = base + height + pose.tilt[0] * dx + pose.tilt[1] * dy + 0.03 * part.material.grain * texture
    canvas.lay(where, cover, height, part.material, tone)
    covered = np.zeros((canvas.n, canvas.n), bool)
    covered[where] = cover > 0.5
    return covered


def draw_tray(canvas: Canvas, rng: np.random.Generator) -> Tray:
    """Draw the table, and the tray on it with empty compartments."""
    shared, everything = common_fields(canvas.size), (slice(None), slice(None))
    brushed, grain = crop(rng, shared["brushed"], canvas.n), crop(rng, shared["grain"], canvas.n)
    cloud = crop(rng, shared["cloud"], canvas.n)
    one = np.ones_like(canvas.height)
    canvas.lay(everything, one, 0.02 * brushed, TABLE, 1 + 0.09 * brushed + 0.05 * cloud)

    tray = Tray(*rng.uniform(-1.2, 1.2, 2), rng.uniform(-0.5, 0.5))
    axis = shared["axis"]
    x, y = turned(axis[None, :] - tray.x, axis[:, None] - tray.y, tray.turn)

    def box(x, y, half, radius):  # signed distance to a rounded rectangle
        dx, dy = np.abs(x) - (half - radius), np.abs(y) - (half - radius)
        return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius

    outline = box(x, y, _TRAY, 12)
    inside = box(np.abs(x) - PITCH / 2, np.abs(y) - PITCH / 2, _COMPARTMENT, 9)  # the four are equal
    height = _RIM - (_RIM - FLOOR) * (1 - ramp(-5.0, -0.5, inside))  # sloped walls
    height -= 7 * ramp(-3.5, 0.5, outline)
    height += 0.06 * grain
    canvas.lay(everything, np.clip(0.5 - outline * canvas.scale, 0, 1), height, TRAY_PLASTIC, 1 + 0.07 * grain + 0.04 * cloud)

    return tray


def random_pose(rng: np.random.Generator) -> Pose:
    """What is left to chance of a part that lies as it should."""
    return Pose(
        *rng.uniform(-1.4, 1.4, 2),
        rng.uniform(-1, 1),
        tuple(rng.normal(0, 0.025, 2)),
        rng.normal(1, 0.03),
        int(rng.integers(1 << 20)),
    )
