"""The alpha explorer without a browser: what its slider changes, and that its ends are the plain minima of each cost."""

import io
import statistics
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pradot.cost import feature_cost, grid_positions, spatial_cost
from pradot.errors import PradotError
from pradot.paper.widgets import AlphaMixer, alpha_explorer, alpha_strip
from pradot.prototypes import PrototypeLearner

HEIGHT, WIDTH, CHANNELS = 5, 4, 8


@pytest.fixture(scope="module")
def fitted():
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(6, HEIGHT, WIDTH, CHANNELS, generator=generator)
    learner = PrototypeLearner(0.3, n_prototypes=2, max_steps=3, batch_size=4).fit(features[:4], features[4:])
    return learner, features


@pytest.fixture(scope="module")
def mixer(fitted):
    learner, features = fitted
    images = np.random.default_rng(3).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    return AlphaMixer(learner, features[4:], list(images), size=48)


def decoded(widget):
    return np.asarray(Image.open(io.BytesIO(widget.value)))


def test_alpha_0_and_1_are_the_plain_minima_of_each_cost(fitted, mixer):
    learner, features = fitted
    by_feature = feature_cost(features[5].flatten(0, 1), learner.prototypes_).min(1).values / learner.scale_.feature
    np.testing.assert_allclose(mixer.view(1, 0.0).cost.ravel(), by_feature, rtol=1e-5, atol=1e-7)
    places = spatial_cost(grid_positions(HEIGHT, WIDTH), learner.positions_).min(1).values / learner.scale_.space
    np.testing.assert_allclose(mixer.view(1, 1.0).cost.ravel(), places, atol=1e-7)
    assert mixer.view(1, 1.0).shift == 0  # fixed positions: every place has prototypes of its own


def test_between_the_ends_it_is_the_learners_own_score(fitted, mixer):
    learner, features = fitted
    nearest = learner.nearest(features[5:], learner.scale_)
    view = mixer.view(1, learner.alpha)
    np.testing.assert_allclose(view.cost, nearest.cost[0], rtol=1e-5)
    np.testing.assert_array_equal(view.index, nearest.index[0])
    assert view.score == view.cost.max()


def test_looking_changes_nothing(mixer):
    before = mixer.view(0, 0.4)
    mixer.view(0, 0.9)
    np.testing.assert_array_equal(mixer.view(0, 0.4).cost, before.cost)


def test_alpha_outside_its_range_is_refused(mixer):
    with pytest.raises(PradotError, match="alpha"):
        mixer.view(0, 1.5)


def test_brightness_grows_with_the_cost_and_one_range_serves_all(mixer):
    view = mixer.view(0, 0.0)
    picture = mixer.map_picture(view)
    assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
    # Aligned corners: the picture's corner pixels are the map's corner cells, looked up in the table.
    levels = np.array([view.cost[0, 0], view.cost[-1, -1]]) / mixer.vmax * 255
    np.testing.assert_array_equal(picture[[0, -1], [0, -1]], mixer.colours[levels.astype(int)])
    assert all(mixer.view(i, alpha).score <= mixer.vmax for i in range(2) for alpha in (0.0, 0.5, 1.0))


def test_the_slider_changes_map_and_arrows_and_the_picker_the_image(mixer):
    explorer = alpha_explorer(mixer, ["one", "two"], alpha=0.0)
    image, anomaly_map, arrows, text = (w.value for w in (explorer.image, explorer.map, explorer.arrows, explorer.readout))
    explorer.slider.value = 0.8
    assert explorer.image.value == image
    assert explorer.map.value != anomaly_map and explorer.arrows.value != arrows and explorer.readout.value != text
    np.testing.assert_array_equal(decoded(explorer.map), mixer.map_picture(mixer.view(0, 0.8)))
    explorer.slider.value = 0.0
    assert explorer.map.value == anomaly_map  # the same alpha, the same bytes
    explorer.picker.value = 1
    np.testing.assert_array_equal(decoded(explorer.image), mixer.pictures[1])
    assert explorer.map.value != anomaly_map


def test_the_slider_answers_at_once():
    # As in notebook 05: 14 x 14 patches, 16 prototypes per position.
    generator = torch.Generator().manual_seed(0)
    learner = PrototypeLearner(0.3, n_prototypes=16, max_steps=1, n_iter=1, batch_size=1)
    features = torch.rand(2, 14, 14, 32, generator=generator)
    explorer = alpha_explorer(AlphaMixer(learner.fit(features), features[:1], [np.zeros((64, 64, 3))]), ["one"])
    seconds = []
    for alpha in np.linspace(0.01, 0.99, 9):
        start = time.perf_counter()
        explorer.slider.value = alpha
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.5  # some 20 ms on a quiet machine


def test_the_strip_shows_every_alpha(mixer):
    fig = alpha_strip(mixer, 0, alphas=(0.0, 0.5))
    titles = [ax.get_title() for ax in fig.axes]
    assert sum(title.startswith("alpha") for title in titles) == 2
    shown = next(ax for ax in fig.axes if ax.get_title().startswith("alpha 0.5")).images[0].get_array()
    np.testing.assert_array_equal(shown, mixer.map_picture(mixer.view(0, 0.5)))
