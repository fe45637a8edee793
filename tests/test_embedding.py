"""Embeddings of patches: single scales, and all scales joined."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from pradot import Pradot
from pradot.embedding import embed
from pradot.errors import PradotError


def maps(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {2: torch.rand(n, 8, 6, 5, generator=generator), 3: torch.rand(n, 4, 3, 7, generator=generator)}


def test_a_scale_alone_is_its_map():
    features = maps()
    assert embed(features, 3) is features[3]


@pytest.mark.parametrize("embedding", ["joined", "pooled"])
@pytest.mark.parametrize("scale", [2, 3])
def test_joined_embeddings_are_those_of_all_scales_each_of_length_one(scale, embedding):
    features = maps(20)
    joined = embed(features, scale, embedding)
    assert joined.shape == (*features[scale].shape[:3], 12)
    for part in joined.split([5, 7], 3):
        torch.testing.assert_close(part.norm(dim=3), torch.ones(part.shape[:3]))


def test_the_own_scale_is_as_it_is_if_joined():
    features = maps(2)
    expected = torch.nn.functional.normalize(features[2], dim=3)
    torch.testing.assert_close(embed(features, 2, "joined")[..., :5], expected)


def test_the_own_scale_is_the_mean_over_three_by_three_patches():
    features = maps(1)
    image = features[3][0].numpy()
    expected = uniform_filter(image, (3, 3, 0), mode="constant") / uniform_filter(
        np.ones_like(image), (3, 3, 0), mode="constant"
    )
    found = embed(features, 3, "pooled")[0, :, :, 5:]
    torch.testing.assert_close(found, torch.nn.functional.normalize(torch.from_numpy(expected), dim=2))


def plain_joined(features, scale, pooled):
    """By NumPy alone: means over the cells that a coarser cell covers, straight lines between cells for a finer grid."""
    parts, grid = [], features[scale].shape[1:3]
    for _, maps in sorted(features.items()):
        maps = maps.double().numpy()  # (n, h, w, channels)
        h, w = maps.shape[1:3]
        if pooled:
            near = lambda k: slice(max(k - 1, 0), k + 2)  # noqa: E731
            means = [[maps[:, near(i), near(j)].mean((1, 2)) for j in range(w)] for i in range(h)]
            maps = np.moveaxis(np.array(means), 2, 0)  # (n, h, w, channels)
        if grid[0] < h or grid[1] < w:
            part = lambda k, old, new: slice(k * old // new, -(-(k + 1) * old // new))  # noqa: E731
            rows, columns = ([part(k, old, new) for k in range(new)] for old, new in ((h, grid[0]), (w, grid[1])))
            maps = np.moveaxis(np.array([[maps[:, i, j].mean((1, 2)) for j in columns] for i in rows]), 2, 0)
        else:
            for axis, (old, new) in enumerate(((h, grid[0]), (w, grid[1])), 1):
                at = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
                maps = np.apply_along_axis(lambda line, at=at, old=old: np.interp(at, np.arange(old), line), axis, maps)
        parts.append(maps / np.linalg.norm(maps, axis=3, keepdims=True))
    return torch.from_numpy(np.concatenate(parts, 3)).float()


@pytest.mark.parametrize("other", [(8, 6), (2, 3), (9, 2), (3, 9), (4, 7), (4, 2), (2, 5), (9, 5), (4, 5), (1, 1), (5, 5)])
@pytest.mark.parametrize("embedding", ["joined", "pooled"])
def test_other_grids_are_brought_to_the_own_one(other, embedding):
    """Coarser, finer, equal, and coarser in one direction while finer or equal in the other."""
    generator = torch.Generator().manual_seed(0)
    features = {2: torch.rand(17, 4, 5, 2, generator=generator), 3: torch.rand(17, *other, 3, generator=generator)}
    for scale in features:
        torch.testing.assert_close(embed(features, scale, embedding), plain_joined(features, scale, embedding == "pooled"))


def test_constant_maps_stay_constant_at_any_grid():
    features = {2: torch.ones(1, 8, 8, 4), 3: torch.ones(1, 4, 4, 2), 4: torch.ones(1, 3, 3, 1)}
    for scale in features:
        for embedding in ("joined", "pooled"):
            joined = embed(features, scale, embedding)
            torch.testing.assert_close(joined, joined[:, :1, :1].expand_as(joined))


def test_unknown_scales_and_embeddings_are_named():
    with pytest.raises(PradotError, match=r"no features of scale \[4\]; the encoder gives \[2, 3\]"):
        embed(maps(), 4)
    with pytest.raises(PradotError, match="unknown embedding 'whole': choose one of scale, joined, pooled"):
        embed(maps(), 3, "whole")
    with pytest.raises(PradotError, match="unknown embedding"):
        Pradot(embedding="whole").fit_features(maps())


def test_a_detector_sees_what_was_joined(tiny_encoder):
    features = tiny_encoder.features(list(np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)))
    scale = max(features)
    settings = {"n_prototypes": 1, "max_steps": 2, "n_iter": 3}
    detector = Pradot(tiny_encoder, branches=[(scale, 0.3)], embedding="joined", **settings).fit_features(features)
    joined = {scale: embed(features, scale, "joined")}
    same = Pradot(tiny_encoder, branches=[(scale, 0.3)], **settings).fit_features(joined)
    (found,), (expected,) = detector.branch_maps_of_features(features).values(), same.branch_maps_of_features(joined).values()
    assert torch.equal(found, expected)
    learner = next(iter(detector.learners_.values()))
    assert learner.prototypes_.shape[1] == sum(tiny_encoder.channels.values())
    assert detector.model_bytes == 4 * learner.prototypes_.numel() + 4 * 2 * len(learner.prototypes_)


def test_a_saved_model_of_joined_embeddings_scores_as_before(tiny_encoder, tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8))
    branches = [(max(tiny_encoder.scales), 0.3)]
    detector = Pradot(tiny_encoder, branches=branches, embedding="joined", n_prototypes=1, max_steps=1, n_iter=3).fit(images)
    detector.save(tmp_path / "model")
    loaded = Pradot.load(tmp_path / "model", encoder=tiny_encoder)
    np.testing.assert_array_equal(loaded.anomaly_scores(images), detector.anomaly_scores(images))
