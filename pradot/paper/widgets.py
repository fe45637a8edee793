"""Widgets of the notebooks: what they compute, apart from how they are shown.

`AlphaMixer` answers for any alpha at once: the costs of its images are computed when it is made, and a new alpha only mixes
them and takes the minimum. `alpha_explorer` puts a slider before it, `alpha_strip` a fixed picture for runs without a reader.
"""

import io
from typing import NamedTuple

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

from pradot.cost import CostScale, check_alpha, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.images import read_image, resize_image
from pradot.paper.figures import HEAT, position_colours, to_pixels

_ANTIALIAS = 2  # arrows are drawn so many times larger and then reduced


class View(NamedTuple):
    """What one image looks like at one alpha.

    Attributes
    ----------
    cost : ndarray of shape (height, width)
        Mixed cost of every patch's cheapest prototype, no unit.
    index : ndarray of shape (height, width), int
        Which prototype that is.
    score : float
        Image score: the largest cost.
    shift : float
        Mean distance from a patch to the position of its prototype, in sides of the image.
    """

    cost: np.ndarray
    index: np.ndarray
    score: float
    shift: float


class AlphaMixer:
    """Maps and assignments of some images for any alpha, with one fitted set of prototypes.

    ``M(alpha) = (1 - alpha) C_feat / scale.feature + alpha C_space / scale.space``, the score of a patch is its minimum over
    the prototypes. The scale is the learner's fixed one, so maps of different images and alphas compare.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted; its own alpha takes no part in what is shown.
    features : Tensor of shape (n_images, height, width, channels)
        Of the images to show.
    images : sequence of path or array
        As many.
    size : int
        Side of the pictures, pixels.

    Attributes
    ----------
    c_feat : Tensor of shape (n_images, height * width, m)
        C_feat divided by its scale.
    c_space : Tensor of shape (height * width, m)
        C_space divided by its scale.
    vmax : float
        Upper end of the one colour range of all maps (the lower end is 0): the largest cost at alpha 0, 0.1, ..., 1.
    """

    def __init__(self, learner, features, images, *, size=336):
        scale = learner.scale_
        z, self.grid_shape = learner.prototypes_.cpu(), learner.grid_shape_
        self.c_feat = torch.stack([feature_cost(x.flatten(0, 1), z) for x in features.cpu()]) / (scale.feature or 1)
        self.grid = grid_positions(*self.grid_shape)  # (height * width, 2)
        self.positions = learner.positions_.cpu()
        self.c_space = spatial_cost(self.grid, self.positions) / (scale.space or 1)  # (height * width, m)
        self.size = size
        pictures = [resize_image(read_image(image), size).permute(1, 2, 0).numpy() for image in images]
        self.pictures = [np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8) for picture in pictures]
        self.colours = (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).round().astype(np.uint8)  # (256, 3)
        steps = np.linspace(0, 1, 11)
        self.vmax = max(self.view(i, alpha).score for i in range(len(self.pictures)) for alpha in steps) or 1.0
        self._pale = [self._enlarge_pale(picture) for picture in self.pictures]
        self._starts = to_pixels(self.grid, self.grid_shape, (size * _ANTIALIAS,) * 2)
        self._ends = to_pixels(self.positions, self.grid_shape, (size * _ANTIALIAS,) * 2)
        self._line_colours = [tuple(c) for c in (position_colours(self.grid) * 0.85 * 255).astype(int).tolist()]

    def view(self, image, alpha):
        """Costs, assignment and score of image number `image` at `alpha` in [0, 1], as a `View`."""
        # The costs are scaled already, and mix_costs overwrites its first argument.
        M, _ = mix_costs(self.c_feat[image].clone(), self.c_space, check_alpha(alpha), CostScale(1.0, 1.0))
        cost, index = M.min(1)  # (height * width,)
        shift = (self.grid - self.positions[index]).norm(dim=1).mean().item()
        shape = self.grid_shape
        return View(cost.view(shape).numpy(), index.view(shape).numpy(), cost.max().item(), shift)

    def map_picture(self, view):
        """The anomaly map as a picture (size, size, 3), uint8: upsampled as the detector does, through the colour table."""
        cost = torch.from_numpy(view.cost)[None, None]
        cost = torch.nn.functional.interpolate(cost, size=(self.size,) * 2, mode="bilinear", align_corners=True)[0, 0]
        levels = (cost / self.vmax * 255).clamp_(0, 255).to(torch.uint8).numpy()
        return self.colours[levels]  # (size, size, 3)

    def arrow_picture(self, image, view):
        """Arrows from every patch to the position of its prototype over the pale image, (size, size, 3), uint8."""
        picture = self._pale[image].copy()
        draw = ImageDraw.Draw(picture)
        width, radius = 3 * _ANTIALIAS // 2, 1.6 * _ANTIALIAS
        for start, end, colour in zip(self._starts, self._ends[view.index.ravel()], self._line_colours, strict=True):
            (y, x), (to_y, to_x) = start, end
            draw.line((x, y, to_x, to_y), fill=colour, width=width)
            draw.ellipse((to_x - radius, to_y - radius, to_x + radius, to_y + radius), fill=colour)
        return np.asarray(picture.reduce(_ANTIALIAS))

    def pngs(self, image, alpha):
        """What a new alpha asks for: the `View` and the PNG bytes of its map and of its arrows."""
        view = self.view(image, alpha)
        return view, png(self.map_picture(view)), png(self.arrow_picture(image, view))

    def _enlarge_pale(self, picture):
        grey = Image.fromarray(picture).convert("L").resize((self.size * _ANTIALIAS,) * 2, Image.Resampling.BILINEAR)
        return grey.point(lambda level: 165 + 0.35 * level).convert("RGB")


