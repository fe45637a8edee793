"""Explorers of the notebooks: pictures that answer to a slider, and what stands for them where nobody can move one.

Everything that does not depend on the slider is made once: costs, plans, axes, labels, the arrows' ends. A move mixes, looks
colours up in a table, pastes them between the labels and sends one PNG. Matplotlib draws when an explorer is made and never
after. Heat maps are readable by the colour-blind, places are shown by arrows beside colours, and each control works by keyboard
(Tab, space, and on sliders the arrow keys).
"""

import functools
import io
import time
from abc import ABC, abstractmethod
from typing import NamedTuple

import ipywidgets
import matplotlib
import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from pradot.cost import check_alpha, divisor, feature_cost, grid_positions, spatial_cost
from pradot.errors import PradotError
from pradot.images import read_image, resize_image
from pradot.paper.figures import HEAT, position_colours, to_pixels
from pradot.paper.notebooks import is_headless
from pradot.transport import sinkhorn

LIMIT = 0.1
"""From a move of a slider to the new picture, seconds: below it an answer feels immediate."""

_SIDE = 252  # pixels of a map in an explorer: whole pixels for cells of 28 x 28, 14 x 14 and 7 x 7 maps
_ANTIALIAS = 2  # arrows are drawn so many times larger and then reduced
_MARK = (213, 94, 0)  # what moves: the palette's vermilion, which differs from its blue in brightness too


