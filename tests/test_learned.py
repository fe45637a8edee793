"""Prototypes that were learned once are not learned again, unless anything that changes them has changed."""

import json
from dataclasses import replace

import pytest
import torch
from small_data import write_category

from pradot import Branch, Pradot, PrototypeLearner
from pradot.learned import learn_once
from pradot.paper.presets import get_preset
from pradot.paper.runs import run
from pradot.sealed import read_metadata

SETTINGS = {"n_prototypes": 1, "n_epochs": 3, "batch_size": 4, "n_iter": 5}


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 4, 4, 6, generator=generator), torch.rand(2, 4, 4, 6, generator=generator)


@pytest.fixture
def fits(monkeypatch):
    """The learners that were really fitted, in order."""
    fitted, fit = [], PrototypeLearner.fit

    def counted(self, *maps):
        fitted.append(self)
        return fit(self, *maps)

    monkeypatch.setattr(PrototypeLearner, "fit", counted)
    return fitted


def seconds_in(path):
    return json.loads(read_metadata(path)["learned"])["seconds"]


def test_what_is_found_is_what_was_learned(maps, fits, tmp_path):
    first, again = PrototypeLearner(0.3, **SETTINGS), PrototypeLearner(0.3, progress=True, **SETTINGS)
    found, seconds = learn_once(first, *maps, tmp_path)
    assert not found and seconds > 0
    assert learn_once(again, *maps, tmp_path) == (True, seconds)
    assert fits == [first]
    known = [name for name in vars(first) if name.endswith("_") and not name.startswith("_")]
    assert len(known) == 8
    for name in known:
        then, now = getattr(first, name), getattr(again, name)
        assert type(now) is type(then) and (torch.equal(now, then) if isinstance(then, torch.Tensor) else now == then), name
    assert torch.equal(first.nearest(maps[0]).cost, again.nearest(maps[0]).cost)


def other_image(features, validation):
    features = features.clone()
    features[0, 0, 0, 0] += 1e-6
    return features, validation


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"reg": 0.02}, None),
        ({"random_state": 1}, None),
        ({}, other_image),
        ({}, lambda features, validation: (features, validation.flip(0))),
        ({}, lambda features, validation: (features, None)),
        ({}, lambda features, validation: (features.view(8, 2, 8, 6), validation.view(2, 2, 8, 6))),
    ],
    ids=["reg", "seed", "an image", "order of the validation", "no validation", "shape"],
)
def test_any_other_fit_is_made(maps, fits, tmp_path, settings, change):
    learn_once(PrototypeLearner(0.3, **SETTINGS), *maps, tmp_path)
    other = PrototypeLearner(0.3, **SETTINGS | settings)
    found, _ = learn_once(other, *(change(*maps) if change else maps), tmp_path)
    assert not found and fits[-1] is other


def test_another_version_of_the_code_learns_again(maps, tmp_path, monkeypatch):
    learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)
    monkeypatch.setattr("pradot.learned._code", lambda: "another")
    assert not learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)[0]


def test_a_damaged_file_is_learned_again_with_a_warning(maps, tmp_path):
    learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="learned again"):
        assert not learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)[0]
    assert learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)[0]  # whole again


def test_a_stopped_detector_goes_on_with_its_next_branch(two_scales, fits, tmp_path, monkeypatch, tiny_encoder, draw):
    features = tiny_encoder.features(draw(8, 0))
    whole = Pradot(tiny_encoder, **SETTINGS).fit_features(features)
    counted = PrototypeLearner.fit

    def stopped(self, *maps):
        if len(fits) == 6:  # four of the whole one, two of this
            raise KeyboardInterrupt
        return counted(self, *maps)

    monkeypatch.setattr(PrototypeLearner, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        Pradot(tiny_encoder, cache=tmp_path, **SETTINGS).fit_features(features)
    monkeypatch.setattr(PrototypeLearner, "fit", counted)
    resumed = Pradot(tiny_encoder, cache=tmp_path, **SETTINGS).fit_features(features)
    assert len(fits) == 8
    assert resumed.found_ == [Branch(2, 0.0), Branch(2, 0.3)]
    for branch, learner in resumed.learners_.items():
        assert torch.equal(learner.prototypes_, whole.learners_[branch].prototypes_)


def test_sound_shares_the_training_of_paper_and_its_record_says_so(fits, tmp_path, tiny_encoder):
    write_category(tmp_path / "data", "bottle")
    records = {}
    for name in ("paper", "sound"):
        preset = replace(get_preset(name), n_prototypes=1, n_iter=5, max_steps=2, image_size=tiny_encoder.image_size)
        for cache in (tmp_path / "cache", None):
            out = tmp_path / ("alone" if cache is None else "shared")
            what = ("mvtec_ad", tmp_path / "data", "bottle", preset, tiny_encoder)
            records[name, cache is None], _, _ = run(*what, out=out, cache=cache)
    assert len(fits) == 4 + 4 + 4  # paper's branches; paper and sound without a cache
    for name in ("paper", "sound"):
        assert records[name, False]["metrics"] == records[name, True]["metrics"]
    shared, alone = records["sound", False], records["sound", True]
    assert any("4 of 4 branches were learned before" in note for note in shared["notes"])
    assert not any("learned before" in note for note in alone["notes"] + records["paper", False]["notes"])
    learning = sum(seconds_in(path) for path in (tmp_path / "cache").glob("prototypes-*"))
    assert shared["seconds"]["fit"] == records["paper", False]["seconds"]["fit"] == round(learning, 3)
    assert [b["steps"] for b in shared["branches"]] == [b["steps"] for b in alone["branches"]]


def test_the_file_is_no_pickle_and_holds_the_seconds(maps, tmp_path):
    _, seconds = learn_once(PrototypeLearner(**SETTINGS), *maps, tmp_path)
    (path,) = tmp_path.glob("prototypes-*.safetensors")
    assert seconds_in(path) == seconds