def png(picture):
    """PNG bytes of a picture (height, width, 3), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def alpha_explorer(mixer, names, *, image=0, alpha=0.3):
    """A slider for alpha over an image, its anomaly map and its assignment arrows.

    Parameters
    ----------
    mixer : AlphaMixer
    names : sequence of str
        Of the mixer's images, for the picker.
    image : int
        Number of the image to begin with.
    alpha : float
        Value to begin with, in [0, 1].

    Returns
    -------
    ipywidgets.VBox
        Its children are also attributes: ``picker``, ``slider``, ``image``, ``map``, ``arrows``, ``readout``.
    """
    picker = ipywidgets.Dropdown(options=[(name, i) for i, name in enumerate(names)], value=image, description="image")
    slider = ipywidgets.FloatSlider(
        value=alpha,
        min=0,
        max=1,
        step=0.01,
        description="alpha",
        readout_format=".2f",
        tooltip="weight of the spatial cost: 0 feature alone, 1 place alone",
        layout=ipywidgets.Layout(width="420px"),
    )
    pictures = {name: ipywidgets.Image(format="png", width=300, height=300) for name in ("image", "map", "arrows")}
    readout = ipywidgets.HTML()

    def update(change=None):
        view, anomaly_map, arrows = mixer.pngs(picker.value, slider.value)
        if change is None or change["owner"] is picker:
            pictures["image"].value = png(mixer.pictures[picker.value])
        pictures["map"].value, pictures["arrows"].value = anomaly_map, arrows
        readout.value = (
            f"image score (largest cost, no unit): <b>{view.score:.3f}</b> &nbsp; "
            f"mean distance to the prototype's place (sides of the image): <b>{view.shift:.3f}</b>"
        )

    picker.observe(update, names="value")
    slider.observe(update, names="value")
    update()
    bar = ipywidgets.Image(value=png(np.repeat(mixer.colours[::-1, None], 16, axis=1)), format="png", width=16, height=270)
    scale = ipywidgets.VBox([ipywidgets.HTML(f"{mixer.vmax:.2f}"), bar, ipywidgets.HTML("0")])
    titles = {
        "image": "image",
        "map": "anomaly map (cost of the cheapest prototype, no unit)",
        "arrows": "from every patch to its prototype's place",
    }
    panels = [
        ipywidgets.VBox([ipywidgets.HTML(titles[name]), picture], layout=ipywidgets.Layout(margin="0 12px 0 0"))
        for name, picture in pictures.items()
    ]
    explorer = ipywidgets.VBox([ipywidgets.HBox([picker, slider]), ipywidgets.HBox([*panels[:2], scale, panels[2]]), readout])
    explorer.picker, explorer.slider, explorer.readout = picker, slider, readout
    explorer.image, explorer.map, explorer.arrows = pictures.values()
    return explorer


def alpha_strip(mixer, image, alphas=(0.0, 0.05, 0.1, 0.3, 0.6, 1.0)):
    """The explorer's views at some alphas, as a figure: anomaly maps above, assignment arrows below.

    Parameters
    ----------
    mixer : AlphaMixer
    image : int
        Number of the image.
    alphas : sequence of float
        In [0, 1].

    Returns
    -------
    matplotlib Figure
    """
    fig, axes = plt.subplots(2, 1 + len(alphas), figsize=(1.75 * (1 + len(alphas)) + 0.6, 3.9), squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    axes[0, 0].imshow(mixer.pictures[image])
    axes[0, 0].set_title("image")
    for column, alpha in enumerate(alphas, 1):
        view = mixer.view(image, alpha)
        axes[0, column].imshow(mixer.map_picture(view))
        axes[0, column].set_title(f"alpha {alpha:g}\nscore {view.score:.2f}")
        axes[1, column].imshow(mixer.arrow_picture(image, view))
        axes[1, column].set_title(f"mean shift {view.shift:.2f}")
    axes[1, 0].text(
        0.5, 0.5, "arrows: from every\npatch to the place of\nits prototype", ha="center", transform=axes[1, 0].transAxes
    )
    colours = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, mixer.vmax), HEAT)
    fig.colorbar(colours, ax=axes[0], label="cost (no unit)", shrink=0.9, pad=0.01)
    return fig
