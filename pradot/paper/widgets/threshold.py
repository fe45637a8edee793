"""What a threshold on the image scores finds and misses."""

import ipywidgets
import matplotlib.font_manager
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pradot.errors import PradotError
from pradot.paper.widgets.canvas import MARK, as_pixels, blank_figure, dot, pixels, raster
from pradot.paper.widgets.explorer import Explorer

_THUMB = 108  # pixels of an image beside the threshold, with its frame
_FONT = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 11)


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
        (x, bottom), (_, top) = pixels(dots, [threshold] * 2, dots.get_ylim())
        draw.line((x, bottom, x, top), fill=MARK, width=2)
        found, false = self.counts(threshold)
        dot(draw, *pixels(roc, [false / (~self.labels).sum()], [found / self.labels.sum()])[0])
        below, above = self.beside(threshold)
        for k, i in enumerate(below):
            canvas.paste(self._thumbs[i][0], (460 - 8 - _THUMB * (len(below) - k), self._TOP))
        for k, i in enumerate(above):
            canvas.paste(self._thumbs[i][1], (460 + 8 + _THUMB * k, self._TOP))
        draw.line((460, self._TOP - 4, 460, self._TOP + _THUMB + 14), fill=MARK, width=2)
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
        fig, place = blank_figure(924, self._TOP + _THUMB + 20)
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
        return raster(fig), (dots, roc)

    def _thumb(self, image, i):
        """The image under its kind and score, as called normal and as called abnormal: right in blue, wrong in vermilion."""
        picture = Image.fromarray(as_pixels(image, _THUMB - 16))
        thumbs = []
        for called in (False, True):
            right = called == self.labels[i]
            thumb = Image.new("RGB", (_THUMB, _THUMB + 16), "white")
            thumb.paste((1, 115, 178) if right else MARK, (4, 0, _THUMB - 4, _THUMB - 8))
            thumb.paste(picture, (8, 4))
            text = f"{self.defects[i]} {self.scores[i]:.2f}" + ("" if right else " ✗")
            ImageDraw.Draw(thumb).text((_THUMB // 2, _THUMB + 3), text, fill="black", font=_FONT, anchor="mm")
            thumbs.append(thumb)
        return thumbs
