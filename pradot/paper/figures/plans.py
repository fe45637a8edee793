"""Transport plans in pictures."""

import matplotlib.pyplot as plt
import numpy as np

from pradot.paper.figures.style import HEAT


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
