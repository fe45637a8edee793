"""Laws of transport, whole or block by block, and of the search, on whatever numbers. References are POT's, in float64."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from small_problems import l1
from strategies import EXTREMES, SIZE, layouts, numbers

from pradot import (
    CostScale,
    PradotError,
    PrototypeLearner,
    block_cost,
    feature_cost,
    grid_positions,
    mix_costs,
    sinkhorn,
    sparse_kernel,
    spatial_cost,
)
from pradot.block_cost import BlockCost, by_cell
from pradot.search import NearestSearch
from pradot.streaming import sinkhorn_streamed


def weights(n, seed):
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4 + 1e-3
    return drawn / drawn.sum()


# Whole matrices


@st.composite
def problems(draw, dtype=torch.float64):
    """A cost (n, m) of whole numbers of hundredths or others, weights, reg in 0.001 .. 1."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    M = draw(numbers(n, m, dtype=torch.float64)).abs()
    if draw(st.booleans()):
        a = b = None
    else:
        a, b = weights(n, draw(st.integers(0, 99))).to(dtype), weights(m, draw(st.integers(0, 99))).to(dtype)
    reg = 10 ** draw(st.floats(-3, 0))
    return M.to(dtype), reg, {"a": a, "b": b}


@given(problems(), st.integers(1, 30), st.data())
def test_plans_are_those_of_pot(problem, n_iter, data):
    M, reg, sides = problem
    n, m = M.shape
    a, b = (M.new_full((k,), 1 / k) if side is None else side for k, side in zip((n, m), sides.values(), strict=True))
    plan = ot.sinkhorn(a, b, M, reg, method="sinkhorn_log", numItermax=n_iter, stopThr=0, warn=False)
    for solver in ("kernel", "pot"):
        result = sinkhorn(data.draw(layouts(M)), reg, **sides, n_iter=n_iter, solver=solver)
        assert l1(result.plan, plan) < 1e-9
    if reg > 0.01:  # where the plain form has no underflow
        assert l1(ot.sinkhorn(a, b, M, reg, method="sinkhorn", numItermax=n_iter, stopThr=0, warn=False), plan) < 1e-6


@given(problems(torch.float32), st.sampled_from([1, 2, 30]))
def test_float32_is_near_float64_and_both_keep_the_laws_of_plans(problem, n_iter):
    M, reg, sides = problem
    exact = sinkhorn(M.double(), reg, **sides, n_iter=n_iter)
    result = sinkhorn(M, reg, **sides, n_iter=n_iter)
    assert l1(result.plan, exact.plan) < 2e-6 + 1e-6 / reg  # exp(M / reg) hands on the rounding of M / reg
    a = torch.full((len(M),), 1 / len(M)) if sides["a"] is None else sides["a"]
    for found in (exact, result):
        plan = found.plan
        assert (plan >= 0).all() and all(part.isfinite().all() for part in (plan, found.f, found.g, found.marginal_errors))
        assert l1(plan.sum(1), a) < 1e-5
        assert plan.sum().item() == pytest.approx(1, abs=1e-5)
        assert 0 <= found.marginal_error <= 2 + 1e-5
        loss = found.cost(M.to(plan.dtype))
        cheapest = (plan.sum(1) * M.min(1).values).sum().item()
        assert cheapest - 1e-5 <= loss <= M.max().item() + 1e-5


@given(problems(), st.integers(1, 20), st.randoms(use_true_random=False), st.integers(-100, 100))
def test_order_scale_and_what_all_pay_do_not_count(problem, n_iter, random, power):
    M, reg, _ = problem
    n, m = M.shape
    plan = sinkhorn(M, reg, n_iter=n_iter).plan
    rows, columns = (random.sample(range(k), k) for k in (n, m))
    assert l1(sinkhorn(M[rows][:, columns], reg, n_iter=n_iter).plan, plan[rows][:, columns]) < 1e-9
    assert l1(sinkhorn(2.0**power * M, 2.0**power * reg, n_iter=n_iter).plan, plan) < 1e-12
    assert l1(sinkhorn(M + torch.rand(m, dtype=M.dtype), reg, n_iter=n_iter).plan, plan) < 1e-9
    expected = torch.full_like(M, 1 / (n * m))
    torch.testing.assert_close(sinkhorn(torch.full_like(M, 0.3), reg, n_iter=n_iter).plan, expected)


