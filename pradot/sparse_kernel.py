"""The entries that count of a transport's kernel, found block by block and kept as sparse matrices: see `pradot.streaming`."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse
import torch

_SHARE = 0.2  # of a plan's entries that count; one with more is not sparse
_ENTRY = (20, 48)  # bytes of an entry that counts, on the CPU and elsewhere: logarithm, value, column, and while they are made


class SparseKernel:
    """The entries that count of ``exp(v - M / reg)``, each row divided by its largest one.

    Left out are entries below ``threshold / m`` of the largest of their row. Columns can be looked at again, with another dual.

    Attributes
    ----------
    needed_lift : Tensor of shape (m,)
        What a prototype without entries needs to be added to its dual.
    """

    def __init__(self, cost, x, reg, threshold, keep_gb):
        self._cost, self._x, self._reg, self._threshold = cost, x, reg, threshold
        self._n, self._m = x.shape[0] * x.shape[1], len(cost)
        self._most = min(_SHARE * self._n * self._m, keep_gb * 1e9 / _ENTRY[x.device.type != "cpu"])  # entries
        self._groups = []
        self._row_highest = None  # (n,)
        self._row_totals = None  # (n,), with all entries
        self._left_of_rows = cost.unit.new_zeros(self._n)  # sum of what is left out
        self._left_of_columns = cost.unit.new_zeros(self._m)  # the same, each row divided by its total so far
        self._group_of = torch.zeros(self._m, dtype=torch.int64, device=x.device)  # of each column
        self.needed_lift = cost.unit.new_zeros(self._m)

    def look(self, state, columns=None):
        """Find the entries of all columns, or of some (k,), anew with the dual in `state`; False if they are not few."""
        if self._threshold == 0 or self._most == 0:
            return False
        batch = self._x.shape[1]
        width = self._m if columns is None else len(columns)
        window = math.log(self._m / self._threshold)
        at, logs, row_ends, highest, totals, maxima = [], [], [], [], [], []
        n_kept = sum(len(group.logs) for group in self._groups)
        lift = torch.full_like(self.needed_lift[:width], -torch.inf)  # (width,)
        of_columns = torch.zeros_like(lift)
        for cells in self._cost.blocks(batch, width):
            c_feat = self._cost.features(self._x[cells].flatten(0, 1), slice(None) if columns is None else columns)
            maxima.append(c_feat.max())
            L = self._cost.exponents(c_feat, cells, self._reg, state.v, columns)  # (n_cells * batch, width)
            highest.append(L.amax(1) if columns is None else self._row_highest[cells.start * batch : cells.stop * batch])
            L.sub_(highest[-1][:, None])
            lift = torch.maximum(lift, L.amax(0))
            kept = _places(torch.ge(L, -window, out=self._cost.buffer("kept", L.shape, torch.bool)))  # (n_kept,)
            ends = torch.searchsorted(kept, width * torch.arange(1, len(L) + 1, device=kept.device))  # (n_cells * batch,)
            row_ends.append(ends + sum(map(len, at)))
            logs.append(L.view(-1)[kept])
            totals.append(L.exp_().sum(1))  # (n_cells * batch,)
            so_far = totals[-1] if columns is None else self._row_totals[cells.start * batch : cells.stop * batch]
            of_columns += torch.mv(L.T, 1 / so_far)
            at.append((kept % width).int())
            n_kept += len(kept)
            # The first block tells most plans that are not sparse; some rows may have many times the entries of others.
            part = 1.0 if columns is not None else min(1.0, 4 * cells.stop / len(self._x))
            if n_kept > part * self._most:
                return False
        if columns is None:
            self._row_highest = torch.cat(highest)  # (n,)
            state.take_largest(maxima)
            columns = torch.arange(self._m, device=self._x.device)
        row_ends = torch.cat([row_ends[0].new_zeros(1), *row_ends])  # (n + 1,)
        self._group_of[columns] = len(self._groups)
        # Where its best patch would give it all that it should receive, if nothing else took part of that patch.
        self.needed_lift[columns] = math.log(self._n / self._m) - lift
        self._groups.append(_Entries(columns, torch.cat(logs), torch.cat(at), row_ends))
        row_totals = torch.cat(totals)  # (n,)
        so_far = row_totals if self._row_totals is None else self._row_totals
        self._left_of_rows += (row_totals - self._groups[-1].times(state.v.new_ones(width))).clamp_(min=0)
        self._left_of_columns[columns] = (of_columns - self._groups[-1].transposed_times(1 / so_far)).clamp_(min=0)
        self._row_totals = row_totals if self._row_totals is None else self._row_totals + row_totals
        state.n_passes += width / self._m
        return True

    @property
    def n_looks(self):
        """How often it has looked."""
        return len(self._groups)

    def times(self, w):
        """``K w``: (n,)."""
        return sum(group.times(self._own(number, w)) for number, group in enumerate(self._groups))

    def transposed_times(self, y):
        """``K^T y`` for y of shape (n,) or (n, k)."""
        found = y.new_empty(self._m, *y.shape[1:])
        for number, group in enumerate(self._groups):
            own = self._group_of[group.columns] == number
            found[group.columns[own]] = group.transposed_times(y)[own]
        return found

    def left_out(self, lift, row_sums):
        """At most which part of the mass lies in entries left out, when `lift` (m,) is added to the dual."""
        by_rows = lift.max().exp() * (self._left_of_rows / row_sums).mean()
        by_columns = torch.dot(self._left_of_columns, lift.exp()) / self._n * (self._row_totals / row_sums).max()
        return min(by_rows.item(), by_columns.item())

    def loss(self, w, row_sums, received, v):
        """``<T, M>`` of ``T_ij = w_j K_ij / row_sums_i / n``, where ``M_ij = reg (v_j - row_highest_i - log K_ij)``."""
        logs = sum(group.times_logs(self._own(number, w)) for number, group in enumerate(self._groups)) / row_sums  # (n,)
        total = torch.dot(received.double(), v.double()) - (self._row_highest.double() + logs.double()).mean()
        return self._reg * total.item()

    def _own(self, number, w):
        """The weights of a group's columns, 0 for those that were looked at again since."""
        columns = self._groups[number].columns
        return w[columns] * (self._group_of[columns] == number)


