"""Prototypes of one scale, learned by optimal transport and an exponential moving average.

Paper section 3, method.md steps 2 to 4. Each step transports a batch of embeddings to the prototypes; every prototype
moves a little towards the barycentre of what it received.
"""

import math
from typing import NamedTuple

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pradot.block_cost import PRECISIONS, BlockCost, by_cell, has_bfloat16
from pradot.cost import CostScale, check_alpha, feature_cost, grid_positions, mix_costs, spatial_cost, unit_vectors
from pradot.errors import PradotError, is_number, is_whole
from pradot.precision import ieee_float32
from pradot.progress import progress_bar
from pradot.search import NearestSearch
from pradot.starts import STARTS, cluster_means, spread_out
from pradot.streaming import sinkhorn_streamed
from pradot.transport import SOLVERS, PrecisionError, check_iterations, sinkhorn

POSITIONS = ("fixed", "learned")
SPREAD_PRIOR = 5  # patches of average cost that a prototype is taken to have besides its own


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


class _Sent(NamedTuple):
    """What a transport sent to each prototype."""

    features: torch.Tensor  # (m, channels), T^T x
    positions: torch.Tensor | None  # (m, 2), T^T p
    received: torch.Tensor | None  # (m,), T^T 1
    loss: float
    marginal_errors: list  # after each iteration, as far as the solver tells
    n_iter: int
    scale: CostScale  # largest costs of the batch
    dual: torch.Tensor | None = None  # (m,), where the next transport starts
    n_passes: float | None = None  # over all entries of the cost


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

    _search = None

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
        self._check(features)
        self.notes_ = []
        n_images, height, width = features.shape[:3]
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
        if self.start == "kmeans_global":
            self.prototypes_, self.positions_ = (part.to(self.device) for part in self._global_means(features, generator))
        else:
            self.prototypes_ = self._start_features(features, generator).to(self.device)  # (m, channels)
        self.history_ = {k: [] for k in ("loss", "marginal_error", "n_iter", "movement", "validation_step", "validation_loss")}
        self._dual, self._largest, self._n_passes = None, None, 2  # of the step before
        if self.precision != self._precision():
            self.notes_.append(f"{self.device} has no instructions for bfloat16: matrix products in full precision")

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

    @ieee_float32()
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
        self._check_shape(features)
        x = features.to(self.device).flatten(0, 2)  # (n_images * height * width, channels)
        grid = grid_positions(*self.grid_shape_, device=self.device)  # (height * width, 2)
        return mix_costs(feature_cost(x, self.prototypes_), spatial_cost(grid, self.positions_), self.alpha, scale)

    @ieee_float32()
    def nearest(self, features, scale=None):
        """The cheapest prototype of every patch.

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
        self._check_shape(features)
        prototypes = (self.prototypes_, self.positions_)
        if self._search is None or any(now is not then for now, then in zip(prototypes, self._search[0], strict=True)):
            search = NearestSearch(*prototypes, self.grid_shape_, self.alpha, precision=self._precision())
            self._search = prototypes, search  # kept until there are other prototypes
        search = self._search[1]
        parts = features.split(1 if scale is None else search.images_at_once())
        found = [search(part.to(self.device), scale) for part in parts]
        return Nearest(*(torch.cat(maps) for maps in zip(*found, strict=True)))

    def spread(self, *features):
        """How far normal patches lie from each prototype, beside all the others: its relative spread.

        ``spread_j = (sum of the costs of its patches + k g) / (k + number of its patches) / g``, where its patches are those
        that it is the cheapest prototype of, g is the mean cost of all patches, and ``k = SPREAD_PRIOR``: a prototype of few
        patches is taken for one of average spread.

        Parameters
        ----------
        *features : Tensor of shape (n_images, height, width, channels)
            Feature maps of normal images, such as those of training and those of validation.

        Returns
        -------
        Tensor of shape (m,)
            Positive; 1 where patches cost what they cost on average.
        """
        found = [self.nearest(part, self.scale_) for part in features]
        cost, index = (
            torch.cat([maps.flatten() for maps in of_all]) for of_all in zip(*found, strict=True)
        )  # (n_patches,) both
        m, mean = len(self.prototypes_), cost.mean().clamp(min=torch.finfo(cost.dtype).tiny)
        n = index.bincount(minlength=m)  # (m,)
        total = cost.new_zeros(m).index_add_(0, index, cost)  # (m,)
        return (total / mean + SPREAD_PRIOR) / (n + SPREAD_PRIOR)

    @ieee_float32()
    def transported(self, features, scale=None):
        """What every patch pays when all patches of its image are transported to the prototypes.

        ``sum_j T_ij M_ij / sum_j T_ij`` with T the plan of one image (uniform weights on both sides, `reg`), found by `solver`
        from nothing. Other than in `nearest`, every prototype has to take its share of the image.

        Parameters
        ----------
        features : Tensor of shape (n_images, height, width, channels)
        scale : CostScale, optional
            As for `nearest`.

        Returns
        -------
        Tensor of shape (n_images, height, width)
            Higher for the more abnormal.
        """
        paid = []
        for image in features.split(1):
            image = image.to(self.device)
            M, used = self.cost(image, scale)  # (height * width, m)
            if self.solver == "streamed":
                cost = BlockCost(self.prototypes_, self.positions_, self.grid_shape_, self.alpha, precision=self._precision())
                cost.scale = used
                sent = sinkhorn_streamed(
                    cost, by_cell(image), None, self.reg, tol=self.tol, n_iter=self.n_iter, keep_gb=self.keep_gb
                )
                paid.append((torch.softmax(sent.dual - M / self.reg, 1) * M).sum(1))  # (height * width,)
            else:
                transport = sinkhorn(M, self.reg, n_iter=self.n_iter, solver=self.solver)
                paid.append(len(M) * transport.paid(M))  # (height * width,)
        return torch.stack(paid).view(-1, *self.grid_shape_)

    def _better(self, best, step, validation, batch_size):
        """Validate after a step; return the better of `best` and this: its loss, and what is kept of it."""
        loss, scale = self._validate(validation, batch_size)
        self.history_["validation_step"].append(step)
        self.history_["validation_loss"].append(loss)
        return (loss, (step, scale, self.prototypes_.clone(), self.positions_.clone())) if loss < best[0] else best

    def _step(self, features):
        """One training step on a batch (batch, height, width, channels)."""
        sent = self._send(features.to(self.device))
        if self.solver == "streamed":
            self._dual, self._largest, self._n_passes = sent.dual, sent.scale.feature, sent.n_passes
        # The weights of the prototypes are 1 / m, so m T^T x is what each receives on average.
        barycentres = len(self.prototypes_) * sent.features  # (m, channels)
        moved = self.ema * self.prototypes_ + (1 - self.ema) * barycentres
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
            self.positions_ = self.ema * self.positions_ + (1 - self.ema) * mean

    def _precision(self):
        return self.precision if self.precision == "full" or has_bfloat16(self.device) else "full"

    def _send(self, features):
        """Transport a batch (batch, height, width, channels) to the prototypes; a `_Sent`."""
        return (self._send_streamed if self.solver == "streamed" else self._send_dense)(features)

    def _send_dense(self, features):
        M, scale = self.cost(features)  # (batch * height * width, m)
        transport = sinkhorn(M, self.reg, n_iter=self.n_iter, solver=self.solver)
        positions = received = None
        if self.positions == "learned":
            grid = grid_positions(*self.grid_shape_, device=self.device).repeat(len(features), 1)  # (batch * height * width, 2)
            positions, received = transport.push(grid), transport.push(torch.ones_like(grid[:, :1]))[:, 0]
        x = features.flatten(0, 2)  # (batch * height * width, channels)
        return _Sent(
            transport.push(x),
            positions,
            received,
            transport.cost(M),
            transport.marginal_errors.tolist(),
            transport.n_iter,
            scale,
        )

    def _send_streamed(self, features):
        self._check_shape(features)
        x = by_cell(features)  # (height * width, batch, channels)
        cost = BlockCost(self.prototypes_, self.positions_, self.grid_shape_, self.alpha, precision=self._precision())
        values = x
        if self.positions == "learned":
            places = cost.grid[:, None].expand(-1, len(features), -1)  # (height * width, batch, 2)
            values = torch.cat([x, places], 2)  # (height * width, batch, channels + 2)
        settings = {"v": self._dual, "expected": self._n_passes}
        settings |= {name: getattr(self, name) for name in ("tol", "n_iter", "keep_gb")}
        sent = None
        if self._largest is not None:
            # The largest feature cost of the step before: this one's is known only after the pass that needs it.
            cost.scale = CostScale(self._largest, cost.largest_space)
            try:
                sent = sinkhorn_streamed(cost, x, values, self.reg, **settings)
            except PrecisionError:  # this step's costs are many times larger
                pass
        if sent is None:
            cost.scale = cost.maxima(x)
            sent = sinkhorn_streamed(cost, x, values, self.reg, **settings)
        channels = x.shape[2]
        return _Sent(
            sent.pushed[:, :channels],
            sent.pushed[:, channels:],
            sent.received,
            sent.loss,
            sent.marginal_errors,
            len(sent.marginal_errors),
            CostScale(sent.largest, cost.largest_space),
            sent.v,
            sent.n_passes,
        )

    def _validate(self, features, batch_size):
        """Mean transport loss over batches of (n_validation, height, width, channels), and the largest costs."""
        sent = [self._send(part.to(self.device)) for part in features.split(batch_size)]
        scale = CostScale(*(max(values) for values in zip(*(part.scale for part in sent), strict=True)))
        return sum(part.loss for part in sent) / len(sent), scale

    def _start_features(self, features, generator):
        """Features of the prototypes before the first step, (m, channels), on the CPU."""
        m = len(self.positions_)
        if self.start == "uniform":
            return torch.rand(m, features.shape[3], generator=generator)
        layers = features.flatten(1, 2)  # (n_images, height * width, channels)
        if self.start == "kmeans":
            return self._local_means(layers, generator)
        if self.start == "spread":
            cells = self._thinned(torch.arange(layers.shape[1])[:, None])[:, 0].unique()  # (n_places,)
            chosen = spread_out(layers, cells, max(1, int(self.n_prototypes)))  # (n, n_places)
            return layers[chosen, cells].flatten(0, 1)  # (m, channels)
        if self.n_prototypes < 1:
            cells = self._thinned(torch.arange(layers.shape[1])[:, None])[:, 0]  # (m,)
            return layers[torch.randint(len(layers), (1,), generator=generator), cells].clone()
        order = torch.randperm(len(layers), generator=generator)
        order = order.repeat(-(-int(self.n_prototypes) // len(order)))[: int(self.n_prototypes)]
        return layers[order].flatten(0, 1)  # (m, channels)

    def _local_means(self, layers, generator):
        """k-means at every place of (n_images, height * width, channels): (m, channels), in the order of `positions_`."""
        cells = self._thinned(torch.arange(layers.shape[1])[:, None])[:, 0].unique()  # (n_places,)
        n = max(1, int(self.n_prototypes))
        means = []
        with progress_bar(len(cells), "k-means", "place", self.progress) as bar:
            for cell in cells:
                means.append(cluster_means(layers[:, cell], layers[:, cell], n, generator))  # (n, channels)
                bar.update()
        return torch.stack(means, 1).flatten(0, 1)  # (m, channels)

    def _global_means(self, features, generator):
        """k-means of all patches: mean features (m, channels) and mean positions (m, 2) of its clusters."""
        x = features.flatten(0, 2)  # (n_images * height * width, channels)
        places = grid_positions(*self.grid_shape_).repeat(len(features), 1)  # (n_images * height * width, 2)
        with progress_bar(1, "k-means of all patches", "fit", self.progress) as bar:
            means = cluster_means(x, torch.cat([x, places], 1), len(self.positions_), generator)  # (m, channels + 2)
            bar.update()
        return means[:, :-2], means[:, -2:]

    def _start_positions(self, height, width):
        """The grid, repeated or thinned out: (m, 2)."""
        return self._thinned(grid_positions(height, width))

    def _thinned(self, of_cells):
        """What belongs to the cells (height * width, k) for the prototypes: repeated or thinned out, (m, k)."""
        if self.n_prototypes >= 1:
            return of_cells.repeat(int(self.n_prototypes), 1)
        every = round(self.n_prototypes**-0.5)
        return of_cells.view(*self.grid_shape_, -1)[::every, ::every].flatten(0, 1)

    def _check_shape(self, features):
        check_is_fitted(self, "prototypes_")
        _check_maps(features)
        fitted = (*self.grid_shape_, self.prototypes_.shape[1])
        if tuple(features.shape[1:]) != fitted:
            raise PradotError(
                f"feature maps of shape {tuple(features.shape[1:])} do not fit prototypes learned on {fitted} "
                "(height, width, channels)"
            )

    def check_settings(self):
        """Raise PradotError if a setting is out of range; `fit` does so too."""
        check_alpha(self.alpha)
        check_iterations(self.reg, self.n_iter)
        n = self.n_prototypes
        whole = is_number(n) and n >= 1 and float(n).is_integer()
        square_part = is_number(n) and 0 < n < 1 and math.isclose(round(n**-0.5) ** -2, n, rel_tol=1e-6)
        if not (whole or square_part):
            raise PradotError(f"n_prototypes is {n!r}; give a whole number >= 1, or 1/4, 1/9, 1/16, ... for a coarser grid")
        if not (is_number(self.ema) and 0 <= self.ema < 1):
            raise PradotError(f"ema is {self.ema!r}; it must lie in [0, 1), or no prototype ever moves")
        choices = {
            "positions": POSITIONS,
            "start": STARTS,
            "precision": PRECISIONS,
            "solver": (*SOLVERS, "streamed"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise PradotError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        if not (is_number(self.tol) and 0 < self.tol <= 2):
            raise PradotError(f"tol is {self.tol!r}; the marginal error at which transport stops must lie in (0, 2]")
        if not (is_number(self.keep_gb) and self.keep_gb >= 0):
            raise PradotError(f"keep_gb is {self.keep_gb!r}; it must be a number of GB, at least 0")
        for name, lowest in {"n_epochs": 1, "batch_size": 1, "max_steps": 0}.items():
            value = getattr(self, name)
            if (value is not None or name != "max_steps") and not (is_whole(value) and lowest <= value < 2**63):
                raise PradotError(f"{name} is {value!r}; it must be a whole number, at least {lowest}")
        check_seed(self.random_state)

    def _check(self, features):
        self.check_settings()
        _check_maps(features)
        if not all(torch.isfinite(part).all() for part in features.split(64)):  # no second array as large
            raise PradotError("the features hold NaN or infinity: look at the images and at the encoder's weights")


def check_seed(seed):
    """Raise PradotError unless a seed is a whole number from 0 to 2**32 - 1."""
    if not (is_whole(seed) and 0 <= seed < 2**32):
        raise PradotError(f"random_state is {seed!r}; it must be a whole number from 0 to {2**32 - 1}")


def _check_maps(features):
    if not isinstance(features, torch.Tensor) or features.dtype != torch.float32:
        kind = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
        raise PradotError(f"features must be a tensor of torch.float32, not {kind}: convert with torch.as_tensor(...).float()")
    if features.ndim != 4 or features.numel() == 0:
        raise PradotError(
            f"features must be (n_images, height, width, channels) of at least one image, not {tuple(features.shape)}"
        )
