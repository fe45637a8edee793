"""Transport block by block: neither cost, kernel nor plan is ever held as a whole.

With the prototypes' dual ``v`` given, the rows of a plan do not depend on each other (notation of `pradot.transport`)::

    T_ij = a_i softmax_j(v_j - M_ij / reg)

Where the received masses ``sum_i T_ij`` are not near enough to uniform, ``v_j <- v_j + log b_j - log received_j`` is one
Sinkhorn iteration. As prototypes move little in a step of training, the dual of the step before is nearly right from the start.

In the plan between images of one kind and prototypes like them, all but one or two entries in a hundred are as good as
nothing. One pass over the blocks, in which each is used up while it is in cache, finds those that count; iterations, loss and
barycentres are made of these alone. How much is left out is bounded all the time; prototypes whose dual has moved so far that
it might matter are looked at again.
"""

import math
from typing import NamedTuple

import torch

from pradot.block_cost import largest_of
from pradot.errors import PradotError
from pradot.sparse_kernel import SparseKernel
from pradot.transport import check_iterations, check_precision

_LIFT = 6.0  # by how much a prototype's dual may rise before one looks again for the entries that count


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
        The prototypes' dual for the next iteration, with mean 0 and no unit: where a later problem starts well.
    dual : Tensor of shape (m,)
        The prototypes' dual of this very plan, up to a constant.
    marginal_errors : list of float
        L1 error of the prototypes' marginal after each iteration.
    n_passes : float
        Passes over all pairs of embeddings and prototypes; one over the pairs of some prototypes counts for their part, and
        one that was broken off, because the plan is not sparse, for nothing.
    largest : float
        Largest feature cost.
    """

    pushed: torch.Tensor
    received: torch.Tensor
    loss: float
    v: torch.Tensor
    dual: torch.Tensor
    marginal_errors: list
    n_passes: float
    largest: float


def sinkhorn_streamed(cost, x, values=None, reg=0.01, *, v=None, expected=2, tol=0.01, n_iter=100, relaxation=1.8, keep_gb=1.0):
    """Entropic optimal transport until the marginals are near enough, in passes over blocks of rows.

    Every iteration makes the embeddings' marginal exact and measures the prototypes'. A plan is taken for sparse if at most a
    fifth of its entries, and no more than `keep_gb` holds, are larger than ``tol / (5 m)`` of the largest in their row: then
    iterations run over these alone, until the error is at most ``3 / 4 tol`` while at most ``tol / 8`` of the mass is left out,
    so that the true error is at most `tol`. Otherwise every iteration is a pass.

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
        Prototypes' dual to start from; without one the first iteration is the row softmax of ``-M / reg``.
    expected : int
        Passes that a similar problem has needed. Where the plan is not sparse, pushing costs one more large product, which a
        pass makes only if it is expected to be the last one.
    tol : float
        Stop when the L1 error of the prototypes' marginal is at most this, in [0, 2]. The paper's 100 iterations from
        nothing leave about 0.01 (method.md).
    n_iter : int
        Stop after so many iterations at the latest.
    relaxation : float
        What the change of ``v`` is multiplied by from the second iteration on, as long as the error falls, in [1, 2). 1 gives
        Sinkhorn's own iterates; what is left after the first change are slow modes, which take fewer iterations above 1
        (over-relaxation; Thibault et al., Algorithms 14, 2021).
    keep_gb : float
        Memory for the entries that count, in GB (1e9 bytes). With more of them, or 0, every iteration is a pass, which holds
        no more than a block and the spatial costs between the grid and the prototypes' places.

    Returns
    -------
    StreamedTransport

    Raises
    ------
    PradotError
        The cost is not finite, or so large beside `reg` that the plan is not or would be that of rounding errors
        (`PrecisionError`); `reg` or `n_iter` is out of range.
    """
    check_iterations(reg, n_iter)
    check_precision(reg, cost.space_weight * cost.largest_space, x.dtype)
    values = x if values is None else values
    x = cost.operand(x)  # (height * width, batch, channels or channels + 1)
    state = _State(cost, reg, values.new_zeros(len(cost)) if v is None else v.clone(), tol, n_iter, relaxation)
    for _ in range(3):  # where looking at all entries again and again does not help, passes do
        kernel = SparseKernel(cost, x, reg, tol / 5, keep_gb)
        n_before = len(state.errors)
        result = _among_those_that_count(kernel, values, state) if kernel.look(state) else None
        if result is not None:
            return result
        if len(state.errors) == n_before:  # not sparse, or too much is left out from the start
            break
    del kernel  # and its memory
    return _in_dense_passes(cost, x, values, reg, state, expected)


class _State:
    """The dual on its way, and what became of it so far."""

    def __init__(self, cost, reg, v, tol, n_iter, relaxation):
        self._cost, self._reg = cost, reg
        self.v, self.tol, self.n_iter, self.relaxation = v, tol, n_iter, relaxation
        self.errors, self.n_passes, self.largest = [], 0, None

    def take_largest(self, maxima):
        """Keep the largest feature cost of those of the blocks, once all of them are known."""
        if self.largest is None:
            self.largest = largest_of(maxima)
            cost = self._cost
            largest = cost.feature_weight * self.largest + cost.space_weight * cost.largest_space
            check_precision(self._reg, largest, cost.unit.dtype)

    @property
    def is_last(self):
        """Whether no more iterations are allowed."""
        return len(self.errors) == self.n_iter

    def measure(self, received):
        """Take the masses (m,) received in one more iteration; return the change (m,) of the dual that follows from them."""
        m = len(received)
        self.errors.append((received - 1 / m).abs().sum().item())
        if len(self.errors) > 1 and self.errors[-1] >= self.errors[-2]:
            self.relaxation = 1.0
        # A prototype that received nothing in float32 comes nearer by as much as float32 can say.
        change = -(m * received).clamp(min=torch.finfo(received.dtype).tiny).log_()
        return change if len(self.errors) == 1 else self.relaxation * change

    def check(self):
        """Raise PradotError if the last iteration's numbers are none."""
        if not math.isfinite(self.errors[-1]):
            raise PradotError(
                f"the transport's numbers left the range of {self.v.dtype}: the cost is too large beside reg; raise reg"
            )

    def result(self, pushed, received, loss, dual, following):
        """What came of it, with the `dual` of the last iteration and the one for the next (m,)."""
        self.check()
        v = following - following.mean()
        return StreamedTransport(pushed, received, loss, v, dual, self.errors, self.n_passes, self.largest)


