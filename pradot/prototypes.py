"""Prototypes of one scale, learned by optimal transport and an exponential moving average.

Paper section 3, method.md steps 2 to 4. Each step transports a batch of embeddings to the prototypes; every prototype
moves a little towards the barycentre of what it received.
"""

import math
from typing import NamedTuple

import torch
from sklearn.base import BaseEstimator

from pradot.cost import CostScale, check_alpha, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.errors import PradotError
from pradot.progress import progress_bar
from pradot.transport import sinkhorn

POSITIONS = ("fixed", "learned")


class Nearest(NamedTuple):
    """The cheapest prototype of every embedding.

    Attributes
    ----------
    cost : Tensor of shape (n_images, height, width)
        Its mixed cost: the anomaly score of the patch, higher for the more abnormal.
    index : Tensor of shape (n_images, height, width), int64
        Its index in `PrototypeLearner.prototypes_`.
    """

    cost: torch.Tensor
    index: torch.Tensor


class PrototypeLearner(BaseEstimator):
    """Local (`alpha` > 0) or global (`alpha` = 0) prototypes of one feature scale.

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
        Stop after so many steps, though epochs remain.
    positions : {"fixed", "learned"}
        Whether prototypes keep their places on the grid, or follow the barycentre of the positions they receive.
    solver : {"kernel", "pot"}
        See `pradot.transport.sinkhorn`.
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
        Per step ``loss`` (<T, M>), ``marginal_error``, ``movement`` (mean over prototypes of 1 - cos between before
        and after); per epoch ``validation_step``, ``validation_loss``.
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
        self.random_state = random_state
        self.device = device
        self.progress = progress

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
        self._check(features)
        self.notes_ = []
        n_images, height, width, channels = features.shape
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
        self.grid_shape_ = (height, width)
        self.positions_ = self._start_positions(height, width).to(self.device)  # (m, 2)
        z = torch.rand(len(self.positions_), channels, generator=generator).to(self.device)
        self.prototypes_ = z  # (m, channels)
        self.history_ = {k: [] for k in ("loss", "marginal_error", "movement", "validation_step", "validation_loss")}

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
                    loss, scale = self._validate(validation, batch_size)
                    self.history_["validation_step"].append(step)
                    self.history_["validation_loss"].append(loss)
                    if loss < best[0]:
                        best = (loss, (step, scale, self.prototypes_.clone(), self.positions_.clone()))
        self.n_steps_ = n_steps
        self.best_step_, self.scale_, self.prototypes_, self.positions_ = best[1]
        return self

    def cost(self, features, scale=None):
        """Mixed cost between the patches of some images and all prototypes.

        Parameters
        ----------
        features : Tensor of shape (n_images, height, width, channels)
        scale : CostScale, optional
            None: the maxima over these images.

        Returns
        -------
        M : Tensor of shape (n_images * height * width, m)
        scale : CostScale
            The maxima that were used.
        """
        if features.shape[1:3] != self.grid_shape_ or features.shape[3] != self.prototypes_.shape[1]:
            raise PradotError(
                f"feature maps of shape {tuple(features.shape[1:])} do not fit prototypes learned on "
                f"{(*self.grid_shape_, self.prototypes_.shape[1])} (height, width, channels)"
            )
        x = features.to(self.device).flatten(0, 2)  # (n_images * height * width, channels)
        grid = grid_positions(*self.grid_shape_, device=self.device)  # (height * width, 2)
        return mix_costs(feature_cost(x, self.prototypes_), spatial_cost(grid, self.positions_), self.alpha, scale)

    def nearest(self, features, scale=None):
        """The cheapest prototype of every patch, image by image.

        Parameters
        ----------
        features : Tensor of shape (n_images, height, width, channels)
        scale : CostScale, optional
            The maxima to divide the costs by. None: each image's own ("image" scoring); `scale_`: the fixed
            one ("training").

        Returns
        -------
        Nearest
        """
        costs, indices = [], []
        for image in features:
            M, _ = self.cost(image[None], scale)  # (height * width, m)
            cost, index = M.min(1)
            costs.append(cost.view(self.grid_shape_))
            indices.append(index.view(self.grid_shape_))
        return Nearest(torch.stack(costs), torch.stack(indices))

    def _step(self, features):
        """One training step on a batch (batch, height, width, channels)."""
        x = features.to(self.device)
        M, _ = self.cost(x)  # (batch * height * width, m)
        transport = sinkhorn(M, self.reg, n_iter=self.n_iter, solver=self.solver)
        m = len(self.prototypes_)
        # The weights of the prototypes are 1 / m, so m T^T x is what each receives on average.
        barycentres = m * transport.push(x.flatten(0, 2))  # (m, channels)
        moved = self.ema * self.prototypes_ + (1 - self.ema) * barycentres
        similarity = torch.nn.functional.cosine_similarity(moved, self.prototypes_)  # (m,)
        self.history_["loss"].append(transport.cost(M))
        self.history_["marginal_error"].append(transport.marginal_error)
        self.history_["movement"].append((1 - similarity).mean().item())
        self.prototypes_ = moved
        if self.positions == "learned":
            grid = grid_positions(*self.grid_shape_, device=self.device).repeat(len(x), 1)  # (batch * height * width, 2)
            # Divided by the mass that arrived, which is 1 / m only when Sinkhorn has converged: a mean of places on the unit
            # square stays on it. The scale of features does not matter (cosine), that of positions does.
            received = transport.push(torch.ones_like(grid[:, :1]))  # (m, 1)
            self.positions_ = self.ema * self.positions_ + (1 - self.ema) * transport.push(grid) / received

    def _validate(self, features, batch_size):
        """Mean transport loss over batches of (n_validation, height, width, channels), and the largest costs."""
        losses, scales = [], []
        for start in range(0, len(features), batch_size):
            M, scale = self.cost(features[start : start + batch_size])
            losses.append(sinkhorn(M, self.reg, n_iter=self.n_iter, solver=self.solver).cost(M))
            scales.append(scale)
        return sum(losses) / len(losses), CostScale(*(max(values) for values in zip(*scales, strict=True)))

    def _start_positions(self, height, width):
        """The grid, repeated or thinned out: (m, 2)."""
        grid = grid_positions(height, width)  # (height * width, 2)
        if self.n_prototypes >= 1:
            return grid.repeat(int(self.n_prototypes), 1)
        every = round(self.n_prototypes**-0.5)
        return grid.view(height, width, 2)[::every, ::every].flatten(0, 1)

    def _check(self, features):
        check_alpha(self.alpha)
        n = self.n_prototypes
        whole = n >= 1 and float(n).is_integer()
        square_part = 0 < n < 1 and math.isclose(round(n**-0.5) ** -2, n, rel_tol=1e-6)
        if not (whole or square_part):
            raise PradotError(f"n_prototypes is {n}; give a whole number >= 1, or 1/4, 1/9, 1/16, ... for a coarser grid")
        if not 0 <= self.ema < 1:
            raise PradotError(f"ema is {self.ema}; it must lie in [0, 1), or no prototype ever moves")
        if self.positions not in POSITIONS:
            raise PradotError(f"unknown positions {self.positions!r}: choose one of {', '.join(POSITIONS)}")
        for name in ("n_epochs", "batch_size", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PradotError(f"{name} is {value}; training needs at least 1")
        if features.ndim != 4 or len(features) == 0:
            raise PradotError(
                f"features must be (n_images, height, width, channels) of at least one image, not {tuple(features.shape)}"
            )
        if not torch.isfinite(features).all():
            raise PradotError("the features hold NaN or infinity: look at the images and at the encoder's weights")
