"""Entropic optimal transport between the embeddings of a batch and the prototypes.

Paper section 3 (method.md, step 4)::

    min_T <T, M> + reg KL(T | a b^T)   with   T 1 = a,  T^T 1 = b

One Sinkhorn iteration in the log domain updates the prototypes' dual, then the embeddings' dual::

    v_j <- log b_j - logsumexp_i(u_i - M_ij / reg)
    u_i <- log a_i - logsumexp_j(v_j - M_ij / reg)          T_ij = exp(u_i + v_j - M_ij / reg)

so the embeddings' marginal ``a`` holds exactly at the end and the prototypes' marginal ``b`` up to
`Transport.marginal_error`. The paper makes 100 iterations with POT's ``sinkhorn_log`` and does not wait for
convergence.
"""

import math
import os
import sys
from dataclasses import dataclass

import numpy as np
import torch

from pradot.errors import PradotError, is_number, is_whole

# POT imports what array libraries it finds, and makes an array with each when it solves: JAX's takes three quarters of a GPU's
# memory. Of those that this process has not imported itself it needs none but torch.
for _library in ("jax", "tensorflow", "cupy"):
    if _library not in sys.modules:
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{_library.upper()}", "1")
import ot  # noqa: E402

SOLVERS = ("kernel", "pot")


class PrecisionError(PradotError):
    """The numbers' precision is not enough for the cost beside `reg`."""


@dataclass(frozen=True)
class Transport:
    """An entropic transport plan, kept in the factors that its uses need.

    ``T_ij = row_scaling_i * kernel_ij * column_scaling_j``; the plan itself is made only by `plan`.

    Attributes
    ----------
    kernel : Tensor of shape (n, m)
        Kernel in which the duals of an earlier iteration are absorbed (POT's solver: the plan).
    row_scaling : Tensor of shape (n,)
        Scaling of the embeddings since then.
    column_scaling : Tensor of shape (m,)
        Scaling of the prototypes since then.
    f, g : Tensor of shape (n,) and (m,)
        Dual potentials in units of the cost: ``T_ij = exp((f_i + g_j - M_ij) / reg)``.
    marginal_errors : Tensor of shape (n_iter,)
        L1 error of the prototypes' marginal after each iteration; empty with POT's solver but for the last one.
    n_iter : int
        Iterations made.
    """

    kernel: torch.Tensor
    row_scaling: torch.Tensor
    column_scaling: torch.Tensor
    f: torch.Tensor
    g: torch.Tensor
    marginal_errors: torch.Tensor
    n_iter: int

    @property
    def marginal_error(self):
        """L1 error of the prototypes' marginal at the end, in [0, 2]."""
        return self.marginal_errors[-1].item()

    @property
    def plan(self):
        """The plan T, Tensor of shape (n, m); a new array at each call."""
        return self.kernel * self.row_scaling[:, None] * self.column_scaling

    def push(self, x):
        """Transport values of the embeddings to the prototypes, ``T^T x``.

        Divided by the prototypes' weights this is the barycentre of what each prototype received.

        Parameters
        ----------
        x : Tensor of shape (n, channels)

        Returns
        -------
        Tensor of shape (m, channels)
        """
        # The scalings go on the two thin sides, so the plan is never made.
        return self.column_scaling[:, None] * (self.kernel.T @ (self.row_scaling[:, None] * x))

    def paid(self, M):
        """What each embedding pays, ``sum_j T_ij M_ij`` for the cost `M` of shape (n, m): Tensor of shape (n,)."""
        paid = [torch.mv(self.kernel[rows] * M[rows], self.column_scaling) for rows in _blocks(M)]
        return self.row_scaling * torch.cat(paid)  # (n,)

    def cost(self, M):
        """Transport loss ``<T, M>`` for the cost `M` of shape (n, m), as a float."""
        return self.paid(M).double().sum().item()


