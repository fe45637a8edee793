"""Transport among the entries that count: what is left out stays small, what has moved is looked at again."""

from types import SimpleNamespace

import pytest
import torch
from small_problems import local_problem

from pradot import grid_positions, sparse_kernel, streaming
from pradot.block_cost import BlockCost, by_cell
from pradot.streaming import sinkhorn_streamed


def looks_of(monkeypatch):
    """How many prototypes are looked at, look by look; None: the plan was not sparse."""
    looks, original = [], sparse_kernel.SparseKernel.look

    def look(kernel, state, columns=None):
        found = original(kernel, state, columns)
        looks.append((len(state.v) if columns is None else len(columns)) if found else None)
        return found

    monkeypatch.setattr(sparse_kernel.SparseKernel, "look", look)
    return looks


@pytest.mark.parametrize("far", [0, 20])
@pytest.mark.parametrize("tol", [0.05, 0.01, 0.001])
def test_what_is_left_out_keeps_the_true_error_within_the_tolerance(monkeypatch, tol, far):
    looks = looks_of(monkeypatch)
    x, cost = local_problem(far=far)
    found = sinkhorn_streamed(cost, x, tol=tol, n_iter=2000, relaxation=1)
    assert looks and None not in looks  # it is sparse
    assert found.n_passes == pytest.approx(sum(looks) / len(cost))
    assert found.n_passes < 3  # most iterations are over few entries
    assert far == 0 or len(found.marginal_errors) > 2 * found.n_passes
    # One pass over all entries from the dual of the plan.
    received, pushed, loss, _ = streaming._pass(cost, cost.operand(x), x, 0.01, found.dual)
    true_error = (received - 1 / len(cost)).abs().sum().item()
    assert true_error <= tol and abs(true_error - found.marginal_errors[-1]) <= tol / 4
    assert (found.pushed - pushed).norm() <= tol / 4 * pushed.norm()
    assert found.loss == pytest.approx(loss, rel=tol)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("one_up", [0.0, 2.0, 6.0])
def test_no_more_is_left_out_than_is_said(again, one_up):
    x, cost = local_problem(far=20)
    m = len(cost)
    kernel = sparse_kernel.SparseKernel(cost, cost.operand(x), 0.01, threshold=0.05, keep_gb=1.0)
    state = SimpleNamespace(v=torch.zeros(m, dtype=x.dtype), n_passes=0, take_largest=lambda maxima: None)
    assert kernel.look(state)
    if again:
        state.v[:20] += 5
        assert kernel.look(state, torch.arange(20))
    lift = torch.full_like(state.v, 0.5)
    lift[torch.arange(30, 60)] += one_up
    whole = cost.exponents(cost.features(cost.operand(x).flatten(0, 1)), slice(0, len(x)), 0.01, state.v)  # (n, m)
    K = (whole - kernel._row_highest[:, None]).exp()  # (n, m)
    row_sums = kernel.times(lift.exp())  # (n,)
    left_out = ((K @ lift.exp() - row_sums) / row_sums).mean().item()
    assert 1e-6 < left_out <= kernel.left_out(lift, row_sums)
    assert kernel.left_out(lift, row_sums) < (1 + 1e-9 if one_up == 0 and not again else 40) * left_out


def test_prototypes_that_are_far_off_are_looked_at_again_alone(monkeypatch):
    looks = looks_of(monkeypatch)
    x, cost = local_problem(far=20)
    sinkhorn_streamed(cost, x, tol=0.01, n_iter=2000)
    assert looks[0] == len(cost)
    assert any(0 < n <= 30 for n in looks[1:])


def test_the_dual_of_prototypes_that_received_nothing_is_what_would_give_them_their_share(monkeypatch):
    """Not what the smallest number says: a dual that is far too high would take all patches in the problem to come."""
    looks = looks_of(monkeypatch)
    x, cost = local_problem(far=3)
    found = sinkhorn_streamed(cost, x, tol=0.05, n_iter=1)  # ends before these are reached
    assert looks == [len(cost)] and (found.received == 0).any()
    following = sinkhorn_streamed(cost, x, v=found.v, tol=0.05)
    assert following.received[found.received == 0].max() < 20 / len(cost)
    assert following.marginal_errors[0] < 0.5


@pytest.mark.parametrize("n", [2, 16])
@pytest.mark.parametrize("reg", [0.003, 0.01, 0.1])
def test_prototypes_that_are_single_images_are_filled_by_one_of_these(n, reg):
    """All prototypes but those of one image receive nothing at first, so that all that is missing is missing there."""
    images = torch.randn(n, 14, 14, 64, generator=torch.Generator().manual_seed(0))
    cost = BlockCost(images.flatten(0, 2), grid_positions(14, 14).repeat(n, 1), (14, 14), 0.3)
    x = by_cell(images[:1])  # (196, 1, 64)
    cost.scale = cost.maxima(x)
    found = sinkhorn_streamed(cost, x, reg=reg)
    assert found.marginal_errors[0] > 1.5 * (1 - 1 / n) or reg == 0.1
    assert found.marginal_errors[-1] <= 0.01  # before the iterations are used up
    assert found.v.isfinite().all() and found.pushed.isfinite().all()


@pytest.mark.slow
def test_both_ways_end_with_the_same_barycentres(monkeypatch):
    x, cost = local_problem(far=5)
    sparse = sinkhorn_streamed(cost, x, tol=1e-6, n_iter=5000)
    monkeypatch.setattr(sparse_kernel, "_SHARE", 0.0)
    dense = sinkhorn_streamed(cost, x, tol=1e-6, n_iter=5000)
    assert sparse.n_passes < 0.2 * dense.n_passes
    torch.testing.assert_close(sparse.pushed, dense.pushed, atol=1e-6, rtol=0)
    assert sparse.loss == pytest.approx(dense.loss, rel=1e-4)
    assert sparse.largest == dense.largest


def test_a_plan_that_is_not_sparse_is_made_in_passes(monkeypatch):
    looks = looks_of(monkeypatch)
    x, cost = local_problem()
    found = sinkhorn_streamed(cost, x, reg=1.0, tol=0.01)
    assert looks == [None]
    assert found.n_passes == len(found.marginal_errors)


def test_entries_that_count_are_kept_only_in_the_memory_allowed(monkeypatch):
    looks = looks_of(monkeypatch)
    x, cost = local_problem(far=20)
    found = {gb: sinkhorn_streamed(cost, x, tol=1e-3, n_iter=1000, keep_gb=gb) for gb in (1, 1e-5, 0)}
    assert looks[0] == len(cost) and looks.count(None) == 2
    assert found[1].n_passes < 10 and found[1e-5].n_passes == found[0].n_passes > 10
    torch.testing.assert_close(found[1e-5].pushed, found[1].pushed, atol=1e-4, rtol=0)


def test_float32_reaches_the_tolerance_from_a_dual_that_is_far_off(monkeypatch):
    looks = looks_of(monkeypatch)
    x, cost = local_problem(dtype=torch.float32, far=10)
    v = torch.where(torch.arange(len(cost)) % 7 == 0, -300.0, 0.0)
    found = sinkhorn_streamed(cost, x, v=v, tol=0.02, n_iter=2000)
    assert found.marginal_errors[-1] <= 0.02 and torch.isfinite(found.pushed).all() and torch.isfinite(found.v).all()
    assert None not in looks
