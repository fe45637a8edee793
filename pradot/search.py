"""Scoring: the cheapest prototype of every patch, without looking at those that cannot be it."""

import math
import warnings
from itertools import pairwise
from typing import NamedTuple

import torch

from pradot import block_cost
from pradot.block_cost import BlockCost, by_cell, check_finite
from pradot.bounds import DIRECTIONS, ROUNDING, CosineBounds
from pradot.cost import check_scale, spatial_cost

_BANDS = 7  # of the grid's rows, in which a search looks for the cheapest prototype
_NEAR = 0.15  # of all patches and places: where bounds leave more, the pairs left are not worth finding
_LEFT = 0.03  # of all pairs; where bounds leave more, the product for all is quicker


class NearestSearch:
    """Finds the cheapest prototype of every patch.

    Prototypes at one place have the same spatial cost: it is added to the lowest feature cost among them. Where place counts
    and prototypes are many, they are visited band by band of the grid's rows, from a patch's own band outwards. A patch skips
    a band whose spatial cost alone exceeds the lowest cost that it has found: nothing there can win.

    Where embeddings are long, there are no bands: the product of whole vectors is made only for the pairs that bounds of their
    cosines leave (`pradot.bounds`), one in some hundred. Bounds that leave too many, more often than not, are given up.
    None are made on a GPU or in reduced precision: there products cost little beside looking for what is left.

    Parameters
    ----------
    prototypes, positions, grid_shape, alpha, precision
        See `BlockCost`.
    """

    def __init__(self, prototypes, positions, grid_shape, alpha, *, precision="full"):
        self._given = prototypes, positions, alpha, precision
        self._grid_shape = tuple(grid_shape)
        self._worth = 0  # blocks for which bounds left few pairs, less those for which they left too many
        n_pairs, n_channels = len(positions) * math.prod(self._grid_shape), prototypes.shape[1]
        cheap = prototypes.device.type == "cuda" or precision == "reduced"
        bounded = n_pairs > block_cost.BLOCK // 16 and n_channels >= 4 * DIRECTIONS and not cheap
        self._prepare(bounded)

    def _prepare(self, bounded):
        """Lay out the prototypes for a search with or without bounds."""
        prototypes, positions, alpha, precision = self._given
        height, width = self._grid_shape
        places, place = positions.unique(dim=0, return_inverse=True)  # (n_places, 2) by row, (m,)
        counts = place.bincount()
        if (counts != counts[0]).any():  # as places of their own then
            place = positions[:, 0].argsort(stable=True).argsort()  # (m,), rank by row
            places, counts = positions[place.argsort()], torch.ones_like(place)
        self._copies = int(counts[0])
        at_place = place.argsort(stable=True).view(len(places), -1)  # (n_places, copies), the prototypes of each place
        n_bands = _BANDS if alpha and len(positions) * height * width > block_cost.BLOCK and not bounded else 1
        step = -(-height // n_bands)
        starts = range(0, height, step)
        self._cells = [slice(start * width, min(start + step, height) * width) for start in starts]
        rows = places[:, 0].contiguous()  # (n_places,)
        edges = torch.searchsorted(rows, rows.new_tensor([(start - 0.5) / max(height - 1, 1) for start in starts[1:]]))
        bands = [slice(*ends) for ends in pairwise([0, *edges.tolist(), len(rows)]) if ends[0] < ends[1]]
        # In a band copy by copy, each copy at all places.
        self._order = torch.cat([at_place[band].T.flatten() for band in bands])  # (m,)
        ordered = prototypes[self._order], positions[self._order]
        self._cost = BlockCost(*ordered, self._grid_shape, alpha, precision=precision)
        self._bounds = CosineBounds(self._cost.unit) if bounded else None
        self._bands = [
            _Band(
                slice(band.start * self._copies, band.stop * self._copies),
                rows[band.start].item(),
                rows[band.stop - 1].item(),
                spatial_cost(self._cost.grid, places[band]),  # (height * width, n_places in the band)
            )
            for band in bands
        ]

    def images_at_once(self):
        """How many images are best searched together: at least eight, more if they fill a block."""
        return max(8, block_cost.BLOCK // (len(self._cost) * math.prod(self._grid_shape)))

    def __call__(self, features, scale=None):
        """Cost and index of the cheapest prototype of every patch.

        Parameters
        ----------
        features : Tensor of shape (batch, height, width, channels)
        scale : CostScale, optional
            What the costs are divided by; the maxima over these images by default.

        Returns
        -------
        cost : Tensor of shape (batch, height, width)
            In full precision, whatever the precision of the search.
        index : Tensor of shape (batch, height, width), int64

        Raises
        ------
        PradotError
            The cost is not finite.
        """
        x = by_cell(features)  # (height * width, batch, channels)
        self._cost.scale = self._cost.maxima(x) if scale is None else check_scale(scale)
        operand = self._cost.operand if self._bounds is None else self._bounds.operand
        unit = operand(x)  # (height * width, batch, at least channels)
        if self._bounds is not None:
            self._space = self._bands[0].space * self._cost.space_weight  # (height * width, n_places)
        if len(self._bands) == 1:
            found = [self._in_all(unit[cells], cells) for cells in self._cost.blocks(x.shape[1])]
        else:
            found = [self._in_bands(unit[cells], cells) for cells in self._cells]
        index = torch.cat(found).view(x.shape[:2])  # (height * width, batch)
        cost = self._cost.of_pairs(x, index)
        check_finite(cost.max().item())
        shape = (*self._grid_shape, x.shape[1])
        found = cost.view(shape).permute(2, 0, 1), self._order[index].view(shape).permute(2, 0, 1)
        if self._worth < 0:
            self._prepare(bounded=False)
            self._worth = 0
        return found

    def _in_all(self, x, cells):
        """Which prototype is the cheapest for each patch x (n_cells, batch, ...) of some cells: (n_cells * batch,)."""
        of_cell = torch.arange(cells.start, cells.stop, device=x.device).repeat_interleave(x.shape[1])  # (n_cells * batch,)
        x = x.flatten(0, 1)  # (n_cells * batch, ...)
        if self._bounds is not None:
            x, parts = self._bounds.split(x)
            index = self._cheapest_of_few(x, parts, of_cell)
            self._worth += -1 if index is None else 1
            if index is not None:
                return index
        return self._cheapest(x, of_cell, self._bands[0])[1]

    def _in_bands(self, x, cells):
        """As `_in_all`, but for the bands that cannot win."""
        of_cell = torch.arange(cells.start, cells.stop, device=x.device).repeat_interleave(x.shape[1])  # (n_cells * batch,)
        x, row = x.flatten(0, 1), self._cost.grid[of_cell, 0]  # (n_cells * batch, ...), (n_cells * batch,)
        middle = row.mean().item()
        best, index = torch.full_like(row, torch.inf), torch.zeros_like(of_cell)
        for band in sorted(self._bands, key=lambda band: max(band.low - middle, middle - band.high)):
            way = torch.maximum(band.low - row, row - band.high).clamp_(min=0)  # (n_cells * batch,), to the band's nearest row
            open_ = (best > way * self._cost.space_weight).nonzero()[:, 0]  # (n_open,)
            if len(open_) == 0:
                continue
            cost, where = self._cheapest(x[open_], of_cell[open_], band)
            better = cost < best[open_]
            best[open_[better]] = cost[better]
            index[open_[better]] = where[better]
        return index

    def _cheapest(self, x, of_cell, band):
        """Lowest cost (k,) of patches x (k, ...) in a band, and which prototype has it (k,)."""
        c_feat = self._cost.features(x, band.columns).view(len(x), self._copies, -1)  # (k, copies, n_places)
        M = c_feat.amin(1).float() if c_feat.dtype == torch.bfloat16 else c_feat.amin(1)  # (k, n_places)
        M *= self._cost.feature_weight
        if self._cost.space_weight:
            M.add_(band.space[of_cell], alpha=self._cost.space_weight)
        cost, place = M.min(1)  # (k,)
        at_place = c_feat.gather(2, place[:, None, None].expand(-1, self._copies, 1))[:, :, 0]  # (k, copies)
        return cost, band.columns.start + at_place.min(1).indices * c_feat.shape[2] + place

    def _cheapest_of_few(self, x, parts, of_cell):
        """Which prototype is the cheapest for patches x (k, channels): (k,); None where bounds leave too many pairs."""
        weight, space = self._cost.feature_weight, self._space  # (height * width, n_places)
        cos = torch.mm(parts, self._bounds.parts.T, out=self._cost.buffer("c_feat", (len(x), len(self._cost))))
        cos = cos.view(len(x), self._copies, -1)  # (k, copies, n_places), at most
        M = (1 - cos.amax(1)).mul_(weight).add_(space[of_cell])  # (k, n_places), at least
        # No prototype need be looked at that costs more than the one which may be the cheapest.
        place = M.argmin(1)  # (k,)
        copy = cos.gather(2, place[:, None, None].expand(-1, self._copies, 1))[:, :, 0].argmax(1)  # (k,)
        c_feat = 1 - (x * self._cost.unit[copy * cos.shape[2] + place]).sum(1)  # (k,)
        limit = weight * (c_feat + ROUNDING) + space[of_cell, place]  # (k,)
        near = M <= limit[:, None]  # (k, n_places)
        if near.sum() > _NEAR * near.numel():
            return None
        row, place = near.nonzero(as_tuple=True)  # (n_left,) both
        least = weight * (1 - cos[row, :, place]) + space[of_cell[row], place][:, None]  # (n_left, copies)
        left, copy = (least <= limit[row, None]).nonzero(as_tuple=True)  # (n_pairs,) both
        if len(left) > _LEFT * cos.numel():
            return None
        row, place = row[left], place[left]  # (n_pairs,) both
        column = copy * cos.shape[2] + place
        M = weight * (1 - cosines_of_pairs(x, self._cost.unit, row, column)) + space[of_cell[row], place]  # (n_pairs,)
        cost = torch.full_like(limit, torch.inf).scatter_reduce_(0, row, M, "amin")  # (k,)
        won = M == cost[row]
        return torch.zeros_like(of_cell).scatter_(0, row[won], column[won])


def cosines_of_pairs(x, z, row, column):
    """Products of some pairs of unit vectors, without copies of them.

    Parameters
    ----------
    x, z : Tensor of shape (n, channels) and (m, channels)
    row, column : Tensor of shape (n_pairs,), int64
        Which of x, in ascending order, and which of z.

    Returns
    -------
    Tensor of shape (n_pairs,)
    """
    ends = torch.cat([row.new_zeros(1), row.bincount(minlength=len(x)).cumsum(0)])  # (n + 1,)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # what is used of it is tested
        pairs = torch.sparse_csr_tensor(ends, column, x.new_zeros(len(row)), (len(x), len(z)), check_invariants=False)
        return torch.sparse.sampled_addmm(pairs, x, z.T, beta=0).values()


class _Band(NamedTuple):
    """Prototypes whose places lie between two rows of the unit square."""

    columns: slice  # which prototypes
    low: float
    high: float
    space: torch.Tensor  # (height * width, n_places), spatial cost, before it is weighted
