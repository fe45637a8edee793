"""Prototypes: a step by hand, the moving average, places, early best, counts of steps, seeds, and what is refused."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from pradot import CostScale, PradotError, PrototypeLearner, grid_positions, scoring, sinkhorn, starts


def feature_maps(n=6, height=4, width=4, channels=5, seed=0):
    """Every place has its own mean features, so that position matters."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(height, width, channels, generator=torch.Generator().manual_seed(99)) ** 4
    return places + 0.05 * torch.rand(n, height, width, channels, generator=generator)


def quick(alpha=0.0, **settings):
    return PrototypeLearner(alpha, **{"n_prototypes": 1, "n_epochs": 3, "batch_size": 3, "n_iter": 30} | settings)


@pytest.fixture
def features():
    return feature_maps()


def started(learner, features, seed=0):
    """The learner as `fit` leaves it before the first step, with known prototypes."""
    height, width, channels = features.shape[1:]
    learner.grid_shape_ = (height, width)
    learner.positions_ = starts.start_positions(learner.grid_shape_, learner.n_prototypes)
    generator = torch.Generator().manual_seed(seed)
    learner.prototypes_ = torch.rand(len(learner.positions_), channels, generator=generator)
    learner.history_ = {"loss": [], "marginal_error": [], "n_iter": [], "movement": []}
    return learner


def numpy_plan(M, reg, n_iter):
    """Sinkhorn's plain form in float64."""
    n, m = M.shape
    K = np.exp(-M / reg)
    u = np.ones(n)
    for _ in range(n_iter):
        v = 1 / m / (K.T @ u)
        u = 1 / n / (K @ v)
    return u[:, None] * K * v


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
    learner = quick(0.3, n_prototypes=2, positions="learned", n_epochs=60, n_iter=n_iter).fit(features**4)
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
        learner = quick(alpha, n_prototypes=1, n_epochs=60).fit(features)
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