@given(problems(torch.float32), st.sampled_from(EXTREMES), st.floats(allow_nan=True))
def test_any_reg_and_any_size_of_costs_give_numbers_or_an_error(problem, size, reg):
    M, factor, _ = problem
    for weight in (reg, size * factor):
        try:
            result = sinkhorn(size * M, weight, n_iter=5)
        except PradotError as error:
            assert "reg" in str(error)
        else:
            parts = (result.plan, result.f, result.g, result.marginal_errors)
            assert all(part.isfinite().all() for part in parts)
            assert result.plan.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("M", "said"),
    [
        (torch.rand(0, 3), r"shape \(0, 3\)"),
        (torch.rand(3, 0), r"shape \(3, 0\)"),
        (torch.rand(3), r"shape \(3,\)"),
        (np.ones((2, 2)), "ndarray; give a tensor"),
        (torch.ones(2, 2, dtype=torch.bool), "bool; give a tensor"),
    ],
)
def test_what_is_no_cost_is_refused(M, said):
    with pytest.raises(PradotError, match=said):
        sinkhorn(M)


@pytest.mark.parametrize(
    "settings", [{"n_iter": 2.5}, {"n_iter": math.nan}, {"n_iter": "3"}, {"reg": "0.1"}, {"reg": None}, {"reg": 1j}]
)
def test_settings_that_are_no_numbers_are_refused(settings):
    with pytest.raises(PradotError, match=next(iter(settings))):
        sinkhorn(torch.rand(3, 3), **settings)


@pytest.mark.parametrize("solver", ["kernel", "pot"])
def test_weights_are_taken_in_the_precision_of_the_cost(solver):
    M, a = torch.rand(3, 2), [0.5, 0.25, 0.25]
    plans = [sinkhorn(M, 0.1, a=one, solver=solver).plan for one in (a, torch.tensor(a), torch.tensor(a, dtype=torch.float64))]
    assert all(plan.dtype == torch.float32 and torch.equal(plan, plans[0]) for plan in plans)
    with pytest.raises(PradotError, match="positive weights"):
        sinkhorn(M, 0.1, a=torch.tensor([1 - 1e-60, 1e-60, 0.5], dtype=torch.float64), solver=solver)  # 0 in float32


# Block by block


