"""A detector that goes on learning: images come in parts, over an hour or over weeks, also after saving and loading."""

import time
from copy import copy

from pradot.branches import as_branches
from pradot.errors import PradotError
from pradot.saved import rounded
from pradot.scoring import SPREAD_PRIOR
from pradot.settings import STORAGES, check_settings, learner_settings, measures_spreads


class DetectorPartialFitMixin:
    """`Pradot.partial_fit`."""

    def partial_fit(self, images):
        """Go on learning from some normal images; the first call starts the prototypes of every branch from its own.

        Each call makes one pass over its images, see `PrototypeLearner.partial_fit` for the steps, their order, and the
        settings that count. Features of these images alone are held, and none is kept. The first call starts a model, unless
        there is one: after `fit`, and after `load` of any saved model, one goes on from that. `fit` starts anew.

        Nothing is held out (`validation_fraction` is not looked at). Spreads, where they count, are measured after each call's
        steps by all patches of its images, of mean cost g and nearest to the prototypes as they are then, and added up::

            n_j <- w n_j + number of patches nearest to prototype j
            r_j <- w r_j + sum of their costs / g
            spread_j = (r_j + k) / (n_j + k)

        with ``w = ema ** (n_images / batch_size)``, what the call has left of the prototypes that older patches were measured
        by, and ``k = SPREAD_PRIOR``: one call alone gives what `ScoringMixin.spread` does. Spreads that `fit` measured count as
        if each prototype had had the same number of patches.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
            See `pradot.images.read_image`; at least one, better `batch_size` or more.

        Returns
        -------
        self

        Raises
        ------
        PradotError
            An image cannot be read, a setting is out of range, `branches` are not those of the calls before, or the features
            are of another shape. The detector is as it was before the call, whatever stopped it.

        Examples
        --------
        >>> detector = get_preset("best").detector(Encoder())
        >>> for images in batched(find_images("parts/train/good"), 240):
        ...     detector.partial_fit(images)
        >>> detector.save("model")
        >>> Pradot.load("model").partial_fit(find_images("parts/of_today")).save("model")
        """
        check_settings(self)  # before the encoder's long work
        self._branches_to_learn()
        return self.partial_fit_features(self._features(images))

    def partial_fit_features(self, features):
        """As `partial_fit`, from `Encoder.features`: dict of scale to Tensor (n_images, height, width, channels)."""
        check_settings(self)
        branches = self._branches_to_learn()
        embeddings, n_images = self._embeddings(features), len(next(iter(features.values())))
        seconds, notes = dict(getattr(self, "seconds_", {})), dict.fromkeys(getattr(self, "notes_", []))
        learners, spreads, counts = {}, {}, {}
        for branch in branches:
            start = time.perf_counter()
            learners[branch] = learner = self._learner_to_go_on(branch)
            learner.partial_fit(embeddings[branch.scale])
            if self.storage != "float32":
                learner.prototypes_ = rounded(learner.prototypes_, STORAGES[self.storage])
            if measures_spreads(self):
                left = self.ema ** (n_images / self.batch_size)
                before = self._spread_so_far(branch)
                spreads[branch], counts[branch] = _spread(learner, embeddings[branch.scale], left, before)
            seconds[branch] = seconds.get(branch, 0.0) + time.perf_counter() - start
            notes.update(dict.fromkeys(getattr(learner, "notes_", [])))
        # All at once: whatever stops a call leaves the detector as it was.
        n_before = getattr(self, "n_images_", {"train": 0, "validation": 0})
        self.n_images_ = n_before | {"train": n_before["train"] + n_images}
        self.learners_, self.spreads_, self.spread_counts_ = learners, spreads, counts
        self.seconds_, self.found_, self.notes_ = seconds, getattr(self, "found_", []), list(notes)
        return self

    def _branches_to_learn(self):
        """The detector's branches, which must be those that it has learned if it has learned any."""
        branches, learned = as_branches(self.branches), getattr(self, "learners_", {})
        if learned and set(branches) != learned.keys():
            raise PradotError(
                f"branches are {[tuple(branch) for branch in branches]}, but those learned so far are "
                f"{[tuple(branch) for branch in learned]}: set them back, or fit again"
            )
        return branches

    def _learner_to_go_on(self, branch):
        """A new learner, or a copy of the branch's own with the settings as they are now."""
        learned = getattr(self, "learners_", {})
        return copy(learned[branch]).set_params(**learner_settings(self)) if learned else self._learner(branch)

    def _spread_so_far(self, branch):
        """Spreads and the numbers of patches that they stand for; None if there are none."""
        spread = getattr(self, "spreads_", {}).get(branch)  # (m,)
        if spread is None:
            return None
        if branch in self.spread_counts_:
            return spread, self.spread_counts_[branch]
        height, width = self.learners_[branch].grid_shape_
        n_patches = sum(self.n_images_.values()) * height * width
        return spread, spread.new_full(spread.shape, n_patches / len(spread))


def _spread(learner, features, left, before):
    """Spreads after some more images, and the numbers of patches that they stand for: (m,) both."""
    cost, n = learner._relative_costs(features)
    if before is not None:
        spread, n_before = before
        cost = cost + left * (spread * (n_before + SPREAD_PRIOR) - SPREAD_PRIOR)
        n = n + left * n_before
    return (cost + SPREAD_PRIOR) / (n + SPREAD_PRIOR), n.to(cost.dtype)
