"""Prototypes of one scale, learned by optimal transport and an exponential moving average.

Paper section 3, method.md steps 2 to 4. Each step transports a batch of embeddings to the prototypes; every prototype
moves a little towards the barycentre of what it received.
"""

import math

import torch
from sklearn.base import BaseEstimator

from pradot.block_cost import by_cell
from pradot.cost import CostScale, grid_positions, unit_vectors
from pradot.learner_input import check_settings, check_training_maps
from pradot.partial_learner import LearnerPartialFitMixin
from pradot.precision import ieee_float32
from pradot.progress import progress_bar
from pradot.scoring import ScoringMixin
from pradot.sending import send_dense, send_streamed
from pradot.starts import start_prototypes


class PrototypeLearner(LearnerPartialFitMixin, ScoringMixin, BaseEstimator):
    """Local (`alpha` > 0) or global (`alpha` = 0) prototypes of one feature scale.

    What is done with them once they are learned (`cost`, `nearest`, `spread`, `transported`): see `ScoringMixin`. Images that
    come in parts: see `partial_fit`, which also says what it makes of the settings and attributes.

    Parameters
    ----------
    alpha : float
        Weight of the spatial cost, in [0, 1].
    n_prototypes : int or float
        Prototypes per position of the feature map. A fraction 1/4, 1/9, ... places one prototype on every second,
        third, ... row and column.
    reg : float
        Weight of the entropy.
    n_iter : int
        Sinkhorn iterations per step.
    ema : float
        What a step keeps of a prototype, in [0, 1).
    n_epochs : int
        Passes over the training images.
    batch_size : int
        Images per step. With fewer training images a step takes them all; an incomplete last batch is dropped.
    max_steps : int, optional
        Stop after so many steps, though epochs remain. 0: no transport at all, the prototypes stay as they start.
    positions : {"fixed", "learned"}
        Whether prototypes keep their places on the grid, or follow the barycentre of the positions they receive.
    solver : {"kernel", "pot", "streamed"}
        ``"kernel"`` and ``"pot"`` make `n_iter` iterations from nothing, as the paper does, see `pradot.transport.sinkhorn`.
        ``"streamed"`` is the fast one, see `pradot.streaming.sinkhorn_streamed`: each step starts from the prototypes' dual of
        the step before, divides the feature cost by the largest one of the step before, and stops at `tol`.
    tol : float
        L1 error of the prototypes' marginal at which ``"streamed"`` stops, in [0, 2]; the other solvers do not look at it.
    precision : {"full", "reduced"}
        Of the matrix products of ``"streamed"`` and of scoring, see `pradot.block_cost.BlockCost`. Where the device has no
        instructions for ``"reduced"`` it is ``"full"``, which `notes_` says.
    keep_gb : float
        Memory in which ``"streamed"`` may hold a plan's entries that count, in GB (1e9 bytes), see `sinkhorn_streamed`.
    start : {"uniform", "images", "spread", "kmeans", "kmeans_global"}
        Features of the prototypes before the first step. ``"uniform"``: random numbers in [0, 1), as in the paper.
        ``"images"``: those of randomly chosen training images at each prototype's place. ``"spread"``: at each place those of
        the most typical image there (nearest to the mean direction), then again and again of the image farthest from all that
        are chosen (farthest-point sampling; Gonzalez, Theoretical Computer Science 38, 1985). ``"kmeans"``: means of the
        clusters that k-means finds among all training images' unit features at each place. ``"kmeans_global"``: the same of all
        patches wherever they lie; such a prototype starts at the mean position of its cluster, not on the grid.
    random_state : int
        Seed of the random start and of the order of the images.
    device : str
        Where to compute.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    prototypes_ : Tensor of shape (m, channels)
        Features of the prototypes of the best epoch; ``m = n_prototypes * height * width``.
    positions_ : Tensor of shape (m, 2)
        Their (row, column) on the unit square.
    scale_ : CostScale
        Largest costs between them and the validation embeddings: the fixed scale of "training" scoring.
    grid_shape_ : tuple of int
        (height, width) of the feature map.
    n_steps_ : int
        Steps made.
    best_step_ : int
        The step after which the kept prototypes were seen.
    history_ : dict of list
        Per step ``loss`` (<T, M>), ``marginal_error``, ``n_iter``, ``movement`` (mean over prototypes of 1 - cos between
        before and after); per epoch ``validation_step``, ``validation_loss``.
    notes_ : list of str
        What differs from the asked-for setting, in plain sentences.

    Examples
    --------
    >>> learner = PrototypeLearner(alpha=0.3).fit(features)  # (n_images, 14, 14, channels)
    >>> learner.nearest(features[:1]).cost.amax()
    """

    def __init__(
        self,
        alpha=0.0,
        *,
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
        random_state=0,
        device="cpu",
        progress=False,
    ):
        self.alpha = alpha
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
        self.random_state = random_state
        self.device = device
        self.progress = progress

    @ieee_float32()
    def fit(self, features, validation=None):
        """Learn the prototypes.

        Parameters
        ----------
        features : Tensor of shape (n_images, height, width, channels)
            Feature maps of normal images.
        validation : Tensor of shape (n_validation, height, width, channels), optional
            Feature maps of held-out normal images; the epoch with their lowest transport loss is kept. None: the
            training images take that part, which `notes_` says.

        Returns
        -------
        self

        Raises
        ------
        PradotError
            A setting is out of range, or the features are not finite.
        """
        self.check_settings()
        check_training_maps(features)
        self.notes_ = []
        n_images, (height, width) = len(features), features.shape[1:3]
        if validation is None or len(validation) == 0:
            validation = features
            self.notes_.append("no validation images: the best epoch is chosen by the training images' own transport loss")
        batch_size = self.batch_size
        if n_images < batch_size:
            batch_size = n_images
            self.notes_.append(
                f"{n_images} training images are fewer than a batch of {self.batch_size}: one smaller batch a step"
            )

        generator = torch.Generator().manual_seed(self.random_state)  # on the CPU: the same draw on every device
        self._start(features, generator)
        steps_per_epoch = n_images // batch_size
        n_steps = self.n_epochs * steps_per_epoch
        if self.max_steps is not None:
            n_steps = min(n_steps, self.max_steps)
        best = (math.inf, None)
        with progress_bar(n_steps, f"prototypes {height}x{width} alpha {self.alpha}", "step", self.progress) as bar:
            for step in range(1, n_steps + 1):
                place = (step - 1) % steps_per_epoch
                if place == 0:
                    order = torch.randperm(n_images, generator=generator)
                self._step(features[order[place * batch_size : (place + 1) * batch_size]])
                bar.update()
                bar.set_postfix(loss=f"{self.history_['loss'][-1]:.4f}", refresh=False)
                if place == steps_per_epoch - 1 or step == n_steps:
                    best = self._better(best, step, validation, batch_size)
        if n_steps == 0:
            best = self._better(best, 0, validation, batch_size)
        self.n_steps_ = n_steps
        self.best_step_, self.scale_, self.prototypes_, self.positions_ = best[1]
        return self

    def _start(self, features, generator):
        """Prototypes before the first step, from feature maps (n_images, height, width, channels); older ones are forgotten."""
        self.grid_shape_ = tuple(features.shape[1:3])
        self.prototypes_, self.positions_ = (  # (m, channels), (m, 2)
            part.to(self.device) for part in start_prototypes(self.start, features, self.n_prototypes, generator, self.progress)
        )
        self.history_ = {k: [] for k in ("loss", "marginal_error", "n_iter", "movement", "validation_step", "validation_loss")}
        self._forget_transport()
        if self.precision != self._precision():
            self.notes_.append(f"{self.device} has no instructions for bfloat16: matrix products in full precision")

    def _forget_transport(self):
        """The next transport starts from nothing."""
        self._dual, self._largest, self._n_passes, self._continues = None, None, 2, False

    def _better(self, best, step, validation, batch_size):
        """Validate after a step; return the better of `best` and this: its loss, and what is kept of it."""
        loss, scale = self._validate(validation, batch_size)
        self.history_["validation_step"].append(step)
        self.history_["validation_loss"].append(loss)
        return (loss, (step, scale, self.prototypes_.clone(), self.positions_.clone())) if loss < best[0] else best

    def _step(self, features, share=1.0):
        """One training step on a batch (batch, height, width, channels), which counts for a `share` of a step.

        Prototypes keep ``ema ** share``: as much is left of them after two half steps as after a whole one. Returns the largest
        costs of the batch, a `CostScale`.
        """
        ema = self.ema**share
        sent = self._send(features.to(self.device))
        if self.solver == "streamed":
            self._dual, self._largest, self._n_passes = sent.dual, sent.scale.feature, sent.n_passes
        # The weights of the prototypes are 1 / m, so m T^T x is what each receives on average.
        barycentres = len(self.prototypes_) * sent.features  # (m, channels)
        moved = ema * self.prototypes_ + (1 - ema) * barycentres
        if sent.received is not None:  # where transport stops at a tolerance, a prototype may receive nothing: it stays
            moved = torch.where(sent.received[:, None] > 0, moved, self.prototypes_)
        similarity = (unit_vectors(moved) * unit_vectors(self.prototypes_)).sum(1)  # (m,)
        self.history_["loss"].append(sent.loss)
        self.history_["marginal_error"].append(sent.marginal_errors[-1])
        self.history_["n_iter"].append(sent.n_iter)
        self.history_["movement"].append((1 - similarity).mean().item())
        self.prototypes_ = moved
        if self.positions == "learned":
            # Divided by the mass that arrived, which is 1 / m only when Sinkhorn has converged: a mean of places on the unit
            # square stays on it. The scale of features does not matter (cosine), that of positions does.
            received = sent.received[:, None]  # (m, 1)
            mean = torch.where(received > 0, sent.positions / received, self.positions_)  # (m, 2)
            self.positions_ = ema * self.positions_ + (1 - ema) * mean
        return sent.scale

    def _send(self, features):
        """Transport a batch (batch, height, width, channels) to the prototypes; a `Sent`."""
        moves = self.positions == "learned"
        if self.solver == "streamed":
            self._check_shape(features)
            start = {"dual": self._dual, "largest": self._largest, "expected": self._n_passes}
            settings = {name: getattr(self, name) for name in ("tol", "n_iter", "keep_gb")}
            return send_streamed(self._block_cost(), by_cell(features), self.reg, moves, **start, **settings)
        M, scale = self.cost(features)  # (batch * height * width, m)
        grid = grid_positions(*self.grid_shape_, device=self.device).repeat(len(features), 1) if moves else None
        return send_dense(M, scale, features.flatten(0, 2), grid, self.reg, n_iter=self.n_iter, solver=self.solver)

    def _validate(self, features, batch_size):
        """Mean transport loss over batches of (n_validation, height, width, channels), and the largest costs."""
        sent = [self._send(part.to(self.device)) for part in features.split(batch_size)]
        scale = CostScale(*(max(values) for values in zip(*(part.scale for part in sent), strict=True)))
        return sum(part.loss for part in sent) / len(sent), scale

    def check_settings(self):
        """Raise PradotError if a setting is out of range; `fit` does so too."""
        check_settings(self)