def sinkhorn(M, reg=0.01, *, a=None, b=None, n_iter=100, solver="kernel"):
    """Entropic optimal transport by a fixed number of Sinkhorn iterations.

    Parameters
    ----------
    M : Tensor of shape (n, m)
        Cost, float32 or float64, finite.
    reg : float
        Weight of the entropy, > 0, in units of the cost.
    a, b : Tensor of shape (n,) and (m,), optional
        Positive weights that sum to 1, in the cost's precision; uniform by default.
    n_iter : int
        Iterations, >= 1.
    solver : {"kernel", "pot"}
        ``"pot"``: ``ot.bregman.sinkhorn(..., method="sinkhorn_log")``, the reference. ``"kernel"``: the same
        iterates, many times faster: one iteration in the log domain, whose duals are absorbed into a kernel
        ``K = exp(u + v - M / reg)``; from then on rows and columns of K are scaled. Should a scaling leave the range in
        which nothing that matters can under- or overflow, that iteration is made again in the log domain from the last
        good duals.

    Returns
    -------
    Transport

    Raises
    ------
    PradotError
        A setting or the weights are out of range, the cost is not finite, or `reg` is too small for the cost's precision.
    """
    if solver not in SOLVERS:
        raise PradotError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    check_iterations(reg, n_iter)
    kind = M.dtype if isinstance(M, torch.Tensor) else type(M).__name__
    if kind not in (torch.float32, torch.float64):
        raise PradotError(f"the transport cost is of {kind}; give a tensor of float32 or float64")
    if M.ndim != 2 or M.numel() == 0:
        raise PradotError(f"the transport cost has shape {tuple(M.shape)}; it must be (n, m) with at least one row and column")
    largest = max(abs(end.item()) for end in M.aminmax())  # NaN passes through
    if not math.isfinite(largest):
        raise PradotError("the transport cost holds NaN or infinity")
    check_precision(reg, largest, M.dtype)
    n, m = M.shape
    a = M.new_full((n,), 1 / n) if a is None else _check_weights("a", torch.as_tensor(a).to(M), n)
    b = M.new_full((m,), 1 / m) if b is None else _check_weights("b", torch.as_tensor(b).to(M), m)
    return (_sinkhorn_kernel if solver == "kernel" else _sinkhorn_pot)(M, reg, a, b, n_iter)


def check_iterations(reg, n_iter):
    """Raise PradotError unless `reg` is a positive number and `n_iter` a whole one of at least 1."""
    if not is_whole(n_iter) or n_iter < 1:
        raise PradotError(f"n_iter is {n_iter!r}; Sinkhorn needs a whole number of iterations, at least one")
    if not (is_number(reg) and reg > 0 and math.isfinite(reg)):
        raise PradotError(f"reg is {reg!r}; the weight of the entropy must be a positive number")


def check_precision(reg, largest, dtype):
    """Raise PrecisionError if plans of costs up to `largest` would be those of rounding errors."""
    # exp(M / reg) inherits a relative error of about M / reg times the rounding of M. And 1 / reg has to be a number.
    if largest / reg * torch.finfo(dtype).eps > 1e-3 or reg < torch.finfo(dtype).tiny:
        raise PrecisionError(f"reg = {reg} is too small for costs up to {largest:.3g} in {dtype}: use float64 or a larger reg")
    if reg > 1e-4 * torch.finfo(dtype).max:  # dual potentials are some times reg
        raise PrecisionError(f"reg = {reg} is too large for {dtype}: all plans are alike with any that far exceeds the costs")


def _check_weights(name, weights, length):
    if weights.shape != (length,) or not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-3:
        raise PradotError(
            f"{name} has shape {tuple(weights.shape)} and sum {weights.sum().item():.6g}; "
            f"it must hold {length} positive weights that sum to 1"
        )
    return weights


def _sinkhorn_pot(M, reg, a, b, n_iter):
    plan, log = ot.bregman.sinkhorn(
        a, b, M, reg, method="sinkhorn_log", numItermax=n_iter, stopThr=0, warn=False, log=True
    )  # (n, m)
    error = (plan.sum(0) - b).abs().sum()[None]
    return Transport(plan, torch.ones_like(a), torch.ones_like(b), log["log_u"] * reg, log["log_v"] * reg, error, n_iter)