@st.composite
def streamed_problems(draw, dtype=torch.float64):
    """Feature maps, a cost by blocks with the maxima as scale, and the same as one matrix in the order of the blocks."""
    batch, shape, channels = draw(st.integers(1, 3)), (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(SIZE)
    features = draw(numbers(batch, *shape, channels, dtype=dtype)) * draw(st.sampled_from([1.0, 1e-30, 1e30]))
    positions = grid_positions(*shape, dtype=dtype).repeat(draw(st.integers(1, 2)), 1)[: draw(st.integers(1, 20))]
    if draw(st.booleans()):
        positions = draw(numbers(*positions.shape, dtype=dtype)).abs()
    alpha = draw(st.sampled_from([0.0, 0.3, 1.0]))
    prototypes = draw(numbers(len(positions), channels, dtype=dtype))
    cost, x = BlockCost(prototypes, positions, shape, alpha), by_cell(features)
    cost.scale = cost.maxima(x)
    # Of the distance 1e-12 between vectors that are nearly alike, rounding is no small part, however it is computed.
    assume(not 32 * torch.finfo(dtype).eps < cost.scale.feature < 1e-6)
    c_space = spatial_cost(cost.grid, positions).repeat_interleave(batch, 0)
    M, _ = mix_costs(feature_cost(x.flatten(0, 1), prototypes), c_space, alpha, cost.scale)
    return features, prototypes, positions, cost, M


@given(streamed_problems(), st.floats(-2, 0), st.integers(1, 15), st.data())
def test_blocks_and_memory_change_no_plan(problem, power, n_iter, data):
    features, _, _, cost, M = problem
    reg, x = 10**power, by_cell(features)
    x = x / (x.abs().max() or 1)
    n, m = M.shape
    u = math.log(1 / n) - (-M / reg).logsumexp(1)  # of the first half iteration, from v = 0
    plan = (u[:, None] - M / reg).exp()
    if n_iter > 1:
        a, b = M.new_full((n,), 1 / n), M.new_full((m,), 1 / m)
        plan = ot.bregman.sinkhorn(
            a, b, M, reg, "sinkhorn_log", numItermax=n_iter - 1, stopThr=0, warn=False, warmstart=(u, torch.zeros_like(b))
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_cost, "BLOCK", data.draw(st.integers(1, 300)))
        patch.setattr(sparse_kernel, "_SHARE", data.draw(st.sampled_from([0.0, 0.2, 1.0])))
        memory = data.draw(st.sampled_from([0.0, 1e-7, 1e-6, 1.0]))
        found = sinkhorn_streamed(cost, x, reg=reg, tol=1e-13, n_iter=n_iter, relaxation=1, keep_gb=memory)
    if found.marginal_errors[-1] > 1e-12:  # it went on to the end
        assert len(found.marginal_errors) == n_iter
    torch.testing.assert_close(found.received, plan.sum(0), atol=1e-8, rtol=0)
    torch.testing.assert_close(found.pushed, plan.T @ x.flatten(0, 1), atol=1e-8, rtol=0)
    assert found.loss == pytest.approx((plan * M).sum().item(), abs=1e-8)


@given(streamed_problems(torch.float32), st.floats(-3, 0), st.sampled_from([0.0, 1e-6, 1.0]), st.sampled_from([0.1, 0.01]))
def test_float32_stops_at_the_true_tolerance_or_at_the_last_iteration(problem, power, memory, tol):
    features, _, _, cost, M = problem
    found = sinkhorn_streamed(cost, by_cell(features), reg=10**power, tol=tol, n_iter=40, keep_gb=memory)
    parts = (found.pushed, found.received, found.v, found.dual)
    assert all(part.isfinite().all() for part in parts) and math.isfinite(found.loss)
    assert found.received.sum().item() == pytest.approx(1, abs=tol / 4 + 1e-4)
    assert -1e-5 <= found.loss <= M.max().item() + 1e-4
    plan = torch.softmax(found.dual.double() - M.double() / 10**power, 1) / len(M)
    error = (plan.sum(0) - 1 / len(cost)).abs().sum().item()
    rounding = 1e-5 + 1e-6 / 10**power
    assert error <= tol + rounding or len(found.marginal_errors) == 40


@given(streamed_problems(), st.data())
def test_the_search_finds_the_cheapest_prototype_in_any_bands_and_batches(problem, data):
    features, prototypes, positions, cost, M = problem
    shape = features.shape[1:3]
    expected = M.view(-1, len(features), M.shape[1]).permute(1, 0, 2)  # (batch, height * width, m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_cost, "BLOCK", data.draw(st.sampled_from([1, 7, 10**6])))
        search = NearestSearch(prototypes, positions, shape, cost.alpha)
        found, index = search(features, cost.scale)
        parts = [search(one[None], cost.scale)[0] for one in features.flip(0)]
    torch.testing.assert_close(found.flatten(1), expected.amin(2), atol=1e-12, rtol=0)
    chosen = expected.gather(2, index.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(chosen, expected.amin(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.cat(parts), found.flip(0), atol=1e-12, rtol=0)


def test_costs_far_above_their_scale_are_refused_and_measured_anew_in_training():
    """Images that are all equal, then others: the largest cost of the step before says nothing."""
    cost = BlockCost(torch.eye(3), torch.zeros(3, 2), (1, 1), 0.0)
    cost.scale, x = CostScale(1e-5, 1.0), torch.rand(1, 4, 3)
    for memory in (0.0, 1.0):
        with pytest.raises(PradotError, match=r"reg = 0\.01 is too small for costs up to"):
            sinkhorn_streamed(cost, x, keep_gb=memory)
    features = torch.rand(4, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    learner = PrototypeLearner(0.3, n_prototypes=1, solver="streamed", max_steps=1, batch_size=4).fit(features)
    sent = learner._send(features)
    learner._largest = 1e-5
    again = learner._send(features)
    assert again.scale == sent.scale and again.loss == pytest.approx(sent.loss, rel=0.02)
