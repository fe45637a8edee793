"""What the measurement of speed reports; no time is asserted."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
from small_data import write_category, write_encoder

from pradot import Encoder
from pradot.cli import main
from pradot.paper.presets import get_preset
from pradot.paper.speed import measurement


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The same measurement with few channels, images, patches, iterations and prototypes; gives the command's words."""
    monkeypatch.setattr(measurement, "GRIDS", {14: (3, 10), 28: (2, 6)})
    monkeypatch.setattr(measurement, "N_IMAGES", 8)
    for settings in (measurement.PAPER, measurement.FAST):
        monkeypatch.setitem(settings, "n_prototypes", 1)
        monkeypatch.setitem(settings, "batch_size", 8)
    monkeypatch.setitem(measurement.PAPER, "n_iter", 10)
    monkeypatch.setitem(measurement.FAST, "tol", 0.3)
    monkeypatch.setattr(measurement, "Encoder", partial(Encoder, image_size=64))
    small_preset = lambda name: replace(get_preset(name), n_prototypes=1, max_steps=1, tol=1.0)  # noqa: E731
    monkeypatch.setattr(measurement, "get_preset", small_preset)
    write_category(tmp_path / "data", "bottle", n_train=16)
    return ["speed", "--root", str(tmp_path / "data"), "--encoder", write_encoder(tmp_path), "--device", "cpu", "--quick"]


def test_one_run_writes_every_figure(small, tmp_path, capsys):
    assert main([*small, "--out", str(tmp_path / "speed.json")]) == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    for side in (14, 28):
        step = found[f"step_{side}"]
        assert all(math.isfinite(value) and value >= 0 for value in step.values())
        assert step["pot_over_faithful"] == pytest.approx(step["pot_s"] / step["faithful_s"])
        assert step["pot_over_fast"] == pytest.approx(step["pot_s"] / step["fast_s"])
        products = step["cost_product_s"] + step["barycentre_product_s"]
        assert step["fast_over_matmul"] == pytest.approx(step["fast_s"] / products)
        assert step["l1_between_plans"] < 1e-5
        assert step["fast_marginal_error"] <= 0.3
        assert step["pot_iterations_timed"] < 100  # quick
    assert found["score"]["all_over_encoder"] == pytest.approx(found["score"]["all_s"] / found["score"]["encoder_s"])
    assert found["fit"]["category"] == "bottle" and found["fit"]["n_images"] == 16 and found["fit"]["seconds"] > 0
    assert found["conditions"]["quick"] and found["conditions"]["features"] == "mvtec_ad bottle"
    assert {name: len(curve) for name, curve in found["growth"].items()} == {"batch_size": 4, "n_prototypes": 3, "side": 3}
    steps = found["steps"]
    assert {name: list(steps[name]) for name in ("paper", "fast")} == {"paper": ["1", "50"], "fast": list("0148")}
    assert all(0 < loss < 1 for name in ("paper", "fast") for loss in steps[name].values())
    assert steps["paper"]["50"] < steps["paper"]["1"]
    reached = [int(n) for n, loss in steps["fast"].items() if loss <= steps["paper"]["50"]]
    assert steps["fast_steps_to_paper"] == (reached[0] if reached else None)
    assert 0.5 < sum(found["profile"].values()) <= 1
    printed = capsys.readouterr().out
    assert "extrapolated from 4" in printed and "<= 1.3" in printed and "speed.json" in printed


def test_an_encoder_of_other_channels_is_refused(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measurement, "GRIDS", {14: (3, 1024), 28: (2, 512)})
    assert main([*small, "--out", str(tmp_path / "speed.json")]) == 1
    assert "ratios compare only with those of ResNet-50" in capsys.readouterr().err
    assert not (tmp_path / "speed.json").exists()


def test_too_few_images_are_refused(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measurement, "N_IMAGES", 9)
    assert main([*small, "--out", str(tmp_path / "speed.json")]) == 1
    assert "16 training images; 18 are needed" in capsys.readouterr().err
