"""What the weight of the entropy does to a transport plan."""

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

from pradot.paper.figures import HEAT
from pradot.paper.widgets.canvas import HEAT_TABLE, MARK, SIDE, as_pixels, blank_figure, dot, enlarged, pixels, raster
from pradot.paper.widgets.explorer import Explorer
from pradot.transport import sinkhorn

_MASS = matplotlib.cm.ScalarMappable(matplotlib.colors.PowerNorm(0.5, 0, 1), HEAT)


class RegExplorer(Explorer):
    """Where the mass of one patch goes in the transport plan, for each weight of the entropy.

    ``min_T <T, M> + reg KL(T | a b^T)`` with uniform marginals is solved for every `reg` when the explorer is made; kept are
    the first image's rows of the plan, summed over the prototypes of each place.

    Parameters
    ----------
    M : Tensor of shape (n, m)
        Cost between the patches of some images, in order, and prototypes that lie on the images' grid, layer by layer.
    grid_shape : (int, int)
        Of the patches of an image.
    image : path or array
        The first of the images.
    regs : sequence of float, optional
        Rising; two figures of each count. By default 17 from 0.0032 to 0.32, the paper's 0.01 among them.
    n_iter : int
        Sinkhorn iterations.

    Attributes
    ----------
    cost, spread, error : ndarray of shape (n_regs,)
        By `reg`: transport cost ``<T, M>``; to how many prototypes a patch goes on average, the exponential of the entropy of
        its row; L1 error of the prototypes' marginal.
    """

    slider = "reg"

    def __init__(self, M, grid_shape, image, regs=None, *, n_iter=100):
        regs = np.logspace(-2.5, -0.5, 17) if regs is None else regs
        self.moves, self.grid_shape = tuple(float(f"{reg:.2g}") for reg in regs), tuple(grid_shape)
        cells, n = self.grid_shape[0] * self.grid_shape[1], len(M)
        self._mass, measured = [], []
        for reg in self.moves:
            result = sinkhorn(M, reg, n_iter=n_iter)
            shares = result.plan * n  # (n, m); every row sums to 1
            self._mass.append(shares[:cells].view(cells, -1, *self.grid_shape).sum(1).cpu().numpy())  # (cells, height, width)
            spread = torch.special.entr(shares).sum(1).exp().mean().item()
            measured.append((result.cost(M), spread, result.marginal_error))
        self.cost, self.spread, self.error = np.array(measured).T
        self.settings = {
            "reg": min(self.moves, key=lambda reg: abs(np.log(reg / 0.01))),  # the paper's
            "row": self.grid_shape[0] // 4,
            "column": self.grid_shape[1] // 4,
        }
        self._image = as_pixels(image)
        self._background, self._axes = self._make_background()

    def mass(self, reg, row, column):
        """Part of the patch's mass that goes to each place, ndarray (height, width) with the sum 1."""
        return self._mass[self.moves.index(reg)][row * self.grid_shape[1] + column]

    def controls(self):
        """See `Explorer.controls`: reg, row, column."""
        height, width = self.grid_shape
        return {
            "reg": ipywidgets.SelectionSlider(
                options=[(f"{reg:g}", reg) for reg in self.moves],
                value=self.settings["reg"],
                description="reg (units of the cost)",
                style={"description_width": "initial"},
                layout=ipywidgets.Layout(width="420px"),
            ),
            "row": ipywidgets.IntSlider(value=self.settings["row"], max=height - 1, description="patch row"),
            "column": ipywidgets.IntSlider(value=self.settings["column"], max=width - 1, description="column"),
        }

    def panels(self, reg, row, column):
        """The image with the patch framed, and where its mass goes, each (side, side, 3), uint8."""
        image = Image.fromarray(self._image.copy())
        (top, bottom), (left, right) = (
            (SIDE * i // n, SIDE * (i + 1) // n) for i, n in zip((row, column), self.grid_shape, strict=True)
        )
        draw = ImageDraw.Draw(image)
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=(255, 255, 255), width=5)
        draw.rectangle((left - 1, top - 1, right, bottom), outline=MARK, width=3)
        levels = np.sqrt(self.mass(reg, row, column)) * 255  # small parts are to be seen as well
        return np.asarray(image), enlarged(HEAT_TABLE[np.clip(levels, 0, 255).astype(np.uint8)])

    def picture(self, **settings):
        """See `Explorer.picture`."""
        reg, row, column = (self.settings | settings).values()
        canvas = self._background.copy()
        for left, panel in zip((8, 284), self.panels(reg, row, column), strict=True):
            canvas[26 : 26 + SIDE, left : left + SIDE] = panel
        canvas = Image.fromarray(canvas)
        draw, k = ImageDraw.Draw(canvas), self.moves.index(reg)
        for ax, values in zip(self._axes, (self.spread, self.error), strict=True):
            dot(draw, *pixels(ax, [reg], [values[k]])[0])
        return np.asarray(canvas)

    def readout(self, **settings):
        """See `Explorer.readout`."""
        reg, row, column = (self.settings | settings).values()
        k, mass = self.moves.index(reg), self.mass(reg, row, column)
        return (
            f"this patch: at most <b>{100 * mass.max():.0f} %</b> of its mass to one place &nbsp; all patches: transport cost "
            f"<b>{self.cost[k]:.4f}</b> (no unit), <b>{self.spread[k]:.1f}</b> prototypes a patch, marginal error "
            f"<b>{self.error[k]:.1e}</b> (L1)"
        )

    def strip(self, regs=(0.003, 0.01, 0.03, 0.1, 0.3)):
        """The explorer's views as a matplotlib Figure: a row for a patch of each half of the image, a column for each `reg`.

        Of `regs` the nearest that were computed are taken.
        """
        height, width = self.grid_shape
        places = [(height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
        regs = list(dict.fromkeys(min(self.moves, key=lambda known: abs(np.log(known / reg))) for reg in regs))
        size = (1.75 * (1 + len(regs)) + 0.8, 1.8 * len(places) + 0.4)
        fig, axes = plt.subplots(len(places), 1 + len(regs), figsize=size, squeeze=False)
        for line, place in zip(axes, places, strict=True):
            line[0].imshow(self.panels(regs[0], *place)[0])
            for ax, reg in zip(line[1:], regs, strict=True):
                ax.imshow(self.panels(reg, *place)[1])
        for ax, title in zip(axes[0], ("patch", *(f"reg {reg:g}" for reg in regs)), strict=True):
            ax.set_title(title)
        for ax in axes.ravel():
            ax.set_axis_off()
        fig.colorbar(_MASS, ax=axes, label="part of the patch's mass", shrink=0.8, pad=0.01)
        return fig

    def _make_background(self):
        fig, place = blank_figure(924, 310)
        for left, title in ((8, "a patch of the first image"), (284, "where its mass goes")):
            place(left, 26, SIDE, SIDE, title).set_axis_off()
        bar = fig.colorbar(_MASS, cax=place(546, 26, 14, SIDE))
        bar.set_label("part of the patch's mass", fontsize=9)
        spread, error = place(706, 26, 200, 100, "all patches, by reg"), place(706, 158, 200, 100)
        spread.loglog(self.moves, self.spread, color="0.1", lw=2)
        spread.set_ylabel("prototypes a patch")
        spread.set_xticklabels([])
        error.loglog(self.moves, self.error, color="0.1", lw=2)
        error.set(ylabel="marginal error (L1)", xlabel="reg (units of the cost)")
        return raster(fig), (spread, error)
