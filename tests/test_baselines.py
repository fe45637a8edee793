"""PatchCore and PaDiM by their laws and by hand."""

import numpy as np
import pytest
import torch

from pradot.branches import Branch
from pradot.embedding import embed
from pradot.errors import PradotError
from pradot.paper.baselines import PaDiM, PatchCore, k_centres


def maps(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {2: torch.rand(n, 6, 6, 5, generator=generator), 3: torch.rand(n, 3, 3, 7, generator=generator)}


@pytest.fixture
def plain(monkeypatch):
    """Maps as they are before they are smoothed."""
    monkeypatch.setattr("pradot.paper.baselines.SIGMA", 1e-6)


def test_k_centres_on_a_line():
    x = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0], [5.2]])
    chosen = k_centres(x, 3, random_state=0).tolist()
    assert set(chosen[1:]) <= {0, 4, 5, 3} and len(set(chosen)) == 3
    assert {0, 4} <= set(k_centres(x, 4).tolist())


def test_k_centres_halve_the_best_possible_radius_at_worst_and_take_all_at_the_end():
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    radius = lambda chosen: torch.cdist(x, x[chosen]).amin(1).max()  # noqa: E731
    radii = [radius(k_centres(x, n)).item() for n in (5, 20, 80)]
    assert radii == sorted(radii, reverse=True)
    # 21 points that lie at least the radius apart: no 20 balls of less than half of it cover them.
    chosen = k_centres(x, 21)
    assert torch.pdist(x[chosen]).min() >= 0.99 * radius(chosen[:20])
    assert sorted(k_centres(x, 200).tolist()) == list(range(200))


def test_a_whole_bank_gives_the_nearest_distance_over_all_patches(plain):
    features, others = maps(), maps(2, seed=1)
    (found,) = PatchCore(1.0).fit_features(features).branch_maps_of_features(others).values()
    train, test = embed(features, 2, "pooled").flatten(0, 2), embed(others, 2, "pooled").flatten(0, 2)
    torch.testing.assert_close(found.flatten(), torch.cdist(test, train).amin(1), atol=1e-5, rtol=0)
    (own,) = PatchCore(1.0).fit_features(features).branch_maps_of_features(features).values()
    assert own.max() < 1e-3


def test_a_smaller_bank_is_a_part_of_the_patches_and_farther():
    features, others = maps(), maps(2, seed=1)
    whole, part = PatchCore(1.0).fit_features(features), PatchCore(0.1).fit_features(features)
    assert len(part.bank_) == 22 and len(whole.bank_) == 216 and part.model_bytes == 22 * 12 * 4
    (far,), (near,) = part.branch_maps_of_features(others).values(), whole.branch_maps_of_features(others).values()
    assert (far >= near - 1e-6).all() and far.mean() > near.mean()


def test_a_weight_of_the_position_tells_swapped_patches(plain):
    features = {2: torch.rand(1, 6, 6, 5, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1).contiguous()}
    swapped = {2: features[2][:1].flip(1).contiguous()}
    blind = PatchCore(1.0, scale=2).fit_features(features).branch_maps_of_features(swapped)[Branch(2, 0.0)]
    knows = PatchCore(1.0, scale=2, position=1.0).fit_features(features).branch_maps_of_features(swapped)[Branch(2, 0.0)]
    assert blind.max() < 1e-3 and knows.max() > 0.1


def test_image_scores_weigh_the_largest_distance_less_where_the_bank_is_dense():
    features, others = maps(), maps(3, seed=1)
    core = PatchCore(1.0).fit_features(features)
    largest = [core._score(image)[0].max().item() for image in embed(others, 2, "pooled").split(1)]
    scores = core.maps_and_scores(others)[1]
    assert (scores < largest).all() and (scores > 0.5 * np.array(largest)).all()  # 9 neighbours of about equal distance: 8 / 9
    for image, score in zip(embed(others, 2, "pooled"), scores, strict=True):
        x = image.flatten(0, 1).double()
        distances = torch.cdist(x, core.bank_.double())  # (height * width, n)
        at = distances.amin(1).argmax()
        nearest = core.bank_[distances[at].argmin()].double()
        around = torch.cdist(nearest[None], core.bank_.double())[0].argsort()[:9]
        weight = 1 - distances[at].min().exp() / distances[at][around].exp().sum()
        assert score == pytest.approx((weight * distances[at].min()).item(), rel=1e-4)


def test_padim_is_the_mahalanobis_distance_at_each_position(plain):
    features, others = maps(30), maps(2, seed=1)
    model = PaDiM(epsilon=0.1).fit_features(features)
    (found,) = model.branch_maps_of_features(others).values()
    train, test = embed(features, 2, "pooled")[:, 2, 4].double(), embed(others, 2, "pooled")[1, 2, 4].double()
    covariance = np.cov(train.numpy().T) + 0.1 * np.eye(12)
    way = (test - train.mean(0)).numpy()
    assert found[1, 2, 4].item() == pytest.approx(np.sqrt(way @ np.linalg.solve(covariance, way)), rel=1e-4)


def test_padim_keeps_channels_drawn_by_seed():
    kept = [PaDiM(4, random_state=seed).fit_features(maps()).kept_.tolist() for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2] and len(set(kept[0])) == 4
    assert len(PaDiM(100).fit_features(maps()).kept_) == 12


def test_maps_are_smoothed():
    features = maps(3)
    model = PatchCore(0.05).fit_features(features)
    raw = torch.cat([model._score(image)[0] for image in embed(features, 2, "pooled").split(1)])
    (smooth,) = model.branch_maps_of_features(features).values()
    assert smooth.shape == raw.shape and not torch.equal(smooth, raw)


def test_vectors_of_many_channels_are_compared_in_a_projection_that_keeps_clusters_apart():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 400, generator=generator)
    x = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(160, 400, generator=generator)  # 8 clusters of 20
    chosen = k_centres(x, 8, random_state=3)
    assert sorted((chosen // 20).tolist()) == list(range(8))
    assert torch.equal(chosen, k_centres(x, 8, random_state=3))


@pytest.mark.parametrize("model", [PatchCore(0.3), PaDiM(5)])
def test_features_that_are_not_finite_are_refused(model):
    features = maps()
    features[2][1, 2, 3, 0] = torch.nan
    with pytest.raises(PradotError, match="NaN or infinity"):
        model.fit_features(features)


@pytest.mark.parametrize("model", [PatchCore(0.3), PaDiM(5)])
def test_same_seed_same_scores_and_validation_images_are_used(model):
    features, validation = maps(4), maps(2, seed=3)
    both = {scale: torch.cat([features[scale], validation[scale]]) for scale in features}
    a = model.fit_features(features, validation).branch_maps_of_features(features)[Branch(2, 0.0)]
    assert model.n_images_ == {"train": 6, "validation": 0}
    b = model.fit_features(both).branch_maps_of_features(features)[Branch(2, 0.0)]
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        *((PatchCore(part), f"part is {part}") for part in (0, 1.5)),
        *((PaDiM(epsilon=0), "epsilon is 0"), (PaDiM(-3), "n_channels is -3")),
    ],
)
def test_settings_out_of_range_are_refused(model, message):
    with pytest.raises(PradotError, match=message):
        model.fit_features(maps())
