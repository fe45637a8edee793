"""On a GPU: the same numbers as on the CPU. Left out where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pradot import CostScale, Encoder, Pradot, PrototypeLearner, grid_positions, metrics, sinkhorn
from pradot.block_cost import BlockCost, by_cell
from pradot.learned import learn_once
from pradot.paper.baselines import PatchCore, k_centres
from pradot.paper.presets import PRESETS
from pradot.search import NearestSearch
from pradot.streaming import sinkhorn_streamed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def images_of_a_kind(n, seed=0, shape=(9, 8), channels=12):
    """Feature maps (n, height, width, channels) that differ little from each other, so that plans are sparse."""
    return drawn(*shape, channels, seed=3) ** 4 + 0.03 * drawn(n, *shape, channels, seed=seed)


def costs(device, precision="full"):
    """Embeddings (72, 6, 12) and their cost for prototypes that are two such images."""
    prototypes = images_of_a_kind(2, 50).flatten(0, 2).to(device)  # (144, 12)
    positions = grid_positions(9, 8, device=device).repeat(2, 1)  # (144, 2)
    cost = BlockCost(prototypes, positions, (9, 8), 0.3, precision=precision)
    cost.scale = CostScale(0.8, 1.2)
    return by_cell(images_of_a_kind(6, 10)).to(device), cost


def test_features(two_scales, draw):
    images = draw(3, 1)
    cpu, cuda = (Encoder.from_module(two_scales(), "two_scales", image_size=64, device=device) for device in ("cpu", "cuda"))
    expected, found = cpu.features(images), cuda.features(images)
    for scale in expected:
        assert found[scale].device.type == "cpu"
        torch.testing.assert_close(found[scale], expected[scale], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["kernel", "pot"])
def test_the_plan_of_fixed_iterations(solver):
    M = drawn(300, 120)
    expected, found = (sinkhorn(M.to(device), 0.05, solver=solver) for device in ("cpu", "cuda"))
    assert (found.plan.cpu() - expected.plan).abs().sum() < 1e-5
    assert found.cost(M.cuda()) == pytest.approx(expected.cost(M), rel=1e-5)
    assert found.marginal_error == pytest.approx(expected.marginal_error, abs=1e-5)


@pytest.mark.parametrize("keep_gb", [0.0, 1.0])
@pytest.mark.parametrize("precision", ["full", "reduced"])
def test_streamed_transport(precision, keep_gb):
    settings = {"reg": 0.01, "tol": 1e-3, "keep_gb": keep_gb}
    (x, cost), (x_cuda, cost_cuda) = costs("cpu", precision), costs("cuda", precision)
    expected, found = (sinkhorn_streamed(*pair, **settings) for pair in ((cost, x), (cost_cuda, x_cuda)))
    assert found.n_passes == pytest.approx(expected.n_passes, abs=1) and found.marginal_errors[-1] <= 1e-3
    close = 2e-3 if precision == "full" else 1e-2  # L1, of plans that stop within 1e-3 of their marginal
    assert (found.received.cpu() - expected.received).abs().sum() < close
    assert (found.pushed.cpu() - expected.pushed).abs().sum() < close * expected.pushed.abs().sum()
    assert found.loss == pytest.approx(expected.loss, rel=close)


@pytest.mark.parametrize("precision", ["full", "reduced"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_search_for_the_cheapest_prototype(alpha, precision):
    features, scale, found = drawn(4, 9, 8, 12), CostScale(0.8, 1.2), []
    for device in ("cpu", "cuda"):
        prototypes, positions = drawn(144, 12, seed=1).to(device), grid_positions(9, 8, device=device).repeat(2, 1)
        search = NearestSearch(prototypes, positions, (9, 8), alpha, precision=precision)
        found.append(search(features.to(device), scale)[0].cpu())  # (4, 9, 8)
    torch.testing.assert_close(found[1], found[0], atol=1e-5 if precision == "full" else 1e-2, rtol=0)


@pytest.mark.parametrize("preset", ["paper", "sound", "fast", "best"])
def test_a_detector_from_images_to_maps(preset, two_scales, draw, tmp_path):
    chosen = replace(PRESETS[preset], n_prototypes=2, batch_size=6, max_steps=4)
    maps, found = {}, {}
    images, masks = draw(6, 9), np.zeros((6, 32, 32), bool)
    masks[:3, 8:20, 8:20] = True  # anywhere: that both devices are given the same numbers is held, not which
    for device in ("cpu", "cuda"):
        encoder = Encoder.from_module(two_scales(), "two_scales", image_size=64, device=device)
        detector = chosen.detector(encoder).fit(draw(8, 0))
        maps[device] = detector.anomaly_maps(images, 32)
        scores = detector.anomaly_scores(images)
        found[device] = metrics.evaluate(masks.any((1, 2)), scores, maps[device], masks)
        detector.save(tmp_path / device)
    # bfloat16, and marginals that stop at a tolerance, in training; exact costs in scoring.
    close = 1e-3 if chosen.solver == "kernel" else 3e-2
    assert np.abs(maps["cuda"] - maps["cpu"]).max() < close * np.abs(maps["cpu"]).max()
    if chosen.solver == "kernel":
        assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-3)
    # A model fitted on one device scores on the other.
    moved = Pradot.load(tmp_path / "cuda", encoder=Encoder.from_module(two_scales(), "two_scales", image_size=64))
    again = moved.anomaly_maps(images, 32)
    assert np.abs(again - maps["cuda"]).max() < 2e-2 * np.abs(maps["cuda"]).max()


@pytest.mark.parametrize("settings", [{}, {"solver": "streamed", "positions": "learned"}, {"start": "kmeans_global"}])
def test_same_seed_same_prototypes_and_a_learner_read_again(settings, tmp_path):
    features = images_of_a_kind(10)
    make = lambda: PrototypeLearner(0.3, n_prototypes=2, batch_size=5, max_steps=4, device="cuda", **settings)  # noqa: E731
    learner, other = make().fit(features), make()
    learn_once(make(), features, None, tmp_path)
    assert learn_once(other, features, None, tmp_path)[0]  # found
    assert other.prototypes_.is_cuda
    torch.testing.assert_close(other.prototypes_, learner.prototypes_, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other.nearest(features).cost, learner.nearest(features).cost, atol=1e-5, rtol=1e-4)


def test_patches_pay_alike_when_transported():
    features, paid = images_of_a_kind(10), []
    for device in ("cpu", "cuda"):
        learner = PrototypeLearner(0.3, n_prototypes=2, batch_size=5, max_steps=2, solver="streamed", device=device)
        paid.append(learner.fit(features).transported(features[:3], learner.scale_).cpu())  # (3, 9, 8)
    torch.testing.assert_close(paid[1], paid[0], atol=1e-2, rtol=0)


def test_a_coreset_and_its_bank():
    assert k_centres(drawn(500, 20), 40, device="cuda").tolist() == k_centres(drawn(500, 20), 40).tolist()
    maps = {2: drawn(6, 6, 6, 5), 3: drawn(6, 3, 3, 7, seed=1)}
    expected, found = (PatchCore(0.2, device=device).fit_features(maps).bank_ for device in ("cpu", "cuda"))
    torch.testing.assert_close(found, expected)
