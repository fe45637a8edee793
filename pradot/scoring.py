"""Scoring: what prototypes that were learned say of feature maps."""

from typing import NamedTuple

import torch
from sklearn.utils.validation import check_is_fitted

from pradot.block_cost import BlockCost, by_cell, has_bfloat16
from pradot.cost import feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.errors import PradotError
from pradot.learner_input import check_maps
from pradot.precision import ieee_float32
from pradot.search import NearestSearch
from pradot.streaming import sinkhorn_streamed
from pradot.transport import sinkhorn

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


class ScoringMixin:
    """What `PrototypeLearner` does with what it has learned; its parameters and attributes are described there."""

    _search = None

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
        cost, n = self._relative_costs(*features)
        return (cost + SPREAD_PRIOR) / (n + SPREAD_PRIOR)

    def _relative_costs(self, *features):
        """Of each prototype's own patches: the sum of their costs beside the mean cost of all, and their number; (m,) both."""
        found = [self.nearest(part, self.scale_) for part in features]
        cost, index = (
            torch.cat([maps.flatten() for maps in of_all]) for of_all in zip(*found, strict=True)
        )  # (n_patches,) both
        m, mean = len(self.prototypes_), cost.mean().clamp(min=torch.finfo(cost.dtype).tiny)
        n = index.bincount(minlength=m)  # (m,)
        total = cost.new_zeros(m).index_add_(0, index, cost)  # (m,)
        return total / mean, n

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
                cost = self._block_cost()
                cost.scale = used
                sent = sinkhorn_streamed(
                    cost, by_cell(image), None, self.reg, tol=self.tol, n_iter=self.n_iter, keep_gb=self.keep_gb
                )
                paid.append((torch.softmax(sent.dual - M / self.reg, 1) * M).sum(1))  # (height * width,)
            else:
                transport = sinkhorn(M, self.reg, n_iter=self.n_iter, solver=self.solver)
                paid.append(len(M) * transport.paid(M))  # (height * width,)
        return torch.stack(paid).view(-1, *self.grid_shape_)

    def _precision(self):
        return self.precision if self.precision == "full" or has_bfloat16(self.device) else "full"

    def _block_cost(self):
        """The cost for the prototypes as they are, block by block."""
        return BlockCost(self.prototypes_, self.positions_, self.grid_shape_, self.alpha, precision=self._precision())

    def _check_shape(self, features):
        check_is_fitted(self, "prototypes_")
        check_maps(features)
        fitted = (*self.grid_shape_, self.prototypes_.shape[1])
        if tuple(features.shape[1:]) != fitted:
            raise PradotError(
                f"feature maps of shape {tuple(features.shape[1:])} do not fit prototypes learned on {fitted} "
                "(height, width, channels)"
            )
