"""The method as one drawing."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pradot.cost import grid_positions
from pradot.paper.figures.places import position_colours
from pradot.paper.figures.style import HEAT, PALETTE

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

    def arrow(start, end, name):
        style = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.5, "color": ink(name), "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch(start, end, **style))

    def cells(x, y, values, name):
        n, side = 4, 0.6
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
