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

PRECISIONS = ("full", "reduced")
_BANDS = 7  # of the grid's rows, in which a search looks for the cheapest prototype


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
        Of the matrix product. ``"reduced"``: of unit vectors rounded to bfloat16 (2 ** -9), summed in float32. What is then
        rounded is ``1 - cos``, so that small costs are not lost in the rounding of cosines near 1.

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
        """Slices of cells such that the blocks of `batch` images stay in cache: on the CPU 25 MB of float32."""
        entries = 6 * 2**20 if self.grid.device.type == "cpu" else 2**27
        step = max(1, entries // (batch * len(self)))
        return [slice(start, min(start + step, len(self.grid))) for start in range(0, len(self.grid), step)]

    def features(self, x, columns=slice(None)):
        """Feature cost ``1 - cos``, before it is weighted.

        Parameters
        ----------
        x : Tensor of shape (k, channels)
            Embeddings.
        columns : slice
            Which prototypes.

        Returns
        -------
        Tensor of shape (k, n_columns)
            bfloat16 in reduced precision. Overwritten by the next call.
        """
        x, z = self._operand(normalize(x, dim=1)), self._z[columns]
        c_feat = torch.mm(x, z.T, out=self.buffer("c_feat", (len(x), len(z)), x.dtype))
        return c_feat if self.precision == "reduced" else c_feat.add_(1)

    def mix(self, c_feat, cells, columns=slice(None), rows=None):
        """The mixed cost: the weighted feature cost, and the weighted spatial cost added.

        Parameters
        ----------
        c_feat : Tensor of shape (n_cells * batch, n_columns), or (n_rows, n_columns) with `rows`
            See `features`.
        cells : slice
        columns : slice
            Which prototypes.
        rows : Tensor of shape (n_rows,), int64, optional
            Which of the cells each row belongs to, counted from the first of `cells`.

        Returns
        -------
        Tensor of the same shape
            Overwritten by the next call.
        """
        M = self.buffer("M", c_feat.shape).copy_(c_feat).mul_(self.feature_weight)
        if self.space_weight:
            c_space = self._table[cells].index_select(1, self._place[columns]).mul_(self.space_weight)  # (n_cells, n_columns)
            if rows is None:
                M.view(len(c_space), -1, c_space.shape[1]).add_(c_space[:, None])  # (n_cells, batch, n_columns)
            else:
                M += c_space[rows]
        return M

    def maxima(self, x):
        """Largest feature and spatial cost between embeddings (height * width, batch, channels) and all prototypes."""
        largest = [self.features(x[cells].flatten(0, 1)).amax() for cells in self.blocks(x.shape[1])]
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
        return torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1).bfloat16()  # (n, channels + 1)


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


