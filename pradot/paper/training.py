"""Which images of a category a run learns from: its normal ones, few of them, or also defective ones."""

from dataclasses import dataclass, replace

import numpy as np

from pradot.errors import PradotError, is_number, is_whole
from pradot.paper.datasets import Category


@dataclass(frozen=True)
class TrainingSet:
    """How the training images of a run are drawn from its category, by the run's seed.

    Raises
    ------
    PradotError
        A number is out of its range.
    """

    n_images: int | None = None  # normal training images; None: all
    contamination: float = 0.0  # defective test images that become training images, as a part of the normal ones there
    held_back: float = 0.0  # defective test images that are no test images, those included, as the same part

    def __post_init__(self):
        if self.n_images is not None and not (is_whole(self.n_images) and self.n_images > 0):
            raise PradotError(f"the number of training images must be 1 or more, not {self.n_images!r}")
        parts = (self.contamination, self.held_back)
        if not all(map(is_number, parts)) or not 0 <= self.contamination <= self.held_back <= 1:
            raise PradotError(
                f"the part of defective images among the normal ones must be from 0 to the part held back, which is at most 1; "
                f"they are {self.contamination!r} and {self.held_back!r}"
            )


ALL_NORMAL = TrainingSet()
"""All normal training images, and no other: what a run learns from unless something else is said."""


def draw_training(data: Category, training: TrainingSet, seed: int) -> Category:
    """The category as a run with this training set sees it.

    Parameters
    ----------
    data : Category
    training : TrainingSet
    seed : int
        With one seed fewer images are a part of more.

    Returns
    -------
    Category
        With notes on what was drawn. With `n_images` validation images of the data set's own are not used: they are normal
        images too. With `held_back` the same defective images are missing from the test whatever the contamination is, so that
        runs that differ in it alone are compared on the same images.

    Raises
    ------
    PradotError
        The category has too few images: fewer normal ones than are to be drawn, or a part of them is no whole image, or as
        many as all defective test images.
    """
    if training == ALL_NORMAL:
        return data
    # The detector draws by the same seed: these are other numbers.
    normal, defective = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    n_all, n = len(data.train), training.n_images or len(data.train)
    if n > n_all:
        raise PradotError(f"{n} training images are to be drawn from {data.root}, which has {n_all}")
    train, validation, notes = data.train, data.validation, list(data.notes)
    if training.n_images is not None:
        train, validation = tuple(train[i] for i in sorted(normal.permutation(n_all)[:n])), ()
        notes.append(f"Trained on {n} of {n_all} normal images, drawn by the seed.")
    test = data.test
    if training.held_back:
        n_held, n_hidden = (round(part * n) for part in (training.held_back, training.contamination))
        anomalous = np.flatnonzero(data.labels)
        if (training.contamination and not n_hidden) or not 0 < n_held < len(anomalous):
            raise PradotError(
                f"{n_held} of the {len(anomalous)} defective test images in {data.root} would be held back and {n_hidden} of "
                f"these join the {n} normal training images ({100 * training.held_back:g} % and "
                f"{100 * training.contamination:g} %): there must be one or more, and one or more left for the test"
            )
        held = defective.permutation(anomalous)[:n_held].tolist()
        train += tuple(test[i].path for i in sorted(held[:n_hidden]))
        test = tuple(sample for i, sample in enumerate(test) if i not in held)
        notes.append(
            f"{n_held} of {len(anomalous)} defective test images, drawn by the seed, are no test images: "
            f"{n_hidden} of them are training images."
        )
    return replace(data, train=train, validation=validation, test=test, notes=tuple(notes))
