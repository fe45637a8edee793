"""Pictures, masks and maps side by side."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from pradot.images import read_image
from pradot.paper.figures.style import HEAT


def show_image(ax, image, title=None):
    """Draw an image (path or array) without axes."""
    ax.imshow(read_image(image))
    ax.set_title(title or "")
    ax.set_axis_off()


def show_map(ax, values, title=None, *, image=None, vmin=None, vmax=None):
    """Draw a map (height, width), over an image if given, without axes; return the artist for a colour bar."""
    if image is not None:
        image = read_image(image)
        ax.imshow(image.mean(2), cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    artist = ax.imshow(
        values, cmap=HEAT, vmin=vmin, vmax=vmax, extent=(0, 1, 1, 0), alpha=None if image is None else 0.6, aspect="auto"
    )
    if image is not None:
        ax.set_aspect(image.shape[0] / image.shape[1])
    ax.set_title(title or "")
    ax.set_axis_off()
    return artist


def gallery(images, maps, masks=None, titles=None):
    """Rows of image, mask and anomaly map, one column per test image, with one colour range for all maps.

    Parameters
    ----------
    images : sequence of path or array
    maps : sequence of ndarray of shape (height_i, width_i)
    masks : sequence of bool ndarray, optional
        Drawn as the second row.
    titles : sequence of str, optional

    Returns
    -------
    matplotlib Figure
    """
    n_rows = 2 if masks is None else 3
    fig, axes = plt.subplots(n_rows, len(images), figsize=(1.7 * len(images) + 0.6, 1.75 * n_rows), squeeze=False)
    vmin, vmax = min(m.min() for m in maps), max(m.max() for m in maps)
    for column, image in enumerate(images):
        show_image(axes[0, column], image, titles[column] if titles else None)
        if masks is not None:
            axes[1, column].imshow(masks[column], cmap="gray", vmin=0, vmax=1)
            axes[1, column].set_axis_off()
        artist = show_map(axes[-1, column], maps[column], image=image, vmin=vmin, vmax=vmax)
    fig.colorbar(artist, ax=axes, label="anomaly score (one range for all)", shrink=0.6, pad=0.01)
    return fig


def maps_over_alpha(image, mask, maps, titles=None):
    """One image, its mask and its anomaly maps for several alpha, with one colour range.

    Parameters
    ----------
    image : path or array
    mask : bool ndarray of shape (height, width), or None
    maps : sequence of ndarray of shape (height, width)
    titles : sequence of str, optional
        Of the maps.

    Returns
    -------
    matplotlib Figure
    """
    n_left = 1 if mask is None else 2
    n = n_left + len(maps)
    fig, axes = plt.subplots(1, n, figsize=(1.75 * n + 0.5, 2.3), squeeze=False)
    show_image(axes[0, 0], image, "image")
    if mask is not None:
        axes[0, 1].imshow(mask, cmap="gray", vmin=0, vmax=1)
        axes[0, 1].set_title("mask")
        axes[0, 1].set_axis_off()
    vmin, vmax = min(m.min() for m in maps), max(m.max() for m in maps)
    for ax, values, title in zip(axes[0, n_left:], maps, titles or [""] * len(maps), strict=True):
        artist = show_map(ax, values, title, vmin=vmin, vmax=vmax)
        ax.set_aspect("equal")
    fig.colorbar(artist, ax=axes[0], label="anomaly score (no unit)", shrink=0.8, pad=0.01)
    return fig


def panels(rows, titles=(), row_titles=(), *, label=None, cmap=HEAT, vmin=None, vmax=None, marks=None, size=1.75):
    """Rows of pictures and maps, with one colour range for all maps and one colour bar that says what it is.

    Parameters
    ----------
    rows : list of list
        What each place shows: a picture (path, or array of shape (height, width, 3)), a map (array of shape (height, width)),
        or None.
    titles : sequence of str, or of such sequences, optional
        Above the columns, or above the panels of every row.
    row_titles : sequence of str, optional
        Left of the rows.
    label : str, optional
        Of the colour bar; None: no bar.
    cmap : str
        Colour map of the maps.
    vmin, vmax : float, optional
        Ends of the colour range; None: those of all maps together.
    marks : dict of (int, int) to (int, int, int, int), optional
        Panels (row, column) in which to frame a cell: its row and column, and the height and width of the grid.
    size : float
        Side of a panel, inches.

    Returns
    -------
    matplotlib Figure
    """
    n_columns = max(len(row) for row in rows)
    figsize = (size * n_columns + 0.25 * bool(row_titles) + 0.8 * (label is not None), size * len(rows) + 0.3)
    fig, axes = plt.subplots(len(rows), n_columns, figsize=figsize, squeeze=False)
    maps = [np.asarray(item) for row in rows for item in row if item is not None and np.ndim(item) == 2]
    vmin = min(values.min() for values in maps) if maps and vmin is None else vmin
    vmax = max(values.max() for values in maps) if maps and vmax is None else vmax
    artist = None
    for (i, j), ax in np.ndenumerate(axes):
        item = rows[i][j] if j < len(rows[i]) else None
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
        if item is None:
            continue
        if np.ndim(item) == 2:
            artist = ax.imshow(item, cmap=cmap, vmin=vmin, vmax=vmax, extent=(0, 1, 1, 0))
        else:
            picture = read_image(item)
            ax.imshow(picture, extent=(0, 1, 1, 0))
            ax.set_aspect(picture.shape[0] / picture.shape[1])
        if marks and (i, j) in marks:
            frame_cell(ax, *marks[i, j])
    for ax_row, names in zip(axes, [titles] if titles and isinstance(titles[0], str) else titles, strict=False):
        for ax, title in zip(ax_row, names, strict=False):
            ax.set_title(title, fontsize="small")
    for ax, title in zip(axes[:, 0], row_titles, strict=False):
        ax.set_ylabel(title)
    if label is not None and artist is not None:
        fig.colorbar(artist, ax=axes, label=label, shrink=0.85, aspect=16 * len(rows), pad=0.01)
    return fig


def frame_cell(ax, row, column, height, width):
    """Frame one cell of a grid in axes that span the unit square."""
    corner = ((column - 0.15) / width, (row - 0.15) / height)  # a little outside, so that the cell can be seen
    for colour, lw in (("black", 2.2), ("white", 1.0)):
        ax.add_patch(plt.Rectangle(corner, 1.3 / width, 1.3 / height, fill=False, ec=colour, lw=lw))


def cells_on_image(image, grids):
    """An image, and once more for each scale with the cells of its feature map drawn over it.

    Parameters
    ----------
    image : path or array
    grids : dict of int to (int, int)
        Rows and columns of the feature maps, by scale.

    Returns
    -------
    matplotlib Figure
    """
    titles = ["image", *(f"scale {scale}: {rows} x {columns}" for scale, (rows, columns) in grids.items())]
    fig = panels([[image] * len(titles)], titles, size=2.6)
    for ax, (rows, columns) in zip(fig.axes[1:], grids.values(), strict=True):
        ax.hlines(np.arange(rows + 1) / rows, 0, 1, color="white", lw=0.6)
        ax.vlines(np.arange(columns + 1) / columns, 0, 1, color="white", lw=0.6)
        ax.set(xlim=(0, 1), ylim=(1, 0))
    return fig


def outlined(images, masks, titles=None):
    """Images side by side; below each, the same with the outline of its mask.

    Parameters
    ----------
    images : sequence of path or array
    masks : sequence of bool ndarray of shape (height_i, width_i), or None
        None: the images alone.
    titles : sequence of str, optional

    Returns
    -------
    matplotlib Figure
    """
    n_rows = 1 if masks is None else 2
    fig, axes = plt.subplots(n_rows, len(images), figsize=(1.7 * len(images), 1.75 * n_rows + 0.2), squeeze=False)
    for column, image in enumerate(images):
        show_image(axes[0, column], image, titles[column] if titles else None)
        if masks is not None:
            show_image(axes[1, column], image)
            if masks[column].any():
                axes[1, column].contour(masks[column], levels=[0.5], colors=["yellow"], linewidths=1.2)
    return fig


def image_row(images, titles, *, height=2.3):
    """Pictures side by side, each under its title."""
    fig, axes = plt.subplots(1, len(images), figsize=(height * len(images), height + 0.35), squeeze=False)
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        show_image(ax, np.clip(image, 0, 1) if isinstance(image, np.ndarray) else image, title)
    return fig