def sinkhorn_streamed(cost, x, values=None, reg=0.01, *, v=None, expected=(), tol=0.01, n_iter=100, keep_gb=1.3):
    """Entropic optimal transport until the marginals are near enough, in passes over blocks of rows.

    Each pass makes the embeddings' marginal exact and measures the prototypes'. From ``v`` of a similar problem one to three
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
        Marginal errors that the first passes are expected to leave: those of a similar problem. The pushed values cost one
        more large product, which a pass makes only if it is expected to be the last one.
    tol : float
        Stop when the L1 error of the prototypes' marginal is at most this, in [0, 2]. The paper's 100 iterations from
        nothing leave about 0.01 (method.md).
    n_iter : int
        Stop after so many passes at the latest.
    keep_gb : float
        When the whole feature cost, in bfloat16 in reduced precision, takes no more than so many GB (1e9 bytes) it is kept
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
    size = x.shape[0] * x.shape[1] * m * (2 if cost.precision == "reduced" else x.element_size())  # bytes
    kept = {} if size <= keep_gb * 1e9 else None
    v = x.new_zeros(m) if v is None else v
    errors, maxima = [], []
    while True:
        is_last = len(errors) + 1 == n_iter
        push = is_last or _foresee(errors, expected) <= tol
        received, pushed, loss = _pass(cost, x, values if push else None, reg, v, kept, maxima)
        largest = check_finite(torch.stack(maxima).max().item())
        errors.append((received - 1 / m).abs().sum().item())
        # A prototype that received nothing in float32 comes nearer by as much as float32 can say.
        v = v - (m * received).clamp_(min=torch.finfo(v.dtype).tiny).log_()
        v -= v.mean()
        if push and (is_last or errors[-1] <= tol):
            return StreamedTransport(pushed, received, loss, v, errors, largest)


def _foresee(errors, expected):
    """Marginal error after the coming pass, as far as one can tell before."""
    if len(errors) < len(expected):
        return expected[len(errors)]
    if len(errors) < 2:
        return 0.5 * errors[-1] if errors else math.inf
    return errors[-1] * min(1.0, errors[-1] / errors[-2])


def _pass(cost, x, values, reg, v, kept, maxima):
    """One pass: received mass (m,); and if there are values, them as pushed (m, k), and the loss.

    Blocks that are made for it are put into `kept`, if that is not None, and their largest feature costs into `maxima`.
    """
    n = x.shape[0] * x.shape[1]
    received, pushed, loss = torch.zeros_like(v), None, 0.0
    if values is not None:
        pushed = x.new_zeros(len(v), values.shape[2])
    for cells in cost.blocks(x.shape[1]):
        if kept and cells.start in kept:
            c_feat = kept[cells.start]
        else:
            c_feat = cost.features(x[cells].flatten(0, 1))  # (n_cells * batch, m)
            maxima.append(c_feat.amax().float())
            if kept is not None:
                kept[cells.start] = c_feat.clone()
        M = cost.mix(c_feat, cells)
        T = torch.add(v, M, alpha=-1 / reg, out=cost.buffer("T", M.shape))  # (n_cells * batch, m)
        torch.softmax(T, 1, out=T)
        received += T.sum(0)
        if values is None:
            continue
        loss += torch.dot(T.view(-1), M.view(-1)).item()
        part = values[cells].flatten(0, 1)  # (n_cells * batch, k)
        if cost.precision == "reduced":
            rounded = cost.buffer("rounded", T.shape, torch.bfloat16).copy_(T)
            pushed += torch.mm(rounded.T, part.bfloat16(), out=cost.buffer("part", pushed.shape, torch.bfloat16))
        else:
            pushed.addmm_(T.T, part)
    return received / n, None if pushed is None else pushed / n, loss / n


class NearestSearch:
    """Finds the cheapest prototype of every patch.

    Where place counts, prototypes are visited band by band of the grid's rows, from a patch's own band outwards. A patch
    skips a band whose spatial cost alone exceeds the lowest cost that it has found: nothing there can win.

    Parameters
    ----------
    prototypes, positions, grid_shape, alpha, precision
        See `BlockCost`.
    """

    def __init__(self, prototypes, positions, grid_shape, alpha, *, precision="full"):
        self._grid_shape = height, width = tuple(grid_shape)
        self._order = positions[:, 0].argsort(stable=True)  # (m,), by row
        self._cost = BlockCost(prototypes[self._order], positions[self._order], grid_shape, alpha, precision=precision)
        step = -(-height // _BANDS)
        starts = range(0, height, step)
        self._cells = [slice(start * width, min(start + step, height) * width) for start in starts]
        rows = positions[self._order, 0].contiguous()  # (m,)
        edges = torch.searchsorted(rows, rows.new_tensor([(start - 0.5) / max(height - 1, 1) for start in starts[1:]]))
        limits = [0, *edges.tolist(), len(rows)]
        # Of every band that holds prototypes which ones, and the rows that they span.
        self._bands = [
            (slice(start, stop), rows[start].item(), rows[stop - 1].item()) for start, stop in pairwise(limits) if start < stop
        ]

    def images_at_once(self):
        """How many images are best searched together: at least eight, more if they fill a block."""
        return max(8, 6 * 2**20 // (len(self._cost) * math.prod(self._grid_shape)))

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
        if self._cost.space_weight:
            found = [self._in_bands(x[cells], cells) for cells in self._cells]
        else:
            found = [self._in_all(x[cells], cells) for cells in self._cost.blocks(x.shape[1])]
        index = torch.cat(found).view(x.shape[:2])  # (height * width, batch)
        cost = self._cost.of_pairs(x, index)
        check_finite(cost.max().item())
        shape = (*self._grid_shape, x.shape[1])
        return cost.view(shape).permute(2, 0, 1), self._order[index].view(shape).permute(2, 0, 1)

    def _in_all(self, x, cells):
        return self._cost.mix(self._cost.features(x.flatten(0, 1)), cells).argmin(1)  # (n_cells * batch,)

    def _in_bands(self, x, cells):
        """Which prototype is the cheapest for each patch x (n_cells, batch, channels) of some cells, (n_cells * batch,)."""
        batch, x = x.shape[1], x.flatten(0, 1)  # (n_cells * batch, channels)
        row = self._cost.grid[cells, 0].repeat_interleave(batch)  # (n_cells * batch,)
        middle = row.mean().item()
        best, index = torch.full_like(row, torch.inf), torch.zeros_like(row, dtype=torch.int64)
        for columns, low, high in sorted(self._bands, key=lambda band: max(band[1] - middle, middle - band[2])):
            way = torch.maximum(low - row, row - high).clamp_(min=0)  # (n_cells * batch,), to the band's nearest row
            open_ = (best > way * self._cost.space_weight).nonzero()[:, 0]  # (n_open,)
            if len(open_) == 0:
                continue
            M = self._cost.mix(self._cost.features(x[open_], columns), cells, columns, open_ // batch)  # (n_open, n_columns)
            cost, where = M.min(1)
            better = cost < best[open_]
            best[open_[better]] = cost[better]
            index[open_[better]] = where[better] + columns.start
        return index
