"""Costs between patch embeddings and prototypes: features, positions, and their mix by alpha.

Paper section 3 (method.md, step 3)::

    C_feat(i, j)  = 1 - cos(x_i, z_j)                       in [0, 2]
    C_space(i, j) = ||p_i - q_j||_2                         in [0, sqrt 2], positions on the unit square
    M = (1 - alpha) C_feat / max C_feat + alpha C_space / max C_space

``alpha = 0`` gives *global* prototypes (position is free), ``alpha > 0`` *local* ones.
"""

import math
from typing import NamedTuple

import torch

from pradot.errors import PradotError, is_number


class CostScale(NamedTuple):
    """The two maxima that bring the costs to a common scale.

    Attributes
    ----------
    feature : float
        max C_feat.
    space : float
        max C_space.
    """

    feature: float
    space: float


def grid_positions(height, width, *, device=None, dtype=torch.float32):
    """Positions of the cells of a feature map on the unit square.

    Rows and columns run from 0 to 1 in equal steps; a single row or column lies at 0.

    Parameters
    ----------
    height, width : int
        Size of the feature map.

    Returns
    -------
    Tensor of shape (height * width, 2)
        (row, column) of every cell, row by row.
    """
    rows = torch.linspace(0, 1, height, device=device, dtype=dtype)
    columns = torch.linspace(0, 1, width, device=device, dtype=dtype)
    return torch.cartesian_prod(rows, columns)  # (height * width, 2)


def feature_cost(x, z):
    """Cosine distance ``1 - cos(x_i, z_j)``.

    A vector of zeros has cosine 0 with everything (distance 1).

    Parameters
    ----------
    x : Tensor of shape (n, channels)
        Embeddings.
    z : Tensor of shape (m, channels)
        Prototypes' features.

    Returns
    -------
    Tensor of shape (n, m)
        In [0, 2]; 0 where two vectors point the same way.
    """
    x = torch.nn.functional.normalize(x, dim=1)
    z = torch.nn.functional.normalize(z, dim=1)
    c_feat = x.new_empty(len(x), len(z))  # 2.5 GB at 28 x 28: finished block by block, while a block is in cache
    for rows, block in zip(x.split(512), c_feat.split(512), strict=True):
        torch.mm(rows, z.T, out=block).neg_().add_(1).clamp_(min=0)  # rounding may leave -1e-7: cut at 0
    return c_feat


def spatial_cost(p, q):
    """Euclidean distance ``||p_i - q_j||_2`` of positions on the unit square.

    Parameters
    ----------
    p : Tensor of shape (n, 2)
        Positions of embeddings. Embeddings of a batch of images share one grid: pass the grid once.
    q : Tensor of shape (m, 2)
        Positions of prototypes.

    Returns
    -------
    Tensor of shape (n, m)
        In [0, sqrt 2].
    """
    # The difference form is exact where positions coincide; the matrix-product form is not.
    return torch.cdist(p, q, compute_mode="donot_use_mm_for_euclid_dist")  # (n, m)


def check_alpha(alpha):
    """Return `alpha` as a float; raise PradotError unless it lies in [0, 1]."""
    if not (is_number(alpha) and 0 <= alpha <= 1):  # NaN fails too
        raise PradotError(f"alpha is {alpha!r}; it weighs features against space and must lie in [0, 1]")
    return float(alpha)


def mix_costs(c_feat, c_space, alpha, scale=None):
    """Mix of the two costs, each divided by its maximum.

    ``M = (1 - alpha) C_feat / scale.feature + alpha C_space / scale.space``

    Parameters
    ----------
    c_feat : Tensor of shape (batch * cells, m)
        Feature cost of the embeddings of `batch` images of `cells` cells each. **Overwritten** with the mix.
    c_space : Tensor of shape (cells, m)
        Spatial cost of one image's grid, the same for every image of the batch.
    alpha : float
        Weight of the spatial cost, in [0, 1].
    scale : CostScale, optional
        The maxima to divide by. None: those of this batch, as the paper's code does.

    Returns
    -------
    M : Tensor of shape (batch * cells, m)
        In [0, 1] when `scale` is None.
    scale : CostScale
        The maxima that were used.

    Raises
    ------
    PradotError
        `alpha` outside [0, 1], or `c_feat` holds NaN or infinity.
    """
    alpha = check_alpha(alpha)
    largest = c_feat.max().item()
    if not math.isfinite(largest):  # max() passes NaN on
        raise PradotError("the feature cost holds NaN or infinity: look at the embeddings (and the encoder's weights)")
    if scale is None:
        scale = CostScale(largest, c_space.max().item())
    # A maximum of 0 means that all costs are 0 (identical embeddings, one cell): nothing to divide.
    c_feat.mul_((1 - alpha) / (scale.feature or 1))
    if alpha > 0:
        cells, m = c_space.shape
        c_feat.view(-1, cells, m).add_(c_space, alpha=alpha / (scale.space or 1))  # (batch, cells, m)
    return c_feat, scale