def _among_those_that_count(kernel, values, state):
    """Iterate over the entries that count; None: all must be looked at again, with the dual that is now in `state`."""
    m, lift = len(state.v), torch.zeros_like(state.v)  # (m,), by how much the dual is above that in `state`
    while True:
        w = lift.exp()  # (m,)
        row_sums = kernel.times(w)  # (n,)
        if not kernel.left_out(lift, row_sums) <= state.tol / 8:  # NaN too: a row whose entries have all become 0
            if _looked_again(kernel, state, lift, lift > _LIFT / 2):
                continue
            return None
        received = w * kernel.transposed_times(1 / row_sums) / len(row_sums)  # (m,)
        following = torch.where(received > 0, lift + state.measure(received), kernel.needed_lift)  # (m,)
        if state.is_last or state.errors[-1] <= 0.75 * state.tol:
            values = values.flatten(0, 1) / row_sums[:, None]  # (n, k)
            pushed = w[:, None] * kernel.transposed_times(values) / len(row_sums)  # (m, k)
            loss = kernel.loss(w, row_sums, received, state.v)
            return state.result(pushed, received, loss, state.v + lift, state.v + following)
        lift = following
        far = lift > _LIFT
        # Where most of what is missing is missing there; all that is missing is half of the error.
        missing = (1 / m - received)[far].sum().item()
        if missing > 0.25 * state.errors[-1] and not _looked_again(kernel, state, lift, far):
            return None
        lift.clamp_(max=_LIFT)


def _looked_again(kernel, state, lift, far):
    """Look again at prototypes that are `far` (m,) from where they were; False: all must be, from the dual now in `state`."""
    if 0 < far.sum().item() <= len(far) / 4 and kernel.n_looks < 8:
        state.v[far] += lift[far]
        lift[far] = 0
        if kernel.look(state, far.nonzero()[:, 0]):
            return True
    state.v += lift
    return False


def _in_dense_passes(cost, x, values, reg, state, expected):
    """Every iteration a pass over all entries, from where `state` is."""
    while True:
        state.n_passes += 1
        is_last = len(state.errors) + 1 == state.n_iter
        push = is_last or state.n_passes >= expected or (len(state.errors) > 0 and state.errors[-1] <= state.tol)
        received, pushed, loss, maxima = _pass(cost, x, values if push else None, reg, state.v)
        state.take_largest(maxima)
        change = state.measure(received)
        state.check()
        if push and (is_last or state.errors[-1] <= state.tol):
            return state.result(pushed, received, loss, state.v, state.v + change)
        state.v = state.v + change - change.mean()


def _pass(cost, x, values, reg, v):
    """One pass: received mass (m,); if there are values, them as pushed (m, k), and the loss; largest costs of the blocks."""
    n, batch = x.shape[0] * x.shape[1], x.shape[1]
    received, loss, maxima = torch.zeros_like(v), 0.0, []
    pushed = None if values is None else values.new_zeros(len(cost), values.shape[2])  # (m, k)
    for cells in cost.blocks(batch):
        c_feat = cost.features(x[cells].flatten(0, 1))  # (n_cells * batch, m)
        maxima.append(c_feat.max())
        T = cost.exponents(c_feat, cells, reg, v)  # (n_cells * batch, m)
        torch.softmax(T, 1, out=T)
        mass = T.view(-1, batch, T.shape[1]).sum(1)  # (n_cells, m)
        received += mass.sum(0)
        if pushed is not None:
            pushed.addmm_(T.T, values[cells].flatten(0, 1))
            loss += cost.feature_weight * torch.dot(T.view(-1), cost.buffer("M", T.shape).copy_(c_feat).view(-1)).item()
            if cost.space_weight:
                loss += cost.space_weight * torch.dot(mass.view(-1), cost.space(cells).view(-1)).item()
    return received / n, None if pushed is None else pushed / n, loss / n, maxima