class _Entries:
    """Entries of some columns as a sparse matrix (n, k): SciPy's on the CPU, torch's on a GPU."""

    def __init__(self, columns, logs, at, row_ends):
        self.columns, self.logs = columns, logs
        self._at, self._row_ends, self._shape = at, row_ends, (len(row_ends) - 1, len(columns))
        self._matrix = self._sparse(logs.exp())
        self._transposed = self._matrix.t().to_sparse_csr() if logs.is_cuda else self._matrix.T

    def times(self, w):
        return self._matrix @ w if w.is_cuda else torch.from_numpy(self._matrix @ w.numpy())

    def times_logs(self, w):
        """As `times`, with ``K log K`` for K."""
        matrix = self._sparse(self.logs.exp() * self.logs)
        return matrix @ w if w.is_cuda else torch.from_numpy(matrix @ w.numpy())

    def transposed_times(self, y):
        if y.is_cuda:
            return self._transposed @ y
        if y.ndim == 1:
            return torch.from_numpy(self._transposed @ y.numpy())
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy's product is of one thread
            parts = [part.contiguous().numpy() for part in y.chunk(torch.get_num_threads(), 1)]
            return torch.cat([torch.from_numpy(part) for part in pool.map(lambda part: self._transposed @ part, parts)], 1)

    def _sparse(self, entries):
        if entries.is_cuda:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # its products are tested here
                return torch.sparse_csr_tensor(self._row_ends, self._at.long(), entries, self._shape, check_invariants=False)
        # Both kinds of indices as int32, or SciPy makes copies of int64.
        ends = self._row_ends.numpy().astype(np.int32 if len(entries) < 2**31 else np.int64)
        parts = entries.numpy(), self._at.numpy(), ends
        return scipy.sparse.csr_array(parts, shape=self._shape)


def _places(mask):
    """Where a mask is true, as places (k,) in its flattened form."""
    # NumPy's is four times as fast as torch's on the CPU.
    return mask.flatten().nonzero()[:, 0] if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))
