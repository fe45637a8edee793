"""The explorers without a browser: their numbers are the learners' own, and a control changes what it says and nothing else."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pradot.cost import feature_cost, grid_positions, spatial_cost
from pradot.errors import PradotError
from pradot.paper.notebooks import is_headless
from pradot.paper.widgets import AlphaExplorer, RegExplorer, ThresholdExplorer, png
from pradot.prototypes import PrototypeLearner
from pradot.transport import sinkhorn

SHAPES = {2: (6, 4, 8), 3: (3, 2, 10)}  # height, width, channels by scale


@pytest.fixture(scope="module")
def fitted():
    generator = torch.Generator().manual_seed(3)
    features = {scale: torch.rand(6, *shape, generator=generator) for scale, shape in SHAPES.items()}
    settings = dict(n_prototypes=2, max_steps=3, batch_size=4)
    return {scale: PrototypeLearner(0.3, **settings).fit(x[:4], x[:2]) for scale, x in features.items()}, features


@pytest.fixture(scope="module")
def alpha_explorer(fitted):
    learners, features = fitted
    images = np.random.default_rng(3).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    return AlphaExplorer(learners, {scale: x[4:] for scale, x in features.items()}, list(images), ["one", "two"])


def decoded(image):
    return np.asarray(Image.open(io.BytesIO(image.value)))


@pytest.mark.parametrize("scale", SHAPES)
def test_alpha_0_and_1_are_the_plain_minima_of_each_cost(fitted, alpha_explorer, scale):
    learner, x = fitted[0][scale], fitted[1][scale][5].flatten(0, 1)
    by_feature = feature_cost(x, learner.prototypes_).min(1).values / learner.scale_.feature
    view = alpha_explorer.view(1, 0.0, scale)
    np.testing.assert_allclose(view.cost.ravel(), by_feature, rtol=1e-5, atol=1e-7)
    assert (view.place == 0).all()
    places = spatial_cost(grid_positions(*SHAPES[scale][:2]), learner.positions_).min(1).values / learner.scale_.space
    view = alpha_explorer.view(1, 1.0, scale)
    np.testing.assert_allclose(view.cost.ravel(), places, atol=1e-7)
    assert view.shift == 0 and (view.look == 0).all()  # fixed positions: every place has prototypes of its own


@pytest.mark.parametrize("scale", SHAPES)
def test_between_the_ends_it_is_the_learners_own_score(fitted, alpha_explorer, scale):
    learner = fitted[0][scale]
    nearest = learner.nearest(fitted[1][scale][5:], learner.scale_)
    view = alpha_explorer.view(1, learner.alpha, scale)
    np.testing.assert_allclose(view.cost, nearest.cost[0], rtol=1e-5)
    np.testing.assert_array_equal(view.position, learner.positions_[nearest.index[0]])
    np.testing.assert_allclose(view.look + view.place, view.cost)
    assert view.score == view.cost.max()


def test_alpha_outside_its_range_is_refused(alpha_explorer):
    with pytest.raises(PradotError, match="alpha"):
        alpha_explorer.view(0, 1.5, 2)


def test_one_colour_range_serves_all_maps_of_a_scale(alpha_explorer):
    panels = alpha_explorer.panels(0, 0.05, 2)
    view = alpha_explorer.view(0, 0.05, 2)
    table = np.unique(np.concatenate([panels[name].reshape(-1, 3) for name in ("look", "place", "map")]), axis=0)
    assert len(table) <= 256
    # Brighter is costlier: the sum of an inferno colour's channels grows with the value.
    brightness = panels["look"].astype(int).sum(2)
    cells = view.look.argmax(), view.look.argmin()
    rows, columns = np.unravel_index(cells, view.look.shape)
    side = len(brightness)
    dearest, cheapest = brightness[(2 * rows + 1) * side // 12, (2 * columns + 1) * side // 8]
    assert dearest == brightness.max() > cheapest == brightness.min()
    assert all(alpha_explorer.view(i, a, 2).score <= alpha_explorer.vmax[2] for i in range(2) for a in (0.0, 0.5, 1.0))


def test_at_alpha_1_the_assignment_is_the_key_itself(alpha_explorer):
    cells = alpha_explorer.panels(0, 1.0, 2)["assignment"]
    corners = cells[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    blue, orange, green, pink = corners
    assert blue.argmax() == 2 and orange.argmin() == 2 and green.argmax() == 1 and pink.argmax() == 0


def test_every_control_changes_the_picture_and_back_again(alpha_explorer):
    widget = alpha_explorer.widget()
    first, text = widget.image.value, widget.text.value
    for name, value in {"alpha": 0.85, "image": 1, "scale": 3, "arrows": False}.items():
        before = widget.controls[name].value
        widget.controls[name].value = value
        assert widget.image.value != first, name
        if name == "arrows":
            assert widget.text.value == text  # arrows are no number
        np.testing.assert_array_equal(decoded(widget.image), alpha_explorer.picture(**{name: value}))
        widget.controls[name].value = before
        assert widget.image.value == first and widget.text.value == text, name


def test_arrows_off_shows_the_image_as_it_is(alpha_explorer):
    panels = alpha_explorer.panels(1, 0.2, 2, arrows=False)
    np.testing.assert_array_equal(panels["image"], alpha_explorer.pictures[1])
    assert (alpha_explorer.panels(1, 0.2, 2, arrows=True)["image"] != panels["image"]).any()


def test_times_are_taken_of_real_moves(alpha_explorer):
    widget, seen = alpha_explorer.widget(), []
    widget.image.observe(lambda change: seen.append(change["new"]), names="value")
    assert len(alpha_explorer.answer_times(widget)) == len(alpha_explorer.moves) <= len(seen)
    assert seen[0] == png(alpha_explorer.picture(alpha=0.0))
    assert widget.controls["alpha"].value == alpha_explorer.settings["alpha"]  # as it was


@pytest.mark.parametrize("headless", [True, False])
def test_without_a_reader_no_widget_is_shown(alpha_explorer, headless, monkeypatch, capsys):
    monkeypatch.setattr("pradot.paper.widgets.explorer.is_headless", lambda: headless)
    shown = []
    monkeypatch.setattr("pradot.paper.widgets.explorer.display", shown.append)
    alpha_explorer.show()
    out = capsys.readouterr().out
    assert len(shown) == (0 if headless else 1)
    assert ("the strip above" in out) == headless and "median" in out


def test_the_alpha_strip_shows_every_alpha(alpha_explorer):
    fig = alpha_explorer.strip(0, alphas=(0.0, 0.5))
    columns = {ax.get_title().split("\n")[0]: ax for ax in fig.axes if ax.get_title()}
    assert list(columns) == ["alpha 0", "alpha 0.5"]
    shown = [ax.images[0].get_array() for ax in fig.axes if ax.images]
    assert any(np.array_equal(panel, alpha_explorer.panels(0, 0.5, 2)["map"]) for panel in shown)


# ---------------------------------------------------------------------------------------------------------- reg


@pytest.fixture(scope="module")
def cost():
    """Of two images of 3 x 2 patches to two layers of prototypes on the same grid."""
    return torch.rand(12, 12, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def reg_explorer(cost):
    return RegExplorer(cost, (3, 2), np.full((8, 8, 3), 128, dtype=np.uint8), (0.01, 0.1, 1.0))


def test_a_row_of_the_plan_is_summed_by_place(cost, reg_explorer):
    plan = sinkhorn(cost, 0.1, n_iter=100).plan
    row = (plan[2 * 1 + 1] * 12).numpy()  # patch (1, 1) of the first image
    np.testing.assert_allclose(reg_explorer.mass(0.1, 1, 1), (row[:6] + row[6:]).reshape(3, 2), rtol=1e-5)
    assert reg_explorer.mass(0.01, 2, 0).sum() == pytest.approx(1)


def test_much_entropy_shares_everything_out(cost, reg_explorer):
    assert (np.diff(reg_explorer.spread) > 0).all() and (np.diff(reg_explorer.cost) > 0).all()
    blurred = RegExplorer(cost, (3, 2), np.zeros((8, 8, 3), dtype=np.uint8), (1000.0,))
    assert blurred.spread[0] == pytest.approx(12, rel=1e-3)
    np.testing.assert_allclose(blurred.mass(1000.0, 0, 0), 1 / 6, rtol=1e-2)


def test_the_patch_is_framed_and_only_the_mass_depends_on_reg(reg_explorer):
    image, mass = reg_explorer.panels(0.01, 0, 1)
    other_image, other_mass = reg_explorer.panels(1.0, 0, 1)
    np.testing.assert_array_equal(image, other_image)
    assert (mass != other_mass).any()
    changed = np.argwhere((image != 128).any(2)).mean(0) / len(image)
    np.testing.assert_allclose(changed, (1 / 6, 3 / 4), atol=0.04)  # cell (0, 1) of 3 x 2, cut at the border


# ---------------------------------------------------------------------------------------------------- threshold


@pytest.fixture(scope="module")
def threshold_explorer():
    defects = ["good", "good", "good", "dent", "dent"]
    images = [np.full((8, 8, 3), 40 * i, dtype=np.uint8) for i in range(5)]
    return ThresholdExplorer([0.1, 0.4, 0.2, 0.3, 0.9], defects, images, n_beside=2)


@pytest.mark.parametrize(("threshold", "found", "false"), [(0, 2, 3), (0.3, 2, 1), (0.35, 1, 1), (0.5, 1, 0), (1, 0, 0)])
def test_what_a_threshold_finds_and_misses(threshold_explorer, threshold, found, false):
    assert threshold_explorer.counts(threshold) == (found, false)
    text = threshold_explorer.readout(threshold=threshold)
    assert f"{found} of 2" in text and f"{false} of 3" in text


def test_the_images_nearest_to_the_threshold_are_shown(threshold_explorer):
    below, above = threshold_explorer.beside(0.35)
    assert (below.tolist(), above.tolist()) == ([2, 3], [1, 4])
    below, above = threshold_explorer.beside(0.0)
    assert (below.tolist(), above.tolist()) == ([], [0, 2])


def test_scores_of_one_kind_have_no_threshold():
    with pytest.raises(PradotError, match="0 of 2 images are abnormal"):
        ThresholdExplorer([0.1, 0.2], ["good", "good"], [np.zeros((8, 8, 3))] * 2)


@pytest.mark.parametrize("name", ["reg_explorer", "threshold_explorer"])
def test_each_control_of_the_others_changes_the_picture_too(name, request):
    explorer = request.getfixturevalue(name)
    widget = explorer.widget()
    first = widget.image.value
    for setting, value in {"reg": 1.0, "row": 2, "column": 1, "threshold": 0.35}.items():
        if setting in widget.controls:
            before = widget.controls[setting].value
            assert before != value
            widget.controls[setting].value = value
            assert widget.image.value != first, setting
            widget.controls[setting].value = before
            assert widget.image.value == first
    assert explorer.strip().axes


@pytest.mark.parametrize(
    ("command", "headless"),
    [
        (["/env/bin/python", "/env/bin/papermill", "05_alpha.ipynb", "out.ipynb"], True),
        (["/env/bin/python", "-m", "nbconvert", "--execute"], True),
        (["/env/bin/python", "-m", "jupyterlab"], False),
    ],
)
def test_what_started_the_kernel_says_whether_somebody_looks(command, headless, monkeypatch):
    monkeypatch.delenv("PRADOT_HEADLESS", raising=False)
    server = SimpleNamespace(cmdline=lambda: command)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(parents=lambda: [server]))
    assert is_headless() == headless
    monkeypatch.setenv("PRADOT_HEADLESS", "1")
    assert is_headless()
