"""The mixed cost made block by block, each block while it is in cache: what streamed transport and scoring are made of.

The rows of a block are the patches of some cells in all images, so that they share few rows of the spatial cost.
"""

import math
from pathlib import Path

import torch

from pradot.cost import CostScale, divisor, grid_positions, spatial_cost, unit_vectors
from pradot.errors import PradotError

PRECISIONS = ("full", "reduced")  # of a learner; see `BlockCost` for what becomes of it
BLOCK = 6 * 2**20  # entries of a block that stays in cache: 25 MB of float32


def by_cell(features):
    """Embeddings cell by cell, and within a cell image by image.

    Parameters
    ----------
    features : Tensor of shape (batch, height, width, channels)

    Returns
    -------
    Tensor of shape (height * width, batch, channels)
    """
    return features.permute(1, 2, 0, 3).flatten(0, 1).contiguous()  # (height * width, batch, channels)


class BlockCost:
    """The mixed cost ``M`` (see `pradot.cost`) of some patches for all prototypes, made block by block.

    Parameters
    ----------
    prototypes : Tensor of shape (m, channels)
    positions : Tensor of shape (m, 2)
        (row, column) of the prototypes on the unit square.
    grid_shape : (int, int)
        (height, width) of the feature map.
    alpha : float
        Weight of the spatial cost, in [0, 1].
    precision : {"full", "reduced"}
        ``"reduced"``: matrix products of unit vectors rounded to bfloat16 (2 ** -9), summed in float32. What is then rounded is
        ``1 - cos``, so that small costs are not lost in the rounding of cosines near 1.

    Attributes
    ----------
    grid : Tensor of shape (height * width, 2)
        Positions of the cells.
    scale : CostScale
        What the two costs are divided by. To be set; (1, 1) at first.
    """

    def __init__(self, prototypes, positions, grid_shape, alpha, *, precision="full"):
        self.alpha, self.precision, self.scale = alpha, precision, CostScale(1.0, 1.0)
        self.grid = grid_positions(*grid_shape, device=prototypes.device, dtype=prototypes.dtype)  # (height * width, 2)
        self.unit, self.positions = unit_vectors(prototypes), positions
        self._z = self._operand(-self.unit)  # (m, channels), or (m, channels + 1)
        # Prototypes share places: a small table, whose columns are repeated.
        places, self._place = positions.unique(dim=0, return_inverse=True)  # (n_places, 2), (m,)
        self._table = spatial_cost(self.grid, places)  # (height * width, n_places)
        self._buffers = {}

    def __len__(self):
        return len(self.unit)

    @property
    def feature_weight(self):
        """What the feature cost is multiplied by."""
        return (1 - self.alpha) / divisor(self.scale.feature, self.unit.dtype)

    @property
    def space_weight(self):
        """What the spatial cost is multiplied by."""
        return self.alpha / divisor(self.scale.space, self.unit.dtype)

    @property
    def largest_space(self):
        """Largest spatial cost."""
        return self._table.max().item()

    def blocks(self, batch, width=None):
        """Slices of cells such that the blocks of `batch` images stay in cache, for all prototypes or so many."""
        entries = BLOCK if self.grid.device.type == "cpu" else 2**27
        step = max(1, entries // (batch * (width or len(self))))
        return [slice(start, min(start + step, len(self.grid))) for start in range(0, len(self.grid), step)]

    def operand(self, x):
        """Embeddings (..., channels) as `features` takes them: unit vectors, in the precision of the product."""
        return self._operand(unit_vectors(x))

    def features(self, x, columns=slice(None)):
        """Feature cost ``1 - cos``, before it is weighted.

        Parameters
        ----------
        x : Tensor of shape (k, channels or channels + 1)
            Embeddings, see `operand`.
        columns : slice, or Tensor of shape (n_columns,), int64
            Which prototypes.

        Returns
        -------
        Tensor of shape (k, n_columns)
            In memory that the next call overwrites; bfloat16 in reduced precision.
        """
        z = self._z[columns]
        c_feat = torch.mm(x, z.T, out=self.buffer("c_feat", (len(x), len(z)), x.dtype))
        return c_feat if self.precision == "reduced" else c_feat.add_(1)

    def space(self, cells, columns=None):
        """Spatial cost of some cells for all prototypes, or some, before it is weighted: (n_cells, m)."""
        return self._table[cells].index_select(1, self._place if columns is None else self._place[columns])

    def exponents(self, c_feat, cells, reg, v, columns=None):
        """``v_j - M_ij / reg`` of the prototypes' dual v (m,) and a block of the cost.

        Parameters
        ----------
        c_feat : Tensor of shape (n_cells * batch, width)
            Feature cost of all prototypes or some, see `features`.
        cells : slice
            The block's cells.
        reg : float
        v : Tensor of shape (m,)
        columns : Tensor of shape (width,), int64, optional
            Which prototypes.

        Returns
        -------
        Tensor of shape (n_cells * batch, width)
            In memory that the next call overwrites.
        """
        L = self.buffer("T", c_feat.shape).copy_(c_feat).mul_(-self.feature_weight / reg)  # (n_cells * batch, width)
        v = v if columns is None else v[columns]  # (width,)
        if self.space_weight:
            v = torch.add(v, self.space(cells, columns), alpha=-self.space_weight / reg)[:, None]  # (n_cells, 1, width)
        L.view(cells.stop - cells.start, -1, L.shape[1]).add_(v)
        return L

    def maxima(self, x):
        """Largest feature and spatial cost between embeddings (height * width, batch, channels) and all prototypes."""
        x = self.operand(x)
        maxima = [self.features(x[cells].flatten(0, 1)).max() for cells in self.blocks(x.shape[1])]
        return CostScale(largest_of(maxima), self.largest_space)

    def of_pairs(self, x, index):
        """Cost of every patch for a given prototype, in full precision.

        Parameters
        ----------
        x : Tensor of shape (height * width, batch, channels)
        index : Tensor of shape (height * width, batch), int64

        Returns
        -------
        Tensor of shape (height * width, batch)
        """
        c_feat = 1 - (unit_vectors(x) * self.unit[index]).sum(2)  # (height * width, batch)
        c_space = (self.grid[:, None] - self.positions[index]).norm(dim=2)  # (height * width, batch)
        return c_feat.clamp_(min=0).mul_(self.feature_weight).add_(c_space, alpha=self.space_weight)

    def buffer(self, name, shape, dtype=None):
        """Uninitialised memory, the same for the same name."""
        needed = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < needed:
            self._buffers[name] = self.unit.new_empty(needed, dtype=dtype or self.unit.dtype)
        return self._buffers[name][:needed].view(shape)

    def _operand(self, vectors):
        """In reduced precision vectors get a last 1, so that the product of x and -z becomes ``1 - cos``."""
        if self.precision != "reduced":
            return vectors
        return torch.cat([vectors, torch.ones_like(vectors[..., :1])], -1).bfloat16()  # (..., channels + 1)


def has_bfloat16(device):
    """Whether a device has instructions for products of bfloat16 numbers; without them those of float32 are faster."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})  # the last one: ARM


def largest_of(maxima):
    """Largest of the largest feature costs (scalars) of some blocks; raise PradotError if it is NaN or infinite."""
    return max(0.0, check_finite(torch.stack(maxima).max().item()))  # rounding may leave -1e-7: cut at 0


def check_finite(largest):
    """Return the largest of some feature costs; raise PradotError if it is NaN or infinite."""
    if not math.isfinite(largest):
        raise PradotError("the feature cost holds NaN or infinity: look at the embeddings (and the encoder's weights)")
    return largest
