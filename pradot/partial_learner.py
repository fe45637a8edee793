"""Prototypes that go on learning: feature maps come in parts, and none is held longer than its own part."""

from copy import copy

import torch

from pradot.cost import CostScale
from pradot.learner_input import check_training_maps
from pradot.precision import ieee_float32
from pradot.progress import progress_bar


class LearnerPartialFitMixin:
    """`PrototypeLearner.partial_fit`."""

    _continues = False  # whether the prototypes, and the transport to go on from, are those after a partial_fit

    @ieee_float32()
    def partial_fit(self, features):
        """Go on learning from some images; the first call starts the prototypes from its own (`start`).

        One pass over the images in the order given: steps of `batch_size` images, of which the last may be smaller. In a step
        of b images, whose barycentres are c_j, a prototype keeps ``k = ema ** (b / batch_size)`` of itself::

            z_j <- k z_j + (1 - k) c_j

        so that after n_images ``ema ** (n_images / batch_size)`` is left of older prototypes, in however many calls they came.
        Streamed transport starts from the dual and the scale that the step before has left, also the last one of the call
        before. After `fit` one goes on from the prototypes that it kept, with transport from nothing; `fit` itself starts anew.

        Calls of whole batches, one after the other, make the steps of one call with all their images, but for the start, which
        looks at those of the first call. A `fit` of one epoch makes these steps too, in an order of its own; it leaves out an
        incomplete batch, takes a single smaller one for a whole step, and measures `scale_` after the epoch.

        Parameters
        ----------
        features : Tensor of shape (n_images, height, width, channels)
            Feature maps of normal images, at least one; later calls give maps of the same height, width and channels. Shuffle
            images whose order means something: the last ones count most. Give the first call as many as you can: prototypes
            stay near the images they start from. Give `batch_size` images or more to every call: among few images,
            prototypes of one place that have to be served alike come to resemble each other.

        Returns
        -------
        self

        Raises
        ------
        PradotError
            A setting is out of range, the features are not finite, or of another shape than those before. The learner is as it
            was before the call, whatever stopped it.

        Notes
        -----
        Nothing is held out and no step is better than the last one: `n_epochs` and `max_steps` are not looked at, and
        `n_prototypes`, `start` and `random_state` only by the first call.

        - `prototypes_`, `positions_`: those after the last step, which is `best_step_`.
        - `scale_`: the largest costs seen in any step, each between the step's images and the prototypes it began with, and
          those of `fit` if that came before.
        - `history_`: goes on step by step, but for ``validation_step`` and ``validation_loss``. In a model that was loaded, it
          and `n_steps_` begin with the loading.
        """
        self.check_settings()
        check_training_maps(features)
        learner = copy(self)  # tensors of the learner are replaced, never changed
        learner._learn_on(features)
        vars(self).update(vars(learner))
        return self

    def _learn_on(self, features):
        """As `partial_fit`; an error leaves what was done so far."""
        scales = []
        if hasattr(self, "prototypes_"):
            scales.append(self.scale_)
            if not self._continues:
                self._forget_transport()
        else:
            self.notes_ = []
            self._start(features, torch.Generator().manual_seed(self.random_state))
            if self.start == "uniform":
                left = self.ema ** (len(features) / self.batch_size)
                self.notes_.append(
                    f"prototypes start as random numbers, of which {left:.0%} is left after the first {len(features)} images"
                )
        history = getattr(self, "history_", {name: [] for name in ("loss", "marginal_error", "n_iter", "movement")})
        self.history_ = {name: list(values) for name, values in history.items()}
        batches = features.split(self.batch_size)
        with progress_bar(len(batches), f"prototypes alpha {self.alpha}", "step", self.progress) as bar:
            for batch in batches:
                scales.append(self._step(batch, len(batch) / self.batch_size))
                bar.update()
                bar.set_postfix(loss=f"{self.history_['loss'][-1]:.4f}", refresh=False)
        self.scale_ = CostScale(*(max(largest) for largest in zip(*scales, strict=True)))
        self.n_steps_ = self.best_step_ = getattr(self, "n_steps_", 0) + len(batches)
        self._continues = True