class Explorer(ABC):
    """Pictures that depend on a few settings, shown with a control for each.

    A subclass says what the settings are (`controls`), draws the picture (`picture`) and says its numbers in words
    (`readout`).

    Attributes
    ----------
    settings : dict
        The values to begin with, by name.
    slider : str
        The setting whose answer is measured.
    moves : sequence
        Values of it to measure with.
    """

    settings: dict
    slider: str
    moves: tuple

    @abstractmethod
    def controls(self):
        """New widgets, a dict by setting; each with its label, unit and the value to begin with."""

    @abstractmethod
    def picture(self, **settings):
        """The whole view at these settings (others as `settings` has them), ndarray (height, width, 3), uint8."""

    @abstractmethod
    def readout(self, **settings):
        """The numbers of the view in one line of HTML."""

    def widget(self):
        """Controls over the picture, as an ``ipywidgets.VBox``; its attributes are ``controls``, ``image`` and ``text``."""
        controls = self.controls()
        image, text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        image.layout.max_width = "100%"
        image.layout.object_fit = "contain"

        def update(change=None):
            settings = {name: control.value for name, control in controls.items()}
            image.value, text.value = png(self.picture(**settings)), self.readout(**settings)

        for control in controls.values():
            control.observe(update, names="value")
        update()
        row = ipywidgets.HBox(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        box = ipywidgets.VBox([row, text, image])
        box.controls, box.image, box.text = controls, image, text
        return box

    def answer_times(self, widget=None):
        """Seconds from a move of the slider to the new picture, for each of `moves`.

        Parameters
        ----------
        widget : ipywidgets.VBox, optional
            Of `widget`: its slider is moved, and the time includes handing the picture to the browser's connection. None:
            the time to compute the picture and its PNG.

        Returns
        -------
        ndarray of shape (n_moves,)
        """
        seconds = []
        control = None if widget is None else widget.controls[self.slider]
        start_value = self.settings[self.slider]
        for value in self.moves:
            start = time.perf_counter()
            if control is None:
                png(self.picture(**{self.slider: value})), self.readout(**{self.slider: value})
            else:
                control.value = value
            seconds.append(time.perf_counter() - start)
        if control is not None:
            control.value = start_value
        return np.array(seconds)

    def show(self):
        """Show the widget where somebody can move it, else say where it would be; print how long an answer takes."""
        widget = None
        if is_headless():
            print("Opened in JupyterLab, this cell shows an explorer with a slider; the strip above shows its views.")
        else:
            widget = self.widget()
            display(widget)
        start = time.process_time()
        times = 1000 * self.answer_times(widget)
        used = 1000 * (time.process_time() - start) / len(times)  # where others share the cores it is less than the median
        print(
            f"from a move of the slider to the new picture: median {np.median(times):.0f} ms, slowest {times.max():.0f} ms of "
            f"{len(times)} moves (wanted: below {1000 * LIMIT:.0f} ms)\nprocessor time {used:.0f} ms a move, "
            f"{torch.get_num_threads()} threads"
        )


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
        pictures = [resize_image(read_image(image), _SIDE).permute(1, 2, 0).numpy() for image in images]
        self.pictures = [np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8) for picture in pictures]
        self._pale = [_pale(picture, _SIDE * _ANTIALIAS) for picture in self.pictures]
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
            "image": _buttons("image", [(name, i) for i, name in enumerate(self.names)], self.settings["image"]),
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
            "scale": _buttons(
                "features",
                [("scale {} ({} x {})".format(s, *self._maps[s].shape), s) for s in self.scales],
                self.settings["scale"],
            ),
            "arrows": ipywidgets.Checkbox(value=self.settings["arrows"], description="arrows", indent=False),
        }

    def panels(self, image, alpha, scale, arrows=True):
        """The five pictures of the view, each (side, side, 3), uint8, by name."""
        view = self.view(image, alpha, scale)
        shares = {name: _enlarged(self._heat(share, scale)) for name, share in (("look", view.look), ("place", view.place))}
        cost = torch.from_numpy(view.cost)[None, None]
        size = (_SIDE, _SIDE)
        cost = torch.nn.functional.interpolate(cost, size=size, mode="bilinear", align_corners=True)[0, 0]  # as the detector
        colours = np.rint(255 * position_colours(view.position.reshape(-1, 2))).astype(np.uint8)
        return {
            "image": self._with_arrows(image, view, scale) if arrows else self.pictures[image],
            "assignment": _enlarged(colours.reshape(*view.cost.shape, 3)),
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
            canvas[top : top + _SIDE, left : left + _SIDE] = panel
        canvas = Image.fromarray(canvas)
        (x, bottom), (_, y) = _pixels(ax, [alpha, alpha], [0, self.view(image, alpha, scale).score])
        draw = ImageDraw.Draw(canvas)
        draw.line((x, bottom, x, y), fill=_MARK, width=2)
        _dot(draw, x, y)
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

    def strip(self, image=0, alphas=(0.0, 0.05, 0.1, 0.3, 0.6, 1.0), scale=None):
        """The explorer's views of one image at some alphas, as a matplotlib Figure: a column for each."""
        scale = self.scales[0] if scale is None else scale
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
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, self.vmax[scale]), HEAT)
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
        fig, place = _canvas(924, 574)
        for name, (left, top) in self._CORNERS.items():
            place(left, top, _SIDE, _SIDE, titles[name]).set_axis_off()
        ax = place(618, 26, 194, 206, "score (grey: the other images)")
        ax.plot(self.moves, curves.T, color="0.8", lw=1)
        ax.set(xlabel="alpha", ylabel="image score (no unit)", xlim=(0, 1), ylim=(0, 1.04 * self.vmax[scale]))
        _position_key(place(840, 26, 60, 60))
        colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, self.vmax[scale]), HEAT)
        bar = fig.colorbar(colours, cax=place(822, 314, 14, _SIDE))
        bar.set_label("cost (no unit)", fontsize=9)
        base = _raster(fig)
        return [(_with_curve(base, _pixels(ax, self.moves, curve)), ax) for curve in curves]

    def _heat(self, values, scale):
        return _TABLE[np.clip(values * (255 / self.vmax[scale]), 0, 255).astype(np.uint8)]  # (side, side, 3)

    def _with_arrows(self, image, view, scale):
        """Arrows from every patch to the position of its prototype over the pale image; a dot is their end."""
        picture = self._pale[image].copy()
        draw = ImageDraw.Draw(picture)
        side = (_SIDE * _ANTIALIAS,) * 2
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
        picture = resize_image(read_image(image), _SIDE).permute(1, 2, 0).numpy()
        self._image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
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
            (_SIDE * i // n, _SIDE * (i + 1) // n) for i, n in zip((row, column), self.grid_shape, strict=True)
        )
        draw = ImageDraw.Draw(image)
        draw.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=(255, 255, 255), width=5)
        draw.rectangle((left - 1, top - 1, right, bottom), outline=_MARK, width=3)
        levels = np.sqrt(self.mass(reg, row, column)) * 255  # small parts are to be seen as well
        return np.asarray(image), _enlarged(_TABLE[np.clip(levels, 0, 255).astype(np.uint8)])

    def picture(self, **settings):
        """See `Explorer.picture`."""
        reg, row, column = (self.settings | settings).values()
        canvas = self._background.copy()
        for left, panel in zip((8, 284), self.panels(reg, row, column), strict=True):
            canvas[26 : 26 + _SIDE, left : left + _SIDE] = panel
        canvas = Image.fromarray(canvas)
        draw, k = ImageDraw.Draw(canvas), self.moves.index(reg)
        for ax, values in zip(self._axes, (self.spread, self.error), strict=True):
            _dot(draw, *_pixels(ax, [reg], [values[k]])[0])
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

    def strip(self, regs=(0.003, 0.01, 0.03, 0.1, 0.3), places=None):
        """The explorer's views as a matplotlib Figure: a row for each place (row, column), a column for each `reg`.

        Of `regs` the nearest that were computed are taken; by default `places` are a patch of each half of the image.
        """
        height, width = self.grid_shape
        places = places or [(height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
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
        fig, place = _canvas(924, 310)
        for left, title in ((8, "a patch of the first image"), (284, "where its mass goes")):
            place(left, 26, _SIDE, _SIDE, title).set_axis_off()
        bar = fig.colorbar(_MASS, cax=place(546, 26, 14, _SIDE))
        bar.set_label("part of the patch's mass", fontsize=9)
        spread, error = place(706, 26, 200, 100, "all patches, by reg"), place(706, 158, 200, 100)
        spread.loglog(self.moves, self.spread, color="0.1", lw=2)
        spread.set_ylabel("prototypes a patch")
        spread.set_xticklabels([])
        error.loglog(self.moves, self.error, color="0.1", lw=2)
        error.set(ylabel="marginal error (L1)", xlabel="reg (units of the cost)")
        return _raster(fig), (spread, error)


class ThresholdExplorer(Explorer):
    """What a threshold on the image scores finds and misses: the scores, its point of the ROC curve, the images beside it.

    An image is called abnormal if its score is at least the threshold.

    Parameters
    ----------
    scores : array of shape (n_images,)
        Higher is more abnormal.
    defects : sequence of str
        Kind of each image; ``good`` is normal.
    images : sequence of path or array
        As many.
    n_beside : int
        Images shown on each side of the threshold.
    """

    slider = "threshold"

    def __init__(self, scores, defects, images, *, n_beside=4):
        self.scores, self.defects, self.n_beside = np.asarray(scores, dtype=float), np.asarray(defects), n_beside
        self.labels = self.defects != "good"
        if not 0 < self.labels.sum() < len(self.labels):
            raise PradotError(f"{self.labels.sum()} of {len(self.labels)} images are abnormal: a threshold needs both kinds")
        self.order = np.argsort(self.scores, kind="stable")
        low, high = self.scores.min(), self.scores.max()
        self.moves = tuple(np.linspace(low, high, 21).tolist())
        self.settings = {"threshold": float(np.max(self.scores[~self.labels]))}
        self._thumbs = [self._thumb(image, i) for i, image in enumerate(images)]
        self._background, self._axes = self._make_background()

    def counts(self, threshold):
        """How many abnormal images are found, and how many normal ones are called abnormal: (int, int)."""
        called = self.scores >= threshold
        return int((called & self.labels).sum()), int((called & ~self.labels).sum())

    def beside(self, threshold):
        """Numbers of the images nearest below and from the threshold upwards, by rising score: two arrays."""
        cut = int(np.searchsorted(self.scores[self.order], threshold))  # the first that is called abnormal
        return self.order[max(0, cut - self.n_beside) : cut], self.order[cut : cut + self.n_beside]

    def controls(self):
        """See `Explorer.controls`: threshold."""
        low, high = self.moves[0], self.moves[-1]
        step = (high - low) / 200 or 1.0
        return {
            "threshold": ipywidgets.FloatSlider(
                value=self.settings["threshold"],
                min=low,
                max=high + step,
                step=step,
                description="threshold (unit of the score)",
                readout_format=".3f",
                style={"description_width": "initial"},
                layout=ipywidgets.Layout(width="560px"),
            )
        }

    def picture(self, **settings):
        """See `Explorer.picture`."""
        (threshold,) = (self.settings | settings).values()
        canvas = Image.fromarray(self._background.copy())
        draw, (dots, roc) = ImageDraw.Draw(canvas), self._axes
        (x, bottom), (_, top) = _pixels(dots, [threshold] * 2, dots.get_ylim())
        draw.line((x, bottom, x, top), fill=_MARK, width=2)
        found, false = self.counts(threshold)
        _dot(draw, *_pixels(roc, [false / (~self.labels).sum()], [found / self.labels.sum()])[0])
        below, above = self.beside(threshold)
        for k, i in enumerate(below):
            canvas.paste(self._thumbs[i][0], (460 - 8 - _THUMB * (len(below) - k), self._TOP))
        for k, i in enumerate(above):
            canvas.paste(self._thumbs[i][1], (460 + 8 + _THUMB * k, self._TOP))
        draw.line((460, self._TOP - 4, 460, self._TOP + _THUMB + 14), fill=_MARK, width=2)
        return np.asarray(canvas)

    def readout(self, **settings):
        """See `Explorer.readout`."""
        (threshold,) = (self.settings | settings).values()
        (found, false), n_bad, n_good = self.counts(threshold), self.labels.sum(), (~self.labels).sum()
        precision = f"{100 * found / (found + false):.1f} %" if found + false else "none called"
        return (
            f"found: <b>{found} of {n_bad}</b> abnormal images (recall {100 * found / n_bad:.1f} %) &nbsp; false alarms: "
            f"<b>{false} of {n_good}</b> good ones ({100 * false / n_good:.1f} %) &nbsp; precision {precision}, "
            f"F1 {100 * 2 * found / (found + false + n_bad):.1f} %"
        )

    def strip(self, thresholds=None):
        """The explorer's pictures at some thresholds, one under the other, as a matplotlib Figure.

        By default three: where every defect is found, where no good image is called abnormal, and halfway.
        """
        if thresholds is None:
            ends = self.scores[self.labels].min(), np.nextafter(self.scores[~self.labels].max(), np.inf)
            thresholds = sorted({*ends, sum(ends) / 2})
        pictures = np.concatenate([self.picture(threshold=threshold) for threshold in thresholds])
        fig, ax = plt.subplots(figsize=(pictures.shape[1] / 100, pictures.shape[0] / 100))
        ax.imshow(pictures, interpolation="antialiased")
        ax.set_axis_off()
        return fig

    _TOP = 304  # pixels above the images beside the threshold

    def _make_background(self):
        fig, place = _canvas(924, self._TOP + _THUMB + 20)
        kinds = ["good", *sorted(set(self.defects) - {"good"})]
        dots, roc = place(130, 26, 440, 200, "image scores by kind"), place(680, 26, 200, 200, "ROC curve")
        for row, kind in enumerate(kinds):
            values = np.sort(self.scores[self.defects == kind])
            heights = row + 0.22 * (np.arange(len(values)) % 3 - 1)  # so that equal scores stay apart
            dots.scatter(values, heights, s=14, c="0.45" if kind == "good" else "#0173b2", linewidths=0)
        dots.set_yticks(range(len(kinds)), kinds)
        dots.set(xlabel="image score (no unit)", ylim=(len(kinds) - 0.4, -0.6))
        cuts = np.concatenate([[np.inf], np.sort(self.scores)[::-1]])
        found, false = np.array([self.counts(cut) for cut in cuts]).T
        roc.plot(false / (~self.labels).sum(), found / self.labels.sum(), color="0.1", lw=2)
        roc.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        for x, text in ((0.25, "nearest below: called normal"), (0.75, "nearest above: called abnormal")):
            fig.text(x, 1 - (self._TOP - 8) / fig.bbox.height, text, ha="center", fontsize=9)
        return _raster(fig), (dots, roc)

    def _thumb(self, image, i):
        """The image under its kind and score, as called normal and as called abnormal: right in blue, wrong in vermilion."""
        picture = resize_image(read_image(image), _THUMB - 16).permute(1, 2, 0).numpy().clip(0, 1)
        picture = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
        thumbs = []
        for called in (False, True):
            right = called == self.labels[i]
            thumb = Image.new("RGB", (_THUMB, _THUMB + 16), "white")
            thumb.paste((1, 115, 178) if right else _MARK, (4, 0, _THUMB - 4, _THUMB - 8))
            thumb.paste(picture, (8, 4))
            text = f"{self.defects[i]} {self.scores[i]:.2f}" + ("" if right else " ✗")
            ImageDraw.Draw(thumb).text((_THUMB // 2, _THUMB + 3), text, fill="black", font=_FONT, anchor="mm")
            thumbs.append(thumb)
        return thumbs


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


def png(picture):
    """PNG bytes of a picture (height, width, 3), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


_MASS = matplotlib.cm.ScalarMappable(matplotlib.colors.PowerNorm(0.5, 0, 1), HEAT)
_THUMB = 108  # pixels of an image beside the threshold, with its frame
_FONT = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 11)


def _buttons(label, options, value):
    """One button for each option. JupyterLab takes the arrow keys away from drop-down lists, not Tab and space from buttons."""
    style, layout = {"button_width": "auto", "description_width": "60px"}, ipywidgets.Layout(width="auto", overflow="visible")
    return ipywidgets.ToggleButtons(options=options, value=value, description=label, style=style, layout=layout)


_TABLE = (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).round().astype(np.uint8)  # (256, 3)


def _enlarged(cells):
    """Every cell of (height, width, ...) as a block of a picture of side `_SIDE`."""
    rows, columns = (np.arange(_SIDE) * n // _SIDE for n in cells.shape[:2])
    return cells[rows[:, None], columns]  # (side, side, ...)


def _pale(picture, size):
    grey = Image.fromarray(picture).convert("L").resize((size, size), Image.Resampling.BILINEAR)
    return grey.point(lambda level: 165 + 0.35 * level).convert("RGB")


def _position_key(ax):
    """Which colour stands for which place of the image."""
    ax.imshow(position_colours(grid_positions(24, 24)).reshape(24, 24, 3), interpolation="bilinear")
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("colours\nof places", fontsize="small")


_DISC = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 2), -1).reshape(-1, 2)  # a dot's pixels around its centre
_DISC = _DISC[(_DISC**2).sum(1) <= 10]


def _canvas(width, height):
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


def _raster(fig):
    """The figure's pixels, ndarray (height, width, 3), uint8."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _pixels(ax, x, y):
    """Where data of some axes lie in the figure's pixels: ndarray (n, 2) of (column, row)."""
    columns, rows = ax.transData.transform(np.column_stack([x, y])).T
    return np.column_stack([columns, ax.figure.bbox.height - rows])


def _dot(draw, x, y):
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=_MARK)


def _with_curve(base, points):
    """A picture with a dark smooth line through some (column, row)."""
    base = Image.fromarray(base)
    mask = Image.new("L", (4 * base.width, 4 * base.height))
    ImageDraw.Draw(mask).line([tuple(4 * point) for point in points], fill=255, width=8, joint="curve")
    base.paste((26, 26, 26), mask=mask.reduce(4))
    return np.asarray(base)
