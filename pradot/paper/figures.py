"""Figures of the companion: one style, fixed names, same input same bytes."""

import io
import textwrap
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from sklearn.manifold import TSNE

from pradot.cost import divisor, feature_cost, grid_positions, spatial_cost
from pradot.files import replacing
from pradot.images import read_image, resize_image
from pradot.paper.notebooks import project_root
from pradot.paper.tables import COLUMNS, LOCO_COLUMNS

HEAT = "inferno"  # anomaly maps and costs; perceptually even, readable in grey
DIVERGING = "vlag"
PALETTE = "colorblind"
WIDEST = 10.5  # inches; one and a half times the text of a two-column paper, where letters of 9 points are then 6 points high
MAX_BYTES = 400_000  # of a PNG; figures of the drawn data are committed


def set_style():
    """Set the one style of all figures (seaborn, colour-blind safe)."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, font_scale=0.85)
    matplotlib.rcParams.update(
        {
            "figure.dpi": 90,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "image.interpolation": "nearest",
            "axes.titlesize": "medium",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "pradot",
        }
    )


def save_figure(fig, name, dataset="drawn"):
    """Save a figure under its fixed name: a PNG of at most 400 kB, and a PDF for papers.

    A figure wider than 10.5 inches is drawn smaller, so that none is shrunk by more than a third in the width of a two-column
    paper (7 inches). Same figure, same bytes. The PNG has 150 dots an inch, or fewer where many photographs would make it too
    large. In the PDF text and lines stay text and lines.

    Parameters
    ----------
    fig : matplotlib Figure
    name : str
        Such as ``03_plan_rows``; the number is the notebook's.
    dataset : str
        Figures of the drawn data lie in ``figures/``, of other data in ``figures/<dataset>/``.

    Returns
    -------
    Path
        Of the PNG; the PDF lies beside it.
    """
    folder = project_root() / "figures"
    path = (folder if dataset == "drawn" else folder / dataset) / f"{name}.png"
    width, height = fig.get_size_inches()
    if width > WIDEST:
        fig.set_size_inches(WIDEST, height * WIDEST / width)
    for dpi in (150, 120, 100, 85, 70, 55):
        png = _small_png(fig, dpi)
        if len(png) <= MAX_BYTES:
            break
    with replacing(path) as temporary:
        Path(temporary).write_bytes(png)
    with replacing(path.with_suffix(".pdf")) as temporary:
        fig.savefig(temporary, format="pdf", bbox_inches="tight", metadata={"CreationDate": None, "Producer": None})
    return path


def _small_png(fig, dpi):
    """A figure as PNG bytes, colours rounded to 64 steps a channel: half the size, and an error that nobody sees."""
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight")
    levels = np.rint(np.asarray(Image.open(drawn).convert("RGB")) * (63 / 255))  # (height, width, 3)
    Image.fromarray(np.rint(levels * (255 / 63)).astype(np.uint8)).save(small, format="png", optimize=True)
    return small.getvalue()


def show_image(ax, image, title=None):
    """Draw an image (path or array) without axes."""
    ax.imshow(read_image(image))
    ax.set_title(title or "")
    ax.set_axis_off()


def show_map(ax, values, title=None, *, image=None, vmin=None, vmax=None, cmap=HEAT):
    """Draw a map (height, width), over an image if given, without axes; return the artist for a colour bar."""
    if image is not None:
        image = read_image(image)
        ax.imshow(image.mean(2), cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
    artist = ax.imshow(
        values, cmap=cmap, vmin=vmin, vmax=vmax, extent=(0, 1, 1, 0), alpha=None if image is None else 0.6, aspect="auto"
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


def roc_curves(records, title=None):
    """ROC curves of image scores of some run records.

    Parameters
    ----------
    records : dict of str to dict
        Record by name.

    Returns
    -------
    matplotlib Figure
    """
    from sklearn.metrics import roc_curve

    fig, ax = plt.subplots(figsize=(4.2, 3.6))
    for name, record in records.items():
        labels = np.array([image["defect"] != "good" for image in record["images"]])
        scores = np.array([image["score"] for image in record["images"]])
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        ax.plot(fpr, tpr, label=f"{name}: {100 * record['metrics']['image_auroc']:.1f} %")
    ax.plot([0, 1], [0, 1], color="0.7", lw=1, ls=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title or "", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.legend(title="image AUROC", frameon=False, loc="lower right")
    return fig


def dots(table, xlabel="percent"):
    """A table as dots: one line per row, one kind of marker per column.

    Parameters
    ----------
    table : DataFrame
        Numbers of one unit; NaN leaves a gap.
    xlabel : str

    Returns
    -------
    matplotlib Figure
    """
    fig, ax = plt.subplots(figsize=(6.2, 0.9 + 0.27 * len(table)))
    for marker, column in zip("os^DvP<X", table, strict=False):
        ax.plot(table[column], range(len(table)), marker, ms=7, alpha=0.85, label=column)
    ax.set_yticks(range(len(table)), [str(name) for name in table.index])
    ax.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    ax.grid(axis="y", color="0.9")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def difference_heat_map(table, title=""):
    """Differences from the paper as colours and numbers.

    Parameters
    ----------
    table : DataFrame
        See `pradot.paper.tables.benchmark_table`; it must have a column ``(metric, "difference")``.
    title : str

    Returns
    -------
    matplotlib Figure
        Categories that were not run are left out; colours are even around 0.
    """
    differences = table.xs("difference", axis=1, level=1).dropna(how="all")
    fig, ax = plt.subplots(figsize=(2.2 + 1.3 * differences.shape[1], 1.1 + 0.3 * len(differences)))
    limit = max(0.5, differences.abs().max().max())
    colours = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "cbar_kws": {"label": "this run - paper (points)"}}
    sns.heatmap(differences, annot=True, fmt="+.1f", ax=ax, **colours)
    ax.set(xlabel="", ylabel="", title=title)
    ax.tick_params(axis="y", rotation=0)
    return fig


# ------------------------------------------------------------------------------------------------------------- the method

STAGES = ("features", "cost", "transport", "prototypes", "score")  # of notebooks 01 to 05


def method_diagram(stage=None):
    """The method as one drawing, the current stage highlighted: from images to prototypes (above) and to a map (below).

    Stages bear the numbers of the notebooks that are about them. The two costs are meant divided by their maxima.

    Parameters
    ----------
    stage : str or sequence of str, optional
        Of `STAGES`: what is coloured. None: everything.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        Unknown stage.
    """
    shown = STAGES if stage is None else (stage,) if isinstance(stage, str) else tuple(stage)
    if not set(shown) <= set(STAGES):
        raise ValueError(f"stage {stage!r}; there are {', '.join(STAGES)}")
    fig, ax = plt.subplots(figsize=(10.3, 2.55))
    ax.set(xlim=(0, 10.3), ylim=(0.3, 2.85), aspect="equal")
    ax.set_axis_off()
    colours = dict(zip(STAGES, sns.color_palette(PALETTE), strict=False))
    y_fit, y_score = 1.72, 0.42

    def tone(name):
        return colours[name] if name in shown else (0.78, 0.78, 0.78)

    def ink(name):
        return "0.1" if name in shown else "0.55"

    def box(name, x, y, title, formula, width=1.5):
        face = (*tone(name), 0.18 if name in shown else 0.08)
        ax.add_patch(
            FancyBboxPatch((x, y), width, 0.78, boxstyle="round,pad=0,rounding_size=0.1", fc=face, ec=tone(name), lw=2)
        )
        title = f"{STAGES.index(name) + 1:02d}  {title}"
        ax.text(x + width / 2, y + 0.53, title, ha="center", va="center", color=ink(name), weight="bold", fontsize=9.5)
        ax.text(x + width / 2, y + 0.23, formula, ha="center", va="center", color=ink(name), fontsize=9.5)

    def arrow(start, end, name, bend=0.0):
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.5, "color": ink(name), "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))

    def cells(x, y, values, name, n=4, side=0.6):
        for k, value in enumerate(values):
            corner = (x + k % n * side / n, y + (n - 1 - k // n) * side / n)
            ax.add_patch(plt.Rectangle(corner, side / n, side / n, fc=value, ec="white", lw=0.8))
        ax.add_patch(plt.Rectangle((x, y), side, side, fill=False, ec=ink(name), lw=1))

    def grey(values, name):  # a stage that is not the current one has no colours
        return values if name in shown else np.repeat(0.35 + 0.6 * np.asarray(values).mean(1, keepdims=True), 3, axis=1)

    patches = position_colours(grid_positions(4, 4).numpy())
    odd = patches.copy()
    odd[6] = (0.1, 0.1, 0.1)  # the patch of a defect
    heat = matplotlib.colormaps[HEAT](np.where(np.arange(16) == 6, 0.95, np.linspace(0.08, 0.3, 16)))[:, :3]
    for y, title, values in ((y_fit, "normal images", patches), (y_score, "a test image", odd)):
        ax.text(0.4, y + 0.86, title, ha="center", color=ink("features"), fontsize=9)
        cells(0.1, y + 0.09, grey(values, "features"), "features")
        box("features", 1.15, y, "encoder", "patches $x_i$, $p_i$", 1.4)
        arrow((0.74, y + 0.39), (1.12, y + 0.39), "features")
        box("cost", 2.95, y, "cost", r"$M = (1-\alpha)\,C^{feat} + \alpha\,C^{space}$", 2.4)
        arrow((2.57, y + 0.39), (2.92, y + 0.39), "cost")
    box("transport", 5.75, y_fit, "transport", r"plan $T$: who goes where", 1.8)
    arrow((5.37, y_fit + 0.39), (5.72, y_fit + 0.39), "transport")
    box("prototypes", 7.95, y_fit, "prototypes", r"$z_j \leftarrow 0.95\,z_j + 0.05\,\bar{x}_j$", 2.1)
    arrow((7.57, y_fit + 0.39), (7.92, y_fit + 0.39), "prototypes")
    ax.plot([9, 9, 4.15], [y_fit + 0.81, y_fit + 0.95, y_fit + 0.95], color=ink("prototypes"), lw=1.5)
    arrow((4.15, y_fit + 0.96), (4.15, y_fit + 0.8), "prototypes")
    ax.text(6.6, y_fit + 0.99, "next batch", ha="center", va="bottom", color=ink("prototypes"), fontsize=8.5)
    ax.plot([9, 9, 4.15], [y_fit - 0.03, 1.4, 1.4], color=ink("prototypes"), lw=1.5)
    arrow((4.15, 1.41), (4.15, y_score + 0.8), "prototypes")
    ax.text(6.6, 1.42, "what was learnt", ha="center", va="bottom", color=ink("prototypes"), fontsize=8.5)
    box("score", 5.75, y_score, "score", r"$s_i = \min_j M_{ij}$", 1.8)
    arrow((5.37, y_score + 0.39), (5.72, y_score + 0.39), "score")
    cells(8.0, y_score + 0.09, grey(heat, "score"), "score")
    arrow((7.57, y_score + 0.39), (7.95, y_score + 0.39), "score")
    ax.text(8.75, y_score + 0.52, "anomaly map", va="center", color=ink("score"), fontsize=9)
    ax.text(8.75, y_score + 0.24, "image score: its max", va="center", color=ink("score"), fontsize=9)
    return fig


# ---------------------------------------------------------------------------------------------- prototypes and positions


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


def training_curves(learners):
    """Transport loss, movement of the prototypes and marginal error, step by step.

    Parameters
    ----------
    learners : dict of str to PrototypeLearner
        Fitted learners by name.

    Returns
    -------
    matplotlib Figure
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.9))
    for colour, (name, learner) in zip(sns.color_palette(), learners.items(), strict=False):
        history, steps = learner.history_, np.arange(1, learner.n_steps_ + 1)
        axes[0].plot(steps, history["loss"], color=colour, lw=1, alpha=0.6)
        axes[0].plot(history["validation_step"], history["validation_loss"], "o-", color=colour, ms=3, label=name)
        axes[1].plot(steps, history["movement"], color=colour, label=name)
        axes[2].plot(steps, history["marginal_error"], color=colour, label=name)
    axes[0].set(ylabel="transport loss <T, M> (no unit)", title="loss: batch (thin), validation (dots)")
    axes[1].set(ylabel="movement, mean of 1 - cos", title="how far prototypes move")
    axes[2].set(ylabel="L1 error of the marginal", title="what Sinkhorn leaves open")
    for ax in axes:
        values = np.concatenate([line.get_ydata() for line in ax.lines])
        wide = (
            values.min() > 0 and values.max() > 10 * values.min()
        )  # a logarithmic axis of less than a decade has no good ticks
        ax.set(xlabel="step", yscale="log" if wide else "linear")
        if not wide:
            ax.set_ylim(bottom=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if axes[0].get_yscale() == "log":
        axes[0].yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter("")
    axes[1].legend(frameon=False)
    return fig


def square_pictures(images, size=224):
    """Images as the encoder sees them, for cutting patches: ndarray (n_images, size, size, 3) in [0, 1]."""
    return np.stack([resize_image(read_image(image), size).numpy().transpose(1, 2, 0) for image in images])


def nearest_patches(learner, features):
    """The training patch nearest to each prototype under the learner's own mixed cost.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    features : Tensor of shape (n_images, height, width, channels)
        Of the training images.

    Returns
    -------
    ndarray of shape (m, 2), int
        Image and cell (row by row) of every prototype's patch.
    """
    best = torch.full((len(learner.prototypes_),), torch.inf, device=learner.prototypes_.device)
    patches = torch.zeros(len(best), 2, dtype=torch.int64, device=best.device)
    for number, image in enumerate(features):
        M, _ = learner.cost(image[None], learner.scale_)  # (height * width, m)
        cost, cell = M.min(0)  # (m,)
        better = cost < best
        best[better] = cost[better]
        patches[better, 0], patches[better, 1] = number, cell[better]
    return patches.cpu().numpy()


def share_at_home(patches, grid_shape):
    """Part of the prototypes whose nearest patch lies in their own cell or one beside it, in [0, 1].

    Parameters
    ----------
    patches : ndarray of shape (m, 2)
        See `nearest_patches`.
    grid_shape : (int, int)
        Height and width of the feature map; prototypes lie on it in order, as often as fits.
    """
    height, width = grid_shape
    home = np.stack(np.unravel_index(np.arange(len(patches)) % (height * width), (height, width)), 1)  # (m, 2)
    cell = np.stack(np.unravel_index(patches[:, 1], (height, width)), 1)  # (m, 2)
    return float((np.abs(home - cell).max(1) <= 1).mean())


def patch_mosaic(pictures, patches, index):
    """A picture in which every cell shows the patch of one prototype.

    With ``index = learner.nearest(...).index[0]`` it is an image redrawn from its prototypes; with the prototypes of all
    positions in order it is a portrait of the prototypes themselves.

    Parameters
    ----------
    pictures : ndarray of shape (n_images, size, size, 3)
        The training images, see `square_pictures`.
    patches : ndarray of shape (m, 2)
        See `nearest_patches`.
    index : array of shape (height, width), int
        Which prototype each cell shows.

    Returns
    -------
    ndarray of shape (size_h, size_w, 3)
        Cells of ``size // height`` x ``size // width`` pixels.
    """
    index = np.asarray(index)
    (height, width), size = index.shape, pictures.shape[1]
    cell_h, cell_w = size // height, size // width
    mosaic = np.empty((height * cell_h, width * cell_w, 3), dtype=pictures.dtype)
    for i, j in np.ndindex(height, width):
        image, cell = patches[index[i, j]]
        top, left = cell // width * size // height, cell % width * size // width
        patch = pictures[image, top : top + cell_h, left : left + cell_w]
        mosaic[i * cell_h : (i + 1) * cell_h, j * cell_w : (j + 1) * cell_w] = patch
    return mosaic


def prototype_patches(learner, pictures, patches, n_layers=3):
    """Portrait of the prototypes: in every cell the training patch nearest to the prototype that lives there.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted with a whole number of prototypes per position.
    pictures, patches
        See `patch_mosaic`.
    n_layers : int
        How many of the prototypes of each position to draw, one picture each.

    Returns
    -------
    list of ndarray of shape (size, size, 3)
    """
    cells = learner.grid_shape_[0] * learner.grid_shape_[1]
    n_layers = min(n_layers, len(patches) // cells)
    layers = np.arange(n_layers * cells).reshape(n_layers, *learner.grid_shape_)
    return [patch_mosaic(pictures, patches, layer) for layer in layers]


def redrawn_image(learner, features, pictures, patches):
    """A test image redrawn: every cell shows the training patch of its cheapest prototype.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    features : Tensor of shape (height, width, channels)
        Of the test image.
    pictures, patches
        See `patch_mosaic`.

    Returns
    -------
    ndarray of shape (size, size, 3)
    """
    return patch_mosaic(pictures, patches, learner.nearest(features[None], learner.scale_).index[0].cpu())


def image_row(images, titles, *, height=2.3):
    """Pictures side by side, each under its title."""
    fig, axes = plt.subplots(1, len(images), figsize=(height * len(images), height + 0.35), squeeze=False)
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        show_image(ax, np.clip(image, 0, 1) if isinstance(image, np.ndarray) else image, title)
    return fig


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


def mixed_distances(learner, x, positions):
    """Distances between some patches and all prototypes, each with each, under the learner's mixed cost.

    ``(1 - alpha) (1 - cos) / scale.feature + alpha ||p - q|| / scale.space``

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    x : Tensor of shape (n, channels)
        Embeddings.
    positions : Tensor of shape (n, 2)
        Theirs, on the unit square.

    Returns
    -------
    ndarray of shape (n + m, n + m)
        Symmetric, 0 on the diagonal; embeddings first, then prototypes.
    """
    vectors = torch.cat([x.to(learner.device), learner.prototypes_])  # (n + m, channels)
    places = torch.cat([positions.to(learner.device), learner.positions_])  # (n + m, 2)
    scale, alpha = learner.scale_, learner.alpha
    D = (1 - alpha) / divisor(scale.feature, vectors.dtype) * feature_cost(vectors, vectors)
    D += alpha / divisor(scale.space, places.dtype) * spatial_cost(places, places)
    D = (D + D.T) / 2  # rounding
    return D.fill_diagonal_(0).cpu().numpy()


def neighbour_map(ax, learner, x, positions, abnormal, *, n_prototypes=300, random_state=0, title=None):
    """t-SNE of patches and prototypes under the mixed distance, coloured by position.

    Parameters
    ----------
    ax : matplotlib Axes
    learner : PrototypeLearner
        Fitted.
    x : Tensor of shape (n, channels)
        Embeddings.
    positions : Tensor of shape (n, 2)
        Theirs, on the unit square.
    abnormal : bool array of shape (n,)
        Drawn as crosses; the other embeddings are dots, prototypes diamonds.
    n_prototypes : int
        At most so many prototypes are drawn, chosen at random.
    random_state : int
        Seed of that choice and of t-SNE.
    title : str, optional

    Returns
    -------
    ndarray of shape (n,)
        Distance of every embedding to the nearest of *all* prototypes.
    """
    D, n = mixed_distances(learner, x, positions), len(x)
    prototypes = np.random.default_rng(random_state).permutation(np.arange(n, len(D)))[:n_prototypes]
    drawn = np.concatenate([np.arange(n), prototypes])
    tsne = TSNE(metric="precomputed", init="random", perplexity=30, max_iter=500, random_state=random_state)
    points = tsne.fit_transform(D[np.ix_(drawn, drawn)])  # (n + n_prototypes, 2)
    colours = position_colours(torch.cat([positions, learner.positions_.cpu()])[drawn])
    groups = {
        "prototype": (drawn >= n, {"marker": "D", "s": 16, "edgecolors": "0.25", "linewidths": 0.6}),
        "normal patch": (np.isin(drawn, np.flatnonzero(~abnormal)), {"marker": "o", "s": 12, "linewidths": 0}),
        "abnormal patch": (
            np.isin(drawn, np.flatnonzero(abnormal)),
            {"marker": "X", "s": 42, "edgecolors": "black", "linewidths": 0.8},
        ),
    }
    for name, (chosen, look) in groups.items():
        if chosen.any():
            ax.scatter(*points[chosen].T, c=colours[chosen], label=name, **look)
    ax.set(title=title or "", xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    return D[:n, n:].min(1)


def position_key(ax):
    """The colours of positions as a small square, for a corner of a figure."""
    n = 32
    ax.imshow(position_colours(grid_positions(n, n).numpy()).reshape(n, n, 3), extent=(0, 1, 1, 0))
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="column", ylabel="row", title="position")


def patch_fractions(masks, grid_shape):
    """Which part of each cell of the feature map a mask covers.

    Parameters
    ----------
    masks : sequence of bool ndarray of shape (height_i, width_i)
    grid_shape : (int, int)

    Returns
    -------
    ndarray of shape (n_images, height, width)
        In [0, 1].
    """
    pool = torch.nn.functional.adaptive_avg_pool2d
    return np.stack([pool(torch.from_numpy(mask).float()[None, None], tuple(grid_shape))[0, 0].numpy() for mask in masks])


# ------------------------------------------------------------------------------------------------------------------ alpha


def alpha_curves(table):
    """AUROC over alpha, one line per kind of defect, one panel per metric.

    Parameters
    ----------
    table : DataFrame
        Columns ``alpha``, ``defects`` (name), ``metric`` (panel), ``AUROC`` (percent).

    Returns
    -------
    matplotlib Figure
    """
    metrics = list(dict.fromkeys(table["metric"]))
    fig, axes = plt.subplots(1, len(metrics), figsize=(4.2 * len(metrics) + 1.3, 3.2), squeeze=False)
    names = list(dict.fromkeys(table["defects"]))
    for ax, metric in zip(axes[0], metrics, strict=True):
        sns.lineplot(
            table[table["metric"] == metric],
            x="alpha",
            y="AUROC",
            hue="defects",
            style="defects",
            hue_order=names,
            style_order=names,
            markers=True,
            ax=ax,
            legend=ax is axes[0, -1],
        )
        ax.set(xlabel="alpha (0: global, above: local)", ylabel="AUROC (%)", title=metric)
    sns.move_legend(axes[0, -1], "upper left", bbox_to_anchor=(1, 1), frameon=False, title=None)
    return fig


def ablation_plot(ablation, table):
    """One panel per metric: a line over the values of an ablation, or a point for each of its rows.

    Parameters
    ----------
    ablation : pradot.paper.ablations.Ablation
        Its rows without a value, where others have one, are dashed lines.
    table : DataFrame
        See `pradot.paper.ablations.ablation_table`; with several seeds bars show one standard deviation.

    Returns
    -------
    matplotlib Figure
    """
    metrics = [*COLUMNS.values(), *LOCO_COLUMNS.values()]
    titles = [title for title, what in table if title in metrics and what == "this run" and table[title, what].notna().any()][
        :4
    ]
    values = {row.label: row.value for row in ablation.rows if row.value is not None}
    height = 2.9 if values else 1.0 + 0.32 * len(table)
    fig, axes = plt.subplots(1, len(titles), figsize=(2.7 * len(titles) + 0.6, height), sharey=not values, squeeze=False)
    for number, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
        means = table[title, "this run"]
        shown = means.dropna()
        colour = sns.color_palette(PALETTE)[number]
        spread = table.get((title, "std"))
        if values:
            on_axis = shown[[label for label in shown.index if label in values]]
            x = [values[label] for label in on_axis.index]
            sns.lineplot(x=x, y=on_axis.to_numpy(), marker="o", color=colour, ax=ax)
            if spread is not None:
                ax.errorbar(x, on_axis, spread[on_axis.index], fmt="none", color=colour, capsize=3)
            for label in shown.index.difference(on_axis.index):
                ax.axhline(shown[label], color="0.4", linestyle="--", linewidth=1)
                ax.annotate(label, (1, shown[label]), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
            if ablation.logarithmic:
                ax.set_xscale("log")
                ax.set_xticks(x, list(on_axis.index), fontsize=7)
                ax.minorticks_off()
            ax.set(xlabel=ablation.changes)
        else:
            sns.scatterplot(x=means.to_numpy(), y=range(len(table)), s=50, color=colour, ax=ax)
            if spread is not None:
                ax.errorbar(means, range(len(table)), xerr=spread, fmt="none", color=colour, capsize=3)
            ax.set_yticks(range(len(table)), table.index)
            ax.set_ylim(len(table) - 0.5, -0.5)
            ax.grid(axis="y", linewidth=0.5)
            ax.set(ylabel=ablation.changes if number == 0 else "", xlabel="%")
        ax.set_title(textwrap.fill(title if "%" in title else f"{title} (%)", 30))
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


# ------------------------------------------------------------------------------------------- features, costs, transport


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


def oddest_cell(features, margin=3):
    """The cell of a feature map that is least like the mean of its image, as (row, column).

    Parameters
    ----------
    features : Tensor of shape (height, width, channels)
    margin : int
        Cells at the border that do not count: there the network sees its own padding.

    Returns
    -------
    (int, int)
    """
    inner = features[margin:-margin, margin:-margin]
    cost = feature_cost(inner.flatten(0, 1), features.mean((0, 1))[None])[:, 0]  # (n_inner,)
    row, column = divmod(int(cost.argmax()), inner.shape[1])
    return row + margin, column + margin


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


def pca_colours(features, fitted_on, seed=0):
    """Feature maps as colours: the three main directions of some other patches as red, green and blue.

    Parameters
    ----------
    features : Tensor of shape (n_images, height, width, channels)
    fitted_on : Tensor of shape (n, channels)
        Patches that say what the directions and their ranges are.
    seed : int

    Returns
    -------
    colours : ndarray of shape (n_images, height, width, 3)
        In [0, 1]: the 1st to the 99th percentile of `fitted_on`, cut beyond.
    explained : float
        Part of the variance of `fitted_on` along the three directions.
    """
    from sklearn.decomposition import PCA

    pca = PCA(3, random_state=seed).fit(fitted_on.numpy())
    low, high = np.percentile(pca.transform(fitted_on.numpy()), (1, 99), axis=0)
    values = pca.transform(features.flatten(0, 2).numpy()).reshape(*features.shape[:3], 3)  # (n_images, height, width, 3)
    return np.clip((values - low) / (high - low), 0, 1), float(pca.explained_variance_ratio_.sum())


def toy_plans(x, y, plans):
    """Transport plans between two clouds in the plane: lines as dark as the mass they carry, and the plan as a matrix below.

    Parameters
    ----------
    x : ndarray of shape (n, 2)
    y : ndarray of shape (m, 2), or dict of str to such
        Prototypes: the same for all plans, or by title.
    plans : dict of str to ndarray of shape (n, m)
        Plan by title.

    Returns
    -------
    matplotlib Figure
    """
    fig, axes = plt.subplots(2, len(plans), figsize=(2.5 * len(plans) + 0.7, 5.2), squeeze=False, height_ratios=(1.25, 1))
    for (above, below), (title, plan) in zip(axes.T, plans.items(), strict=True):
        z = y[title] if isinstance(y, dict) else y
        for i, j in np.argwhere(plan > 1e-4 * plan.max()):
            above.plot(*zip(x[i], z[j], strict=True), color="0.2", lw=1.6, alpha=float(min(1, plan[i, j] * len(x))))
        above.scatter(*x.T, s=28, zorder=2, label="embeddings")
        above.scatter(*z.T, s=48, zorder=2, marker="D", label="prototypes")
        above.set(title=title, xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        artist = below.imshow(plan * len(x), cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        below.set(xlabel="prototype j", xticks=[], yticks=[])
    axes[1, 0].set_ylabel("embedding i")
    fig.colorbar(artist, ax=axes, label="part of the embedding's mass", shrink=0.5, pad=0.01)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return fig


def grid_sum(values, grid_shape):
    """Sum over what shares a place on the grid: (k * height * width,) to ndarray of shape (height, width)."""
    return np.asarray(values).reshape(-1, *grid_shape).sum(0)  # (height, width)


def nearest_places(image, background, grid_shape, cell, costs, positions, n_nearest=8):
    """A patch in its image, and where its cheapest prototypes lie, one panel per cost.

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
    n_nearest : int

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
        cheapest = cost.argsort()[:n_nearest].cpu()
        row, column = to_pixels(positions[cheapest], grid_shape).T
        for y, x in zip(row, column, strict=True):
            ax.plot([place[1], x], [place[0], y], color="0.15", lw=0.8)
        ax.scatter(column, row, s=26, color=sns.color_palette()[3], edgecolors="white", linewidths=0.6, zorder=3)
        ax.set(xlim=(0, 1), ylim=(1, 0))
        ax.set_title(f"alpha {alpha:g}, cost {cost[cheapest[0]]:.3f}", fontsize="small")
    return fig


def cost_panels(table):
    """What methods cost: a panel each for the seconds of a fit, the milliseconds of an image and the size of the model.

    Parameters
    ----------
    table : DataFrame
        See `pradot.paper.ablations.ablation_table`; a line per method.

    Returns
    -------
    matplotlib Figure
        The axes are logarithmic.
    """
    titles = ("fit, s", "scoring, ms", "model, MB")
    fig, axes = plt.subplots(1, len(titles), figsize=(9.5, 1.0 + 0.3 * len(table)), sharey=True)
    for ax, title, colour in zip(axes, titles, sns.color_palette(PALETTE), strict=False):
        values = table[title, "this run"]
        bars = ax.barh([str(name) for name in table.index], values, height=0.6, color=colour)
        ax.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        ax.set(xscale="log", xlabel=title, xlim=(values.min() / 2, 4 * values.max()))
    axes[0].invert_yaxis()
    return fig
