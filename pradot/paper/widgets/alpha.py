"""What alpha does to an image."""

import functools
from typing import NamedTuple

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

from pradot.cost import check_alpha, divisor, feature_cost, grid_positions, spatial_cost
from pradot.paper.figures import HEAT, position_colours, to_pixels
from pradot.paper.widgets.canvas import (
    HEAT_TABLE,
    MARK,
    SIDE,
    as_pixels,
    blank_figure,
    dot,
    enlarged,
    pixels,
    raster,
    with_curve,
)
from pradot.paper.widgets.explorer import Explorer, buttons

_ANTIALIAS = 2  # arrows are drawn so many times larger and then reduced
_DISC = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 2), -1).reshape(-1, 2)  # a dot's pixels around its centre
_DISC = _DISC[(_DISC**2).sum(1) <= 10]


class AlphaExplorer(Explorer):
    """What alpha does to one image: both shares of the cost, their sum, and the prototype that each patch chooses.

    ``M(alpha) = (1 - alpha) C_feat / scale.feature + alpha C_space / scale.space``, the score of a patch is its minimum over
    the prototypes. The scale is the learner's fixed one, so maps of different images and alphas compare.

    Of the prototypes that share a position only the one of the smallest feature cost can win, whatever alpha is. So the
    costs are reduced to one per position when the explorer is made, which changes no minimum.

    Parameters
    ----------
    learners : dict of int to PrototypeLearner
        Fitted, by scale; their own alpha takes no part in what is shown.
    features : dict of int to Tensor of shape (n_images, height, width, channels)
        Of the images to show, by scale.
    images : sequence of path or array
        As many.
    names : sequence of str
        As many, for the picker.
    alpha : float
        To begin with, in [0, 1].

    Attributes
    ----------
    vmax : dict of int to float
        Upper end of the one colour range of all maps of a scale (the lower end is 0): the largest cost at alpha 0, 0.05, ...,
        1.
    """

    slider = "alpha"
    moves = tuple(np.linspace(0, 1, 21).round(2))

    def __init__(self, learners, features, images, names, *, alpha=0.3):
        self.scales, self.names = list(learners), list(names)
        self.settings = {"image": 0, "alpha": check_alpha(alpha), "scale": self.scales[0], "arrows": True}
        self.pictures = [as_pixels(image) for image in images]
        self._pale = [_pale(picture, SIDE * _ANTIALIAS) for picture in self.pictures]
        self._maps = {scale: _PlaceCosts(learners[scale], features[scale]) for scale in self.scales}
        curves = {
            scale: np.array([[maps.view(i, alpha).score for alpha in self.moves] for i in range(len(self.pictures))])
            for scale, maps in self._maps.items()
        }  # (n_images, n_moves) each
        self.vmax = {scale: float(curve.max()) or 1.0 for scale, curve in curves.items()}
        self._backgrounds = {
            (scale, image): background
            for scale, curve in curves.items()
            for image, background in enumerate(self._make_backgrounds(curve, scale))
        }

    @functools.lru_cache(maxsize=8)  # the picture and the numbers under it ask for the same  # noqa: B019
    def view(self, image, alpha, scale):
        """Costs and assignment of image number `image` at `alpha` in [0, 1], as a `View`."""
        return self._maps[scale].view(image, check_alpha(alpha))

    def controls(self):
        """See `Explorer.controls`: image, alpha, scale, arrows."""
        return {
            "image": buttons("image", [(name, i) for i, name in enumerate(self.names)], self.settings["image"]),
            "alpha": ipywidgets.FloatSlider(
                value=self.settings["alpha"],
                min=0,
                max=1,
                step=0.01,
                description="alpha (0: look alone, 1: place alone)",
                readout_format=".2f",
                style={"description_width": "initial"},
                layout=ipywidgets.Layout(width="560px"),
            ),
            "scale": buttons(
                "features",
                [("scale {} ({} x {})".format(s, *self._maps[s].shape), s) for s in self.scales],
                self.settings["scale"],
            ),
            "arrows": ipywidgets.Checkbox(value=self.settings["arrows"], description="arrows", indent=False),
        }

    def panels(self, image, alpha, scale, arrows=True):
        """The five pictures of the view, each (side, side, 3), uint8, by name."""
        view = self.view(image, alpha, scale)
        shares = {name: enlarged(self._heat(share, scale)) for name, share in (("look", view.look), ("place", view.place))}
        cost = torch.from_numpy(view.cost)[None, None]
        size = (SIDE, SIDE)
        cost = torch.nn.functional.interpolate(cost, size=size, mode="bilinear", align_corners=True)[0, 0]  # as the detector
        colours = np.rint(255 * position_colours(view.position.reshape(-1, 2))).astype(np.uint8)
        return {
            "image": self._with_arrows(image, view, scale) if arrows else self.pictures[image],
            "assignment": enlarged(colours.reshape(*view.cost.shape, 3)),
            **shares,
            "map": self._heat(cost.numpy(), scale),
        }

    def picture(self, **settings):
        """See `Explorer.picture`."""
        image, alpha, scale, arrows = (self.settings | settings).values()
        background, ax = self._backgrounds[scale, image]
        canvas = background.copy()
        for name, panel in self.panels(image, alpha, scale, arrows).items():
            left, top = self._CORNERS[name]
            canvas[top : top + SIDE, left : left + SIDE] = panel
        canvas = Image.fromarray(canvas)
        (x, bottom), (_, y) = pixels(ax, [alpha, alpha], [0, self.view(image, alpha, scale).score])
        draw = ImageDraw.Draw(canvas)
        draw.line((x, bottom, x, y), fill=MARK, width=2)
        dot(draw, x, y)
        return np.asarray(canvas)

    def readout(self, **settings):
        """See `Explorer.readout`."""
        image, alpha, scale, _ = (self.settings | settings).values()
        view = self.view(image, alpha, scale)
        top = np.unravel_index(view.cost.argmax(), view.cost.shape)
        return (
            f"image score (no unit): <b>{view.score:.3f}</b> = {view.look[top]:.3f} by look + {view.place[top]:.3f} by place "
            f"&nbsp; mean length of the arrows: <b>{view.shift:.3f}</b> sides of the image"
        )

    def strip(self, image=0, alphas=(0.0, 0.05, 0.1, 0.3, 0.6, 1.0)):
        """The explorer's views of one image at some alphas and the first scale, as a matplotlib Figure: a column for each."""
        scale = self.scales[0]
        names = ("look", "place", "map", "assignment", "image")
        fig, axes = plt.subplots(
            len(names), len(alphas), figsize=(1.75 * len(alphas) + 1.6, 1.72 * len(names) + 0.5), squeeze=False
        )
        for column, alpha in zip(axes.T, alphas, strict=True):
            panels = self.panels(image, alpha, scale)
            for ax, name in zip(column, names, strict=True):
                ax.imshow(panels[name])
                ax.set(xticks=[], yticks=[])
            column[0].set_title(f"alpha {alpha:g}\nscore {self.view(image, alpha, scale).score:.2f}")
        labels = (
            "(1 − alpha) ×\nfeature cost",
            "+ alpha ×\nspatial cost",
            "= anomaly map",
            "place of the\nprototype",
            "arrows to\nthat place",
        )
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label)
        colours = self._colours(scale)
        fig.colorbar(colours, ax=axes[:3], label="cost (no unit)", shrink=0.6, pad=0.01)
        key = fig.colorbar(colours, ax=axes[3:], shrink=0.6, pad=0.01)  # its place holds the key to the colours of places
        key.ax.clear()
        key.ax.set_axis_off()
        inset = key.ax.inset_axes((0, 0.35, 3.2, 0.3))
        _position_key(inset)
        return fig

    _CORNERS = {
        "image": (8, 26),
        "assignment": (284, 26),
        "look": (8, 314),
        "place": (284, 314),
        "map": (560, 314),
    }  # left, top

    def _make_backgrounds(self, curves, scale):
        """What a move leaves as it is, titles, colour bar, key, scores over alpha: an array per image; the curves' axes."""
        titles = {
            "image": "image, arrows to the prototypes",
            "assignment": "places of the cheapest prototypes",
            "look": "(1 − alpha) × feature cost",
            "place": "+ alpha × spatial cost",
            "map": "= anomaly map (smoothed)",
        }
        fig, place = blank_figure(924, 574)
        for name, (left, top) in self._CORNERS.items():
            place(left, top, SIDE, SIDE, titles[name]).set_axis_off()
        ax = place(618, 26, 194, 206, "score (grey: the other images)")
        ax.plot(self.moves, curves.T, color="0.8", lw=1)
        ax.set(xlabel="alpha", ylabel="image score (no unit)", xlim=(0, 1), ylim=(0, 1.04 * self.vmax[scale]))
        _position_key(place(840, 26, 60, 60))
        colours = self._colours(scale)
        bar = fig.colorbar(colours, cax=place(822, 314, 14, SIDE))
        bar.set_label("cost (no unit)", fontsize=9)
        base = raster(fig)
        return [(with_curve(base, pixels(ax, self.moves, curve)), ax) for curve in curves]

    def _colours(self, scale):
        """What a colour bar shows."""
        return matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, self.vmax[scale]), HEAT)

    def _heat(self, values, scale):
        return HEAT_TABLE[np.clip(values * (255 / self.vmax[scale]), 0, 255).astype(np.uint8)]  # (side, side, 3)

    def _with_arrows(self, image, view, scale):
        """Arrows from every patch to the position of its prototype over the pale image; a dot is their end."""
        picture = self._pale[image].copy()
        draw = ImageDraw.Draw(picture)
        side = (SIDE * _ANTIALIAS,) * 2
        shape, grid = view.cost.shape, self._maps[scale].grid.numpy()
        starts, ends = to_pixels(grid, shape, side), to_pixels(view.position.reshape(-1, 2), shape, side)
        colours = (position_colours(grid) * 0.85 * 255).astype(np.uint8)  # (height * width, 3)
        moved = (starts != ends).any(1)
        for (y, x), (to_y, to_x), colour in zip(*(a[moved].tolist() for a in (starts, ends, colours)), strict=True):
            draw.line((x, y, to_x, to_y), fill=tuple(colour), width=3 * _ANTIALIAS // 2)
        dots = np.array(picture)
        rows, columns = (ends[:, None] + _DISC).clip(0, side[0] - 1).astype(int).transpose(2, 0, 1)  # (height * width, n) each
        dots[rows, columns] = colours[:, None]
        return np.asarray(Image.fromarray(dots).reduce(_ANTIALIAS))


class View(NamedTuple):
    """What one image looks like at one alpha.

    Attributes
    ----------
    look, place : ndarray of shape (height, width)
        Share of the feature cost and of the spatial cost in that of every patch's cheapest prototype, no unit.
    cost : ndarray of shape (height, width)
        Their sum, the anomaly map.
    position : ndarray of shape (height, width, 2)
        (row, column) of that prototype on the unit square.
    score : float
        Image score: the largest cost.
    shift : float
        Mean distance from a patch to the position of its prototype, in sides of the image.
    """

    look: np.ndarray
    place: np.ndarray
    cost: np.ndarray
    position: np.ndarray
    score: float
    shift: float


class _PlaceCosts:
    """Both costs of all patches of some images for every position that has a prototype, at one scale."""

    def __init__(self, learner, features):
        scale, self.shape = learner.scale_, learner.grid_shape_
        self.grid = grid_positions(*self.shape)  # (height * width, 2)
        self.positions, of = learner.positions_.cpu().unique(dim=0, return_inverse=True)  # (n_positions, 2), (m,)
        largest = [divisor(each, torch.float32) for each in scale]
        self.c_space = spatial_cost(self.grid, self.positions) / largest[1]  # (height * width, n_positions)
        self.c_feat = []
        for x in features:
            x = x.to(learner.prototypes_.device).flatten(0, 1)  # (height * width, channels)
            cost = feature_cost(x, learner.prototypes_).cpu() / largest[0]  # (height * width, m)
            least = cost.new_empty(len(cost), len(self.positions))
            least.scatter_reduce_(1, of.expand(len(cost), -1), cost, "amin", include_self=False)
            self.c_feat.append(least)  # (height * width, n_positions)

    def view(self, image, alpha):
        """See `AlphaExplorer.view`."""
        c_feat = self.c_feat[image]
        index = ((1 - alpha) * c_feat).add_(self.c_space, alpha=alpha).argmin(1, keepdim=True)  # (height * width, 1)
        look = (1 - alpha) * c_feat.gather(1, index).view(self.shape)
        place = alpha * self.c_space.gather(1, index).view(self.shape)
        position = self.positions[index[:, 0]]  # (height * width, 2)
        cost, shift = look + place, (self.grid - position).norm(dim=1).mean().item()
        position = position.view(*self.shape, 2).numpy()
        return View(look.numpy(), place.numpy(), cost.numpy(), position, cost.max().item(), shift)


def _position_key(ax):
    """Which colour stands for which place of the image."""
    ax.imshow(position_colours(grid_positions(24, 24)).reshape(24, 24, 3), interpolation="bilinear")
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("colours\nof places", fontsize="small")


def _pale(picture, size):
    grey = Image.fromarray(picture).convert("L").resize((size, size), Image.Resampling.BILINEAR)
    return grey.point(lambda level: 165 + 0.35 * level).convert("RGB")
