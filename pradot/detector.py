"""`Pradot`: an encoder and branches of prototypes; fit, anomaly maps, scores, save, load.

Paper section 3, method.md steps 4 and 5.
"""

import time
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pradot.branches import PAPER_BRANCHES, as_branches
from pradot.branches import Branch as Branch  # beside `Pradot` for those who take both
from pradot.embedding import embed
from pradot.encoder import Encoder
from pradot.errors import PradotError, is_whole
from pradot.images import image_shape, list_images, read_image
from pradot.learned import learn_once
from pradot.maps import image_score, smoothed, upsample_and_average
from pradot.memory import chosen
from pradot.partial_detector import DetectorPartialFitMixin
from pradot.prototypes import PrototypeLearner
from pradot.saved import open_model, restore, rounded, write_model
from pradot.settings import STORAGES, check_settings, learner_settings, measures_spreads
from pradot.weights import OFFLINE_ENCODER

_AT_ONCE = 64  # images whose features are held while others are scored


class Pradot(DetectorPartialFitMixin, BaseEstimator):
    """Anomaly detection by local and global prototypes with optimal transport.

    Images that come in parts, or that are too many to hold all their feature maps: see `partial_fit`.

    Parameters
    ----------
    encoder : Encoder, optional
        None: the offline default.
    branches : sequence of (scale, alpha)
        Their maps are averaged; the paper's four by default.
    embedding : {"scale", "joined", "pooled"}
        What a branch sees: the feature map of its scale, or all the encoder's scales joined at the grid of its scale, as they
        are or as means over 3 x 3 patches, see `pradot.embedding.embed`.
    n_prototypes, reg, n_iter, ema, n_epochs, batch_size, max_steps, positions, solver, tol, precision, keep_gb, start
        See `PrototypeLearner`; the paper's values by default. `keep_gb` also bounds the memory for arrays of all images: larger
        ones lie in temporary files, in `cache` if there is one, see `pradot.memory.room`.
    validation_fraction : float
        Part of the training images that is held out to choose the best epoch, in [0, 1). One image at least is held out, unless
        there is only one.
    scoring : {"training", "image"}
        What the costs are divided by when an image is scored. ``"training"``: maxima fixed at the end of training, so that an
        image's scores do not depend on other patches or images. ``"image"``: the image's own maxima, as the paper's code does.
    assignment : {"nearest", "transport"}
        What a patch's score is. ``"nearest"``: the cost of its cheapest prototype, as in the paper. ``"transport"``: what it
        pays when its image is transported to the prototypes, see `ScoringMixin.transported`.
    spread_power : float
        How much it counts how far normal patches lie from a prototype: a patch's score is divided by its prototype's relative
        spread (`ScoringMixin.spread`) to this power, in [0, 1]. 0: not at all, as in the paper. Only for ``"nearest"``.
    smoothing : float
        Standard deviation of the Gaussian that smoothes patch scores, in sides of the image. 0: none, as in the paper.
    top_part : float
        What an image's score is: the mean of this part of its anomaly map, its highest pixels, in [0, 1]. 0: the maximum, as in
        the paper.
    image_spread_power : float
        An image's score can be that of a second map, the same but for what costs are divided by: the relative spread of their
        prototype, or 1 where that is larger, to this power, in [0, 1]. What outlines a defect best need not tell images
        apart best. 0: the score is that of the anomaly map, as in the paper. Only for ``"nearest"``.
    storage : {"float32", "float16"}
        Numbers that the features of learned prototypes are rounded to, and that a saved model keeps them in.
    random_state : int
        Seed of the held-out part, the start and the order of the images.
    cache : str or Path, optional
        Folder where features are kept, see `Encoder.features`, and learned prototypes, see `pradot.learned.learn_once`.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    learners_ : dict of Branch to PrototypeLearner
    spreads_ : dict of Branch to Tensor of shape (m,)
        Relative spread of every prototype; empty if both powers of the spread are 0.
    spread_counts_ : dict of Branch to Tensor of shape (m,)
        Patches that these are taken from, older ones counting less; empty if `fit` measured them. See `partial_fit`.
    seconds_ : dict of Branch to float
        What learning its prototypes took, now or before.
    found_ : list of Branch
        Those whose prototypes an equal fit had left in `cache`.
    n_images_ : dict of str to int
        ``train`` and ``validation``: images used for steps and for choosing the epoch. `partial_fit` adds to the first
        each time that an image is given.
    notes_ : list of str
        What differs from the asked-for setting, in plain sentences.

    Examples
    --------
    >>> detector = Pradot(max_steps=60).fit(find_images("parts/train/good"))
    >>> detector.anomaly_scores(find_images("parts/test"))
    """

    def __init__(
        self,
        encoder=None,
        *,
        branches=PAPER_BRANCHES,
        embedding="scale",
        n_prototypes=16,
        reg=0.01,
        n_iter=100,
        ema=0.95,
        n_epochs=50,
        batch_size=64,
        max_steps=None,
        positions="fixed",
        solver="kernel",
        tol=0.01,
        precision="full",
        keep_gb=1.0,
        start="uniform",
        validation_fraction=0.2,
        scoring="training",
        assignment="nearest",
        spread_power=0.0,
        smoothing=0.0,
        top_part=0.0,
        image_spread_power=0.0,
        storage="float32",
        random_state=0,
        cache=None,
        progress=False,
    ):
        self.encoder = encoder
        self.branches = branches
        self.embedding = embedding
        self.n_prototypes = n_prototypes
        self.reg = reg
        self.n_iter = n_iter
        self.ema = ema
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.positions = positions
        self.solver = solver
        self.tol = tol
        self.precision = precision
        self.keep_gb = keep_gb
        self.start = start
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.assignment = assignment
        self.spread_power = spread_power
        self.smoothing = smoothing
        self.top_part = top_part
        self.image_spread_power = image_spread_power
        self.storage = storage
        self.random_state = random_state
        self.cache = cache
        self.progress = progress

    def fit(self, images, validation=None):
        """Learn the prototypes of every branch from normal images.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
            See `pradot.images.read_image`.
        validation : sequence of paths, PIL images or arrays, optional
            Other normal images, which choose the best epoch. None: a part of `images` is held out for it
            (`validation_fraction`).

        Returns
        -------
        self

        Raises
        ------
        PradotError
            An image cannot be read, or a setting is out of range.
        """
        check_settings(self)  # before the encoder's long work
        features = self._features(images)
        return self.fit_features(features, None if validation is None else self._features(validation))

    def fit_features(self, features, validation=None):
        """As `fit`, from `Encoder.features`: dicts of scale to Tensor (n_images, height, width, channels)."""
        check_settings(self)
        embeddings = self._embeddings(features)
        n_images, parts = len(next(iter(features.values()))), None
        if validation is None:
            parts = self._held_out(n_images)
        held_out = None if validation is None else self._embeddings(validation)
        n_validation = len(next(iter(validation.values()))) if parts is None else len(parts[1])
        self.n_images_ = {"train": n_images if parts is None else len(parts[0]), "validation": n_validation}
        self.learners_, self.spreads_, self.spread_counts_, self.seconds_, self.found_, notes = {}, {}, {}, {}, [], {}
        for branch in as_branches(self.branches):
            self.learners_[branch] = learner = self._learner(branch)
            maps = embeddings[branch.scale]
            if parts is None:
                own = maps, held_out[branch.scale]
            else:
                own = tuple(chosen(maps, part, self.keep_gb, self.cache) for part in parts)
            found, self.seconds_[branch] = learn_once(learner, *own, self.cache)
            self.found_ += [branch] if found else []
            if self.storage != "float32":
                learner.prototypes_ = rounded(learner.prototypes_, STORAGES[self.storage])
            if measures_spreads(self):
                start = time.perf_counter()
                normal = [maps] if held_out is None else [maps, held_out[branch.scale]]
                self.spreads_[branch] = learner.spread(*normal)  # (m,)
                self.seconds_[branch] += time.perf_counter() - start
            notes.update(dict.fromkeys(learner.notes_))  # the branches say the same: once is enough
        self.notes_ = list(notes)
        return self

    def branch_maps(self, images):
        """Patch scores of every branch.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays

        Returns
        -------
        dict of Branch to Tensor of shape (n_images, height, width)
            Score of every patch: its cost (`assignment`), beside its prototype's spread (`spread_power`), smoothed
            (`smoothing`); at the feature map's size, on the CPU.
        """
        return self.branch_and_score_maps(images)[0]

    def branch_maps_of_features(self, features):
        """As `branch_maps`, from `Encoder.features`."""
        return self.branch_and_score_maps_of_features(features)[0]

    def branch_and_score_maps(self, images):
        """Patch scores of every branch, and those that image scores are made of.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays

        Returns
        -------
        branch_maps, score_maps : dict of Branch to Tensor of shape (n_images, height, width)
            As `branch_maps`; the second divided by the spread as `image_spread_power` says, and the first one itself where that
            is 0.
        """
        check_is_fitted(self, "learners_")
        images = list_images(images)
        # Without images there is one part too, in which the encoder says so.
        parts = [images[start : start + _AT_ONCE] for start in range(0, max(1, len(images)), _AT_ONCE)]
        found = [self.branch_and_score_maps_of_features(self._features(part)) for part in parts]
        kinds = list(zip(*found, strict=True))[: 2 if self.image_spread_power else 1]
        joined = [{branch: torch.cat([maps[branch] for maps in kind]) for branch in self.learners_} for kind in kinds]
        return joined[0], joined[-1]

    def branch_and_score_maps_of_features(self, features):
        """As `branch_and_score_maps`, from `Encoder.features`."""
        check_is_fitted(self, "learners_")
        self._check_spreads()
        embeddings, branch_maps, score_maps = self._embeddings(features), {}, {}
        for branch, learner in self.learners_.items():
            x, scale = embeddings[branch.scale], learner.scale_ if self.scoring == "training" else None
            if self.assignment == "transport":
                maps = learner.transported(x, scale)  # (n_images, height, width)
            else:
                maps, index = learner.nearest(x, scale)  # (n_images, height, width) both
            cost = maps
            if measures_spreads(self):
                spread = self.spreads_[branch][index]  # (n_images, height, width)
                maps = cost / spread**self.spread_power
            branch_maps[branch] = smoothed(maps.cpu(), self.smoothing)
            if self.image_spread_power:
                maps = cost / spread.clamp(min=1) ** self.image_spread_power
                score_maps[branch] = smoothed(maps.cpu(), self.smoothing)
        return branch_maps, score_maps or branch_maps

    def anomaly_maps(self, images, size=None):
        """Anomaly maps: the branches' patch scores, upsampled bilinearly (corners aligned) and averaged.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        size : int, optional
            Side of square maps, at least 1. None: each map has its image's own size.

        Returns
        -------
        ndarray of shape (n_images, size, size), or list of ndarray of shape (height_i, width_i)
            float32, higher for the more abnormal. The list is for `size` None.
        """
        if size is not None and not (is_whole(size) and size >= 1):
            raise PradotError(f"size is {size!r}; it must be a whole number of pixels, at least 1, or None")
        images = list_images(images)
        shapes = [_shape(image) if size is None else (size, size) for image in images]
        maps = upsample_and_average(self.branch_maps(images), shapes)
        return maps if size is None else np.stack(maps)

    def anomaly_scores(self, images, size=None):
        """Image scores: the maximum of each image's anomaly map, or the mean of its `top_part`; see also `image_spread_power`.

        Parameters
        ----------
        images, size
            As for `anomaly_maps`.

        Returns
        -------
        ndarray of shape (n_images,)
            Higher for the more abnormal.
        """
        images = list_images(images)
        (_, score_maps), scores = self.branch_and_score_maps(images), []
        for i, image in enumerate(images):  # a map is as large as its image: one at a time
            shape = _shape(image) if size is None else (size, size)
            (anomaly_map,) = upsample_and_average({branch: maps[i : i + 1] for branch, maps in score_maps.items()}, [shape])
            scores.append(image_score(anomaly_map, self.top_part))
        return np.array(scores)

    def score_samples(self, images, size=None):
        """``-anomaly_scores``: scikit-learn's convention, lower for the more abnormal. Shape (n_images,)."""
        return -self.anomaly_scores(images, size)

    @property
    def model_bytes(self):
        """Size of what was learnt: features, positions and spreads of all prototypes."""
        check_is_fitted(self, "learners_")
        kept = [learner.prototypes_.to(STORAGES[self.storage]) for learner in self.learners_.values()]
        kept += [learner.positions_ for learner in self.learners_.values()]
        return sum(tensor.nbytes for tensor in [*kept, *self.spreads_.values()])

    def save(self, folder):
        """Write the model as ``model.safetensors`` and ``config.json``; the encoder's own weights are not among them.

        Parameters
        ----------
        folder : str or Path
            Made if missing.
        """
        check_is_fitted(self, "learners_")
        self._check_spreads()
        settings = {name: getattr(self, name) for name in self._saved_settings()}
        settings["branches"] = [list(branch) for branch in as_branches(self.branches)]
        write_model(Path(folder), self, self._encoder(), settings)

    @classmethod
    def load(cls, folder, *, encoder=None, device="cpu"):
        """Read a model that `save` wrote.

        Parameters
        ----------
        folder : str or Path
        encoder : Encoder, optional
            Needed when the model was fitted with weights from a local file or with a module of yours. None: the encoder is made
            again by its name.
        device : str
            Where to compute, when `encoder` is None.

        Returns
        -------
        Pradot

        Raises
        ------
        PradotError
            No such model, another format, files that were changed or do not belong together, or an encoder that gives other
            features than the one the model was fitted with; the message says which.
        """
        encoder, settings, config, tensors = open_model(Path(folder), cls._saved_settings(), encoder, device)
        self = cls(encoder, **settings)
        restore(self, config, tensors, folder)
        return self

    @classmethod
    def _saved_settings(cls):
        """Names of the settings that a saved model has: without those of the place where it is used."""
        return [name for name in cls._get_param_names() if name not in ("encoder", "cache", "progress")]

    def _encoder(self):
        if self.encoder is None:
            # Joined embeddings are of the scales that the encoder has; by default those of the paper.
            joined = {branch.scale for branch in PAPER_BRANCHES} if self.embedding != "scale" else set()
            self.encoder = Encoder(scales={branch.scale for branch in as_branches(self.branches)} | joined)
        if not hasattr(self.encoder, "features"):
            raise PradotError(f"encoder is {self.encoder!r}; give a pradot.Encoder, such as Encoder({OFFLINE_ENCODER!r})")
        return self.encoder

    def _features(self, images):
        return self._encoder().features(images, cache=self.cache, progress=self.progress, keep_gb=self.keep_gb)

    def _embeddings(self, features):
        """What the branches see, by scale."""
        scales = sorted({branch.scale for branch in as_branches(self.branches)})
        return {scale: embed(features, scale, self.embedding, keep_gb=self.keep_gb, folder=self.cache) for scale in scales}

    def _held_out(self, n_images):
        """Indices of the images for steps, and of those that choose the epoch."""
        n_validation = 0
        if self.validation_fraction > 0 and n_images > 1:
            n_validation = max(1, int(self.validation_fraction * n_images))
        order = torch.randperm(n_images, generator=torch.Generator().manual_seed(self.random_state))
        return order[n_validation:], order[:n_validation]

    def _learner(self, branch):
        return PrototypeLearner(branch.alpha, device=self._encoder().device, **learner_settings(self))

    def _check_spreads(self):
        name = "spread_power" if self.spread_power else "image_spread_power"
        if measures_spreads(self) and self.spreads_.keys() != self.learners_.keys():
            raise PradotError(f"{name} is {getattr(self, name)}, but was 0 in the fit, which measured no spreads: fit again")


def _shape(image):
    # Files are not decoded for it and not held: the images of a whole folder at their own size may fill the memory.
    return image_shape(image) if isinstance(image, str | Path) else read_image(image).shape[:2]
