"""Which images of a category a run learns from: its normal ones, few of them, or also defective ones."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from pradot.errors import PradotError, is_number, is_whole
from pradot.memory import room
from pradot.paper.datasets import Category


@dataclass(frozen=True)
class TrainingSet:
    """How the training images of a run are drawn from its category, by the run's seed.

    Parameters
    ----------
    n_images : int, optional
        Normal training images. None: all.
    contamination : float
        In [0, 0.5]. Share of the training images that are defective, taken from the test images; rounded to whole images.
    held_out : float
        At least `contamination`, at most 0.5. As many defective test images as such a contamination would take are left out of
        the test, those that become training images among them.

    Raises
    ------
    PradotError
        A number is out of its range.
    """

    n_images: int | None = None
    contamination: float = 0.0
    held_out: float = 0.0

    def __post_init__(self):
        if self.n_images is not None and not (is_whole(self.n_images) and self.n_images > 0):
            raise PradotError(f"the number of training images must be 1 or more, not {self.n_images!r}")
        parts = (self.contamination, self.held_out)
        if not all(map(is_number, parts)) or not 0 <= self.contamination <= self.held_out <= 0.5:
            raise PradotError(
                "contamination must be from 0 to the share held out, and that at most 0.5; "
                f"they are {self.contamination!r} and {self.held_out!r}"
            )
        # Equal sets are recorded alike, whatever kinds of numbers they were made from.
        object.__setattr__(self, "n_images", None if self.n_images is None else int(self.n_images))
        object.__setattr__(self, "contamination", float(self.contamination))
        object.__setattr__(self, "held_out", float(self.held_out))

    @property
    def label(self):
        """Name for tables, such as "4 images" or "5 % defects"; empty for all normal images."""
        images = "" if self.n_images is None else f"{self.n_images} image{'s' if self.n_images > 1 else ''}"
        defects = f"{100 * self.contamination:g} % defects" if self.held_out else ""
        return ", ".join(filter(None, [images, defects]))


ALL_NORMAL = TrainingSet()
"""All normal training images, and no other: what a run learns from unless something else is said."""


def draw_training(data: Category, training: TrainingSet, seed: int) -> Category:
    """The category as a run with this training set sees it.

    Parameters
    ----------
    data : Category
    training : TrainingSet
    seed : int
        For one seed, fewer images are a subset of more.

    Returns
    -------
    Category
        With notes on what was drawn. With `n_images` validation images of the data set's own are not used: they are normal
        images too. With one `held_out` the same defective images are left out of the test whatever the contamination is, so
        that runs that differ in it alone are compared on the same images.

    Raises
    ------
    PradotError
        The category has fewer normal images than are to be drawn, or too few images for the share of defective ones: it rounds
        to none, or would leave none for the test.
    """
    if training == ALL_NORMAL:
        return data
    # The detector draws by the same seed: these are other numbers.
    normal, defective = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    n_all, n = len(data.train), training.n_images or len(data.train)
    if n > n_all:
        raise PradotError(f"{n} training images are to be drawn, but there are {n_all} in {data.root}: draw fewer")
    train, validation, test, notes = data.train, data.validation, data.test, list(data.notes)
    if training.n_images is not None:
        train, validation = tuple(train[i] for i in sorted(normal.permutation(n_all)[:n])), ()
        notes.append(f"Trained on {n} of {n_all} normal images, drawn by the seed.")
    if training.held_out:
        anomalous = np.flatnonzero(data.labels)
        n_held, n_hidden = (round(share / (1 - share) * n) for share in (training.held_out, training.contamination))
        smallest = training.contamination or training.held_out
        if (n_hidden if training.contamination else n_held) == 0:
            raise PradotError(
                f"a share of {100 * smallest:g} % defects beside {n} normal training images is no whole image: "
                f"{data.root} would need {int(0.5 * (1 - smallest) / smallest + 1e-9) + 1} normal ones"
            )
        if n_held >= len(anomalous):
            raise PradotError(
                f"{n_held} defective test images are to be left out of the test, but {data.root} has {len(anomalous)}: "
                f"{n_held + 1} are needed"
            )
        held = defective.permutation(anomalous)[:n_held].tolist()
        train += tuple(test[i].path for i in sorted(held[:n_hidden]))
        test = tuple(sample for i, sample in enumerate(test) if i not in held)
        if not data.has_masks:  # nor have they where by chance all without one are left out
            test = tuple(sample._replace(masks=()) for sample in test)
        notes.append(
            f"{n_held} of {len(anomalous)} defective test images, drawn by the seed, are left out of the test; "
            f"{n_hidden} of them are training images."
        )
    pool = (data.train, tuple(sample.path for sample in data.test))
    return replace(data, train=train, validation=validation, test=test, notes=tuple(notes), pool=pool)


def drawn_features(encoder, paths, data, *, cache=None, **settings):
    """Features of the training or test images of a category.

    With a cache, features of a drawn category are taken from those of all its images, which all draws share there; else each
    draw would leave a copy of nearly all of them.

    Parameters
    ----------
    encoder : Encoder
    paths : sequence of Path
        Of `data`, in its order.
    data : Category
        As `draw_training` gives it.
    cache, **settings
        See `Encoder.features`.

    Returns
    -------
    dict of int to Tensor of shape (n_paths, height, width, channels)
        See `Encoder.features`.
    """
    if cache is None or not data.pool:
        return encoder.features(paths, cache=cache, **settings)
    wanted, found, start = set(paths), {}, 0
    for images in data.pool:
        places = torch.tensor([place for place, path in enumerate(images) if path in wanted], dtype=torch.int64)
        if not len(places):
            continue
        features = encoder.features(images, cache=cache, **settings)
        if len(places) == len(images) == len(paths):
            return features
        for scale, maps in features.items():
            if scale not in found:
                found[scale] = room((len(paths), *maps.shape[1:]), folder=cache)
            torch.index_select(maps, 0, places, out=found[scale][start : start + len(places)])
        start += len(places)
    return found
