"""Transport and scoring block by block: neither cost, kernel nor plan is ever held as a whole.

The rows of a block are the patches of some cells in all images, so that they share few rows of the spatial cost. With the
prototypes' dual ``v`` given, the rows of a plan do not depend on each other (notation of `pradot.transport`)::

    T_ij = a_i softmax_j(v_j - M_ij / reg)

so one pass over the blocks gives everything that a training step needs: the mass that each prototype received, the sum of
the embeddings that it received, and the loss. A block is used up while it is in cache. Where the received masses are not
near enough to uniform, ``v_j <- v_j + log b_j - log received_j`` and one more pass is one more Sinkhorn iteration. As
prototypes move little in a step of training, the dual of the step before is nearly right from the start.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import normalize

from pradot.cost import CostScale, grid_positions, spatial_cost
from pradot.errors import PradotError

PRECISIONS = ("full", "reduced")  # of a learner; see `BlockCost` for what becomes of it
_BANDS = 7  # of the grid's rows, in which a search looks for the cheapest prototype
_BLOCK = 6 * 2**20  # entries of a block that stays in cache: 25 MB of float32


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
    precision : {"full", "kept", "reduced"}
        ``"reduced"``: matrix products of unit vectors rounded to bfloat16 (2 ** -9), summed in float32. What is then rounded is
        ``1 - cos``, so that small costs are not lost in the rounding of cosines near 1. ``"kept"``: products in full precision,
        but a cost that is kept for several passes is rounded in the same way, which halves its memory.

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
        self.unit, self.positions = normalize(prototypes, dim=1), positions
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
        return (1 - self.alpha) / (self.scale.feature or 1)

    @property
    def space_weight(self):
        """What the spatial cost is multiplied by."""
        return self.alpha / (self.scale.space or 1)

    @property
    def largest_space(self):
        """Largest spatial cost."""
        return self._table.max().item()

    def blocks(self, batch):
        """Slices of cells such that the blocks of `batch` images stay in cache."""
        entries = _BLOCK if self.grid.device.type == "cpu" else 2**27
        step = max(1, entries // (batch * len(self)))
        return [slice(start, min(start + step, len(self.grid))) for start in range(0, len(self.grid), step)]

    def operand(self, x):
        """Embeddings (..., channels) as `features` takes them: unit vectors, in the precision of the product."""
        return self._operand(normalize(x, dim=-1))

    def features(self, x, columns=slice(None), out=None):
        """Feature cost ``1 - cos``, before it is weighted.

        Parameters
        ----------
        x : Tensor of shape (k, channels or channels + 1)
            Embeddings, see `operand`.
        columns : slice
            Which prototypes.
        out : Tensor of shape (k, n_columns), optional
            Where to write it. None: memory that the next call overwrites.

        Returns
        -------
        Tensor of shape (k, n_columns)
            bfloat16 in reduced precision.
        """
        z = self._z[columns]
        c_feat = torch.mm(x, z.T, out=self.buffer("c_feat", (len(x), len(z)), x.dtype) if out is None else out)
        return c_feat if self.precision == "reduced" else c_feat.add_(1)

    def space(self, cells):
        """Spatial cost of some cells for all prototypes, before it is weighted: (n_cells, m)."""
        return self._table[cells].index_select(1, self._place)

    def maxima(self, x):
        """Largest feature and spatial cost between embeddings (height * width, batch, channels) and all prototypes."""
        x = self.operand(x)
        largest = [self.features(x[cells].flatten(0, 1)).max() for cells in self.blocks(x.shape[1])]
        return CostScale(check_finite(torch.stack(largest).max().item()), self.largest_space)

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
        c_feat = 1 - (normalize(x, dim=2) * self.unit[index]).sum(2)  # (height * width, batch)
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


def check_finite(largest):
    """Return the largest of some feature costs; raise PradotError if it is NaN or infinite."""
    if not math.isfinite(largest):
        raise PradotError("the feature cost holds NaN or infinity: look at the embeddings (and the encoder's weights)")
    return largest


class StreamedTransport(NamedTuple):
    """What a training step needs of a transport plan T between embeddings and prototypes, both with uniform weights.

    Attributes
    ----------
    pushed : Tensor of shape (m, k)
        ``T^T values``.
    received : Tensor of shape (m,)
        ``T^T 1``: the mass of each prototype, 1 / m but for the marginal error.
    loss : float
        ``<T, M>``.
    v : Tensor of shape (m,)
        The prototypes' dual for the next iteration, with mean 0 and no unit: where a later problem starts best.
    marginal_errors : list of float
        L1 error of the prototypes' marginal after each iteration.
    largest : float
        Largest feature cost.
    """

    pushed: torch.Tensor
    received: torch.Tensor
    loss: float
    v: torch.Tensor
    marginal_errors: list
    largest: float


def sinkhorn_streamed(
    cost, x, values=None, reg=0.01, *, v=None, expected=(), tol=0.01, n_iter=100, relaxation=1.8, keep_gb=1.3
):
    """Entropic optimal transport until the marginals are near enough, in passes over blocks of rows.

    Each pass makes the embeddings' marginal exact and measures the prototypes'. From ``v`` of a similar problem two to five
    passes suffice; without one the first pass is the row softmax of ``-M / reg``.

    Parameters
    ----------
    cost : BlockCost
    x : Tensor of shape (height * width, batch, channels)
        Embeddings, see `by_cell`.
    values : Tensor of shape (height * width, batch, k), optional
        What is pushed to the prototypes; `x` itself by default.
    reg : float
        Weight of the entropy.
    v : Tensor of shape (m,), optional
        Prototypes' dual to start from.
    expected : sequence of float
        Marginal errors that the passes are expected to leave: those of a similar problem. The pushed values cost one more large
        product, which a pass makes only if it is expected to be the last one.
    tol : float
        Stop when the L1 error of the prototypes' marginal is at most this, in [0, 2]. The paper's 100 iterations from
        nothing leave about 0.01 (method.md).
    n_iter : int
        Stop after so many passes at the latest.
    relaxation : float
        What the change of ``v`` is multiplied by from the second pass on, as long as the error falls, in [1, 2). 1 gives
        Sinkhorn's own iterates; what is left after the first change are slow modes, which take fewer passes above 1
        (over-relaxation; Thibault et al., Algorithms 14, 2021).
    keep_gb : float
        When the whole feature cost, in bfloat16 unless precision is full, takes no more than so many GB (1e9 bytes) it is kept
        for the passes after the first, which then need no large product but the last one.

    Returns
    -------
    StreamedTransport

    Raises
    ------
    PradotError
        The cost is not finite.
    """
    m, values = len(cost), x if values is None else values
    x = cost.operand(x)  # (height * width, batch, channels or channels + 1)
    shape = (x.shape[0] * x.shape[1], m)
    dtype = x.dtype if cost.precision == "full" else torch.bfloat16
    kept = x.new_empty(shape, dtype=dtype) if math.prod(shape) * dtype.itemsize <= keep_gb * 1e9 else None
    v = values.new_zeros(m) if v is None else v
    errors, largest = [], None
    while True:
        is_last = len(errors) + 1 == n_iter
        # Where it costs four times as much to have pushed in vain as to make one pass more, one wants to be rather sure.
        push = is_last or _foresee(errors, expected) <= (tol if errors and errors[-1] <= tol else 0.8 * tol)
        received, pushed, loss, found = _pass(cost, x, values if push else None, reg, v, kept, make=not errors or kept is None)
        largest = check_finite(found) if largest is None else largest
        errors.append((received - 1 / m).abs().sum().item())
        if len(errors) > 1 and errors[-1] >= errors[-2]:
            relaxation = 1.0
        # A prototype that received nothing in float32 comes nearer by as much as float32 can say.
        change = (m * received).clamp_(min=torch.finfo(v.dtype).tiny).log_()
        v = v - (relaxation if len(errors) > 1 else 1.0) * change
        v -= v.mean()
        if push and (is_last or errors[-1] <= tol):
            return StreamedTransport(pushed, received, loss, v, errors, largest)


def _foresee(errors, expected):
    """Marginal error after the coming pass, as far as one can tell before."""
    k = len(errors)
    if k == 0:
        return expected[0] if expected else math.inf
    if k < len(expected):
        ratio = expected[k] / max(expected[k - 1], 1e-30)
    else:
        ratio = errors[-1] / errors[-2] if k > 1 else 0.5
    return errors[-1] * min(1.0, ratio)


def _pass(cost, x, values, reg, v, kept, make):
    """One pass: received mass (m,); if there are values, them as pushed (m, k), and the loss; if costs are made, the largest.

    With `make` the feature costs are made, and written into `kept` (height * width * batch, m) if that is not None; else they
    are read from there.
    """
    n, batch = x.shape[0] * x.shape[1], x.shape[1]
    received, loss, maxima = torch.zeros_like(v), 0.0, []
    push = None if values is None else _Push(cost, values)
    for cells in cost.blocks(batch):
        rows = slice(cells.start * batch, cells.stop * batch)
        c_feat = None if kept is None else kept[rows]  # (n_cells * batch, m)
        if make and (c_feat is None or c_feat.dtype == x.dtype):
            c_feat = cost.features(x[cells].flatten(0, 1), out=c_feat)
        elif make:
            c_feat.copy_(cost.features(x[cells].flatten(0, 1)))
        if make:
            maxima.append(c_feat.max())
        T = cost.buffer("T", c_feat.shape).copy_(c_feat).mul_(-cost.feature_weight / reg)  # (n_cells * batch, m)
        by_cells = T.view(-1, batch, T.shape[1])  # (n_cells, batch, m)
        c_space = cost.space(cells) if cost.space_weight else None  # (n_cells, m)
        by_cells.add_(v if c_space is None else torch.add(v, c_space, alpha=-cost.space_weight / reg)[:, None])
        torch.softmax(T, 1, out=T)
        mass = by_cells.sum(1)  # (n_cells, m)
        received += mass.sum(0)
        if push is not None:
            M = cost.buffer("M", c_feat.shape).copy_(c_feat)  # of features alone
            loss += cost.feature_weight * torch.dot(T.view(-1), M.view(-1)).item()
            if c_space is not None:
                loss += cost.space_weight * torch.dot(mass.view(-1), c_space.view(-1)).item()
            push.add(T)
    largest = torch.stack(maxima).max().item() if maxima else None
    return received / n, None if push is None else push.total() / n, loss / n, largest


class _Push:
    """``T^T values``, summed over blocks of rows that come in order.

    In reduced precision the rounded plans of some blocks are gathered, so that adding up (m, k) numbers is little beside the
    product that makes them.
    """

    def __init__(self, cost, values):
        self._cost, self._values = cost, values.flatten(0, 1)  # (height * width * batch, k)
        self._sum = values.new_zeros(len(cost), values.shape[2])  # (m, k)
        self._first = self._n_gathered = 0  # which rows are gathered

    def add(self, T):
        """Add the plan T (n_rows, m) of the rows that come next."""
        if self._cost.precision != "reduced":
            self._sum.addmm_(T.T, self._values[self._first : self._first + len(T)])
            self._first += len(T)
            return
        if self._first == self._n_gathered == 0:
            self._gathered = self._cost.buffer("gathered", (4 * len(T), T.shape[1]), torch.bfloat16)
        if self._n_gathered + len(T) > len(self._gathered):
            self._flush()
        self._gathered[self._n_gathered : self._n_gathered + len(T)] = T
        self._n_gathered += len(T)

    def total(self):
        """The sum over all rows, (m, k)."""
        if self._n_gathered:
            self._flush()
        return self._sum

    def _flush(self):
        values = self._values[self._first : self._first + self._n_gathered].bfloat16()  # (n_rows, k)
        part = self._cost.buffer("part", self._sum.shape, torch.bfloat16)
        self._sum += torch.mm(self._gathered[: self._n_gathered].T, values, out=part)  # (m, k)
        self._first, self._n_gathered = self._first + self._n_gathered, 0


class NearestSearch:
    """Finds the cheapest prototype of every patch.

    Prototypes at one place have the same spatial cost: it is added to the lowest feature cost among them. Where place counts
    and prototypes are many, they are visited band by band of the grid's rows, from a patch's own band outwards. A patch skips
    a band whose spatial cost alone exceeds the lowest cost that it has found: nothing there can win.

    Parameters
    ----------
    prototypes, positions, grid_shape, alpha, precision
        See `BlockCost`.
    """

    def __init__(self, prototypes, positions, grid_shape, alpha, *, precision="full"):
        self._grid_shape = height, width = tuple(grid_shape)
        places, place = positions.unique(dim=0, return_inverse=True)  # (n_places, 2) by row, (m,)
        counts = place.bincount()
        if (counts != counts[0]).any():  # as places of their own then
            place = positions[:, 0].argsort(stable=True).argsort()  # (m,), rank by row
            places, counts = positions[place.argsort()], torch.ones_like(place)
        self._copies = int(counts[0])
        at_place = place.argsort(stable=True).view(len(places), -1)  # (n_places, copies), the prototypes of each place
        n_bands = _BANDS if alpha and len(positions) * height * width > _BLOCK else 1
        step = -(-height // n_bands)
        starts = range(0, height, step)
        self._cells = [slice(start * width, min(start + step, height) * width) for start in starts]
        rows = places[:, 0].contiguous()  # (n_places,)
        edges = torch.searchsorted(rows, rows.new_tensor([(start - 0.5) / max(height - 1, 1) for start in starts[1:]]))
        bands = [slice(*ends) for ends in pairwise([0, *edges.tolist(), len(rows)]) if ends[0] < ends[1]]
        # In a band copy by copy, each copy at all places.
        self._order = torch.cat([at_place[band].T.flatten() for band in bands])  # (m,)
        self._cost = BlockCost(prototypes[self._order], positions[self._order], grid_shape, alpha, precision=precision)
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
        return max(8, _BLOCK // (len(self._cost) * math.prod(self._grid_shape)))

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
        self._cost.scale = self._cost.maxima(x) if scale is None else scale
        unit = self._cost.operand(x)  # (height * width, batch, channels or channels + 1)
        if len(self._bands) == 1:
            found = [self._in_all(unit[cells], cells) for cells in self._cost.blocks(x.shape[1])]
        else:
            found = [self._in_bands(unit[cells], cells) for cells in self._cells]
        index = torch.cat(found).view(x.shape[:2])  # (height * width, batch)
        cost = self._cost.of_pairs(x, index)
        check_finite(cost.max().item())
        shape = (*self._grid_shape, x.shape[1])
        return cost.view(shape).permute(2, 0, 1), self._order[index].view(shape).permute(2, 0, 1)

    def _in_all(self, x, cells):
        """Which prototype is the cheapest for each patch x (n_cells, batch, ...) of some cells: (n_cells * batch,)."""
        of_cell = torch.arange(cells.start, cells.stop, device=x.device).repeat_interleave(x.shape[1])  # (n_cells * batch,)
        return self._cheapest(x.flatten(0, 1), of_cell, self._bands[0])[1]

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


class _Band(NamedTuple):
    """Prototypes whose places lie between two rows of the unit square."""

    columns: slice  # which prototypes
    low: float
    high: float
    space: torch.Tensor  # (height * width, n_places), spatial cost, before it is weighted
