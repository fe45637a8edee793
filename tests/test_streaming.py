"""Transport block by block: the same iterates as with whole matrices, and where it stops."""

import math

import ot
import pytest
import torch
from small_problems import SCALE, cut, drawn, local_problem, problem

from pradot import PradotError, sinkhorn, sparse_kernel, streaming
from pradot.block_cost import BlockCost
from pradot.streaming import sinkhorn_streamed


def pot_from(M, v, reg, n_iter):
    """POT's plan after so many iterations from the rows' dual that belongs to v."""
    a, b = M.new_full((len(M),), 1 / len(M)), M.new_full((M.shape[1],), 1 / M.shape[1])
    u = a.log() - (v - M / reg).logsumexp(1)
    if n_iter == 0:
        return (u[:, None] + v - M / reg).exp()
    return ot.bregman.sinkhorn(a, b, M, reg, "sinkhorn_log", numItermax=n_iter, stopThr=0, warn=False, warmstart=(u, v))


@pytest.fixture(params=["sparse", "dense"])
def way(request, monkeypatch):
    """Iterations over the entries that count, or passes over all of them, whatever the plan."""
    monkeypatch.setattr(sparse_kernel, "_SHARE", 1.0 if request.param == "sparse" else 0.0)
    return request.param


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("passes", [1, 2, 3, 10])
def test_iterations_are_those_of_pot(monkeypatch, way, alpha, passes):
    cut(monkeypatch, 3)
    _, x, cost, M = problem(alpha)
    v, values = 3 * drawn(len(cost), seed=7), drawn(20, 3, 4, seed=8)
    plan = pot_from(M, v, 0.05, passes - 1)
    result = sinkhorn_streamed(cost, x, values, 0.05, v=v, tol=1e-12, n_iter=passes, relaxation=1)
    torch.testing.assert_close(result.received, plan.sum(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(result.pushed, plan.T @ values.flatten(0, 1), atol=1e-12, rtol=0)
    assert result.loss == pytest.approx((plan * M).sum().item(), abs=1e-12)
    assert len(result.marginal_errors) == passes
    assert result.n_passes == (passes if way == "dense" else 1)
    assert result.marginal_errors[-1] == pytest.approx((plan.sum(0) - 1 / len(cost)).abs().sum().item(), abs=1e-12)
    assert result.largest == pytest.approx(cost.maxima(x).feature)
    # The dual is that of the iteration to come.
    following = pot_from(M, result.v, 0.05, 0)
    torch.testing.assert_close(following, pot_from(M, v, 0.05, passes), atol=1e-12, rtol=0)


def test_it_ends_where_the_kernel_solver_ends(way):
    _, x, cost, M = problem(0.3)
    plan = sinkhorn(M, 0.05, n_iter=3000).plan
    result = sinkhorn_streamed(cost, x, reg=0.05, tol=1e-10, n_iter=3000)
    assert len(result.marginal_errors) < 3000
    torch.testing.assert_close(result.pushed, plan.T @ x.flatten(0, 1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("tol", [0.3, 0.05, 0.001])
def test_it_stops_at_the_tolerance_and_not_before(tol):
    _, x, cost, _ = problem(0.3)
    errors = sinkhorn_streamed(cost, x, reg=0.02, tol=tol, n_iter=2000).marginal_errors
    assert errors[-1] <= tol
    assert all(error > tol for error in errors[:-2])
    capped = sinkhorn_streamed(cost, x, reg=0.02, tol=1e-12, n_iter=4)
    assert len(capped.marginal_errors) == 4 and capped.pushed is not None


def test_dense_passes_push_values_only_when_one_is_expected_to_be_the_last(monkeypatch):
    monkeypatch.setattr(sparse_kernel, "_SHARE", 0.0)
    _, x, cost, _ = problem(0.3)
    pushes, original = [], streaming._pass
    monkeypatch.setattr(streaming, "_pass", lambda *args, **rest: pushes.append(args[2] is not None) or original(*args, **rest))
    first = sinkhorn_streamed(cost, x, reg=0.02, tol=0.02, n_iter=1000, expected=500)
    n = len(pushes)
    assert first.n_passes == n and pushes == [False] * (n - 1) + [True]  # one more, after one that was good enough
    pushes.clear()
    again = sinkhorn_streamed(cost, x, reg=0.02, tol=0.02, n_iter=1000, expected=n - 1)
    assert pushes == [False] * (n - 2) + [True] and again.n_passes == n - 1  # foreseen
    assert all(error > 0.02 for error in again.marginal_errors[:-1])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_relaxation_needs_fewer_passes_to_the_same_end(alpha):
    _, x, cost, _ = problem(alpha, batch=8)
    plain, relaxed = (sinkhorn_streamed(cost, x, reg=0.02, tol=1e-6, n_iter=3000, relaxation=w) for w in (1.0, 1.8))
    assert len(relaxed.marginal_errors) < 0.7 * len(plain.marginal_errors)
    torch.testing.assert_close(relaxed.pushed, plain.pushed, atol=1e-6, rtol=0)
    assert relaxed.loss == pytest.approx(plain.loss, abs=1e-6)


def test_relaxation_ends_where_the_error_rises():
    _, x, cost, _ = problem(0.3)
    errors = sinkhorn_streamed(cost, x, reg=0.005, tol=1e-4, n_iter=3000, relaxation=1.999).marginal_errors
    rises = [k for k in range(1, len(errors)) if errors[k] >= errors[k - 1]]
    assert errors[-1] <= 1e-4
    assert rises and all(errors[k + 1] <= errors[k] for k in range(rises[0] + 1, len(errors) - 1))


def test_a_dual_from_nearly_the_same_problem_saves_passes():
    _, x, cost, _ = problem(0.3, batch=8)
    cold = sinkhorn_streamed(cost, x, reg=0.02, tol=0.01, n_iter=1000)
    moved = BlockCost(cost.unit + 0.002 * drawn(len(cost), 6, seed=9), cost.positions, (5, 4), 0.3)
    moved.scale = SCALE
    warm = sinkhorn_streamed(moved, x, reg=0.02, v=cold.v, tol=0.01, n_iter=1000)
    assert len(warm.marginal_errors) <= 3 < 7 < len(cold.marginal_errors)


@pytest.mark.parametrize("reg", [0.001, 0.01, 1.0])
def test_prototypes_that_nothing_reaches_in_float32_are_filled_all_the_same(reg):
    _, x, cost, _ = problem(0.0, dtype=torch.float32)
    v = torch.zeros(len(cost))
    v[:5] = -1000.0  # exp(-1000) is 0
    result = sinkhorn_streamed(cost, x, reg=reg, v=v, tol=0.02, n_iter=5000)
    assert torch.isfinite(result.pushed).all() and torch.isfinite(result.v).all()
    assert result.marginal_errors[0] > 0.15 and result.marginal_errors[-1] <= 0.02


def test_reduced_precision_gives_nearly_the_same_barycentres(way):
    full, reduced = (
        sinkhorn_streamed(problem(0.3, precision=p, dtype=torch.float32)[2], problem(0.3, dtype=torch.float32)[1], tol=0.01)
        for p in ("full", "reduced")
    )
    difference = (full.pushed - reduced.pushed).norm() / full.pushed.norm()
    assert 0 < difference < 0.02
    assert reduced.loss == pytest.approx(full.loss, rel=0.02)


def test_nothing_larger_than_a_block_is_held(monkeypatch, way):
    cut(monkeypatch, 2)
    _, x, cost, _ = problem(0.3)
    sinkhorn_streamed(cost, x, n_iter=3)
    assert set(cost._buffers) <= {"c_feat", "M", "T", "kept"}
    assert all(buffer.numel() == 2 * 3 * len(cost) for buffer in cost._buffers.values())


# What is refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_iter": 0}, "n_iter is 0"),
        ({"reg": 0}, "reg is 0"),
        ({"reg": -1}, "reg is -1"),
        ({"reg": 1e-9}, "too small for costs"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    x, cost = local_problem(dtype=torch.float32)
    with pytest.raises(PradotError, match=said):
        sinkhorn_streamed(cost, x, **settings)


@pytest.mark.parametrize("way", ["sparse", "dense"])
def test_a_plan_whose_numbers_leave_their_range_is_an_error(monkeypatch, way):
    x, cost = local_problem(dtype=torch.float32)
    if way == "dense":
        monkeypatch.setattr(sparse_kernel, "_SHARE", 0.0)
    with pytest.raises(PradotError, match="raise reg"):
        sinkhorn_streamed(cost, x, v=torch.full((len(cost),), torch.inf))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_an_error(bad):
    _, x, cost, _ = problem(0.3)
    x[3, 1, 2] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        sinkhorn_streamed(cost, x, n_iter=2)
