"""Drawing in pixels: what Matplotlib draws once, and what a move pastes over it."""

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from pradot.images import read_image, resize_image
from pradot.paper.figures import HEAT

SIDE = 252  # pixels of a map in an explorer: whole pixels for cells of 28 x 28, 14 x 14 and 7 x 7 maps
MARK = (213, 94, 0)  # what moves: the palette's vermilion, which differs from its blue in brightness too
HEAT_TABLE = (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).round().astype(np.uint8)  # (256, 3)


def as_pixels(image, side=SIDE):
    """An image (path or array) as a square picture (side, side, 3), uint8."""
    picture = resize_image(read_image(image), side).permute(1, 2, 0).numpy()  # (side, side, 3)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def enlarged(cells):
    """Every cell of (height, width, ...) as a block of a picture of side `SIDE`."""
    rows, columns = (np.arange(SIDE) * n // SIDE for n in cells.shape[:2])
    return cells[rows[:, None], columns]  # (side, side, ...)


def blank_figure(width, height):
    """A figure of so many pixels, and a function (left, top, width, height, title) that makes axes at pixels of it."""
    fig = Figure(figsize=(width / 100, height / 100), dpi=100, layout="none", facecolor="white")

    def place(left, top, w, h, title=""):
        ax = fig.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))
        ax.set_title(title, fontsize=9)
        ax.xaxis.label.set_fontsize(9)
        ax.yaxis.label.set_fontsize(9)
        ax.tick_params(labelsize=8)
        return ax

    return fig, place


def raster(fig):
    """The figure's pixels, ndarray (height, width, 3), uint8."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def pixels(ax, x, y):
    """Where data of some axes lie in the figure's pixels: ndarray (n, 2) of (column, row)."""
    columns, rows = ax.transData.transform(np.column_stack([x, y])).T
    return np.column_stack([columns, ax.figure.bbox.height - rows])


def dot(draw, x, y):
    """Draw the dot that moves."""
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=MARK)


def with_curve(base, points):
    """A picture with a dark smooth line through some (column, row)."""
    base = Image.fromarray(base)
    mask = Image.new("L", (4 * base.width, 4 * base.height))
    ImageDraw.Draw(mask).line([tuple(4 * point) for point in points], fill=255, width=8, joint="curve")
    base.paste((26, 26, 26), mask=mask.reduce(4))
    return np.asarray(base)
