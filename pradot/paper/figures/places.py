"""Places of patches and prototypes: their colours, where they lie in a picture, arrows and lines between them."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from pradot.cost import grid_positions
from pradot.images import read_image
from pradot.paper.figures.pictures import frame_cell


def position_colours(positions):
    """A colour for every place: blue, orange, green and pink in the corners, mixed between them.

    Parameters
    ----------
    positions : array of shape (n, 2)
        (row, column) on the unit square; a row of 0 is the top.

    Returns
    -------
    ndarray of shape (n, 3)
        RGB in [0, 1].
    """
    row, column = np.clip(np.asarray(positions, dtype=float), 0, 1).T[..., None]  # (n, 1) each
    top = (1 - column) * np.array([0.16, 0.45, 0.92]) + column * np.array([0.98, 0.60, 0.05])
    bottom = (1 - column) * np.array([0.05, 0.70, 0.40]) + column * np.array([0.92, 0.25, 0.62])
    return (1 - row) * top + row * bottom


def to_pixels(positions, grid_shape, shape=(1, 1)):
    """Where positions on the unit square lie in a picture: cell i of a grid of h rows is centred at (i + 1/2) / h.

    Parameters
    ----------
    positions : array of shape (n, 2)
        (row, column); 0 and 1 are the centres of the first and the last cell.
    grid_shape : (int, int)
        Height and width of the feature map.
    shape : (int, int)
        Height and width of the picture, pixels.

    Returns
    -------
    ndarray of shape (n, 2)
        (row, column), pixels.
    """
    grid = np.asarray(grid_shape)
    return (np.asarray(positions, dtype=float) * (grid - 1) + 0.5) / grid * np.asarray(shape)


def position_key(ax):
    """The colours of positions as a small square, for a corner of a figure."""
    n = 32
    ax.imshow(position_colours(grid_positions(n, n).numpy()).reshape(n, n, 3), extent=(0, 1, 1, 0))
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="column", ylabel="row", title="position")


def assignment_arrows(ax, image, nearest, learner, title=None):
    """Arrows from every cell of an image to the position of its cheapest prototype, coloured by where they start.

    A dot is a cell whose prototype lives there.

    Parameters
    ----------
    ax : matplotlib Axes
    image : path or array
        Drawn pale underneath.
    nearest : Tensor of shape (height, width), int64
        ``learner.nearest(...).index[i]``.
    learner : PrototypeLearner
        Fitted.
    title : str, optional

    Returns
    -------
    float
        Mean length of the arrows, in sides of the unit square.
    """
    start = grid_positions(*learner.grid_shape_).numpy()  # (cells, 2)
    end = learner.positions_.cpu().numpy()[nearest.cpu().numpy().ravel()]  # (cells, 2)
    (row, column), (to_row, to_column) = (to_pixels(p, learner.grid_shape_).T for p in (start, end))
    picture = read_image(image)
    ax.imshow(0.35 * picture.mean(2) + 0.65, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    colours = 0.85 * position_colours(start)
    ax.quiver(
        column,
        row,
        to_column - column,
        to_row - row,
        color=colours,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.004,
        headwidth=4,
        headlength=5,
    )
    still = (start == end).all(1)
    ax.scatter(column[still], row[still], s=5, c=colours[still])
    ax.set(title=title or "", xlim=(0, 1), ylim=(1, 0))
    ax.set_aspect(picture.shape[0] / picture.shape[1])
    ax.set_axis_off()
    return float(np.linalg.norm(end - start, axis=1).mean())


def position_drift(ax, learner, title=None):
    """Where learned positions end (dots) and the way there from the grid (lines), coloured by where they start.

    Parameters
    ----------
    ax : matplotlib Axes
    learner : PrototypeLearner
        Fitted with ``positions="learned"`` and a whole number of prototypes per position.
    title : str, optional

    Returns
    -------
    float
        Mean way, in sides of the unit square.
    """
    end = learner.positions_.cpu().numpy()  # (m, 2)
    grid = grid_positions(*learner.grid_shape_).numpy()
    start = np.tile(grid, (len(end) // len(grid), 1))  # (m, 2)
    colours = position_colours(start)
    ax.scatter(grid[:, 1], grid[:, 0], s=6, color="0.8", zorder=0)
    for (row, column), (to_row, to_column), colour in zip(start, end, colours, strict=True):
        ax.plot([column, to_column], [row, to_row], color=colour, lw=0.6, alpha=0.5)
    ax.scatter(end[:, 1], end[:, 0], s=5, color=colours)
    ax.set(title=title or "", xlim=(-0.03, 1.03), ylim=(1.03, -0.03), xlabel="column (0 to 1)", ylabel="row (0 to 1)")
    ax.set_aspect("equal")
    return float(np.linalg.norm(end - start, axis=1).mean())


def nearest_places(image, background, grid_shape, cell, costs, positions):
    """A patch in its image, and where its 8 cheapest prototypes lie, one panel per cost.

    Parameters
    ----------
    image : path or array
        The patch's own, on the left.
    background : path or array
        What is drawn pale under the prototypes.
    grid_shape : (int, int)
    cell : int
        The patch, row by row; framed.
    costs : dict of float to Tensor of shape (m,)
        Cost of every prototype for this patch, by alpha.
    positions : Tensor of shape (m, 2)
        Of the prototypes.

    Returns
    -------
    matplotlib Figure
    """
    fig, axes = plt.subplots(1, len(costs) + 1, figsize=(1.9 * len(costs) + 1.9, 2.3))
    pictures = [read_image(image), *[0.6 * read_image(background) + 0.4] * len(costs)]
    for ax, picture in zip(axes, pictures, strict=True):
        ax.imshow(picture, extent=(0, 1, 1, 0))
        ax.set_aspect(picture.shape[0] / picture.shape[1])
        frame_cell(ax, *divmod(cell, grid_shape[1]), *grid_shape)
        ax.set_axis_off()
    axes[0].set_title("patch in its image", fontsize="small")
    place = to_pixels(grid_positions(*grid_shape)[cell : cell + 1], grid_shape)[0]
    for ax, (alpha, cost) in zip(axes[1:], costs.items(), strict=True):
        cheapest = cost.argsort()[:8].cpu()
        row, column = to_pixels(positions[cheapest], grid_shape).T
        for y, x in zip(row, column, strict=True):
            ax.plot([place[1], x], [place[0], y], color="0.15", lw=0.8)
        ax.scatter(column, row, s=26, color=sns.color_palette()[3], edgecolors="white", linewidths=0.6, zorder=3)
        ax.set(xlim=(0, 1), ylim=(1, 0))
        ax.set_title(f"alpha {alpha:g}, cost {cost[cheapest[0]]:.3f}", fontsize="small")
    return fig
