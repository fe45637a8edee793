"""Training and scoring with streamed transport: as with whole matrices, in fewer passes."""

import pytest
import torch
from small_problems import drawn, feature_maps, quick

from pradot import PrototypeLearner, grid_positions, scoring
from pradot.block_cost import BlockCost, by_cell
from pradot.streaming import sinkhorn_streamed


def quick_streamed(alpha=0.3, **settings):
    defaults = {"n_prototypes": 2, "n_epochs": 3, "batch_size": 3, "reg": 0.05, "n_iter": 2000, "solver": "streamed"}
    return PrototypeLearner(alpha, **defaults | settings)


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


@pytest.mark.parametrize("positions", ["fixed", "learned"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_a_converged_step_is_that_of_the_dense_solver(alpha, positions):
    features = feature_maps()
    settings = {"max_steps": 1, "ema": 0.5, "positions": positions, "tol": 1e-5}
    dense, streamed = (quick_streamed(alpha, solver=solver, **settings).fit(features) for solver in ("kernel", "streamed"))
    torch.testing.assert_close(streamed.prototypes_, dense.prototypes_, atol=1e-4, rtol=0)
    torch.testing.assert_close(streamed.positions_, dense.positions_, atol=1e-4, rtol=0)
    assert streamed.history_["loss"] == pytest.approx(dense.history_["loss"], abs=1e-5)


def test_training_ends_as_low_as_with_the_dense_solver():
    features, held_out = feature_maps(9), feature_maps(4, seed=1)
    dense, streamed = (
        quick_streamed(solver=solver, n_epochs=15, n_iter=100).fit(features, held_out).history_["validation_loss"][-1]
        for solver in ("kernel", "streamed")
    )
    assert streamed == pytest.approx(dense, rel=0.03)


def test_every_step_reaches_the_tolerance_and_later_ones_need_few_passes():
    history = quick_streamed(tol=0.02, n_epochs=20).fit(feature_maps(12), feature_maps(3, seed=2)).history_
    assert max(history["marginal_error"]) <= 0.02
    assert sum(history["n_iter"][-10:]) / 10 < 0.5 * history["n_iter"][0]


def test_a_step_takes_its_scale_from_the_step_before(features, monkeypatch):
    measured, original = [], BlockCost.maxima
    monkeypatch.setattr(BlockCost, "maxima", lambda cost, x: (measured.append(1), original(cost, x))[1])
    learner = quick_streamed(max_steps=1).fit(features, features[:1])
    assert len(measured) == 1  # the first step has none before it
    learner._step(features)
    learner._step(features)
    assert len(measured) == 1


def test_without_instructions_for_bfloat16_products_are_full_and_it_is_said(monkeypatch):
    monkeypatch.setattr(scoring, "has_bfloat16", lambda device: False)
    full, reduced = (
        quick_streamed(precision=precision).fit(feature_maps(), feature_maps(2, seed=1)) for precision in ("full", "reduced")
    )
    assert torch.equal(full.prototypes_, reduced.prototypes_)
    assert full.notes_ == [] and "no instructions for bfloat16" in reduced.notes_[0]
    assert torch.equal(full.nearest(feature_maps(2)).cost, reduced.nearest(feature_maps(2)).cost)


def test_same_seed_same_bytes():
    one, two = (quick_streamed(start="images", precision="reduced").fit(feature_maps()) for _ in range(2))
    assert torch.equal(one.prototypes_, two.prototypes_) and one.history_ == two.history_


@pytest.mark.parametrize(("n_prototypes", "n_images"), [(1, 5), (3, 5), (4, 2), (1 / 4, 5)])
def test_a_start_from_images_takes_embeddings_of_the_prototypes_own_places(n_prototypes, n_images):
    features = feature_maps(n_images)
    learner = quick_streamed(n_prototypes=n_prototypes, start="images", max_steps=1, ema=1 - 1e-12).fit(features)
    grid = grid_positions(4, 4)
    for z, position in zip(learner.prototypes_, learner.positions_, strict=True):
        cell = int((grid - position).norm(dim=1).argmin())
        assert (features.flatten(1, 2)[:, cell] - z).abs().amax(1).min() < 1e-6
    layers = learner.prototypes_.view(max(1, int(n_prototypes)), -1)
    assert len(layers.unique(dim=0)) == min(len(layers), n_images)  # no image twice before all have been taken


@pytest.mark.parametrize("keep_gb", [0, 0.5])
def test_no_memory_or_little_is_enough(features, keep_gb):
    learner = quick(0.3, solver="streamed", keep_gb=keep_gb).fit(features)
    expected = quick(0.3, solver="streamed").fit(features)
    torch.testing.assert_close(learner.prototypes_, expected.prototypes_, atol=1e-3, rtol=0)


def test_reduced_precision_is_taken_where_the_device_has_it(features, monkeypatch):
    monkeypatch.setattr(scoring, "has_bfloat16", lambda device: True)
    full, reduced = (quick(0.3, solver="streamed", precision=p).fit(features, features[:2]) for p in ("full", "reduced"))
    assert full.notes_ == reduced.notes_ == []
    assert 0 < (full.prototypes_ - reduced.prototypes_).abs().max() < 0.02
    reduced.prototypes_ = full.prototypes_
    paid = [learner.transported(features, full.scale_) for learner in (full, reduced)]
    assert 0 < (paid[0] - paid[1]).abs().max() < 0.05
