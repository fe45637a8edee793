"""Presets: the paper's, and how the others differ from it."""

from dataclasses import replace

import pytest

from pradot import PradotError
from pradot.branches import Branch
from pradot.paper.presets import PRESETS, QUIRKS, get_preset


def test_paper_preset_is_the_papers():
    paper = PRESETS["paper"]
    assert paper.branches == ((2, 0.0), (2, 0.3), (3, 0.0), (3, 0.3))
    settings = (paper.n_prototypes, paper.reg, paper.n_iter, paper.ema, paper.n_epochs, paper.batch_size)
    assert settings == (16, 0.01, 100, 0.95, 50, 64)
    assert (paper.scoring, paper.evaluation_size, paper.image_size, paper.max_steps) == ("image", 224, 224, None)
    assert paper.label == "paper" and get_preset("paper", max_steps=60).label == "paper, shortened"
    with pytest.raises(PradotError, match="unknown preset"):
        get_preset("papier")


def test_sound_preset_differs_from_the_papers_in_scale_and_size_alone():
    paper, sound = PRESETS["paper"], PRESETS["sound"]
    assert (sound.scoring, sound.evaluation_size, sound.label) == ("training", None, "sound")
    same = {"name": "paper", "summary": paper.summary, "scoring": "image", "evaluation_size": 224}
    assert replace(sound, **same) == paper


def test_quirks_are_named_where_they_are():
    assert PRESETS["paper"].quirks == list(QUIRKS)
    assert set(QUIRKS) - set(PRESETS["sound"].quirks) == {"scale of the image", "evaluated at 224"}
    assert PRESETS["fast"].quirks == ["dropped batches"]


def test_a_variant_is_never_taken_for_the_preset_and_no_steps_are_not_few_steps():
    fast = PRESETS["fast"]
    assert replace(fast, variant="alpha 0.5").label == "fast, alpha 0.5"
    assert replace(fast, variant="alpha 0.5", max_steps=2).label == "fast, alpha 0.5, shortened"
    assert replace(fast, variant="k-means", max_steps=0).label == "fast, k-means"
    assert "variant" not in fast.detector_settings


def test_encoders_are_made_with_the_scales_that_presets_share():
    fast = PRESETS["fast"]
    scales = {(2,): {2, 3}, (1, 3): {1, 2, 3}, (7, 11): {7, 11}}
    for own, made in scales.items():
        assert replace(fast, branches=tuple(Branch(scale, 0.0) for scale in own)).encoder_scales == made
