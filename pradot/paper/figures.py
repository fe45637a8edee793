"""Figures of the companion: one style, fixed names, same input same bytes."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from pradot.files import replacing
from pradot.images import read_image
from pradot.paper.notebooks import project_root

HEAT = "inferno"  # anomaly maps and costs; perceptually even, readable in grey
DIVERGING = "vlag"
PALETTE = "colorblind"


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
    """Save a figure as PNG under its fixed name.

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
    """
    folder = project_root() / "figures"
    path = (folder if dataset == "drawn" else folder / dataset) / f"{name}.png"
    with replacing(path) as temporary:
        fig.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    return path


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
    fig.colorbar(artist, ax=axes[-1], label="anomaly score", shrink=0.9)
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
