"""A model comes back as it was saved; what was changed, or belongs to another encoder, is refused."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.exceptions import NotFittedError
from small_data import QUICK_FIT

from pradot import Branch, Encoder, Pradot, PradotError
from pradot.saved import MODEL_FORMAT, fitted_with


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was(fitted, saved, tiny_encoder, draw):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    loaded = Pradot.load(saved, encoder=tiny_encoder)
    images = [*draw(2, 1), draw(1, 2, (50, 80))[0]]
    for one, other in zip(fitted.anomaly_maps(images), loaded.anomaly_maps(images), strict=True):
        assert np.array_equal(one, other)
    assert loaded.n_images_ == fitted.n_images_ and loaded.notes_ == fitted.notes_
    kept = {name: value for name, value in fitted.get_params().items() if name != "encoder"}
    assert {name: value for name, value in loaded.get_params().items() if name != "encoder"} == kept
    loaded.save(saved.parent / "again")
    assert (saved / "config.json").read_bytes() == (saved.parent / "again" / "config.json").read_bytes()
    first, again = (load_file(folder / "model.safetensors") for folder in (saved, saved.parent / "again"))
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    "settings",
    [{"scoring": "image"}, {"positions": "learned"}, {"n_prototypes": 0.25}, {"assignment": "transport", "reg": 0.1}],
)
def test_settings_that_matter_to_scores_come_back_too(tiny_encoder, tmp_path, draw, settings):
    detector = Pradot(tiny_encoder, branches=[(3, 0.3)], **QUICK_FIT | settings).fit(draw(5, 0))
    detector.save(tmp_path)
    loaded = Pradot.load(tmp_path, encoder=tiny_encoder)
    assert np.array_equal(loaded.anomaly_maps(draw(2, 1), 32), detector.anomaly_maps(draw(2, 1), 32))


def test_the_offline_default_encoder_is_made_again_by_its_name(tmp_path, draw):
    encoder = Encoder(scales=(3,), image_size=64)
    detector = Pradot(encoder, branches=[(3, 0.0)], **QUICK_FIT).fit(draw(5, 0))
    detector.save(tmp_path)
    loaded = Pradot.load(tmp_path)
    assert loaded.encoder.scales == (3,) and loaded.encoder.image_size == 64
    np.testing.assert_allclose(loaded.anomaly_scores(draw(2, 1)), detector.anomaly_scores(draw(2, 1)), atol=1e-6)


def test_an_encoder_of_more_scales_than_the_branches_is_made_again(tmp_path, draw, monkeypatch):
    """timm builds no stage beyond the last one asked for: the tensors of scales (2, 3) are not those of scale 2 alone."""
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "hub.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(tmp_path / "hub.safetensors"))
    encoder = Encoder("test_resnet", scales=(2, 3), image_size=64)
    detector = Pradot(encoder, branches=[(2, 0.3)], **QUICK_FIT).fit(draw(5, 0))
    detector.save(tmp_path)
    assert fitted_with(tmp_path) == {
        "name": encoder.name,
        "weights_source": encoder.weights_source,
        "weights_sha256": encoder.weights_sha256,
        "scales": [2, 3],
        "image_size": 64,
    }
    loaded = Pradot.load(tmp_path)
    assert loaded.encoder.scales == (2, 3)
    np.testing.assert_allclose(loaded.anomaly_scores(draw(2, 1)), detector.anomaly_scores(draw(2, 1)), atol=1e-6)
    with pytest.raises(PradotError, match=r"scales \[2, 3\].* not .*scales \[2\]"):
        Pradot.load(tmp_path, encoder=Encoder("test_resnet", scales=(2,), image_size=64))


def test_an_unfitted_model_is_not_saved(tiny_encoder, tmp_path):
    with pytest.raises(NotFittedError):
        Pradot(tiny_encoder).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, tiny_encoder, name):
    (saved / name).unlink()
    with pytest.raises(PradotError, match=f"{name} is missing"):
        Pradot.load(saved, encoder=tiny_encoder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(PradotError, match=r"no model in .*nowhere"):
        Pradot.load(tmp_path / "nowhere")


def test_an_edited_config_is_refused(saved, tiny_encoder):
    config = saved / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"scoring": "training"', '"scoring": "image"'))
    assert config.read_text() != text
    with pytest.raises(PradotError, match="not of the same model"):
        Pradot.load(saved, encoder=tiny_encoder)


def test_files_of_two_models_are_refused(saved, tiny_encoder, draw, tmp_path):
    Pradot(tiny_encoder, **QUICK_FIT, random_state=1).fit(draw(10, 0)).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
    with pytest.raises(PradotError, match="not of the same model"):
        Pradot.load(saved, encoder=tiny_encoder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe\x00", b"null"])
def test_a_broken_config_is_refused(saved, tiny_encoder, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(PradotError, match="damaged"):
        Pradot.load(saved, encoder=tiny_encoder)


@pytest.mark.parametrize("length", [0, 20, 1000, -1])
def test_a_truncated_file_of_prototypes_is_refused(saved, tiny_encoder, length):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PradotError, match="damaged"):
        Pradot.load(saved, encoder=tiny_encoder)


def test_another_format_is_refused(saved, tiny_encoder):
    config = json.loads((saved / "config.json").read_text())
    config["format"] += 1
    text = json.dumps(config)
    save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors", metadata={"config": text})
    (saved / "config.json").write_text(text)
    with pytest.raises(PradotError, match=f"model format {MODEL_FORMAT + 1}; this version reads {MODEL_FORMAT}"):
        Pradot.load(saved, encoder=tiny_encoder)


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ({"seed": 1}, {}, "fitted with weights two_scales"),
        ({}, {"image_size": 128}, "image size 64, not 128"),
        ({}, {"mean": (0.5, 0.5, 0.5)}, "other features at scale"),  # the same weights, used otherwise
        ({"dilation": 2}, {}, "other features at scale"),
        ({"padding": 1}, {}, "other features at scale"),
        ({}, {"scales": (2,)}, "other features at scale 3"),
    ],
)
def test_another_encoder_is_refused(saved, two_scales, module, settings, message):
    encoder = Encoder.from_module(two_scales(**module), "two_scales", **{"image_size": 64} | settings)
    with pytest.raises(PradotError, match=message):
        Pradot.load(saved, encoder=encoder)


def test_an_encoder_of_more_scales_will_do(two_scales, tiny_encoder, tmp_path, draw):
    narrow = Encoder.from_module(two_scales(), "two_scales", scales=(3,), image_size=64)
    detector = Pradot(narrow, branches=[(3, 0.3)], **QUICK_FIT).fit(draw(5, 0))
    detector.save(tmp_path)
    loaded = Pradot.load(tmp_path, encoder=tiny_encoder)
    assert np.array_equal(loaded.anomaly_maps(draw(2, 1), 32), detector.anomaly_maps(draw(2, 1), 32))


def test_a_module_of_ones_own_has_to_be_given(saved, tmp_path, draw):
    with pytest.raises(PradotError, match=r"two_scales.*made by the caller.*--encoder"):
        Pradot.load(saved)
    source = "import torch\ndef build():\n    torch.manual_seed(0)\n    return torch.nn.Conv2d(3, 5, 16, stride=16)\n"
    (tmp_path / "mynet.py").write_text(source)
    encoder = Encoder(f"{tmp_path / 'mynet.py'}:build", scales=(3,), image_size=64)
    Pradot(encoder, branches=[(3, 0.0)], **QUICK_FIT).fit(draw(4, 0)).save(tmp_path / "other")
    with pytest.raises(PradotError, match=r"mynet\.py:build"):
        Pradot.load(tmp_path / "other")
    Pradot.load(tmp_path / "other", encoder=encoder)


@pytest.mark.filterwarnings("ignore:.*on record")
def test_a_local_file_of_weights_has_to_be_given(tmp_path, draw):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.pth")
    encoder = Encoder("test_resnet", weights=tmp_path / "mine.pth", scales=(3,), image_size=64)
    detector = Pradot(encoder, branches=[(3, 0.0)], **QUICK_FIT).fit(draw(4, 0))
    detector.save(tmp_path / "model")
    with pytest.raises(PradotError, match=r"test_resnet\+mine \(file mine\.pth.*--weights"):
        Pradot.load(tmp_path / "model")
    loaded = Pradot.load(tmp_path / "model", encoder=encoder)
    assert np.array_equal(loaded.anomaly_maps(draw(2, 1), 32), detector.anomaly_maps(draw(2, 1), 32))


def test_saving_over_a_model_replaces_it(saved, tiny_encoder, draw):
    other = Pradot(tiny_encoder, branches=[(3, 0.3)], **QUICK_FIT).fit(draw(5, 7))
    other.save(saved)
    loaded = Pradot.load(saved, encoder=tiny_encoder)
    assert tuple(loaded.learners_) == (Branch(3, 0.3),)
    assert np.array_equal(loaded.anomaly_maps(draw(2, 1), 32), other.anomaly_maps(draw(2, 1), 32))
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
