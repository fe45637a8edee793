"""Images of one's own: what is written."""

import csv

import numpy as np
from matplotlib import colormaps
from matplotlib import image as picture

from pradot.paper.own import write_predictions


def test_predictions_share_one_colour_range_and_say_who_is_above_the_threshold(tmp_path):
    maps = [np.array([[0.0, 0.2]]), np.array([[0.5, 1.0]])]
    assert write_predictions(tmp_path, [tmp_path / "a.png", tmp_path / "b.jpg"], maps, threshold=0.2) == (0.0, 1.0)
    assert list(csv.reader((tmp_path / "scores.csv").open())) == [
        ["file", "anomaly_score", "is_anomalous"],
        ["a.png", "0.200000", "0"],  # equal to the threshold is normal
        ["b.jpg", "1.000000", "1"],
    ]
    half = picture.imread(tmp_path / "heat_maps" / "b.jpg.png")[0, 0, :3]
    np.testing.assert_allclose(half, colormaps["inferno"](0.5)[:3], atol=1 / 255)
    assert {path.name for path in (tmp_path / "heat_maps").iterdir()} == {"a.png.png", "b.jpg.png"}


def test_without_a_threshold_there_is_no_verdict(tmp_path):
    write_predictions(tmp_path, [tmp_path / "a.png"], [np.ones((2, 2))])
    assert (tmp_path / "scores.csv").read_text() == "file,anomaly_score\na.png,1.000000\n"
