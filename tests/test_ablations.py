"""Ablations as data: every row changes what it says and nothing else."""

from dataclasses import asdict

import huggingface_hub
import pytest

from pradot import PradotError
from pradot.detector import Branch
from pradot.paper import ablations
from pradot.paper.ablations import ABLATIONS, ENCODERS, get_ablation, missing_weights
from pradot.paper.presets import PRESETS, get_preset

# What may differ from the base, by ablation.
CHANGED = {
    "alpha": {"branches"},
    "n": {"n_prototypes"},
    "reg": {"reg", "precision"},
    "scale": {"branches"},
    "positions": {"positions"},
    "ema": {"ema"},
    "start": {"start"},
    "encoder": {"branches"},
    "assignment": {"assignment"},
    "kmeans": {"start", "max_steps"},
}


@pytest.mark.parametrize("base", [PRESETS["paper"], PRESETS["fast"], get_preset("paper", max_steps=60, batch_size=4)])
@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_change_what_the_ablation_is_about_and_nothing_else(name, base):
    ablation = get_ablation(name, base)
    assert ablation.name == name and ablation.question.endswith((".", "?"))
    assert len({row.label for row in ablation.rows}) == len(ablation.rows) >= 2
    assert len({(row.preset, row.encoder) for row in ablation.rows}) == len(ablation.rows)
    for row in ablation.rows:
        settings, of_base = asdict(row.preset), asdict(base)
        changed = {key for key in settings if settings[key] != of_base[key]}
        assert changed - {"variant"} <= CHANGED[name]
        assert ("variant" in changed) == bool(changed)  # nothing else is ever labelled as the base itself
        assert row.preset.is_shortened == base.is_shortened or row.preset.max_steps == 0


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"reg", "encoder"}))
def test_the_base_is_one_of_the_rows(name):
    for base in (PRESETS["paper"], PRESETS["fast"]):
        assert [row.preset for row in get_ablation(name, base).rows].count(base) == 1


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("n", "n_prototypes", [1 / 4, 1, 2, 4, 8, 16, 32]),
        ("reg", "reg", [0.001, 0.003, 0.01, 0.03, 0.1]),
        ("ema", "ema", [0, 0.5, 0.8, 0.9, 0.95, 0.99]),
    ],
)
def test_values_on_the_axis_are_those_of_the_settings(name, key, values):
    rows = get_ablation(name, PRESETS["paper"]).rows
    assert [row.value for row in rows] == [getattr(row.preset, key) for row in rows] == values


def test_alphas_replace_the_bases_and_the_base_stands_beside_them():
    rows = get_ablation("alpha", PRESETS["paper"]).rows
    for row, alpha in zip(rows[:-1], [0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9], strict=True):
        assert row.value == alpha and row.preset.branches == (Branch(2, alpha), Branch(3, alpha))
    assert rows[-1].label == "0 and 0.3" and rows[-1].value is None


def test_scales_and_their_unions():
    rows = {row.label: row.preset.branches for row in get_ablation("scale", PRESETS["paper"]).rows}
    assert list(rows) == ["1", "2", "3", "1 + 2", "1 + 3", "2 + 3", "1 + 2 + 3"]
    assert rows["1 + 3"] == (Branch(1, 0.0), Branch(1, 0.3), Branch(3, 0.0), Branch(3, 0.3))


def test_small_reg_is_never_computed_in_reduced_precision():
    assert {row.preset.precision for row in get_ablation("reg", PRESETS["fast"]).rows} == {"full"}


def test_a_vit_is_asked_for_blocks_instead_of_scales():
    for row in get_ablation("encoder", PRESETS["fast"]).rows:
        blocks = ENCODERS[row.encoder]
        assert {branch.scale for branch in row.preset.branches} == set(blocks or (2, 3))
        assert {branch.alpha for branch in row.preset.branches} == {0.0, 0.3}


def test_weights_that_cannot_be_had_are_a_reason(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no way to the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    reasons = {row.encoder: missing_weights(row) for row in get_ablation("encoder", PRESETS["fast"]).rows}
    assert reasons.pop("tf_efficientnet_lite0") is None
    assert all("cannot be had (no download: no way to the hub)" in reason for reason in reasons.values())
    assert missing_weights(get_ablation("alpha", PRESETS["fast"]).rows[0]) is None


def test_an_unknown_ablation_is_an_error():
    with pytest.raises(PradotError, match="unknown ablation 'alphas'; known are alpha, n, reg"):
        get_ablation("alphas", PRESETS["fast"])


def test_names_of_encoders_are_timms():
    assert all(ablations.canonical_name(name) == name for name in ENCODERS)
