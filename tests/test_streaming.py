"""Block by block: the same cost, the same iterates and the same nearest prototypes as with whole matrices."""

import math

import ot
import pytest
import torch

from pradot import (
    CostScale,
    PradotError,
    PrototypeLearner,
    block_cost,
    feature_cost,
    grid_positions,
    mix_costs,
    scoring,
    sinkhorn,
    sparse_kernel,
    spatial_cost,
    streaming,
)
from pradot.block_cost import BlockCost, by_cell
from pradot.search import NearestSearch
from pradot.streaming import sinkhorn_streamed

SCALE = CostScale(0.8, 1.2)


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(alpha, *, batch=3, shape=(5, 4), n=3, channels=6, precision="full", dtype=torch.float64, free=False):
    """Feature maps, their cost by blocks, and the same cost as one matrix with rows in the order of the blocks."""
    features = drawn(batch, *shape, channels, dtype=dtype)
    positions = grid_positions(*shape, dtype=dtype).repeat(n, 1)  # (m, 2)
    if free:
        positions = drawn(len(positions), 2, seed=2, dtype=dtype)
    prototypes = drawn(len(positions), channels, seed=1, dtype=dtype)
    cost = BlockCost(prototypes, positions, shape, alpha, precision=precision)
    cost.scale = SCALE
    x = by_cell(features)  # (height * width, batch, channels)
    c_feat = feature_cost(x.flatten(0, 1), prototypes)
    c_space = spatial_cost(grid_positions(*shape, dtype=dtype), positions).repeat_interleave(batch, 0)
    return features, x, cost, mix_costs(c_feat, c_space, alpha, SCALE)[0]


def cut(monkeypatch, step):
    """Blocks of so many cells."""
    blocks = lambda self, *_: [slice(k, min(k + step, len(self.grid))) for k in range(0, len(self.grid), step)]  # noqa: E731
    monkeypatch.setattr(BlockCost, "blocks", blocks)


def whole(cost, x):
    blocks = []
    for cells in cost.blocks(x.shape[1]):
        c_feat = cost.features(cost.operand(x[cells]).flatten(0, 1))  # (n_cells * batch, m)
        c_space = cost.space(cells).repeat_interleave(x.shape[1], 0)  # (n_cells * batch, m)
        blocks.append(cost.feature_weight * c_feat + cost.space_weight * c_space)
    return torch.cat(blocks)


# Cost


def test_rows_go_cell_by_cell():
    features = drawn(3, 2, 4, 5)
    x = by_cell(features)
    assert x.shape == (8, 3, 5)
    assert torch.equal(x[6, 1], features[1, 1, 2])


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("step", [1, 3, 20])
def test_blocks_are_the_mixed_cost(monkeypatch, alpha, step, free):
    cut(monkeypatch, step)
    _, x, cost, M = problem(alpha, free=free)
    torch.testing.assert_close(whole(cost, x), M, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("batch", "m_per_cell"), [(1, 1), (2, 3), (7, 2)])
def test_blocks_are_every_cell_once_and_bounded(batch, m_per_cell):
    _, _, cost, _ = problem(0.3, batch=batch, shape=(40, 50), n=m_per_cell)
    slices = cost.blocks(batch)
    assert [cell for cells in slices for cell in range(cells.start, cells.stop)] == list(range(2000))
    assert all((cells.stop - cells.start) * batch * len(cost) <= 6 * 2**20 for cells in slices)


def test_reduced_precision_rounds_vectors_and_costs_but_no_cosines():
    x = drawn(300, 256, dtype=torch.float32) + 3 * drawn(300, 1, seed=1, dtype=torch.float32)
    z = x[:20] + 0.05 * drawn(20, 256, seed=2, dtype=torch.float32)
    exact = feature_cost(x, z)
    cost = BlockCost(z, torch.zeros(20, 2), (5, 4), 0.0, precision="reduced")
    rounded = cost.features(cost.operand(x))
    error, small = (rounded - exact).abs(), exact < 0.01
    assert 0 < error.max() and (error <= 2**-8 * exact + 2**-10).all()
    assert error[small].max() < 0.5 * ((1 - exact).bfloat16().float() - (1 - exact)).abs()[small].max()


def test_maxima_are_those_of_all_pairs(monkeypatch):
    cut(monkeypatch, 3)
    _, x, cost, _ = problem(0.3)
    found = cost.maxima(x)
    assert found.feature == pytest.approx(feature_cost(x.flatten(0, 1), cost.unit).max().item(), rel=1e-12)
    assert found.space == pytest.approx(math.sqrt(2))


# Transport


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


# Entries that count


