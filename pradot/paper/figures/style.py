"""One style for all figures, and how they are saved: fixed names, same input same bytes."""

import io
from pathlib import Path

import matplotlib
import numpy as np
import seaborn as sns
from PIL import Image

from pradot.files import replacing
from pradot.paper.notebooks import project_root

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
