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

    Notes
    -----
    Where all costs of a kind are 0 but for rounding (identical embeddings, one cell) they are not divided, see `divisor`.
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


def unit_vectors(x):
    """Vectors brought to length 1, however short or long they are; those of zeros stay zeros.

    Parameters
    ----------
    x : Tensor of shape (..., channels)
        Floating-point numbers. A vector that holds NaN or infinity becomes NaN.

    Returns
    -------
    Tensor of shape (..., channels)

    Raises
    ------
    PradotError
        The numbers are not floating-point ones.
    """
    if not x.is_floating_point():
        raise PradotError(f"the embeddings are of {x.dtype}; give floating-point numbers")
    kind = torch.finfo(x.dtype)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
    # Squares of small entries are lost, those of large ones infinite. Only these vectors are measured again: the others' last
    # digits must not depend on them.
    lost = (length < (kind.tiny / kind.eps) ** 0.5) | ~length.isfinite()
    if lost.any():
        largest = x.abs().amax(-1, keepdim=True)  # (..., 1)
        x = torch.where(lost & (largest > 0), x / largest, x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp(min=kind.tiny)


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
    x, z = unit_vectors(x), unit_vectors(z)
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


def divisor(largest, dtype):
    """What costs of a dtype are divided by: the largest of them, or 1 if that is nothing but rounding.

    Between equal embeddings a cosine distance is 0, but for rounding; divided by that it would be anything up to 1.
    """
    return largest if largest > 32 * torch.finfo(dtype).eps else 1.0


def check_scale(scale):
    """Return a CostScale; raise PradotError unless its maxima are finite and not negative."""
    if not all(math.isfinite(largest) and largest >= 0 for largest in scale):
        raise PradotError(f"the costs' scale is {tuple(scale)}: both maxima must be finite and not negative; fit again")
    return scale


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
        `alpha` outside [0, 1], `scale` or a cost negative or not finite.
    """
    alpha = check_alpha(alpha)
    largest = c_feat.max().item()
    if not math.isfinite(largest):  # max() passes NaN on
        raise PradotError("the feature cost holds NaN or infinity: look at the embeddings (and the encoder's weights)")
    largest = CostScale(largest, c_space.max().item())
    if not math.isfinite(largest.space):
        raise PradotError("the spatial cost holds NaN or infinity: look at the prototypes' positions")
    scale = largest if scale is None else check_scale(scale)
    c_feat.mul_((1 - alpha) / divisor(scale.feature, c_feat.dtype))
    if alpha > 0:
        weight = alpha / divisor(scale.space, c_space.dtype)
        c_feat.unflatten(0, (-1, len(c_space))).add_(c_space, alpha=weight)  # (batch, cells, m)
    return c_feat, scale