def local_problem(reg=0.01, dtype=torch.float64, n=2, batch=6, far=0):
    """Images of one kind and prototypes that are such images: a plan of which few entries count; some prototypes far off."""
    places = drawn(9, 8, 12, seed=3, dtype=dtype) ** 4
    image = lambda seed: places + 0.03 * drawn(9, 8, 12, seed=seed, dtype=dtype)  # noqa: E731
    x = by_cell(torch.stack([image(seed) for seed in range(10, 10 + batch)]))  # (72, batch, 12)
    prototypes = torch.stack([image(seed) for seed in range(50, 50 + n)]).flatten(0, 2)  # (72 n, 12)
    prototypes[:far] += drawn(far, 12, seed=5, dtype=dtype)
    return x, BlockCost(prototypes, grid_positions(9, 8, dtype=dtype).repeat(n, 1), (9, 8), 0.3)


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


def few_received(**settings):
    """A learner whose first prototypes are so far from all patches that the tolerance is met before they receive anything."""
    learner = PrototypeLearner(0.3, solver="streamed", tol=0.05, **settings)
    maps = drawn(9, 8, 12, seed=3, dtype=torch.float32) ** 4 + 0.03 * drawn(6, 9, 8, 12, seed=10, dtype=torch.float32)
    learner.fit(maps)
    return learner, maps


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_prototype_that_receives_nothing_stays_where_it_is(ema):
    learner, maps = few_received(n_prototypes=8, start="images", max_steps=1, ema=ema, positions="learned")
    learner.prototypes_[:3] = -learner.prototypes_[:3]
    before, learner._dual = (learner.prototypes_.clone(), learner.positions_.clone()), None
    sent = learner._send(maps)
    assert (sent.received[:3] == 0).all()
    learner._step(maps)
    assert torch.equal(learner.prototypes_[:3], before[0][:3]) and torch.equal(learner.positions_[:3], before[1][:3])
    assert learner.positions_.isfinite().all() and learner.prototypes_.norm(dim=1).min() > 0


def test_patches_pay_by_the_plan_that_was_measured():
    learner, maps = few_received(n_prototypes=8, start="images", max_steps=1)
    learner.prototypes_[:10] += 2 * drawn(10, 12, seed=5, dtype=torch.float32)
    M, scale = learner.cost(maps[:1])
    cost = BlockCost(learner.prototypes_, learner.positions_, (9, 8), 0.3)
    cost.scale = scale
    found = sinkhorn_streamed(cost, by_cell(maps[:1]), tol=0.05)
    T = torch.softmax(found.dual - M / 0.01, 1) / len(M)  # (72, m)
    assert (T.sum(0) - 1 / len(cost)).abs().sum() <= 0.05
    paid = learner.transported(maps[:1], scale)
    torch.testing.assert_close(paid.flatten(), len(M) * (T * M).sum(1))


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_an_error(bad):
    _, x, cost, _ = problem(0.3)
    x[3, 1, 2] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        sinkhorn_streamed(cost, x, n_iter=2)


# Training


def feature_maps(n=6, height=4, width=4, channels=5, seed=0):
    places = drawn(height, width, channels, seed=99, dtype=torch.float32) ** 4
    return places + 0.05 * drawn(n, height, width, channels, seed=seed, dtype=torch.float32)


def quick(alpha=0.3, **settings):
    defaults = {"n_prototypes": 2, "n_epochs": 3, "batch_size": 3, "reg": 0.05, "n_iter": 2000, "solver": "streamed"}
    return PrototypeLearner(alpha, **defaults | settings)