def _sinkhorn_kernel(M, reg, a, b, n_iter):
    # Scalings within exp(-20) .. exp(20): an entry of K that is lost to float32's underflow (below 1e-38) could have
    # grown to at most 1e-38 * exp(40) = 2e-21 of the plan's mass.
    limit = 20.0 if M.dtype == torch.float32 else 200.0
    log_u = torch.zeros_like(a)
    K, log_u0, log_v0, column_sums = _log_iteration(M, reg, a, b, log_u)
    u, v = torch.ones_like(a), torch.ones_like(b)
    errors = [(column_sums - b).abs().sum()]
    for _ in range(1, n_iter):
        new_v = b / column_sums
        new_u, new_sums = _scale(K, a, new_v)
        if _within(new_v, limit) and _within(new_u, limit):
            u, v, column_sums = new_u, new_v, new_sums
        else:
            K, log_u0, log_v0, column_sums = _log_iteration(M, reg, a, b, log_u0 + u.log(), out=K)
            u, v = torch.ones_like(a), torch.ones_like(b)
        errors.append((v * column_sums - b).abs().sum())
    f, g = (log_u0 + u.log()) * reg, (log_v0 + v.log()) * reg
    return Transport(K, u, v, f, g, torch.stack(errors), n_iter)


def _log_iteration(M, reg, a, b, log_u, out=None):
    """One iteration in the log domain from `log_u`; return K = exp(u + v - M / reg), log u, log v, column sums of K."""
    # Memory of one block for all of them: new memory at each step would cost more than what is computed in it.
    # Exponents are cut where exp would leave the normal numbers, in which it can be 40 times as slow.
    blocks, lowest = list(_blocks(M)), math.log(torch.finfo(M.dtype).tiny)
    memory = M.new_empty(len(M[blocks[0]]), M.shape[1])

    def exponents(rows, dual):
        return torch.mul(M[rows], -1 / reg, out=memory[: rows.stop - rows.start]).add_(dual)  # (rows, m)

    highest, total = M.new_full(b.shape, -torch.inf), torch.zeros_like(b)  # (m,), of exp(exponent - highest)
    for rows in blocks:
        exponent = exponents(rows, log_u[rows, None])
        higher = torch.maximum(highest, exponent.amax(0))  # (m,)
        total = total * (highest - higher).exp_() + exponent.sub_(higher).clamp_(min=lowest).exp_().sum(0)
        highest = higher
    log_v = b.log() - highest - total.log()  # (m,)

    K = torch.empty_like(M) if out is None else out
    log_u, column_sums = torch.empty_like(a), torch.zeros_like(b)
    for rows in blocks:
        exponent = exponents(rows, log_v)
        row_highest = exponent.amax(1)  # (rows,)
        exponent.sub_(row_highest[:, None]).clamp_(min=lowest).exp_()
        row_total = exponent.sum(1)  # (rows,)
        log_u[rows] = a[rows].log() - row_highest - row_total.log()
        block = torch.mul(exponent, (a[rows] / row_total)[:, None], out=K[rows])
        column_sums += block.sum(0)
    return K, log_u, log_v, column_sums


def _scale(K, a, v):
    """Row scalings u = a / (K v) and the column sums K^T u of the rows so scaled, reading K once."""
    u, column_sums = torch.empty_like(a), torch.zeros_like(v)
    # On the CPU through NumPy's views of the same memory: where threads that wait do not spin (OMP_WAIT_POLICY=passive), its
    # products took 0.10 s for 2.5 GB where torch's took 0.18 s (AMD EPYC, 2 cores).
    view = torch.Tensor.numpy if K.device.type == "cpu" else torch.Tensor.detach
    kernel, a, v, scaling, sums = (view(part) for part in (K, a, v, u, column_sums))
    # NumPy's warnings are left out, as torch has none: the BLAS may set the flag of an invalid number for short rows by what it
    # reads beyond them. What is infinite or no number is found by the caller.
    with np.errstate(all="ignore"):
        for rows in _blocks(K):
            scaling[rows] = a[rows] / (kernel[rows] @ v)
            sums += scaling[rows] @ kernel[rows]
    return u, column_sums


def _blocks(M):
    """Slices of rows: on the CPU of about 4 MB, so that a block is still in cache when it is used a second time."""
    rows = max(1, (2**20 if M.device.type == "cpu" else 2**27) // M.shape[1])
    return (slice(start, min(start + rows, len(M))) for start in range(0, len(M), rows))


def _within(scaling, limit):
    # NaN and infinity fail the comparison too.
    return scaling.log().abs().max().item() <= limit