def test_the_start_is_uniform_between_0_and_1():
    learner = quick(n_prototypes=16, max_steps=1, ema=1 - 1e-9).fit(feature_maps(3, 6, 6))
    values = learner.prototypes_.numpy().ravel()
    assert values.min() >= 0 and values.max() < 1
    np.testing.assert_allclose(np.quantile(values, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)


def test_spread_start_takes_one_image_of_each_kind():
    """At every place one kind of image is common and two are rare: each is there, the common one first."""
    kinds = torch.tensor([0, 0, 1, 0, 0, 2, 0, 0])
    features = torch.eye(5)[kinds][:, None, None].repeat(1, 2, 3, 1) + 0.01 * feature_maps(8, 2, 3, 5)  # (8, 2, 3, channels)
    features = features.roll(1, 3)  # all but the first of five channels are used
    learner = quick(0.3, n_prototypes=3, start="spread", max_steps=0).fit(features, features)
    found = learner.prototypes_.view(3, 6, 5).argmax(2) - 1  # which kind each prototype of each place is
    assert (found[0] == 0).all() and (found.sort(0).values == torch.arange(3)[:, None]).all()
    assert torch.equal(learner.positions_, grid_positions(2, 3).repeat(3, 1))


def test_spread_start_goes_to_the_farthest():
    """Unit vectors at 0, 10, 20, 60 and 90 degrees: the middle one, then the far end, then the near end."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 20.0, 60.0, 90.0]))
    features = torch.stack([angles.cos(), angles.sin()], 1)[:, None, None]  # (5, 1, 1, 2)
    learner = quick(n_prototypes=7, start="spread", max_steps=0).fit(features, features)
    found = torch.rad2deg(torch.atan2(learner.prototypes_[:, 1], learner.prototypes_[:, 0]))
    torch.testing.assert_close(found, torch.tensor([20.0, 90.0, 60.0, 0.0, 10.0, 20.0, 90.0]))  # five images: then again


def test_spread_start_on_a_coarser_grid_is_the_most_typical_image(features):
    learner = quick(n_prototypes=1 / 4, start="spread", max_steps=0).fit(features, features)
    unit = torch.nn.functional.normalize(features[:, ::2, ::2], dim=3).flatten(1, 2)  # (6, 4, channels)
    typical = (unit * unit.mean(0)).sum(2).argmax(0)  # (4,)
    assert torch.equal(learner.prototypes_, features[:, ::2, ::2].flatten(1, 2)[typical, torch.arange(4)])


# k-means, and no transport at all


def test_kmeans_at_a_place_finds_its_clusters():
    """Two kinds of image, each place with its own two features: their means are the prototypes, whatever the place."""
    centres = torch.rand(2, 3, 2, 5, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(5)[[0, 4]][:, None, None]
    noise = 0.01 * torch.rand(10, 3, 2, 5, generator=torch.Generator().manual_seed(1))
    features = centres.repeat(5, 1, 1, 1) + noise
    learner = quick(0.3, n_prototypes=2, start="kmeans", max_steps=0).fit(features, features)
    assert torch.equal(learner.positions_, grid_positions(3, 2).repeat(2, 1))
    found = learner.prototypes_.view(2, 6, 5).sum(0)  # the order of the two clusters of a place is k-means' own
    torch.testing.assert_close(found, (features[0::2].mean(0) + features[1::2].mean(0)).flatten(0, 1))
    assert learner.nearest(features, learner.scale_).cost.max() < 0.01


def test_kmeans_with_one_prototype_is_the_mean_of_each_place(features):
    for n_prototypes, cells in ((1, slice(None)), (1 / 4, [0, 2, 8, 10])):
        learner = quick(n_prototypes=n_prototypes, start="kmeans", max_steps=0).fit(features, features)
        torch.testing.assert_close(learner.prototypes_, features.mean(0).flatten(0, 1)[cells])


def test_kmeans_of_all_patches_finds_clusters_and_their_middle():
    """Upper and lower half of the image look different: one prototype each, in the middle of its half."""
    halves = torch.eye(4)[:2].repeat_interleave(2, 0)  # (4 rows, channels)
    features = halves[:, None].expand(3, 4, 2, 4) + 0.01 * feature_maps(3, 4, 2, 4)
    learner = quick(n_prototypes=1 / 4, start="kmeans_global", max_steps=0).fit(features, features)
    order = learner.positions_[:, 0].argsort()
    torch.testing.assert_close(learner.positions_[order], torch.tensor([[1 / 6, 0.5], [5 / 6, 0.5]]))
    means = torch.stack([features[:, :2].mean((0, 1, 2)), features[:, 2:].mean((0, 1, 2))])
    torch.testing.assert_close(learner.prototypes_[order], means)


@pytest.mark.parametrize("start", ["kmeans", "kmeans_global"])
def test_kmeans_of_few_images_repeats_them(start):
    features = feature_maps(2, 3, 3)
    learner = quick(0.3, n_prototypes=4, start=start, max_steps=0).fit(features, features)
    assert learner.prototypes_.shape == (36, 5) and learner.positions_.shape == (36, 2)
    assert learner.nearest(features, learner.scale_).cost.max() < 1e-6  # every patch is a prototype


@pytest.mark.parametrize("start", ["kmeans", "kmeans_global"])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_kmeans_of_equal_patches_leaves_no_prototype_empty(start):
    learner = quick(n_prototypes=2, start=start, max_steps=0).fit(torch.ones(9, 3, 3, 5), torch.ones(1, 3, 3, 5))
    torch.testing.assert_close(learner.prototypes_, torch.ones(18, 5))


def test_thousands_of_clusters_are_learnt_in_small_batches(monkeypatch):
    monkeypatch.setattr(starts, "KMeans", None)
    features = torch.rand(5, 18, 18, 4, generator=torch.Generator().manual_seed(0))
    learner = quick(n_prototypes=1, start="kmeans_global", max_steps=0).fit(features, features[:1])
    assert learner.prototypes_.shape == (324, 4) and torch.isfinite(learner.prototypes_).all()
    drawn = quick(n_prototypes=1, start="images", max_steps=0).fit(features, features[:1])
    found, chance = (one.nearest(features, CostScale(1, 1)).cost.mean() for one in (learner, drawn))
    assert found < 0.8 * chance  # five times fewer than patches, and nearer to them than as many of them


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_no_steps_keep_the_start(features, solver):
    learner = quick(0.3, solver=solver, max_steps=0).fit(features, features)
    drawn = torch.rand(16, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(learner.prototypes_, drawn)
    assert learner.n_steps_ == learner.best_step_ == 0 and learner.history_["loss"] == []
    assert learner.scale_.feature == pytest.approx(learner.cost(features)[1].feature)


def test_training_goes_on_from_kmeans(features):
    start = quick(0.3, start="kmeans", max_steps=0).fit(features, features)
    trained = quick(0.3, start="kmeans", max_steps=1, ema=0.9).fit(features, features)
    assert 0 < (trained.prototypes_ - start.prototypes_).norm() < 0.2 * start.prototypes_.norm()


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


# Nearest


@pytest.fixture
def known():
    """A learner whose prototypes are six unit vectors on a 2 x 3 grid, not trained."""
    learner = PrototypeLearner(0.3)
    learner.grid_shape_ = (2, 3)
    learner.prototypes_ = torch.eye(6)
    learner.positions_ = grid_positions(2, 3)
    learner.scale_ = CostScale(1.0, math.sqrt(2))
    return learner


def test_a_patch_equal_to_the_prototype_of_its_place_costs_nothing(known):
    image = torch.eye(6).view(1, 2, 3, 6) * 7
    cost, index = known.nearest(image, known.scale_)
    assert cost.shape == index.shape == (1, 2, 3)
    assert index.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert cost.abs().max() < 1e-6


def test_a_patch_elsewhere_costs_its_way_or_its_difference(known):
    image = torch.eye(6)[[2, 1, 0, 3, 4, 5]].view(1, 2, 3, 6)  # the corners of the upper row exchanged
    cost, index = known.nearest(image, known.scale_)
    assert index[0, 0].tolist() == [2, 1, 0]
    way = 0.3 * 1 / math.sqrt(2)
    torch.testing.assert_close(cost[0], torch.tensor([[way, 0, way], [0, 0, 0]]), atol=1e-6, rtol=0)
    # With the way dear and features cheap, the place's own prototype is taken though it looks different.
    cost, index = known.nearest(image, CostScale(10.0, 0.1))
    assert index[0, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(cost[0, 0], torch.tensor([0.07, 0.0, 0.07]), atol=1e-6, rtol=0)


def test_image_scoring_divides_by_each_images_own_maxima(known):
    near = torch.ones(1, 2, 3, 6)  # 1 - 1 / sqrt(6) from every prototype
    far = torch.eye(6).view(1, 2, 3, 6)
    together = known.nearest(torch.cat([near, far]))
    torch.testing.assert_close(together.cost[:1], known.nearest(near).cost)
    torch.testing.assert_close(together.cost[1:], known.nearest(far).cost)
    torch.testing.assert_close(together.cost[0], torch.full((2, 3), 0.7))  # its largest feature cost, and no way to go
    fixed = known.nearest(torch.cat([near, far]), known.scale_)
    torch.testing.assert_close(fixed.cost[0], torch.full((2, 3), 0.7 * (1 - 6**-0.5)))


def test_scores_with_the_fixed_scale_do_not_depend_on_the_other_images(features):
    learner = quick(0.3).fit(features)
    strange = 5 * torch.rand(2, 4, 4, 5) - 2
    alone = learner.nearest(features[:2], learner.scale_)
    together = learner.nearest(torch.cat([strange, features[:2]]), learner.scale_)
    assert torch.equal(together.cost[2:], alone.cost) and torch.equal(together.index[2:], alone.index)


def test_nearest_is_the_row_minimum_of_the_cost(features):
    learner = quick(0.3, n_prototypes=2).fit(features)
    M, _ = learner.cost(features, learner.scale_)
    nearest = learner.nearest(features, learner.scale_)
    torch.testing.assert_close(nearest.cost, M.min(1).values.view(6, 4, 4))
    torch.testing.assert_close(M.gather(1, nearest.index.view(-1, 1)).view(6, 4, 4), nearest.cost)


# Transport at scoring


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_transported_patches_must_take_every_prototype(solver):
    """Two patches like the first of two prototypes: each sends half its mass to the other one, which is as far as can be."""
    learner = PrototypeLearner(0.0, solver=solver, tol=1e-5)
    learner.grid_shape_, learner.prototypes_, learner.positions_ = (1, 2), torch.eye(2), grid_positions(1, 2)
    same = torch.eye(2)[[0, 0]].view(1, 1, 2, 2)
    scale = CostScale(1.0, 1.0)
    assert learner.nearest(same, scale).cost.flatten().tolist() == [0, 0]
    torch.testing.assert_close(learner.transported(same, scale), torch.full((1, 1, 2), 0.5))
    # Where patches and prototypes pair off, nobody pays, in whatever order.
    pairs = torch.cat([torch.eye(2), torch.eye(2).flip(0)]).view(2, 1, 2, 2)
    torch.testing.assert_close(learner.transported(pairs, scale), torch.zeros(2, 1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_transported_cost_is_that_of_the_plan(known, solver):
    known.set_params(reg=0.1, n_iter=500, tol=1e-6, solver=solver)
    images = torch.rand(2, 2, 3, 6, generator=torch.Generator().manual_seed(0))
    M, _ = known.cost(images, known.scale_)
    plans = [numpy_plan(one.double().numpy(), 0.1, 500) for one in M.split(6)]
    expected = [(6 * T * one.numpy()).sum(1) for T, one in zip(plans, M.split(6), strict=True)]
    paid = known.transported(images, known.scale_)
    np.testing.assert_allclose(paid.flatten(1), expected, atol=1e-5)
    assert (paid >= known.nearest(images, known.scale_).cost - 1e-6).all()  # the nearest is the cheapest


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"n_prototypes": 0}, "n_prototypes"),
        ({"n_prototypes": -1}, "n_prototypes"),
        ({"n_prototypes": 1.5}, "n_prototypes"),
        ({"n_prototypes": 0.5}, "1/4, 1/9"),
        ({"n_prototypes": 0.3}, "1/4, 1/9"),
        ({"n_prototypes": math.inf}, "n_prototypes"),
        ({"n_prototypes": math.nan}, "n_prototypes"),
        ({"reg": 0}, "reg"),
        ({"reg": math.nan}, "reg"),
        ({"n_iter": 0}, "n_iter"),
        ({"ema": 1.0}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_steps": -1}, "max_steps"),
        ({"positions": "free"}, "fixed, learned"),
        ({"solver": "emd"}, "kernel, pot, streamed"),
        ({"start": "zeros"}, "uniform, images"),
        ({"precision": "half"}, "full, reduced"),
        ({"tol": 0}, "tol"),
        ({"tol": math.nan}, "tol"),
    ],
)
def test_settings_out_of_range_are_errors(features, settings, message):
    with pytest.raises(PradotError, match=message):
        quick(**settings).fit(features)


def test_features_that_do_not_fit_are_errors(features):
    for shape in [(0, 4, 4, 5), (4, 4, 5)]:
        with pytest.raises(PradotError, match="at least one image"):
            quick().fit(torch.rand(shape))
    with pytest.raises(PradotError, match="do not fit"):
        quick().fit(features, torch.rand(2, 3, 4, 5))
    learner = quick().fit(features)
    for shape in [(1, 4, 5, 5), (1, 4, 4, 6)]:
        with pytest.raises(PradotError, match="do not fit"):
            learner.nearest(torch.rand(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_errors(features, bad):
    broken = features.clone()
    broken[2, 1, 1, 1] = bad
    with pytest.raises(PradotError, match="NaN or infinity"):
        quick().fit(broken)
    with pytest.raises(PradotError, match="NaN or infinity"):
        quick().fit(features, broken)
    learner = quick().fit(features)
    with pytest.raises(PradotError, match="NaN or infinity"):
        learner.nearest(broken, learner.scale_)
