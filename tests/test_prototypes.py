"""Prototypes: a step by hand, the moving average, places, early best, counts of steps, seeds."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from small_problems import feature_maps, numpy_plan, quick

from pradot import CostScale, PrototypeLearner, grid_positions, sinkhorn, starts


def started(learner, features, seed=0):
    """The learner as `fit` leaves it before the first step, with known prototypes."""
    height, width, channels = features.shape[1:]
    learner.grid_shape_ = (height, width)
    learner.positions_ = starts.start_positions(learner.grid_shape_, learner.n_prototypes)
    generator = torch.Generator().manual_seed(seed)
    learner.prototypes_ = torch.rand(len(learner.positions_), channels, generator=generator)
    learner.history_ = {"loss": [], "marginal_error": [], "n_iter": [], "movement": []}
    return learner


def test_defaults_are_the_settings_of_the_paper():
    paper = {"alpha": 0.0, "n_prototypes": 16, "reg": 0.01, "n_iter": 100, "ema": 0.95, "n_epochs": 50, "batch_size": 64}
    rest = {"max_steps": None, "positions": "fixed", "solver": "kernel", "start": "uniform", "precision": "full"}
    fast = {"tol": 0.01, "keep_gb": 1.0}
    other = {"random_state": 0, "device": "cpu", "progress": False}
    assert PrototypeLearner().get_params() == paper | rest | fast | other


# One step


@pytest.mark.parametrize("positions", ["fixed", "learned"])
@pytest.mark.parametrize(("alpha", "n_prototypes"), [(0.0, 1), (0.3, 2), (1.0, 0.25)])
def test_a_step_by_hand(features, alpha, n_prototypes, positions):
    n_iter = 400
    learner = quick(alpha, n_prototypes=n_prototypes, reg=0.1, n_iter=n_iter, ema=0.8, positions=positions)
    started(learner, features)
    z, q = learner.prototypes_.double().numpy(), learner.positions_.double().numpy()
    x = features.double().numpy().reshape(-1, 5)
    p = np.tile(grid_positions(4, 4).double().numpy(), (len(features), 1))
    m = len(z)

    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    c_feat = 1 - unit(x) @ unit(z).T
    c_space = np.linalg.norm(p[:, None] - q, axis=2)
    M = (1 - alpha) * c_feat / c_feat.max() + alpha * c_space / c_space.max()
    T = numpy_plan(M, 0.1, n_iter)
    moved = 0.8 * z + 0.2 * m * T.T @ x

    learner._step(features)
    np.testing.assert_allclose(learner.prototypes_.numpy(), moved, atol=2e-6)
    assert learner.history_["loss"] == [pytest.approx((T * M).sum(), abs=1e-6)]
    assert learner.history_["movement"] == [pytest.approx(1 - (unit(z) * unit(moved)).sum(1).mean(), abs=1e-6)]
    if positions == "learned":
        np.testing.assert_allclose(learner.positions_.numpy(), 0.8 * q + 0.2 * m * T.T @ p, atol=1e-5)
    else:
        assert np.array_equal(learner.positions_.double().numpy(), q)


def test_moving_average_keeps_the_share_ema(features):
    barycentres = started(quick(ema=0.0), features)
    start = barycentres.prototypes_.clone()
    barycentres._step(features)
    for ema in (0.5, 0.95):
        learner = started(quick(ema=ema), features)
        learner._step(features)
        torch.testing.assert_close(learner.prototypes_, ema * start + (1 - ema) * barycentres.prototypes_)


def test_one_cell_and_one_prototype_is_the_mean():
    features = feature_maps(8, 1, 1)
    learner = quick(ema=0.0, batch_size=8, n_epochs=1).fit(features)
    torch.testing.assert_close(learner.prototypes_[0], features.mean((0, 1, 2)))


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.3, "n_prototypes": 3}, {"alpha": 0.3, "positions": "learned"}])
def test_both_solvers_learn_the_same(features, settings):
    kernel, pot = (quick(**settings, solver=solver).fit(features) for solver in ("kernel", "pot"))
    torch.testing.assert_close(kernel.prototypes_, pot.prototypes_, atol=1e-5, rtol=0)
    torch.testing.assert_close(kernel.positions_, pot.positions_, atol=1e-5, rtol=0)
    assert kernel.best_step_ == pot.best_step_
    np.testing.assert_allclose(kernel.history_["loss"], pot.history_["loss"], atol=1e-6)


def test_training_lowers_the_loss(features):
    learner = quick(0.3, n_epochs=40).fit(features, feature_maps(seed=1))
    assert learner.history_["validation_loss"][-1] < 0.5 * learner.history_["validation_loss"][0]
    assert learner.history_["movement"][-1] < 0.1 * learner.history_["movement"][0]


# Places


@pytest.mark.parametrize("n_prototypes", [1, 3, 3.0, np.int64(2)])
def test_whole_numbers_repeat_the_grid(n_prototypes):
    learner = quick(n_prototypes=n_prototypes, n_epochs=1).fit(feature_maps(3, 4, 6))
    n = int(n_prototypes)
    assert learner.prototypes_.shape == (n * 24, 5)
    assert torch.equal(learner.positions_, torch.cat([grid_positions(4, 6)] * n))


@pytest.mark.parametrize(("n_prototypes", "every"), [(1 / 4, 2), (0.25, 2), (1 / 9, 3), (1 / 16, 4)])
def test_fractions_thin_out_rows_and_columns(n_prototypes, every):
    learner = quick(0.3, n_prototypes=n_prototypes, n_epochs=1).fit(feature_maps(3, 7, 5))
    rows, columns = np.arange(0, 7, every) / 6, np.arange(0, 5, every) / 4
    expected = [(row, column) for row in rows for column in columns]
    np.testing.assert_allclose(learner.positions_.numpy(), expected, atol=1e-7)
    assert len(learner.prototypes_) == len(expected)


@pytest.mark.parametrize("n_iter", [1, 100])  # after one iteration the prototypes' weights are far from uniform
def test_learned_positions_move_on_the_unit_square(features, n_iter):
    learner = quick(0.3, n_prototypes=2, positions="learned", ema=0.8, n_epochs=15, n_iter=n_iter).fit(features**4)
    start = grid_positions(4, 4).repeat(2, 1)
    assert (learner.positions_ - start).norm(dim=1).mean() > 0.02
    assert learner.positions_.min() >= 0 and learner.positions_.max() <= 1 + 1e-6


def test_fixed_positions_stay(features):
    learner = quick(0.3, n_prototypes=2, n_epochs=10).fit(features)
    assert torch.equal(learner.positions_, grid_positions(4, 4).repeat(2, 1))


def test_alpha_keeps_prototypes_at_their_places(features):
    swapped = features.flip(2)  # the same patches, left and right exchanged
    seen, missed = {}, {}
    for alpha in (0.0, 0.3):
        learner = quick(alpha, n_prototypes=1, ema=0.8, n_epochs=15).fit(features)
        seen[alpha], missed[alpha] = (learner.nearest(x, learner.scale_).cost.mean().item() for x in (features, swapped))
    assert missed[0.0] == pytest.approx(seen[0.0], rel=1e-4)  # global prototypes do not care
    assert missed[0.3] > 1.5 * seen[0.3]


# Early best


def test_the_epoch_of_the_lowest_validation_loss_is_kept(features, monkeypatch):
    losses = iter([0.5, 0.2, 0.3, 0.2, 0.9])
    states = []

    def validate(self, validation, batch_size):
        states.append((self.prototypes_.clone(), self.positions_.clone()))
        return next(losses), CostScale(float(len(states)), 1.0)

    monkeypatch.setattr(PrototypeLearner, "_validate", validate)
    learner = quick(0.3, n_epochs=5, positions="learned").fit(features, features[:2])
    assert learner.history_["validation_step"] == [2, 4, 6, 8, 10]
    assert learner.history_["validation_loss"] == [0.5, 0.2, 0.3, 0.2, 0.9]
    assert learner.best_step_ == 4  # the first of equals
    assert learner.scale_.feature == 2.0
    assert torch.equal(learner.prototypes_, states[1][0]) and torch.equal(learner.positions_, states[1][1])
    assert not torch.equal(states[1][0], states[4][0])
    assert learner.n_steps_ == 10


def test_an_early_best_equals_a_training_that_stops_there(features):
    # The start is nearer than anything learned to images without any structure.
    stranger = torch.rand(2, 4, 4, 5, generator=torch.Generator().manual_seed(1))
    long = quick(n_epochs=12, ema=0.5).fit(features, stranger)
    assert long.best_step_ == 2 < long.n_steps_ == 24
    short = quick(n_epochs=12, ema=0.5, max_steps=long.best_step_).fit(features, stranger)
    assert torch.equal(short.prototypes_, long.prototypes_)
    assert short.scale_ == long.scale_


def test_validation_loss_and_scale_are_those_of_the_held_out_images(features):
    held_out = feature_maps(3, seed=5)
    learner = quick(0.3, n_epochs=2).fit(features, held_out)
    M, scale = learner.cost(held_out)
    assert learner.scale_ == scale
    loss = sinkhorn(M, learner.reg, n_iter=learner.n_iter).cost(M)
    best = learner.history_["validation_step"].index(learner.best_step_)
    assert learner.history_["validation_loss"][best] == pytest.approx(loss, rel=1e-6)
    assert learner.notes_ == []


@pytest.mark.parametrize("validation", [None, torch.empty(0, 4, 4, 5)])
def test_without_validation_images_the_training_images_choose_and_it_is_said(features, validation):
    learner = quick().fit(features, validation)
    assert len(learner.notes_) == 1 and "no validation images" in learner.notes_[0]
    assert learner.scale_.feature == pytest.approx(max(learner.cost(half)[1].feature for half in features.split(3)))


# Steps


@pytest.mark.parametrize(("n_images", "batch_size", "steps"), [(6, 3, 2), (7, 3, 2), (8, 3, 2), (3, 3, 1), (9, 2, 4)])
def test_incomplete_batches_are_dropped(n_images, batch_size, steps):
    features = feature_maps(n_images)
    learner = quick(batch_size=batch_size, n_epochs=4).fit(features, features)
    assert learner.n_steps_ == len(learner.history_["loss"]) == 4 * steps
    assert learner.history_["validation_step"] == [steps * epoch for epoch in (1, 2, 3, 4)]
    assert learner.notes_ == []


@pytest.mark.parametrize("n_images", [1, 4])
def test_fewer_images_than_a_batch_make_one_smaller_batch_and_it_is_said(n_images):
    features = feature_maps(n_images)
    learner = quick(batch_size=64, n_epochs=4).fit(features, features)
    assert learner.n_steps_ == len(learner.history_["loss"]) == 4
    assert len(learner.notes_) == 1
    assert f"{n_images} training images are fewer than a batch of 64" in learner.notes_[0]
    whole = quick(batch_size=n_images, n_epochs=4).fit(features, features)
    assert torch.equal(learner.prototypes_, whole.prototypes_)


@pytest.mark.parametrize(("max_steps", "steps", "validated"), [(1, 1, [1]), (3, 3, [2, 3]), (4, 4, [2, 4]), (99, 6, [2, 4, 6])])
def test_max_steps(features, max_steps, steps, validated):
    learner = quick(max_steps=max_steps).fit(features, features)
    assert learner.n_steps_ == len(learner.history_["loss"]) == steps
    assert learner.history_["validation_step"] == validated


def test_an_epoch_takes_every_image_once_in_a_new_order(features, monkeypatch):
    seen = []
    original = PrototypeLearner._step

    def step(self, batch):
        seen.extend(batch.flatten(1).sum(1).tolist())
        original(self, batch)

    monkeypatch.setattr(PrototypeLearner, "_step", step)
    quick(n_epochs=3).fit(features)
    images = sorted(features.flatten(1).sum(1).tolist())
    epochs = [seen[:6], seen[6:12], seen[12:]]
    assert all(sorted(epoch) == images for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


# Seeds


def test_same_seed_same_bytes_other_seed_other_prototypes(features):
    first, again, other = (quick(0.3, random_state=seed).fit(features) for seed in (3, 3, 4))
    assert torch.equal(first.prototypes_, again.prototypes_)
    assert first.history_ == again.history_ and first.scale_ == again.scale_
    assert not torch.allclose(first.prototypes_, other.prototypes_)


def test_fitting_twice_starts_anew_and_leaves_torchs_own_seed_alone(features):
    learner = quick()
    torch.manual_seed(1)
    once = learner.fit(features).prototypes_.clone()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(learner.fit(features).prototypes_, once)
    assert torch.equal(clone(learner).fit(features).prototypes_, once)