@pytest.mark.parametrize("positions", ["fixed", "learned"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_a_converged_step_is_that_of_the_dense_solver(alpha, positions):
    features = feature_maps()
    settings = {"max_steps": 1, "ema": 0.5, "positions": positions, "tol": 1e-5}
    dense, streamed = (quick(alpha, solver=solver, **settings).fit(features) for solver in ("kernel", "streamed"))
    torch.testing.assert_close(streamed.prototypes_, dense.prototypes_, atol=1e-4, rtol=0)
    torch.testing.assert_close(streamed.positions_, dense.positions_, atol=1e-4, rtol=0)
    assert streamed.history_["loss"] == pytest.approx(dense.history_["loss"], abs=1e-5)


def test_training_ends_as_low_as_with_the_dense_solver():
    features, held_out = feature_maps(9), feature_maps(4, seed=1)
    dense, streamed = (
        quick(solver=solver, n_epochs=15, n_iter=100).fit(features, held_out).history_["validation_loss"][-1]
        for solver in ("kernel", "streamed")
    )
    assert streamed == pytest.approx(dense, rel=0.03)


def test_every_step_reaches_the_tolerance_and_later_ones_need_few_passes():
    history = quick(tol=0.02, n_epochs=20).fit(feature_maps(12), feature_maps(3, seed=2)).history_
    assert max(history["marginal_error"]) <= 0.02
    assert sum(history["n_iter"][-10:]) / 10 < 0.5 * history["n_iter"][0]


def test_without_instructions_for_bfloat16_products_are_full_and_it_is_said(monkeypatch):
    monkeypatch.setattr(scoring, "has_bfloat16", lambda device: False)
    full, reduced = (
        quick(precision=precision).fit(feature_maps(), feature_maps(2, seed=1)) for precision in ("full", "reduced")
    )
    assert torch.equal(full.prototypes_, reduced.prototypes_)
    assert full.notes_ == [] and "no instructions for bfloat16" in reduced.notes_[0]
    assert torch.equal(full.nearest(feature_maps(2)).cost, reduced.nearest(feature_maps(2)).cost)


def test_same_seed_same_bytes():
    one, two = (quick(start="images", precision="reduced").fit(feature_maps()) for _ in range(2))
    assert torch.equal(one.prototypes_, two.prototypes_) and one.history_ == two.history_


@pytest.mark.parametrize(("n_prototypes", "n_images"), [(1, 5), (3, 5), (4, 2), (1 / 4, 5)])
def test_a_start_from_images_takes_embeddings_of_the_prototypes_own_places(n_prototypes, n_images):
    features = feature_maps(n_images)
    learner = quick(n_prototypes=n_prototypes, start="images", max_steps=1, ema=1 - 1e-12).fit(features)
    grid = grid_positions(4, 4)
    for z, position in zip(learner.prototypes_, learner.positions_, strict=True):
        cell = int((grid - position).norm(dim=1).argmin())
        assert (features.flatten(1, 2)[:, cell] - z).abs().amax(1).min() < 1e-6
    layers = learner.prototypes_.view(max(1, int(n_prototypes)), -1)
    assert len(layers.unique(dim=0)) == min(len(layers), n_images)  # no image twice before all have been taken


# Search


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(5, 4), (1, 6), (14, 3), (1, 1)])
@pytest.mark.parametrize("block", [1, 10**6])
def test_the_search_finds_the_minimum(monkeypatch, alpha, shape, free, block):
    monkeypatch.setattr(block_cost, "BLOCK", block)  # smaller than the problem: band by band
    features, _, cost, M = problem(alpha, shape=shape, free=free)
    found, index = NearestSearch(cost.unit, cost.positions, shape, alpha)(features, SCALE)
    expected = M.view(-1, 3, M.shape[1]).permute(1, 0, 2)  # (batch, height * width, m)
    torch.testing.assert_close(found.flatten(1), expected.amin(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(expected.gather(2, index.flatten(1)[..., None])[..., 0], expected.amin(2), atol=1e-12, rtol=0)


def test_the_search_skips_what_cannot_win(monkeypatch):
    shape = (14, 14)
    features = feature_maps(2, *shape)
    positions = grid_positions(*shape).repeat(2, 1)
    prototypes = feature_maps(2, *shape, seed=3).flatten(0, 2)
    pairs, original = [], BlockCost.features

    def counted(self, x, columns=slice(None)):
        found = original(self, x, columns)
        pairs.append(found.numel())
        return found

    monkeypatch.setattr(BlockCost, "features", counted)
    monkeypatch.setattr(block_cost, "BLOCK", 1000)
    NearestSearch(prototypes, positions, shape, 0.3)(features, CostScale(1.0, math.sqrt(2)))
    assert sum(pairs) < 0.5 * 2 * 196 * len(prototypes)


def test_places_with_different_numbers_of_prototypes_are_searched_too(monkeypatch):
    features, _, cost, M = problem(0.3)
    positions = cost.positions[torch.arange(60) // 7]  # seven at a place, and four at the last one
    c_space = spatial_cost(cost.grid, positions).repeat_interleave(3, 0)
    M = mix_costs(feature_cost(by_cell(features).flatten(0, 1), cost.unit), c_space, 0.3, SCALE)[0]
    for block in (1, 10**6):
        monkeypatch.setattr(block_cost, "BLOCK", block)
        found = NearestSearch(cost.unit, positions, (5, 4), 0.3)(features, SCALE)[0]
        expected = M.amin(1).view(20, 3).T  # (batch, height * width)
        torch.testing.assert_close(found.flatten(1), expected, atol=1e-12, rtol=0)


def test_a_search_in_reduced_precision_gives_exact_costs_of_nearly_the_cheapest():
    features, _, cost, M = problem(0.3, dtype=torch.float32)
    found, index = NearestSearch(cost.unit, cost.positions, (5, 4), 0.3, precision="reduced")(features, SCALE)
    expected = M.view(-1, 3, M.shape[1]).permute(1, 0, 2)  # (batch, height * width, m)
    torch.testing.assert_close(found.flatten(1), expected.gather(2, index.flatten(1)[..., None])[..., 0], atol=1e-6, rtol=0)
    assert (found.flatten(1) - expected.amin(2)).amax() < 0.01


def test_without_a_scale_each_call_takes_its_own_maxima():
    features, _, cost, _ = problem(0.3)
    search = NearestSearch(cost.unit, cost.positions, (5, 4), 0.3)
    own = cost.maxima(by_cell(features))
    torch.testing.assert_close(search(features)[0], search(features, own)[0])
