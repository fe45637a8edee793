"""Where prototypes start: random numbers, images, spread-out patches, k-means; and training that never begins."""

import numpy as np
import pytest
import torch
from small_problems import feature_maps, quick

from pradot import CostScale, grid_positions, starts


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


def test_some_clusters_are_learnt_by_kmeans_itself(monkeypatch):
    monkeypatch.setattr(starts, "MiniBatchKMeans", None)
    x = torch.nn.functional.one_hot(torch.arange(900) % 3, 8).float() + 0.01 * feature_maps(1, 30, 30, 8)[0].flatten(0, 1)
    for k in (3, 256):
        assert starts.cluster_means(x, x, k, torch.Generator().manual_seed(0)).shape == (k, 8)


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
