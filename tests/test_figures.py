"""Figures: what is saved is small and the same each time; the drawing of the method."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from pradot.paper import figures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("pradot.paper.figures.style.project_root", lambda: tmp_path)
    return tmp_path / "figures"


def test_the_same_figure_gives_the_same_bytes_and_names(folder):
    figures.set_style()
    written = []
    for _ in range(2):
        fig = figures.method_diagram("cost")
        path = figures.save_figure(fig, "00_method")
        plt.close(fig)
        written.append((path.read_bytes(), path.with_suffix(".pdf").read_bytes()))
    assert written[0] == written[1]
    assert path == folder / "00_method.png"
    assert figures.save_figure(plt.figure(figsize=(1, 1)), "a", "mvtec_ad").parent == folder / "mvtec_ad"
    plt.close("all")


def test_a_figure_of_noise_gets_fewer_dots_until_it_is_small(folder):
    rng = np.random.default_rng(0)
    fig, ax = plt.subplots(figsize=(5, 5))
    ax.imshow(rng.random((1200, 1200, 3)))
    path = figures.save_figure(fig, "noise")
    plt.close(fig)
    assert path.stat().st_size <= figures.MAX_BYTES
    assert max(Image.open(path).size) < 150 * 4


def test_a_wide_figure_is_drawn_smaller_in_its_own_proportions(folder):
    for drawn, saved in (((21, 4), (10.5, 2)), ((5, 4), (5, 4))):
        fig = plt.figure(figsize=drawn)
        figures.save_figure(fig, "wide")
        plt.close(fig)
        assert tuple(fig.get_size_inches()) == saved


def test_colours_stay_what_they_are(folder):
    fig = plt.figure(figsize=(2, 1), facecolor=(0.2, 0.61, 0.9))
    pixel = np.asarray(Image.open(figures.save_figure(fig, "plain")))[20, 20]
    plt.close(fig)
    assert np.abs(pixel - 255 * np.array([0.2, 0.61, 0.9])).max() <= 3


def test_only_the_current_stage_has_its_colour():
    def coloured(stage):
        fig = figures.method_diagram(stage)
        boxes = [patch for patch in fig.axes[0].patches if type(patch).__name__ == "FancyBboxPatch"]
        edges = [np.ptp(box.get_edgecolor()[:3]) > 0.1 for box in boxes]
        plt.close(fig)
        return edges

    assert coloured(None) == [True] * 7  # encoder, cost twice; transport, prototypes, score
    assert coloured("transport") == [False] * 4 + [True, False, False]
    assert coloured(("features", "score")) == [True, False, True, False, False, False, True]
    with pytest.raises(ValueError, match="there are features, cost"):
        figures.method_diagram("costs")


def test_prototypes_are_at_home_in_their_cell_and_the_eight_around_it():
    own = np.stack([np.zeros(24), np.tile(np.arange(12), 2)], 1).astype(int)  # two layers on a grid of 3 x 4
    assert figures.share_at_home(own, (3, 4)) == 1
    far = own.copy()
    far[0, 1], far[12, 1], far[13, 1] = 6, 5, 11  # from (0, 0) to (1, 2) and (1, 1), from (0, 1) to (2, 3)
    assert figures.share_at_home(far, (3, 4)) == pytest.approx(22 / 24)


def test_the_oddest_cell_is_inside_the_margin():
    features = torch.ones(6, 7, 3)
    features[0, 0] = torch.tensor([-9.0, 0, 0])  # odder, but at the border
    features[3, 4] = torch.tensor([1.0, -1, 1])
    assert figures.oddest_cell(features, margin=2) == (3, 4)


def test_toy_plans_take_prototypes_of_their_own():
    x, plan = np.zeros((3, 2)), np.full((3, 2), 1 / 6)
    fig = figures.toy_plans(x, {"a": np.zeros((2, 2)), "b": np.ones((2, 2))}, {"a": plan, "b": plan})
    diamonds = [ax.collections[1].get_offsets()[0].tolist() for ax in fig.axes[:2]]
    plt.close(fig)
    assert diamonds == [[0, 0], [1, 1]]
