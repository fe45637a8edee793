"""Laws of costs, transport, prototypes and embeddings on whatever numbers: ties, constants, zeros, extremes, shapes down to 1.

Examples are drawn by hypothesis, see `conftest.py` for how many. References are NumPy's or POT's, in float64.
"""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
from pradot.cost import unit_vectors
from pradot.embedding import embed
from pradot.search import NearestSearch
from pradot.streaming import sinkhorn_streamed

EXTREMES = [1e-42, 1e-38, 1e-30, 1e-21, 1e-12, 1.0, 1e12, 1e19, 1e30, 1e37]  # the first ones are denormal in float32
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-14, torch.float16: 4e-3, torch.bfloat16: 4e-2}
SIZE = st.integers(1, 5)
FEW = settings(max_examples=settings().max_examples // 4)  # where an example is a fit or two


@st.composite
def numbers(draw, *shape, dtype=torch.float32):
    """Numbers in [-1, 1]: all different, few different ones, one alone, zeros, or rows that are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    drawn = {
        "different": lambda: rng.uniform(-1, 1, shape),
        "positive": lambda: rng.uniform(0, 1, shape),
        "ties": lambda: rng.integers(-1, 2, shape).astype(float),
        "constant": lambda: np.full(shape, 0.7),
        "zeros": lambda: np.zeros(shape),
        "equal rows": lambda: np.broadcast_to(rng.uniform(0, 1, shape[-1:]), shape),
        "nearly equal rows": lambda: rng.uniform(0, 1, shape[-1:]) + 1e-6 * rng.uniform(-1, 1, shape),
    }
    return torch.tensor(drawn[draw(st.sampled_from(list(drawn)))](), dtype=dtype)


@st.composite
def layouts(draw, x):
    """The same numbers elsewhere in memory."""
    way = draw(st.sampled_from(["contiguous", "transposed", "strided", "part"]))
    if way == "transposed":
        return x.mT.contiguous().mT
    if way == "strided":
        return torch.stack([x, -x], -1)[..., 0]
    return torch.cat([x, x])[len(x) :] if way == "part" else x


def weights(n, seed):
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4 + 1e-3
    return drawn / drawn.sum()


def cosine_distance(x, z):
    """In float64, of vectors that are first divided by their largest entry; 1 for those of zeros."""
    x, z = (one.double().numpy() for one in (x, z))
    x, z = (one / np.maximum(np.abs(one).max(1, keepdims=True), 5e-324) for one in (x, z))
    x, z = (one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-9) for one in (x, z))
    return torch.from_numpy(1 - x @ z.T)


# Cost


@given(st.data(), st.sampled_from(list(ROUNDING)), SIZE, SIZE, SIZE)
def test_feature_cost_is_the_cosine_distance_of_vectors_of_any_length(data, dtype, n, m, channels):
    x, z = (data.draw(numbers(rows, channels, dtype=torch.float64)) for rows in (n, m))
    lengths = EXTREMES if dtype != torch.float16 else [1e-7, 1e-4, 1.0, 1e4]
    x, z = (one * data.draw(st.sampled_from(lengths)) for one in (x, z))
    x, z = x.to(dtype), z.to(dtype)
    cost = feature_cost(data.draw(layouts(x)), data.draw(layouts(z)))
    assert cost.dtype == dtype and cost.shape == (n, m)
    assert cost.min() >= 0 and cost.max() <= 2 + ROUNDING[dtype]
    torch.testing.assert_close(cost.double(), cosine_distance(x, z), atol=ROUNDING[dtype], rtol=0)
    assert (cost[(x == 0).all(1)] == 1).all() and (cost[:, (z == 0).all(1)] == 1).all()


@given(st.data(), SIZE, SIZE, st.lists(st.sampled_from(EXTREMES[1:]), min_size=1, max_size=3))
def test_the_length_of_one_vector_changes_no_digit_of_the_others(data, n, channels, lengths):
    x = data.draw(numbers(n, channels))
    alone = unit_vectors(x)
    together = unit_vectors(torch.cat([x, *(length * x[:1] for length in lengths)])[:, None])[:, 0]
    assert torch.equal(together[:n], alone)
    torch.testing.assert_close(together[n:], alone[:1].expand(len(lengths), -1), rtol=1e-5, atol=1e-6)
    assert torch.allclose(alone.norm(dim=1)[(x != 0).any(1)], torch.ones(()))


@given(SIZE, SIZE, SIZE, SIZE)
def test_spatial_cost_is_a_distance(height, width, rows, columns):
    p, q = grid_positions(height, width), grid_positions(rows, columns)
    cost = spatial_cost(p, q)
    expected = np.linalg.norm(p.double().numpy()[:, None] - q.double().numpy(), axis=2)
    np.testing.assert_allclose(cost, expected, atol=1e-6)
    assert torch.equal(cost, spatial_cost(q, p).T) and cost.max() <= math.sqrt(2) + 1e-6
    assert (spatial_cost(p, p) <= cost[:, None, 0] + cost[None, :, 0] + 1e-6).all()  # no shorter way by q


@given(st.data(), st.integers(1, 3), SIZE, SIZE, st.floats(0, 1))
def test_mixed_costs_are_the_formula_between_0_and_1(data, batch, cells, m, alpha):
    c_feat, c_space = (data.draw(numbers(rows, m)).abs() for rows in (batch * cells, cells))
    M, scale = mix_costs(data.draw(layouts(c_feat.clone())), data.draw(layouts(c_space)), alpha)
    assert scale == (c_feat.max(), c_space.max())
    expected = (1 - alpha) * c_feat.double() / (scale.feature or 1)
    expected += alpha * c_space.double().repeat(batch, 1) / (scale.space or 1)
    torch.testing.assert_close(M.double(), expected, atol=1e-6, rtol=0)
    assert M.min() >= 0 and M.max() <= 1 + 1e-6


@given(st.data(), SIZE, st.integers(1, 200), st.sampled_from([torch.float32, torch.float64]))
def test_rounding_between_equal_embeddings_is_no_cost(data, n, channels, dtype):
    x = data.draw(numbers(1, channels, dtype=dtype)).repeat(n, 1)
    assume((x != 0).any())
    M, _ = mix_costs(feature_cost(x, 3 * x), torch.zeros(n, n), 0.0)
    assert M.max() < 1e-5  # not 1, as if it were the largest of costs
    cost = BlockCost(3 * x, torch.zeros(n, 2, dtype=dtype), (1, 1), 0.3)
    cost.scale = cost.maxima(x[None])
    assert 0 <= cost.scale.feature < 1e-5 and cost.feature_weight == 0.7


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_embeddings_that_are_no_floating_point_numbers_are_refused(dtype):
    with pytest.raises(PradotError, match=r"embeddings are of torch\.\w+; give floating-point numbers"):
        feature_cost(torch.ones(2, 3, dtype=dtype), torch.ones(2, 3))


@pytest.mark.parametrize("largest", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("which", ["feature", "space"])
def test_a_scale_that_is_none_is_refused(largest, which):
    scale = CostScale(1.0, 1.0)._replace(**{which: largest})
    with pytest.raises(PradotError, match="both maxima must be finite and not negative"):
        mix_costs(torch.rand(2, 3), torch.rand(2, 3), 0.3, scale)
    with pytest.raises(PradotError, match="both maxima must be finite and not negative"):
        NearestSearch(torch.rand(2, 3), torch.rand(2, 2), (1, 2), 0.3)(torch.rand(1, 1, 2, 3), scale)
    with pytest.raises(PradotError, match="spatial cost holds NaN or infinity"):
        mix_costs(torch.rand(2, 3), torch.full((2, 3), math.nan), 0.3)


# Transport


@st.composite
def problems(draw, dtype=torch.float64, largest=1.0):
    """A cost (n, m) of whole numbers of hundredths or others, weights, reg in 0.001 .. 1."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    M = largest * draw(numbers(n, m, dtype=torch.float64)).abs()
    if draw(st.booleans()):
        a = b = None
    else:
        a, b = weights(n, draw(st.integers(0, 99))).to(dtype), weights(m, draw(st.integers(0, 99))).to(dtype)
    reg = 10 ** draw(st.floats(-3, 0))
    return M.to(dtype), reg, {"a": a, "b": b}


def l1(one, other):
    return (one.double() - other.double()).abs().sum().item()


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


# Streaming


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


# Prototypes


@st.composite
def feature_maps(draw):
    """(n_images, height, width, channels), n_images up to 4, all else from 1; some of extreme size."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)))
    return draw(numbers(*shape)) * draw(st.sampled_from([1.0, 1e-38, 1e-30, 1e30]))


def learner_of(draw, features, **settings):
    drawn = {
        "alpha": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "n_prototypes": draw(st.sampled_from([1, 2, 0.25])),
        "batch_size": len(features),
        "max_steps": draw(st.integers(0, 2)),
        "n_iter": 20,
        "start": draw(st.sampled_from(["uniform", "images", "spread"])),
        "solver": draw(st.sampled_from(["kernel", "streamed"])),
        "positions": draw(st.sampled_from(["fixed", "learned"])),
        "ema": 0.5,
        "reg": draw(st.sampled_from([0.001, 0.01, 0.1, 1.0])),
    }
    return PrototypeLearner(**drawn | settings).fit(features)


@FEW
@given(feature_maps(), st.data())
def test_a_fit_on_any_numbers_has_numbers_in_it_and_scores(features, data):
    learner = learner_of(data.draw, features)
    assert learner.prototypes_.isfinite().all() and learner.positions_.isfinite().all()
    assert learner.positions_.min() >= 0 and learner.positions_.max() <= 1 + 1e-6
    assert all(np.isfinite(values).all() for values in learner.history_.values())
    assert all(-1e-6 <= moved <= 2 + 1e-6 for moved in learner.history_["movement"])
    assert all(math.isfinite(largest) and largest >= 0 for largest in learner.scale_)
    for scale in (learner.scale_, None):
        nearest, paid = learner.nearest(features, scale), learner.transported(features, scale)
        assert nearest.cost.isfinite().all() and nearest.cost.min() >= 0 and paid.isfinite().all()
        assert (paid >= nearest.cost - 1e-5 * (1 + nearest.cost)).all()  # the nearest is the cheapest
        assert nearest.index.min() >= 0 and nearest.index.max() < len(learner.prototypes_)
    spread = learner.spread(features)
    assert spread.isfinite().all() and (spread > 0).all()


@FEW
@given(feature_maps(), st.data(), st.randoms(use_true_random=False))
def test_scores_depend_neither_on_order_nor_on_the_other_images(features, data, random):
    learner = learner_of(data.draw, features)
    order = random.sample(range(len(features)), len(features))
    whole = learner.nearest(features, learner.scale_).cost
    torch.testing.assert_close(learner.nearest(features[order], learner.scale_).cost, whole[order], rtol=1e-5, atol=1e-6)
    each = torch.cat([learner.nearest(one[None], learner.scale_).cost for one in features])
    torch.testing.assert_close(each, whole, rtol=1e-5, atol=1e-6)
    kept = data.draw(layouts(features))
    assert torch.equal(learner.nearest(kept, learner.scale_).cost, whole)


@FEW
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.sampled_from(["kernel", "streamed"]), st.data())
def test_the_order_of_training_images_counts_by_rounding_alone(seed, alpha, solver, data):
    features = torch.rand(4, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    settings = {"alpha": alpha, "solver": solver, "start": "uniform", "max_steps": 2, "reg": 0.1, "n_prototypes": 1}
    one = learner_of(data.draw, features, **settings)
    order = data.draw(st.permutations(range(4)))
    other = PrototypeLearner(**one.get_params()).fit(features[order])
    torch.testing.assert_close(other.prototypes_, one.prototypes_, rtol=1e-4, atol=1e-5)
    assert other.history_["loss"] == pytest.approx(one.history_["loss"], abs=1e-4)


@FEW
@given(st.integers(0, 10**6), st.data(), st.sampled_from([2.0**-110, 2.0**-20, 2.0**20, 2.0**110]))
def test_the_size_of_features_is_the_size_of_prototypes_and_no_more(seed, data, size):
    features = torch.rand(3, 2, 2, 4, generator=torch.Generator().manual_seed(seed))
    learner = learner_of(data.draw, features, start="images", reg=0.1)
    other = PrototypeLearner(**learner.get_params()).fit(size * features)
    torch.testing.assert_close(other.prototypes_ / size, learner.prototypes_, rtol=1e-4, atol=1e-5)
    assert other.history_["loss"] == pytest.approx(learner.history_["loss"], abs=1e-4)
    costs = [one.nearest(maps, one.scale_).cost for one, maps in ((learner, features), (other, size * features))]
    torch.testing.assert_close(costs[1], costs[0], rtol=1e-3, atol=1e-4)


@FEW
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]), st.floats(-1, 0), st.sampled_from(["fixed", "learned"]))
def test_the_fast_way_ends_where_the_faithful_one_ends(seed, alpha, power, positions):
    features = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    settings = {"n_prototypes": 1, "reg": 10**power, "batch_size": 3, "max_steps": 1, "ema": 0.5, "positions": positions}
    faithful = PrototypeLearner(alpha, solver="kernel", n_iter=100, **settings).fit(features)
    fast = PrototypeLearner(alpha, solver="streamed", n_iter=100, tol=1e-5, **settings).fit(features)
    torch.testing.assert_close(fast.prototypes_, faithful.prototypes_, atol=3e-4, rtol=0)
    torch.testing.assert_close(fast.positions_, faithful.positions_, atol=3e-4, rtol=0)
    assert fast.history_["loss"] == pytest.approx(faithful.history_["loss"], abs=3e-4)
    paid = [one.transported(features, faithful.scale_) for one in (faithful, fast)]
    torch.testing.assert_close(paid[1], paid[0], atol=3e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"n_epochs": None}, "n_epochs is None"),
        ({"max_steps": 0.5}, "max_steps is 0.5"),
        ({"n_iter": 1.5}, "n_iter is 1.5"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": 2**63}, "random_state is 9223372036854775808"),
        ({"random_state": None}, "random_state is None"),
        ({"keep_gb": -1.0}, "keep_gb is -1.0"),
        ({"keep_gb": math.nan}, "keep_gb is nan"),
        ({"n_prototypes": "4"}, "n_prototypes is '4'"),
        ({"tol": "x"}, "tol is 'x'"),
        ({"ema": None}, "ema is None"),
        ({"alpha": "0.3"}, "alpha is '0.3'"),
        ({"reg": "0.1"}, "reg is '0.1'"),
    ],
)
def test_settings_of_a_learner_that_are_no_numbers_are_refused(settings, said):
    with pytest.raises(PradotError, match=said):
        PrototypeLearner(**settings).fit(torch.rand(2, 2, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool])
def test_features_of_another_type_are_refused_and_leave_the_learner_as_it_was(dtype):
    features = torch.rand(2, 2, 2, 3)
    learner = PrototypeLearner(0.3, n_prototypes=1, max_steps=1).fit(features)
    expected = learner.nearest(features, learner.scale_).cost
    for use in (learner.nearest, learner.transported, learner.cost, learner.spread, PrototypeLearner().fit):
        with pytest.raises(PradotError, match=rf"torch.float32, not {dtype}"):
            use(features.to(dtype))
    with pytest.raises(PradotError, match="not ndarray"):
        learner.nearest(features.numpy())
    assert torch.equal(learner.nearest(features, learner.scale_).cost, expected)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (2, 0, 2, 3), (2, 2, 2, 0), (2, 2, 3)])
def test_features_without_numbers_are_refused(shape):
    with pytest.raises(PradotError, match="of at least one image"):
        PrototypeLearner().fit(torch.rand(shape))
    learner = PrototypeLearner(n_prototypes=1, max_steps=0).fit(torch.rand(2, 2, 2, 3))
    for use in (learner.nearest, learner.transported, learner.cost):
        with pytest.raises(PradotError, match="of at least one image"):
            use(torch.rand(shape))


# Embeddings


@st.composite
def scales(draw):
    """Feature maps of two scales of different grids and numbers of channels."""
    n = draw(st.integers(1, 20))
    grid = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
    return {scale: draw(numbers(n, *draw(grid))) for scale in (2, 3)}


@given(scales(), st.sampled_from([2, 3]), st.sampled_from(["joined", "pooled"]), st.data())
def test_joined_embeddings_have_one_length_a_scale_whatever_the_maps(features, scale, embedding, data):
    n = len(features[scale])
    size = data.draw(st.sampled_from(EXTREMES[1:]))
    features = {one: size * maps for one, maps in features.items()}
    joined = embed(features, scale, embedding)
    assert joined.shape == (*features[scale].shape[:3], sum(maps.shape[3] for maps in features.values()))
    for part in joined.split([features[one].shape[3] for one in sorted(features)], 3):
        length = part.norm(dim=3)
        assert ((length - 1).abs().lt(1e-5) | (length == 0)).all()
    order = data.draw(st.permutations(range(n)))
    kept = {one: data.draw(layouts(maps)) for one, maps in features.items()}
    torch.testing.assert_close(embed({one: kept[one][order] for one in (3, 2)}, scale, embedding), joined[order])
    alone = torch.cat([embed({one: maps[k : k + 1] for one, maps in features.items()}, scale, embedding) for k in range(n)])
    torch.testing.assert_close(alone, joined)


@given(scales(), st.sampled_from([2, 3]), st.sampled_from(["joined", "pooled"]), st.sampled_from([1, 2]))
def test_a_mirrored_image_has_mirrored_embeddings(features, scale, embedding, axis):
    mirrored = embed({one: maps.flip(axis) for one, maps in features.items()}, scale, embedding)
    found, expected = mirrored.flip(axis), embed(features, scale, embedding)
    # Where means of numbers of both signs are nearly nothing, their direction is that of rounding.
    assert (found - expected).norm(dim=3).quantile(0.5) < 1e-4 or features[2].min() < 0 or features[3].min() < 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_zeros_stay_zeros_in_every_precision(dtype):
    features = {2: torch.zeros(1, 2, 2, 3, dtype=dtype), 3: torch.ones(1, 1, 1, 2, dtype=dtype)}
    joined = embed(features, 2, "joined")
    assert joined.dtype == dtype and (joined[..., :3] == 0).all()
    torch.testing.assert_close(joined[..., 3:], torch.full((1, 2, 2, 2), 0.5**0.5, dtype=dtype))


@pytest.mark.parametrize(
    "other",
    [torch.rand(2, 2, 2, 3), torch.ones(3, 2, 2, 3, dtype=torch.uint8), torch.rand(3, 2, 2)],
    ids=["n", "type", "shape"],
)
def test_scales_that_do_not_belong_together_are_refused(other):
    with pytest.raises(PradotError, match=r"features of scale 3 are of shape .* must be floating-point numbers"):
        embed({2: torch.rand(3, 4, 4, 2), 3: other}, 2, "joined")
